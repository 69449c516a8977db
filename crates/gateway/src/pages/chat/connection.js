// The client protocol of the gateway in JSON, over one transport at a time. It knows nothing of chat. Invariant: a
// subscription is kept, with its position, until the page unsubscribes or the server ends it for good.

import { CLOSE_MESSAGE_TOO_BIG } from './transport.js';

const BACKOFF_MIN_MS = 500;
const BACKOFF_MAX_MS = 20_000;
const CONNECT_TIMEOUT_MS = 10_000;
const COMMAND_TIMEOUT_MS = 10_000;
const PING_SLACK_MS = 10_000;
/** A connection that ends sooner than this does not count as a success: otherwise the page would reconnect without a
 *  pause to a server that accepts and closes at once. */
const STABLE_AFTER_MS = 5_000;

/** Browsers' timers overflow above 24 days. */
const REFRESH_AFTER_MAX_MS = 20 * 24 * 3600 * 1000;

const ERROR_ALREADY_SUBSCRIBED = 105;
const ERROR_TOKEN_EXPIRED = 109;
/** Close codes from this one on are the server's own words. */
const CLOSE_BY_SERVER_MIN = 3000;
const CLOSE_STATE_INVALIDATED = 3014;
const CLOSE_INVALID_TOKEN = 3500;
const UNSUBSCRIBE_RESUBSCRIBE_MIN = 2500;
const UNSUBSCRIBE_STATE_INVALIDATED = 2502;

/** A command whose answer is an error or, with code 0, that has no answer. With `lost`, the connection ended first, and
 *  the server may have executed the command. */
export class CommandError extends Error {
  constructor({ code, message, temporary = false, lost = false }) {
    super(message);
    this.code = code;
    this.lost = lost;
    this.retriable = lost || temporary || code < 100 || code === ERROR_TOKEN_EXPIRED;
  }
}

/** One client of the gateway: it connects and reconnects by itself, and keeps its subscriptions, with their
 *  positions, over any number of transports. States: connecting, connected, waiting (for the next attempt), stopped
 *  (until `reconnect`). */
export class Connection {
  #transports;
  #fetchToken;
  #onState;
  #state = { name: 'stopped' };
  #transport = null;
  #turn = 0;
  #attempt = 0;
  #tokenRefused = false;
  #lastCommandId = 0;
  #commands = new Map();
  #subscriptions = new Map();
  #silenceMax = CONNECT_TIMEOUT_MS;
  #answersPings = false;
  #watchdog;
  #retryTimer;
  #stableTimer;
  #refreshTimer;
  #clockAhead = 0;

  constructor({ transports, fetchToken, onState }) {
    this.#transports = transports;
    this.#fetchToken = fetchToken;
    this.#onState = onState;
  }

  get state() {
    return this.#state;
  }

  /** The time by the server's clock, in milliseconds: the clock of this machine may be wrong. */
  get now() {
    return Date.now() + this.#clockAhead;
  }

  /** Connects again in any state: at the start, under another name, or on demand. */
  reconnect() {
    this.#attempt = 0;
    this.#tokenRefused = false;
    this.#open();
  }

  /** Ends a wait, since the next attempt is likely to succeed. */
  hurry() {
    if (this.#state.name === 'waiting') this.#open();
  }

  /** Closes the transport without waiting until it notices that the network is down. */
  networkLost() {
    if (this.#transport) this.#closed(0, 'the network is down');
  }

  /** Keeps a subscription until `unsubscribe`. Calls `subscribed`, `published`, `joined`, `left`, `removed` (by the
   *  server, for good) and `lost` (for now) of the listener. */
  subscribe(topic, listener) {
    const subscription = { topic, listener, position: null, active: false, attempt: 0, timer: undefined };
    this.#subscriptions.set(topic, subscription);
    if (this.#state.name === 'connected') this.#subscribe(subscription);
  }

  unsubscribe(topic) {
    const subscription = this.#subscriptions.get(topic);
    if (!subscription) return;
    clearTimeout(subscription.timer);
    this.#subscriptions.delete(topic);
    if (this.#state.name !== 'connected') return;
    this.#send(
      'unsubscribe',
      { channel: topic },
      () => {},
      (error) => {
        if (!error.lost) this.#closed(0, error.message);
      },
    );
  }

  request(method, body) {
    return new Promise((resolve, reject) => {
      if (this.#state.name === 'connected') this.#send(method, body, resolve, reject);
      else reject(new CommandError({ code: 0, message: 'not connected', lost: true }));
    });
  }

  /** Publishes to a topic of a subscription. Without an answer the data may have arrived or not: the connection ends, and
   *  the next one recovers from the position at which it was sent, so that it is seen if it is there. */
  async publish(topic, data) {
    const subscription = this.#subscriptions.get(topic);
    const sentAt = subscription?.position && { ...subscription.position };
    try {
      await this.request('publish', { channel: topic, data });
    } catch (error) {
      if (error.code !== 0) throw error;
      const position = subscription?.position;
      if (position && position.epoch === sentAt?.epoch) {
        position.offset = Math.min(position.offset, sentAt.offset);
      }
      if (!error.lost) this.#closed(0, error.message);
      throw new CommandError({ code: 0, message: error.message, lost: true });
    }
  }

  async #open() {
    this.#detach();
    const turn = this.#turn;
    this.#setState({ name: 'connecting' });
    let token;
    try {
      token = await this.#fetchToken();
    } catch (error) {
      if (turn === this.#turn) this.#closed(0, error.message);
      return;
    }
    if (turn !== this.#turn) return;
    this.#silenceMax = CONNECT_TIMEOUT_MS;
    this.#answersPings = false;
    this.#watch();
    this.#transport = this.#transports.make();
    this.#transport.open(
      (messages) => {
        if (turn === this.#turn) this.#received(messages);
      },
      (code, reason) => {
        if (turn === this.#turn) this.#transportClosed(code, reason);
      },
    );
    this.#send(
      'connect',
      { token, name: 'chat' },
      (result) => this.#connected(result),
      (error) => this.#refused(error),
    );
  }

  #connected(result) {
    this.#answersPings = result.pong === true;
    this.#silenceMax = result.ping ? result.ping * 1000 + PING_SLACK_MS : Infinity;
    this.#watch();
    this.#tokenRefused = false;
    if (result.time) this.#clockAhead = result.time - Date.now();
    this.#stableTimer = setTimeout(() => {
      this.#attempt = 0;
    }, STABLE_AFTER_MS);
    this.#refreshLater(result);
    this.#setState({ name: 'connected', client: result.client, transport: this.#transports.current });
    for (const subscription of this.#subscriptions.values()) this.#subscribe(subscription);
  }

  #refreshLater({ expires, ttl }) {
    clearTimeout(this.#refreshTimer);
    if (!expires) return;
    const delay = Math.min(ttl * 1000, REFRESH_AFTER_MAX_MS);
    this.#refreshTimer = setTimeout(() => this.#refresh(), delay);
  }

  /** Sends a new token before the server ends the connection, some time after the old one expires. */
  async #refresh() {
    const turn = this.#turn;
    const token = await this.#fetchToken().catch(() => null);
    if (turn !== this.#turn) return;
    if (token === null) {
      this.#closed(0, 'the token could not be renewed');
      return;
    }
    const failed = (error) => {
      if (!error.lost) this.#closed(0, error.message);
    };
    this.#send('refresh', { token }, (result) => this.#refreshLater(result), failed);
  }

  #refused(error) {
    if (error.lost) return;
    if (error.retriable) this.#closed(0, error.message);
    else this.#stop(error.code, error.message);
  }

  /** Tries the next transport if nothing has come through this one. */
  #transportClosed(code, reason) {
    if (code >= CLOSE_BY_SERVER_MIN) this.#transports.worked();
    if (this.#transports.failed()) this.#open();
    else this.#closed(code, reason);
  }

  /** Reconnects or stops, by the close code: codes 3500-3999 and 4500-4999 are final, all others are not. */
  #closed(code, reason) {
    if (code === CLOSE_STATE_INVALIDATED) {
      for (const subscription of this.#subscriptions.values()) subscription.position = null;
    }
    const final =
      (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000) || code === CLOSE_MESSAGE_TOO_BIG;
    // Every attempt fetches a new token, so one refusal may concern the old one, but not two in a row.
    const tokenWorthAnother = code === CLOSE_INVALID_TOKEN && !this.#tokenRefused;
    if (final && !tokenWorthAnother) {
      this.#stop(code, reason);
      return;
    }
    this.#tokenRefused = code === CLOSE_INVALID_TOKEN;
    this.#detach();
    this.#attempt += 1;
    const delay = backoff(this.#attempt);
    this.#retryTimer = setTimeout(() => this.#open(), delay);
    this.#setState({ name: 'waiting', retryAt: Date.now() + delay, reason });
  }

  #stop(code, reason) {
    this.#detach();
    this.#setState({ name: 'stopped', code, reason });
  }

  /** Drops the transport and everything that depends on it; later events of it are ignored. */
  #detach() {
    this.#turn += 1;
    clearTimeout(this.#watchdog);
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#stableTimer);
    clearTimeout(this.#refreshTimer);
    this.#transport?.close();
    this.#transport = null;
    const unanswered = [...this.#commands.values()];
    this.#commands.clear();
    for (const subscription of this.#subscriptions.values()) {
      clearTimeout(subscription.timer);
      if (subscription.active) subscription.listener.lost();
      subscription.active = false;
    }
    for (const command of unanswered) {
      clearTimeout(command.timer);
      command.fail(new CommandError({ code: 0, message: 'connection lost', lost: true }));
    }
  }

  #subscribe(subscription) {
    clearTimeout(subscription.timer);
    const { topic, position } = subscription;
    const body = position ? { channel: topic, recover: true, ...position } : { channel: topic };
    const current = () => this.#subscriptions.get(topic) === subscription;
    this.#send(
      'subscribe',
      body,
      (result) => {
        if (current()) this.#subscribed(subscription, result);
      },
      (error) => {
        if (error.lost || !current()) return;
        if (error.code === 0) {
          // Without an answer the two sides may disagree about the subscription; a new connection resolves that.
          this.#closed(0, error.message);
        } else if (error.code === ERROR_ALREADY_SUBSCRIBED) {
          this.#send(
            'unsubscribe',
            { channel: topic },
            () => {},
            () => {},
          );
          this.#subscribeLater(subscription);
        } else if (error.retriable) {
          this.#subscribeLater(subscription);
        } else {
          this.#subscriptions.delete(topic);
          subscription.listener.removed(error.message);
        }
      },
    );
  }

  #subscribeLater(subscription) {
    subscription.active = false;
    subscription.attempt += 1;
    subscription.timer = setTimeout(() => this.#subscribe(subscription), backoff(subscription.attempt));
  }

  #subscribed(subscription, result) {
    const publications = result.publications ?? [];
    subscription.active = true;
    subscription.attempt = 0;
    const position = { epoch: result.epoch ?? '', offset: publications.at(-1)?.offset ?? result.offset ?? 0 };
    subscription.position = result.recoverable ? position : null;
    subscription.listener.subscribed({ position, publications, recovered: result.recovered === true });
  }

  #pushed({ channel, pub: publication, join, leave, unsubscribe, refresh, disconnect }) {
    if (refresh) this.#refreshLater(refresh);
    if (disconnect) {
      this.#closed(disconnect.code, disconnect.reason);
      return;
    }
    const subscription = this.#subscriptions.get(channel);
    if (!subscription) return;
    if (publication) {
      if (subscription.position && publication.offset) subscription.position.offset = publication.offset;
      subscription.listener.published(publication);
    } else if (join) {
      subscription.listener.joined(join.info);
    } else if (leave) {
      subscription.listener.left(leave.info);
    } else if (unsubscribe?.code >= UNSUBSCRIBE_RESUBSCRIBE_MIN) {
      if (unsubscribe.code === UNSUBSCRIBE_STATE_INVALIDATED) subscription.position = null;
      subscription.listener.lost();
      this.#subscribeLater(subscription);
    } else if (unsubscribe) {
      this.#subscriptions.delete(channel);
      subscription.listener.removed(unsubscribe.reason);
    }
  }

  /** Sends a command. Takes callbacks, not promises: an answer must take effect before later pushes that arrive with
   *  it. */
  #send(method, body, done, fail) {
    this.#lastCommandId += 1;
    const id = this.#lastCommandId;
    const timer = setTimeout(() => {
      this.#commands.delete(id);
      fail(new CommandError({ code: 0, message: 'the server did not answer' }));
    }, COMMAND_TIMEOUT_MS);
    this.#commands.set(id, { method, done, fail, timer });
    this.#transport.send(JSON.stringify({ id, [method]: body }));
  }

  #received(messages) {
    this.#transports.worked();
    this.#watch();
    const turn = this.#turn;
    for (const line of messages.split('\n')) {
      if (!line) continue;
      let reply;
      try {
        reply = JSON.parse(line);
      } catch {
        this.#closed(0, 'the server sent a message that is not valid');
        return;
      }
      this.#handle(reply);
      if (turn !== this.#turn) return;
    }
  }

  #handle(reply) {
    if (reply.id) {
      const command = this.#commands.get(reply.id);
      if (!command) return;
      this.#commands.delete(reply.id);
      clearTimeout(command.timer);
      if (reply.error) command.fail(new CommandError(reply.error));
      else command.done(reply[command.method] ?? {});
    } else if (reply.push) {
      this.#pushed(reply.push);
    } else if (this.#answersPings) {
      this.#transport.send('{}');
    }
  }

  /** Restarts the timer that closes the transport if no message arrives: what looks open may be dead. */
  #watch() {
    clearTimeout(this.#watchdog);
    if (this.#silenceMax === Infinity) return;
    this.#watchdog = setTimeout(() => this.#transportClosed(0, 'the server stopped sending'), this.#silenceMax);
  }

  #setState(state) {
    this.#state = state;
    this.#onState(state);
  }
}

/** Full jitter, so that clients that were disconnected together do not reconnect together. */
function backoff(attempt) {
  const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** attempt);
  return BACKOFF_MIN_MS + Math.random() * (ceiling - BACKOFF_MIN_MS);
}
