"""PyPI `centrifuge-python` in the place of a bare client: what an SDK makes of an outage, for the checker."""

import asyncio
import contextlib
import time

from centrifuge import Client, ClientEventHandler, SubscriptionEventHandler

from checker import Join, Leave
from client import Life, Recorder


class SdkClient(Recorder):
    """Has what `RawClient` has, as far as traffic and checker use it. The SDK knows one address: that of the first
    node."""

    def __init__(self, nodes, topics):
        self.node = nodes[0]
        super().__init__("sdk", topics)

    async def run(self):
        self.client = Client(
            self.node.websocket,
            events=Connection(self),
            token=self.node.token(self.name),
            min_reconnect_delay=0.05,
            max_reconnect_delay=0.3,
            proxy=None,
        )
        for topic, subscription in self.subscriptions.items():
            made = self.client.new_subscription(
                topic, Events(self, subscription), min_resubscribe_delay=0.05, max_resubscribe_delay=0.3
            )
            await made.subscribe()
        await self.client.connect()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async def stop(self):
        await self.client.disconnect()


class Connection(ClientEventHandler):
    def __init__(self, owner):
        self.owner = owner

    async def on_connected(self, event):
        self.owner.lives.append(Life(event.client, self.owner.node))

    async def on_connecting(self, event):
        self.end(event.code)

    async def on_disconnected(self, event):
        self.end(event.code)

    async def on_error(self, event):
        if self.owner.client_id and event.code and event.code >= 100:
            self.owner.refusals.append(event)

    def end(self, code):
        if self.owner.client_id:
            self.owner.lives[-1].ended, self.owner.lives[-1].code = time.monotonic(), code


class Events(SubscriptionEventHandler):
    """Writes down what the SDK says of one subscription, in the words of the protocol."""

    def __init__(self, owner, subscription):
        self.owner, self.subscription = owner, subscription

    async def on_subscribed(self, event):
        position = event.stream_position
        reply = {"recovered": event.recovered, "recoverable": event.recoverable}
        if position:
            reply |= {"epoch": position.epoch, "offset": position.offset}
        self.subscription.on_subscribed(reply)
        self.owner.lives[-1].topics.add(self.subscription.history.topic)

    async def on_publication(self, event):
        self.subscription.on_publication({"data": event.pub.data, "offset": event.pub.offset})

    async def on_join(self, event):
        self.subscription.history.events.append(Join(event.info.client))

    async def on_leave(self, event):
        self.subscription.history.events.append(Leave(event.info.client))

    async def on_subscribing(self, event):
        self.subscription.on_ended(event.code)

    async def on_unsubscribed(self, event):
        self.subscription.on_ended(event.code)
