// Clients of the npm package `centrifuge` on its transports and in both encodings, so that a test is written once for all.

import { randomUUID } from 'node:crypto';
import { Centrifuge as JsonClient } from 'centrifuge';
import { Centrifuge as ProtobufClient } from 'centrifuge/build/protobuf';
import { EventSource } from 'eventsource';
import WebSocket from 'ws';
import { next, until } from './harness.mjs';

/** How an application's values travel: as they are in JSON, as bytes of its own choice in Protobuf. */
export const encodings = {
  json: { Client: JsonClient, pack: (value) => value, unpack: (data) => data },
  protobuf: {
    Client: ProtobufClient,
    pack: (value) => Buffer.from(JSON.stringify(value)),
    unpack: (data) => JSON.parse(Buffer.from(data).toString()),
  },
};

/** The transports of the package, each with the encodings that it speaks there. */
export const variants = [
  ['websocket', 'json'],
  ['websocket', 'protobuf'],
  ['http_stream', 'json'],
  ['http_stream', 'protobuf'],
  ['sse', 'json'],
];

/** What the package calls a transport and its address. */
const endpoint = (transport, port) => ({
  transport,
  endpoint: `${transport === 'websocket' ? 'ws' : 'http'}://127.0.0.1:${port}/connection/${transport}`,
});

/** Clients of one server, in one encoding, on one transport or on the first of a list that opens. */
export class Clients {
  constructor(encoding, server, transports = 'websocket') {
    Object.assign(this, encodings[encoding]);
    this.server = server;
    this.transports = transports;
    this.open = new Set();
  }

  /** A client that is not connected yet. */
  make(user, options = {}) {
    const { port = this.server.port, claims = {}, ...others } = options;
    const endpoints = [this.transports].flat().map((transport) => endpoint(transport, port));
    // An application that wants nothing but WebSocket gives its address.
    const where = this.transports === 'websocket' ? endpoints[0].endpoint : endpoints;
    const client = new this.Client(where, {
      websocket: WebSocket,
      eventsource: EventSource,
      emulationEndpoint: `http://127.0.0.1:${port}/emulation`,
      token: user === null ? '' : this.server.token(user, claims),
      minReconnectDelay: 20,
      maxReconnectDelay: 200,
      timeout: 10_000,
      ...others,
    });
    // Without a listener, the emitter throws; tests that expect errors add their own.
    client.on('error', () => {});
    this.open.add(client);
    return client;
  }

  async connected(user, options) {
    const client = this.make(user, options);
    const connected = next(client, 'connected');
    client.connect();
    client.id = (await connected).client;
    return client;
  }

  /** Connects, expects to be turned away for good, and tells why. */
  async refused(user, options) {
    const client = this.make(user, options);
    const disconnected = next(client, 'disconnected');
    client.connect();
    return disconnected;
  }

  /** Subscribes and collects what arrives: publications, joins, leaves and every change of state. */
  async subscribed(client, channel, options) {
    const seen = this.subscription(client, channel, options);
    const subscribed = next(seen.subscription, 'subscribed');
    seen.subscription.subscribe();
    seen.context = await subscribed;
    return seen;
  }

  /** Subscribes, expects to be turned away for good, and tells why. */
  async refusedSubscription(client, channel, options) {
    const { subscription } = this.subscription(client, channel, options);
    const unsubscribed = next(subscription, 'unsubscribed');
    subscription.subscribe();
    const context = await unsubscribed;
    client.removeSubscription(subscription);
    return context;
  }

  subscription(client, channel, options = {}) {
    const subscription = client.newSubscription(channel, {
      minResubscribeDelay: 20,
      maxResubscribeDelay: 200,
      ...options,
    });
    const seen = { subscription, data: [], offsets: [], publications: [], joins: [], leaves: [], subscribed: [] };
    subscription.on('publication', (publication) => {
      seen.publications.push(publication);
      seen.data.push(this.unpack(publication.data));
      seen.offsets.push(publication.offset);
    });
    subscription.on('join', ({ info }) => seen.joins.push(info));
    subscription.on('leave', ({ info }) => seen.leaves.push(info));
    subscription.on('subscribed', (context) => seen.subscribed.push(context));
    subscription.on('error', () => {});
    return seen;
  }

  closeAll() {
    for (const client of this.open) client.disconnect();
    this.open.clear();
  }
}

/** The numbers from `first` to `last`, as tests publish them. */
export const numbers = (first, last) => Array.from({ length: last - first + 1 }, (_, index) => first + index);

/** Publishes numbers one after the other, many in a request. */
export async function publishNumbers(server, channel, first, last) {
  for (let from = first; from <= last; from += 100) {
    const commands = numbers(from, Math.min(from + 99, last)).map((data) => ({ publish: { channel, data } }));
    const { replies } = await server.api('batch', { commands });
    const failed = replies.find((reply) => reply.error);
    if (failed) throw new Error(JSON.stringify(failed));
  }
}

export const receivedCount = (seen, count) =>
  until(() => seen.data.length >= count, `${count} publications arrive (there are ${seen.data.length})`);

/** A name that no other test uses. */
export const fresh = (namespace) => `${namespace}:${randomUUID().slice(0, 13)}`;
