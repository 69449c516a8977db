// HTTP by XMLHttpRequest, which every browser has. A response that does not end is read by fetch where there is one,
// since XMLHttpRequest keeps all that has arrived.

/** A response that XMLHttpRequest keeps may become this long, in characters. */
const KEPT_LENGTH_MAX = 4 * 2 ** 20;
const NO_ANSWER = 'the server does not answer';
const STREAM_ENDED = 'the stream ended';

/** Sends a request, and returns the status, the text and the headers of its response. `signal` may end it before. */
export function request(method, url, { body, timeout, signal }) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open(method, url);
    xhr.timeout = timeout;
    xhr.onload = () => {
      const header = (name) => xhr.getResponseHeader(name);
      resolve({ status: xhr.status, text: xhr.responseText, header });
    };
    xhr.onerror = xhr.ontimeout = xhr.onabort = () => reject(new Error(NO_ANSWER));
    signal?.addEventListener('abort', () => xhr.abort());
    xhr.send(body);
  });
}

/** Sends `body` and reads the response as it arrives. Calls `onText` with each part, and `onEnd` with a reason.
 *  Returns a function that ends the request. */
export function stream(url, body, onText, onEnd) {
  return window.fetch ? fetchStream(url, body, onText, onEnd) : xhrStream(url, body, onText, onEnd);
}

function fetchStream(url, body, onText, onEnd) {
  const abort = new AbortController();
  const read = async () => {
    const response = await fetch(url, { method: 'POST', body, signal: abort.signal }).catch(() => null);
    if (response?.status !== 200) {
      onEnd(response ? refusal(response.status) : NO_ANSWER);
      return;
    }
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const next = () => reader.read().catch(() => ({ done: true }));
    for (let part = await next(); !part.done; part = await next()) onText(part.value);
    onEnd(STREAM_ENDED);
  };
  read();
  return () => abort.abort();
}

function xhrStream(url, body, onText, onEnd) {
  const xhr = new XMLHttpRequest();
  let taken = 0;
  const take = () => {
    if (xhr.status !== 200) return;
    const text = xhr.responseText.slice(taken);
    taken += text.length;
    if (text) onText(text);
    if (taken > KEPT_LENGTH_MAX) onEnd('the stream is full');
  };
  xhr.open('POST', url);
  xhr.onprogress = take;
  xhr.onload = () => {
    take();
    onEnd(xhr.status === 200 ? STREAM_ENDED : refusal(xhr.status));
  };
  xhr.onerror = () => onEnd(NO_ANSWER);
  xhr.send(body);
  return () => xhr.abort();
}

function refusal(status) {
  return `the server refused the stream with status ${status}`;
}
