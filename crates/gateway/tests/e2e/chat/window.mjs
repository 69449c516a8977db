// A window of the chat page as its reader sees it: what stands on the screen and what one can do. Every wait is for a
// condition, with a deadline.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { launch } from '../chromium.mjs';
import { DEADLINE, until } from '../harness.mjs';

/** A browser with a profile folder of its own. */
export async function startBrowser() {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'fanwire-chat-'));
  const browser = await launch({ env: { ...process.env, HOME: profile } });
  browser.on('disconnected', () => fs.rmSync(profile, { recursive: true, force: true }));
  return browser;
}

export class ChatWindow {
  /** What must never happen on this page, as it was seen. */
  complaints = [];

  constructor(page) {
    this.page = page;
    page.setDefaultTimeout(DEADLINE);
    page.on('pageerror', (error) => this.complaints.push(String(error)));
    page.on('dialog', (dialog) => this.complaints.push(`a dialog opened: ${dialog.message()}`));
    page.on('console', (message) => {
      if (message.text().includes('Content Security Policy')) this.complaints.push(message.text());
    });
  }

  /** Opens the page in a context; `prepare` is called with the page before it loads. */
  static async open(context, url, prepare = async () => {}) {
    const window = new ChatWindow(await context.newPage());
    await prepare(window.page);
    await window.page.goto(url);
    return window;
  }

  /** Opens the page as a person never seen before, who gives a name to the welcome dialog. */
  static async enter(browser, url, name, { prepare, ...options } = {}) {
    const context = await browser.newContext({
      viewport: { width: 1280, height: 800 },
      locale: 'en-GB',
      ...options,
    });
    const window = await ChatWindow.open(context, url, prepare);
    await window.page.locator('#name-dialog[open]').waitFor();
    await window.page.fill('#name-input', name);
    await window.page.click('#name-submit');
    return window;
  }

  async connected() {
    await this.page.locator('#status[data-state="connected"]').waitFor({ timeout: 2 * DEADLINE });
  }

  async disconnected() {
    await this.page.locator('#status:not([data-state="connected"])').waitFor();
  }

  async say(text) {
    await this.page.fill('#composer-text', text);
    await this.page.press('#composer-text', 'Enter');
  }

  async openRoom(name) {
    await this.page.evaluate((wanted) => (location.hash = wanted), name);
    await this.showsTitle(`#${name}`);
  }

  /** Texts of the messages on screen, top to bottom. */
  texts() {
    return this.page.locator('.bubble').allTextContents();
  }

  /** Who is online, as listed: name, tag and remark. */
  people() {
    const words = (rows) => rows.map((row) => [...row.children].map((part) => part.textContent).join(' '));
    return this.page.locator('.person-text').evaluateAll(words);
  }

  count(selector) {
    return this.page.locator(selector).count();
  }

  shows(selector, text) {
    return this.page.locator(selector, { hasText: text }).first().waitFor();
  }

  async showsTexts(expected) {
    await this.#sees(() => this.texts(), expected);
  }

  async showsTitle(title) {
    await this.#sees(() => this.page.textContent('#room-title'), title);
  }

  async showsOnline(count) {
    await this.#sees(() => this.page.textContent('#online-count'), `${count}`);
  }

  /** The list of people, in any order. */
  async showsPeople(expected) {
    await this.#sees(async () => (await this.people()).sort(), [...expected].sort());
  }

  async fitsItsWidth() {
    const [content, view] = await this.page.evaluate(() => {
      const parts = [document.documentElement, document.body, document.getElementById('timeline-scroll')];
      return [Math.max(...parts.map((part) => part.scrollWidth)), innerWidth];
    });
    assert.ok(content <= view, `content is ${content} px wide in a window of ${view} px`);
  }

  /** Keeps a picture in the folder that SCREENSHOTS names, if it does. */
  async photograph(name) {
    const folder = process.env.SCREENSHOTS;
    if (!folder) return;
    fs.mkdirSync(folder, { recursive: true });
    await this.page.screenshot({ path: path.join(folder, `${name}.png`) });
  }

  async #sees(look, expected) {
    let seen;
    const same = async () => {
      seen = await look();
      return JSON.stringify(seen) === JSON.stringify(expected);
    };
    await until(same, `the page shows ${JSON.stringify(expected)}`).catch((error) => {
      throw new Error(`${error.message}; it shows ${JSON.stringify(seen)}`);
    });
  }
}
