// What suites of the chat page share: a server with a proxy before it, a browser, and a room for each test, with windows
// in it.

import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { Proxy, Server, told } from '../harness.mjs';
import { SETTINGS } from './transports.mjs';
import { ChatWindow, startBrowser } from './window.mjs';

export class Stage {
  room = 0;
  windows = [];
  #name;

  /** Prepares the suite that is being described. `name` begins the names of pictures. */
  constructor(name) {
    this.#name = name;
    before(async () => {
      this.server = await Server.startDev(SETTINGS);
      this.proxy = await Proxy.start(this.server.port);
      this.browser = await startBrowser();
    });
    beforeEach(() => {
      // A room of each test's own, so that tests do not see one another's messages.
      this.room += 1;
      this.windows = [];
    });
    afterEach(async () => {
      this.proxy.mend();
      for (const window of this.windows) await window.page.context().close();
      assert.deepEqual(
        this.windows.flatMap((window) => window.complaints),
        [],
      );
    });
    after(async () => {
      await this.browser?.close();
      this.proxy?.stop();
      await this.server?.stop();
    });
  }

  /** Adds a test whose windows are photographed if it fails. */
  addTest(name, body) {
    const photographed = async () => {
      try {
        await body();
      } catch (error) {
        for (const [index, window] of this.windows.entries())
          await window.photograph(`${this.#name}-failed-${this.room}-${index}`).catch(() => {});
        throw error;
      }
    };
    return test(
      name,
      told(() => this.server, photographed),
    );
  }

  /** Someone new comes into this test's room. */
  async enter(name, { port = this.server.port, query = '', ...options } = {}) {
    const url = `http://127.0.0.1:${port}/${query}#room-${this.room}`;
    const window = await ChatWindow.enter(this.browser, url, name, options);
    this.windows.push(window);
    return window;
  }

  /** Publishes into this test's room. */
  publish(data) {
    return this.server.publish(`chat:room-${this.room}`, data);
  }
}
