"""A receiver of Fanwire's events (docs/events.md). Python 3.10, nothing to install.

SIGNATURE_SECRET is events.webhook.signature_secret of the gateway. It prints each event once; a real one stores it, and
the id of the newest event of each user and topic with it.
"""

import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

SECRET = os.environ["SIGNATURE_SECRET"].encode()
PORT = int(os.environ.get("PORT", "8200"))
OLDEST = 300  # seconds

lock = Lock()
newest = {}


def is_genuine(header, body):
    """True if the gateway has signed the body within the last minutes."""
    parts = [part.partition("=") for part in header.split(",")]
    times = [value for name, _, value in parts if name == "t"]
    if len(times) != 1 or not times[0].isdecimal() or abs(time.time() - int(times[0])) > OLDEST:
        return False
    expected = hmac.new(SECRET, times[0].encode() + b"." + body, hashlib.sha256).hexdigest().encode()
    given = [value.encode() for name, _, value in parts if name == "v1"]
    return any(hmac.compare_digest(expected, one) for one in given)


def handle(event):
    """Yours. What it raises makes the gateway post the event again."""
    print(json.dumps(event), flush=True)


def receive(event):
    """Handles an event unless it, or a newer one of its topic or user, has been handled."""
    about = ("topic", event["topic"]) if "topic" in event else ("user", event["user"])
    outbox, *place = map(int, event["id"].split("-"))
    with lock:
        known, last = newest.get(about, (outbox, []))
        # A number of another outbox says that the gateway was given another engine.
        if known == outbox and place <= last:
            return
        handle(event)
        newest[about] = (outbox, place)


class Receiver(BaseHTTPRequestHandler):
    # The gateway keeps the connection for its next request.
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if not is_genuine(self.headers.get("fanwire-signature", ""), body):
            return self.answer(401)
        try:
            for event in json.loads(body)["events"]:
                receive(event)
        except Exception as error:  # the events come again
            print(f"events could not be handled: {error!r}", file=sys.stderr)
            return self.answer(500)
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        if status != 204:
            self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", PORT), Receiver).serve_forever()
