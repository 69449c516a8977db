// A window of the chat page as its reader sees it: what stands on the screen and what one can do. Every wait is for a
// condition, with a deadline.

import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { chromium } from "playwright-core";

const WAIT_MS = 15_000;
const ARGUMENTS = [
  "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
const SCREENSHOTS = process.env.SCREENSHOTS;

/** One browser for the whole test, in a profile folder of its own; each person gets a context, so their storage is apart. */
export async function startBrowser() {
  const profile = mkdtempSync(path.join(tmpdir(), "chat-profile-"));
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [...ARGUMENTS, `--crash-dumps-dir=${profile}`],
    env: { ...process.env, HOME: profile },
  });
  browser.on("disconnected", () => rmSync(profile, { recursive: true, force: true }));
  return browser;
}

/** Opens the page as a person never seen before, through the welcome dialog. */
export async function enter(browser, url, name, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: "en-GB", ...options });
  const window = await ChatWindow.open(context, url);
  await window.page.locator("#name-dialog[open]").waitFor({ timeout: WAIT_MS });
  await window.page.fill("#name-input", name);
  await window.page.click("#name-submit");
  await window.connected();
  return window;
}

export class ChatWindow {
  /** What must never happen on this page, as it was seen. */
  complaints = [];

  constructor(page) {
    this.page = page;
    page.on("pageerror", (error) => this.complaints.push(String(error)));
    page.on("console", (message) => {
      if (message.text().includes("Content Security Policy")) this.complaints.push(message.text());
    });
    page.on("dialog", (dialog) => this.complaints.push(`a dialog opened: ${dialog.message()}`));
  }

  static async open(context, url) {
    const window = new ChatWindow(await context.newPage());
    await window.page.goto(url);
    return window;
  }

  async connected() {
    await this.page.locator('#status[data-state="connected"]').waitFor({ timeout: WAIT_MS * 2 });
  }

  async disconnected() {
    await this.page.locator('#status:not([data-state="connected"])').waitFor({ timeout: WAIT_MS });
  }

  async say(text) {
    await this.page.fill("#composer-text", text);
    await this.page.press("#composer-text", "Enter");
  }

  async openRoom(name) {
    await this.page.evaluate((wanted) => { location.hash = wanted; }, name);
    await eventually(() => this.page.textContent("#room-title"), (title) => title === `#${name}`);
  }

  /** Texts of the messages on screen, top to bottom. */
  texts() {
    return this.page.locator(".bubble").allTextContents();
  }

  /** Authors' bylines and bubbles of whole messages, as read aloud. */
  messages() {
    return this.page.locator(".message").evaluateAll((rows) => rows.map((row) => row.innerText.replace(/\s+/g, " ").trim()));
  }

  notices() {
    return this.page.locator(".notice").allTextContents();
  }

  /** Who is online, as listed: name, tag and remark. */
  people() {
    return this.page.locator(".person-text").evaluateAll((rows) => rows.map((row) => [...row.children].map((part) => part.textContent).join(" ")));
  }

  async showsTexts(expected) {
    await eventually(() => this.texts(), (texts) => JSON.stringify(texts) === JSON.stringify(expected), expected);
  }

  async showsOnline(count) {
    await eventually(() => this.page.textContent("#online-count"), (text) => text === String(count), count);
  }

  async showsNotice(text) {
    await eventually(() => this.notices(), (notices) => notices.some((notice) => notice.includes(text)), text);
  }

  gaps() {
    return this.page.locator(".divider.gap").count();
  }

  async fitsItsWidth() {
    const { content, view } = await this.page.evaluate(() => ({
      content: Math.max(document.documentElement.scrollWidth, document.body.scrollWidth, document.getElementById("timeline-scroll").scrollWidth),
      view: innerWidth,
    }));
    assert.ok(content <= view, `content is ${content} px wide in a window of ${view} px`);
  }

  async photograph(name) {
    if (!SCREENSHOTS) return;
    mkdirSync(SCREENSHOTS, { recursive: true });
    await this.page.screenshot({ path: path.join(SCREENSHOTS, `${name}.png`) });
  }

  close() {
    return this.page.context().close();
  }
}

/** Asks until the answer is as it should be; the last answer is in the error. */
export async function eventually(ask, accepted, expected = "") {
  const deadline = Date.now() + WAIT_MS;
  let answer;
  do {
    answer = await ask();
    if (accepted(answer)) return answer;
    await sleep(50);
  } while (Date.now() < deadline);
  throw new Error(`still ${JSON.stringify(answer)} after ${WAIT_MS} ms, expected ${JSON.stringify(expected)}`);
}
