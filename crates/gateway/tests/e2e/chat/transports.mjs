// The transports of the chat page: what asks for them in its address, and what its status says.

export const TRANSPORTS = {
  websocket: { query: '', words: 'over WebSocket' },
  http_stream: { query: '?transport=http_stream', words: 'over an HTTP stream' },
  sse: { query: '?transport=sse', words: 'over server-sent events' },
};
