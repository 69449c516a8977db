// Clients that only listen and tell what they see. Pages get each of these functions as text, so they use nothing but
// their arguments.

/** One client of the npm package `centrifuge`. It goes on from the positions of `since`, by topic. */
export function listen(Client, { unpack, ...options }, { address, token, topics, since }, tell) {
  const pauses = { minReconnectDelay: 20, maxReconnectDelay: 200 };
  const client = new Client(address, { token, timeout: 10_000, ...pauses, ...options });
  client.on('connecting', ({ code }) => tell({ event: 'connecting', code }));
  client.on('connected', ({ client, transport }) => tell({ event: 'connected', client, transport }));
  client.on('disconnected', ({ code }) => tell({ event: 'disconnected', code }));
  client.on('error', () => {});
  for (const topic of topics) {
    const delays = { minResubscribeDelay: 20, maxResubscribeDelay: 200 };
    const subscription = client.newSubscription(topic, { ...delays, since: since[topic] });
    const told = (event, more) => tell({ event, topic, ...more });
    subscription.on('subscribed', ({ recovered, wasRecovering, streamPosition: position }) =>
      told('subscribed', { recovered, wasRecovering, position }),
    );
    subscription.on('unsubscribed', ({ code }) => told('unsubscribed', { code }));
    subscription.on('publication', ({ data, offset = 0 }) => told('publication', { data: unpack(data), offset }));
    subscription.on('join', ({ info }) => told('join', { client: info.client }));
    subscription.on('leave', ({ info }) => told('leave', { client: info.client }));
    subscription.on('error', () => {});
    subscription.subscribe();
  }
  client.connect();
  return { close: () => client.disconnect() };
}

/** An EventSource. It comes back by itself, but for some refusals, after which an application opens another. */
export function follow(EventSource, { source: address, cursor }, tell) {
  let source, timer;
  const open = () => {
    source = new EventSource(cursor ? `${address}&cursor=${cursor}` : address);
    source.addEventListener('open', () => tell({ event: 'connected' }));
    source.addEventListener('error', () => {
      tell({ event: 'connecting' });
      if (source.readyState === source.CLOSED) timer = setTimeout(open, 200);
    });
    source.addEventListener('disconnect', ({ data }) => tell({ event: 'goodbye', ...JSON.parse(data) }));
    source.addEventListener('subscribed', ({ data, lastEventId }) => {
      cursor = lastEventId;
      for (const { topic, recovered } of JSON.parse(data).subscribed) {
        tell({ event: 'subscribed', topic, recovered, wasRecovering: recovered !== undefined, cursor });
      }
    });
    source.addEventListener('message', ({ data, lastEventId }) => {
      cursor = lastEventId;
      const { topic, data: payload, offset = 0 } = JSON.parse(data);
      tell({ event: 'publication', topic, data: payload, offset, cursor });
    });
  };
  open();
  return {
    close: () => {
      clearTimeout(timer);
      source.close();
    },
  };
}

/** A bare WebSocket with a text heartbeat, which a library opens again and again. In an envelope each message brings a
    cursor, from which the next connection goes on. Without one, the name of the topic is in the data, and each connection
    begins where the first did. */
export function reconnecting(open, isEnveloped, { source, cursor }, tell) {
  const base = source.replace(/^http/, 'ws') + (isEnveloped ? '&envelope=json' : '');
  const { socket, again } = open(() => (cursor ? `${base}&cursor=${cursor}` : base));
  const heartbeat = { every: 5000, within: 2000 };
  let late;
  socket.onopen = () => tell({ event: 'connected' });
  socket.onclose = ({ code }) => {
    clearTimeout(late);
    tell({ event: 'connecting', code });
  };
  socket.onmessage = ({ data: text }) => {
    if (text === 'pong') {
      clearTimeout(late);
      return tell({ event: 'pong' });
    }
    const message = JSON.parse(text);
    cursor = message.cursor ?? cursor;
    const place = isEnveloped ? { cursor } : {};
    if (message.subscribed) {
      for (const { topic, recovered } of message.subscribed) {
        tell({ event: 'subscribed', topic, recovered, wasRecovering: recovered !== undefined, ...place });
      }
    } else {
      const data = isEnveloped ? message.data : message;
      tell({ event: 'publication', topic: message.topic, data, ...place });
    }
  };
  const beat = setInterval(() => {
    if (socket.readyState !== WebSocket.OPEN) return;
    socket.send('ping');
    late = setTimeout(() => {
      tell({ event: 'late' });
      again();
    }, heartbeat.within);
  }, heartbeat.every);
  return {
    close: () => {
      clearInterval(beat);
      clearTimeout(late);
      socket.onclose = () => {};
      socket.close();
    },
  };
}
