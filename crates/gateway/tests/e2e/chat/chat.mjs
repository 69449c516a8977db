// The chat page in real browser windows against a real gateway, told as one story per step: run with
// `FANWIRE_BIN=target/release/fanwire SCREENSHOTS=/tmp/chat node chat/chat.mjs`. Exits with 1 at the first step that fails.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { startGateway, startRelay } from "./gateway.mjs";
import { ChatWindow, enter, eventually, startBrowser } from "./window.mjs";

const PHONES = [{ width: 360, height: 740 }, { width: 390, height: 844 }];

const gateway = await startGateway();
const relay = await startRelay(gateway.url);
const browser = await startBrowser();
const everyone = [];
let room = 0;

/** Someone new in a room of this step's own, so that steps do not see one another's messages. */
async function come(name, { url = gateway.url, ...options } = {}) {
  const window = await enter(browser, `${url}/#step-${room}`, name, options);
  everyone.push(window);
  return window;
}

async function step(name, story) {
  room += 1;
  const before = everyone.length;
  const started = Date.now();
  try {
    await story();
  } catch (error) {
    for (const [index, window] of everyone.slice(before).entries()) await window.photograph(`failed-${room}-${index}`).catch(() => {});
    throw new Error(`${name}: ${error.message}`, { cause: error });
  }
  const complaints = everyone.slice(before).flatMap((window) => window.complaints);
  assert.deepEqual(complaints, [], name);
  for (const window of everyone.slice(before)) await window.close().catch(() => {});
  console.log(`ok ${room} - ${name} (${Date.now() - started} ms)`);
}

function publish(data) {
  return fetch(`${gateway.url}/api/publish`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ channel: `chat:step-${room}`, data }),
  });
}

try {
  await step("two windows chat both ways, in one order", async () => {
    const ada = await come("Ada");
    const bob = await come("Bob");
    const said = [];
    for (let turn = 0; turn < 10; turn += 1) {
      const [speaker, listener] = turn % 3 === 0 ? [bob, ada] : [ada, bob];
      said.push(`message ${turn}`);
      await speaker.say(said.at(-1));
      await listener.showsTexts(said);
    }
    await ada.showsTexts(said);
    assert.equal(await ada.page.locator(".message.own").count(), 6);
    assert.equal(await bob.page.locator(".message.own").count(), 4);
    // A burst, without waiting in between, and both at once.
    await Promise.all([ada, bob].map(async (window) => {
      for (let count = 0; count < 5; count += 1) await window.say("burst");
    }));
    await eventually(() => ada.texts(), (texts) => texts.length === 20);
    await bob.showsTexts(await ada.texts());
    assert.equal(await ada.page.locator('.message:is([data-delivery="waiting"], [data-delivery="sending"], [data-delivery="failed"])').count(), 0);
    // Who comes later reads the same.
    const late = await come("Late");
    await late.showsTexts(await ada.texts());
  });

  await step("who is online, joins and leaves, live", async () => {
    const ada = await come("Ada");
    await ada.showsOnline(1);
    const bob = await come("Bob");
    await ada.showsOnline(2);
    await bob.showsOnline(2);
    await ada.showsNotice("Bob joined");
    assert.deepEqual(await bob.people(), ["Bob you", "Ada"]);
    await ada.say("Hello Bob");
    await bob.showsTexts(["Hello Bob"]);
    await bob.close();
    await ada.showsOnline(1);
    await ada.showsNotice("Bob left");
    assert.deepEqual(await ada.people(), ["Ada you"]);
  });

  await step("two people of one name are told apart", async () => {
    const reader = await come("Reader");
    const one = await come("Ada");
    const other = await come("Ada");
    await reader.showsOnline(3);
    const listed = await eventually(() => reader.people(), (people) => people.filter((row) => /^Ada #\w{4}$/.test(row)).length === 2);
    assert.equal(new Set(listed).size, 3);
    await one.say("from one");
    await reader.showsTexts(["from one"]);
    await other.say("from the other");
    await reader.showsTexts(["from one", "from the other"]);
    const tags = await reader.page.locator(".message .tag").allTextContents();
    assert.equal(new Set(tags).size, 2, String(tags));
    assert.equal(await one.page.locator(".message.own").count(), 1);
  });

  await step("two windows of one person are two clients", async () => {
    const ada = await come("Ada");
    const second = await ChatWindow.open(ada.page.context(), `${gateway.url}/#step-${room}`);
    await second.connected();
    await ada.showsOnline(2);
    assert.deepEqual((await ada.people()).sort(), ["Ada you", "Ada your other window"]);
    await second.say("over there");
    await ada.showsTexts(["over there"]);
    await second.page.close();
    await ada.showsOnline(1);
  });

  await step("the shown curl line and any JSON arrive from the backend", async () => {
    const ada = await come("Ada");
    execFileSync("sh", ["-c", await ada.page.textContent("#command")], { stdio: "pipe" });
    await ada.showsTexts(["Hello from the backend"]);
    assert.match((await ada.messages())[0], /Backend/);
    const hostile = '<img src=x onerror="alert(1)"> https://example.com/?a=1.';
    await publish(hostile);
    for (const data of [42, null, [1, 2], { level: "warn", nested: { deep: true } }, { text: 7 }, { text: "plain", extra: 1 }]) await publish(data);
    const texts = await eventually(() => ada.texts(), (shown) => shown.length === 8);
    assert.deepEqual(texts.slice(1, 4), [hostile, "42", "null"]);
    assert.equal(texts.at(-1), "plain");
    assert.equal(await ada.page.locator(".bubble img").count(), 0);
    assert.equal(await ada.page.locator(".bubble a").getAttribute("href"), "https://example.com/?a=1");
    await publish({ text: "long ".repeat(2_000) });
    await eventually(() => ada.texts(), (shown) => shown.length === 9);
    await ada.fitsItsWidth();
  });

  await step("unread counts, and a reader further up is left in peace", async () => {
    const ada = await come("Ada");
    const bob = await come("Bob");
    await bob.openRoom("random");
    for (let count = 1; count <= 3; count += 1) await ada.say(`unread ${count}`);
    const badge = bob.page.locator(`.room[data-key="step-${room}"] .badge`);
    await eventually(() => badge.textContent({ timeout: 5_000 }), (text) => text === "3");
    await bob.openRoom(`step-${room}`);
    await bob.showsTexts(["unread 1", "unread 2", "unread 3"]);
    assert.equal(await bob.page.locator(".divider.unread").count(), 1);
    assert.equal(await badge.count(), 0);
    for (let count = 0; count < 40; count += 1) await publish({ text: `line ${count}` });
    await eventually(() => bob.texts(), (texts) => texts.length === 43);
    const position = () => bob.page.evaluate(() => document.getElementById("timeline-scroll").scrollTop);
    await bob.page.evaluate(() => { document.getElementById("timeline-scroll").scrollTop = 100; });
    await eventually(position, (top) => top === 100);
    await ada.say("while you were reading");
    await bob.page.locator("#new-messages", { hasText: "1 new message" }).waitFor();
    assert.equal(await position(), 100);
    await bob.photograph("reading-further-up");
    await bob.page.click("#new-messages");
    await eventually(position, (top) => top > 100);
    await bob.page.locator("#new-messages").waitFor({ state: "hidden" });
  });

  await step("after a restart of the server both are back and talk", async () => {
    const ada = await come("Ada");
    const bob = await come("Bob");
    await ada.say("before");
    await bob.showsTexts(["before"]);
    await gateway.stop();
    if (!process.env.CHAT_URL) {
      await Promise.all([ada.disconnected(), bob.disconnected()]);
      await ada.say("written while the server was away");
      await ada.page.locator("#banner:not([hidden])").waitFor();
      await ada.photograph("server-away");
    }
    await gateway.start();
    await Promise.all([ada.connected(), bob.connected()]);
    await Promise.all([ada.showsOnline(2), bob.showsOnline(2)]);
    const waited = process.env.CHAT_URL ? [] : ["written while the server was away"];
    await bob.showsTexts(["before", ...waited]);
    await bob.say("after");
    await ada.showsTexts(["before", ...waited, "after"]);
    await ada.say("and back");
    await bob.showsTexts(["before", ...waited, "after", "and back"]);
    await bob.photograph("after-restart");
  });

  await step("a cut socket loses nothing and repeats nothing", async () => {
    const ada = await come("Ada");
    const bob = await come("Bob", { url: relay.url });
    const said = [];
    const hears = async (text) => {
      said.push(text);
      await ada.say(text);
    };
    await hears("before the cut");
    await bob.showsTexts(said);
    for (let cut = 1; cut <= 3; cut += 1) {
      relay.cut();
      await bob.disconnected();
      for (let count = 0; count < 5; count += 1) await hears(`cut ${cut}, message ${count}`);
      if (cut === 2) await bob.say("written in the dark");
      relay.mend();
      await bob.connected();
      if (cut === 2) said.push("written in the dark");
      await bob.showsTexts(said);
    }
    await ada.showsTexts(said);
    assert.equal(await bob.gaps(), 0);
    await bob.say("all here");
    await ada.showsTexts([...said, "all here"]);
  });

  await step("going offline and online again catches up at once", async () => {
    const ada = await come("Ada");
    const bob = await come("Bob");
    await bob.page.context().setOffline(true);
    await bob.disconnected();
    await ada.say("you cannot hear this yet");
    await bob.page.context().setOffline(false);
    await bob.showsTexts(["you cannot hear this yet"]);
    assert.equal(await bob.gaps(), 0);
  });

  await step("another name, another room, and back again after a reload", async () => {
    const ada = await come("Ada");
    const bob = await come("Bob");
    await ada.page.click("#rename");
    await ada.page.fill("#name-input", "Augusta");
    await ada.page.click("#name-submit");
    await eventually(() => bob.people(), (people) => people.includes("Augusta"));
    await ada.page.click("#new-room");
    await ada.page.fill("#room-input", "No Way!");
    await ada.page.press("#room-input", "Enter");
    await eventually(() => ada.page.textContent("#room-problem"), (text) => text.includes("Only the letters"));
    await ada.page.fill("#room-input", "Garden Party");
    await ada.page.press("#room-input", "Enter");
    await eventually(() => ada.page.textContent("#room-title"), (title) => title === "#garden-party");
    await ada.say("anyone?");
    await ada.page.reload();
    await ada.showsTexts(["anyone?"]);
    assert.equal(await ada.page.locator(".message.own").count(), 1);
    await ada.page.keyboard.press("Alt+ArrowUp");
    await eventually(() => ada.page.textContent("#room-title"), (title) => title !== "#garden-party");
    await ada.page.click('[aria-label="Leave garden-party"]', { force: true });
    await eventually(() => ada.page.locator('.room[data-key="garden-party"]').count(), (count) => count === 0);
  });

  for (const colorScheme of ["light", "dark"]) {
    await step(`it looks right, wide and on a phone, ${colorScheme}`, async () => {
      const ada = await come("Ada Lovelace", { colorScheme });
      await ada.photograph(`wide-${colorScheme}-empty`);
      const phones = [];
      for (const viewport of PHONES) {
        phones.push(await come(viewport.width === 360 ? "Grace Hopper" : "Charles", { colorScheme, viewport, isMobile: true, hasTouch: true }));
      }
      const [grace, charles] = phones;
      await grace.say("Has anyone looked at the new fan-out numbers?");
      await ada.showsTexts(["Has anyone looked at the new fan-out numbers?"]);
      await ada.say("Just now. One publish, fifteen thousand sockets, and the laptop stayed quiet.");
      await ada.say("I wrote it down: https://example.com/notes/fan-out");
      await grace.say(`Lovely. And averylongwordwithoutanybreak${"k".repeat(120)} wraps too.`);
      await publish({ text: "Deploy of api-7 finished in 42 s" });
      await publish({ level: "info", region: "eu-west", ok: true });
      await charles.say("I only came for the tea.");
      await eventually(() => ada.texts(), (texts) => texts.length === 7);
      await eventually(() => ada.people(), (people) => people.length === 3);
      await ada.fitsItsWidth();
      await ada.photograph(`wide-${colorScheme}`);
      await ada.page.setViewportSize({ width: 900, height: 700 });
      await ada.fitsItsWidth();
      await ada.photograph(`tablet-${colorScheme}`);
      for (const phone of phones) {
        await eventually(() => phone.texts(), (texts) => texts.length === 7);
        const { width } = phone.page.viewportSize();
        await phone.fitsItsWidth();
        await phone.photograph(`phone-${width}-${colorScheme}`);
        for (const drawer of ["rooms", "people"]) {
          await phone.page.click(`#open-${drawer}`);
          await phone.page.locator(`#${drawer}-panel.open`).waitFor();
          await phone.page.waitForTimeout(250);
          await phone.fitsItsWidth();
          await phone.photograph(`phone-${width}-${colorScheme}-${drawer}`);
          await phone.page.keyboard.press("Escape");
          await phone.page.locator(`#${drawer}-panel.open`).waitFor({ state: "detached" });
        }
        const composer = await phone.page.locator("#composer").boundingBox();
        assert.ok(composer.y + composer.height <= phone.page.viewportSize().height, "the composer is on the screen");
      }
    });
  }

  console.log(`1..${room}`);
} catch (error) {
  console.error(`not ok ${room} - ${error.message}`);
  console.error(error.cause?.stack ?? error.stack);
  process.exitCode = 1;
} finally {
  await browser.close();
  relay.close();
  await gateway.stop();
}
