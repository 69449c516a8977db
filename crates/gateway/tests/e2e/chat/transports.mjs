// The transports of the chat page: what asks for them in its address, and what its status says.

export const TRANSPORTS = {
  websocket: { query: '', words: 'over WebSocket' },
  http_stream: { query: '?transport=http_stream', words: 'over an HTTP stream' },
  sse: { query: '?transport=sse', words: 'over server-sent events' },
  long_poll: { query: '?transport=long_poll', words: 'over long polls' },
};

/** Settings of the server: a client that polls and goes is present for a while, which tests wait for. */
export const SETTINGS = { FANWIRE_SUBSCRIBE__POLL_GRACE: '5s' };
