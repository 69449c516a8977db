"""PyPI `centrifuge-python`, JSON and Protobuf, against the built binary."""

import asyncio
import contextlib
import json
import uuid

import pytest
from centrifuge import (
    Client,
    ClientEventHandler,
    Filter,
    ReplyError,
    StreamPosition,
    SubscriptionEventHandler,
)

from harness import DEADLINE, Server, get


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


@pytest.fixture(params=["json", "protobuf"])
def clients(request, server):
    return Clients(server, request.param == "protobuf")


class Clients:
    """Clients of one encoding. In Protobuf mode an application's values are bytes of its own choice."""

    def __init__(self, server, protobuf):
        self.server, self.protobuf = server, protobuf

    def pack(self, value):
        return json.dumps(value).encode() if self.protobuf else value

    def unpack(self, data):
        return json.loads(data) if self.protobuf and data is not None else data

    @contextlib.asynccontextmanager
    async def connected(self, user, port=None, get_token=None, **claims):
        events = Events(self)
        client = Client(
            f"ws://127.0.0.1:{port or self.server.port}/connection/websocket",
            events=events,
            token=self.server.token(user, **claims),
            get_token=get_token,
            use_protobuf=self.protobuf,
            min_reconnect_delay=0.02,
            max_reconnect_delay=0.2,
            proxy=None,
        )
        events.client = client
        await client.connect()
        try:
            await client.ready(DEADLINE)
            yield events
        finally:
            await client.disconnect()

    async def subscribed(self, events, channel, **options):
        seen = SubscriptionEvents(self)
        seen.subscription = events.client.new_subscription(
            channel, seen, min_resubscribe_delay=0.02, max_resubscribe_delay=0.2, **options
        )
        await seen.subscription.subscribe()
        await seen.subscription.ready(DEADLINE)
        await until(lambda: seen.subscribed, "the subscription is told")
        return seen


class Events(ClientEventHandler):
    """Collects what happens on a connection."""

    def __init__(self, clients):
        self.clients = clients
        self.connected, self.connecting, self.disconnected = [], [], []
        self.subscribed, self.unsubscribed, self.data, self.joins = [], [], [], []

    async def on_connected(self, ctx):
        self.connected.append(ctx)

    async def on_connecting(self, ctx):
        self.connecting.append(ctx)

    async def on_disconnected(self, ctx):
        self.disconnected.append(ctx)

    async def on_subscribed(self, ctx):
        self.subscribed.append(ctx)

    async def on_unsubscribed(self, ctx):
        self.unsubscribed.append(ctx)

    async def on_publication(self, ctx):
        self.data.append((ctx.channel, self.clients.unpack(ctx.pub.data)))

    async def on_join(self, ctx):
        self.joins.append(ctx.info)


class SubscriptionEvents(SubscriptionEventHandler):
    """Collects what happens on a subscription."""

    def __init__(self, clients):
        self.clients = clients
        self.data, self.offsets, self.publications = [], [], []
        self.joins, self.leaves, self.subscribed, self.subscribing, self.unsubscribed = [], [], [], [], []

    async def on_publication(self, ctx):
        self.publications.append(ctx.pub)
        self.offsets.append(ctx.pub.offset)
        self.data.append(self.clients.unpack(ctx.pub.data))

    async def on_join(self, ctx):
        self.joins.append(ctx.info)

    async def on_leave(self, ctx):
        self.leaves.append(ctx.info)

    async def on_subscribed(self, ctx):
        self.subscribed.append(ctx)

    async def on_subscribing(self, ctx):
        self.subscribing.append(ctx)

    async def on_unsubscribed(self, ctx):
        self.unsubscribed.append(ctx)


class Proxy:
    """Stands between client and server, to cut connections."""

    def __init__(self, target):
        self.target, self.refusing, self.writers = target, False, set()

    async def __aenter__(self):
        self.listener = await asyncio.start_server(self.join, "127.0.0.1", 0)
        self.port = self.listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.cut()
        self.listener.close()

    async def join(self, near_reader, near):
        if self.refusing:
            near.transport.abort()
            return
        far_reader, far = await asyncio.open_connection("127.0.0.1", self.target)
        self.writers |= {near, far}
        await asyncio.gather(self.pump(near_reader, far), self.pump(far_reader, near))
        self.writers -= {near, far}

    async def pump(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    def cut(self):
        """Resets every connection on both sides, and lets none in until `mend`."""
        self.refusing = True
        for writer in self.writers:
            writer.transport.abort()

    def mend(self):
        self.refusing = False


async def until(condition, what, deadline=DEADLINE):
    end = asyncio.get_running_loop().time() + deadline
    while not condition():
        assert asyncio.get_running_loop().time() < end, f"within {deadline} s it did not happen that {what}"
        await asyncio.sleep(0.01)


async def publish_numbers(server, channel, first, last):
    """Publishes numbers one after the other, many in a request."""
    for begin in range(first, last + 1, 100):
        some = range(begin, min(begin + 100, last + 1))
        commands = [{"publish": {"channel": channel, "data": number}} for number in some]
        replies = (await asyncio.to_thread(server.api, "batch", {"commands": commands}))["replies"]
        assert all("publish" in reply for reply in replies), replies


def fresh(namespace):
    return f"{namespace}:{uuid.uuid4().hex[:12]}"


def run(scenario):
    """Runs an asynchronous test to its end, but not for ever."""
    asyncio.run(asyncio.wait_for(scenario, 120))


def numbers(first, last):
    return list(range(first, last + 1))


def test_connected_context(clients):
    async def scenario():
        async with clients.connected("alice") as alice:
            context = alice.connected[0]
            assert uuid.UUID(context.client).version == 4
            assert context.version

    run(scenario())


def test_a_thousand_publications_arrive_in_order(clients, server):
    async def scenario():
        channel = fresh("open")
        async with clients.connected("alice") as alice:
            seen = await clients.subscribed(alice, channel)
            await publish_numbers(server, channel, 1, 1000)
            await until(lambda: len(seen.data) >= 1000, "a thousand publications arrive")
            assert seen.data == numbers(1, 1000)
            assert seen.offsets == numbers(1, 1000)

    run(scenario())


def test_a_filter_brings_the_publications_with_its_tags(clients, server):
    async def scenario():
        channel = fresh("tagged")
        wanted = Filter.any(Filter.eq("kind", "goal"), Filter.gte("minute", "90"))
        async with clients.connected("alice") as alice:
            seen = await clients.subscribed(alice, channel, tags_filter=wanted)
            for number in range(1, 11):
                server.publish(channel, number, tags={"kind": "goal" if number % 2 else "pass"})
            await until(lambda: len(seen.data) >= 5, "five publications arrive")
            assert seen.data == [1, 3, 5, 7, 9]

    run(scenario())


@pytest.mark.parametrize("protobuf", [False, True])
def test_compression(protobuf):
    """PyPI `websockets` offers it by itself."""
    async def scenario(server):
        channel, clients = fresh("open"), Clients(server, protobuf)
        async with clients.connected("alice") as alice:
            seen = await clients.subscribed(alice, channel)
            messages = ["grün and again " * times for times in (1, 100, 1000)]
            for message in messages:
                await seen.subscription.publish(clients.pack(message))
            await until(lambda: len(seen.data) == len(messages), "all messages arrive")
            assert seen.data == messages
        lines = get(f"http://127.0.0.1:{server.internal_port}/metrics").text.splitlines()
        compressed = [line for line in lines if line.startswith("fanwire_compression_input_bytes_total ")]
        assert sum(map(len, messages[1:])) < float(compressed[0].split()[1]) < 2 * sum(map(len, messages[1:]))

    with Server({"websocket": {"deflate": {"enabled": True, "min_bytes": "500B"}}}) as server:
        run(scenario(server))


def test_publish_presence_history(clients, server):
    async def scenario():
        channel = fresh("open")
        async with (
            clients.connected("alice", info={"name": "Alice"}) as alice,
            clients.connected("bob") as bob,
        ):
            seen = await clients.subscribed(alice, channel)
            await clients.subscribed(bob, channel)
            for number in numbers(1, 10):
                await seen.subscription.publish(clients.pack(number))
            await until(lambda: len(seen.data) == 10, "the publications arrive")
            info = seen.publications[0].info
            assert (info.user, info.client) == ("alice", alice.connected[0].client)
            assert clients.unpack(info.conn_info) == {"name": "Alice"}

            present = (await seen.subscription.presence()).clients
            assert {info.user for info in present.values()} == {"alice", "bob"}
            assert set(present) == {alice.connected[0].client, bob.connected[0].client}
            stats = await seen.subscription.presence_stats()
            assert (stats.num_clients, stats.num_users) == (2, 2)

            async def page(**options):
                result = await seen.subscription.history(**options)
                assert result.offset == 10
                return [clients.unpack(publication.data) for publication in result.publications]

            epoch = (await seen.subscription.history(limit=0)).epoch
            assert epoch
            assert await page(limit=0) == []
            assert await page(limit=3) == [1, 2, 3]
            assert await page(limit=-1) == numbers(1, 10)
            assert await page(limit=2, reverse=True) == [10, 9]
            assert await page(limit=2, since=StreamPosition(offset=4, epoch=epoch)) == [5, 6]
            with pytest.raises(ReplyError) as refused:
                await page(limit=2, since=StreamPosition(offset=4, epoch="other"))
            assert refused.value.code == 112

    run(scenario())


def test_joins_and_leaves(clients):
    async def scenario():
        channel = fresh("open")
        async with clients.connected("alice") as alice:
            seen = await clients.subscribed(alice, channel)
            async with clients.connected("bob") as bob:
                await clients.subscribed(bob, channel)
                await until(lambda: len(seen.joins) == 2, "alice sees herself and bob")
            await until(lambda: len(seen.leaves) == 1, "alice sees bob leave")
            assert [info.user for info in seen.joins] == ["alice", "bob"]
            assert seen.leaves[0].client == bob.connected[0].client

    run(scenario())


def test_errors_have_their_codes(clients):
    async def scenario():
        async with clients.connected("alice") as alice:
            client = alice.client

            async def code(call):
                with pytest.raises(ReplyError) as refused:
                    await call
                return refused.value.code

            plain = fresh("plain")
            await clients.subscribed(alice, plain)
            assert await code(client.publish(plain, clients.pack(1))) == 103
            assert await code(client.presence(plain)) == 108
            assert await code(client.history(plain, limit=1)) == 108
            assert await code(client.publish("nowhere:x", clients.pack(1))) == 102
            assert await code(client.rpc("anything", clients.pack({}))) == 108

            for channel, expected in [("nowhere:x", 102), (fresh("token"), 103), ("$open:x", 103)]:
                seen = SubscriptionEvents(clients)
                subscription = client.new_subscription(channel, seen)
                await subscription.subscribe()
                await until(lambda: seen.unsubscribed, f"{channel} is refused")
                assert seen.unsubscribed[0].code == expected

    run(scenario())


def test_what_was_missed_is_recovered_in_order_and_once(clients, server):
    async def scenario():
        channel = fresh("open")
        async with Proxy(server.port) as proxy, clients.connected("alice", port=proxy.port) as alice:
            seen = await clients.subscribed(alice, channel)
            await publish_numbers(server, channel, 1, 10)
            await until(lambda: len(seen.data) == 10, "publications arrive")
            begin = 11
            for _ in range(3):
                count = len(seen.subscribing)
                proxy.cut()
                await until(lambda: len(seen.subscribing) > count, "the cut is noticed")
                await publish_numbers(server, channel, begin, begin + 99)
                begin += 100
                proxy.mend()
                await until(lambda: len(seen.data) >= begin - 1, "what was missed arrives")
            assert seen.data == numbers(1, 310)
            assert seen.offsets == numbers(1, 310)
            assert all(context.was_recovering and context.recovered for context in seen.subscribed[1:])

    run(scenario())


def test_server_side_subscriptions_recover(clients, server):
    async def scenario():
        channel = fresh("open")
        async with (
            Proxy(server.port) as proxy,
            clients.connected("alice", port=proxy.port, channels=[channel]) as alice,
        ):
            await until(lambda: alice.subscribed, "the subscription is told")
            assert alice.subscribed[0].recoverable
            await publish_numbers(server, channel, 1, 5)
            await until(lambda: len(alice.data) == 5, "publications arrive")
            proxy.cut()
            await until(lambda: len(alice.connecting) == 2, "the cut is noticed")
            await publish_numbers(server, channel, 6, 20)
            proxy.mend()
            await until(lambda: len(alice.data) >= 20, "what was missed arrives")
            assert alice.data == [(channel, number) for number in numbers(1, 20)]
            assert alice.subscribed[1].recovered
            # A subscription of the server counts where subscribers may do something.
            await alice.client.publish(channel, clients.pack(21))
            await until(lambda: len(alice.data) == 21, "the own publication arrives")
            await until(lambda: alice.joins, "the own join is told")

    run(scenario())


def test_clients_come_back_after_a_restart(clients, server):
    async def scenario():
        channel = fresh("open")
        async with clients.connected("alice") as alice:
            seen = await clients.subscribed(alice, channel)
            await publish_numbers(server, channel, 1, 3)
            await until(lambda: len(seen.data) == 3, "publications arrive")
            server.restart()
            await until(lambda: len(alice.connecting) == 2, "the shutdown is told")
            assert alice.connecting[1].code == 3001
            # The memory engine starts anew, under another epoch. A client may have come back to the old process
            # once more while that was leaving.
            before = seen.subscribed[0].stream_position.epoch
            back = lambda: seen.subscribed[-1].stream_position.epoch != before
            await until(back, "the client is back", 60)
            context = seen.subscribed[-1]
            assert (context.was_recovering, context.recovered) == (True, False)
            await publish_numbers(server, channel, 4, 6)
            await until(lambda: len(seen.data) == 6, "new publications arrive")
            assert seen.data == numbers(1, 6)

    run(scenario())


def test_the_api_acts_on_clients(clients, server):
    async def scenario():
        user, channel, other = fresh("user"), fresh("open"), fresh("open")
        async with clients.connected(user) as events:
            seen = await clients.subscribed(events, channel)
            await asyncio.to_thread(server.api, "unsubscribe", {"user": user, "channel": channel})
            await until(lambda: seen.unsubscribed, "the end of the subscription is told")
            assert (seen.unsubscribed[0].code, seen.unsubscribed[0].reason) == (2000, "server unsubscribe")

            await asyncio.to_thread(server.api, "subscribe", {"user": user, "channel": other})
            await until(lambda: events.subscribed, "the server's subscription is told")
            await asyncio.to_thread(server.publish, other, "hello")
            await until(lambda: events.data, "its publication arrives")
            assert events.data == [(other, "hello")]
            await asyncio.to_thread(server.api, "unsubscribe", {"user": user, "channel": other})
            await until(lambda: events.unsubscribed, "the end of the server's subscription is told")

            await asyncio.to_thread(server.api, "disconnect", {"user": user})
            await until(lambda: events.disconnected, "the disconnect is told")
            assert (events.disconnected[0].code, events.disconnected[0].reason) == (3503, "force disconnect")

    run(scenario())


def test_wrong_and_expired_tokens(clients, server):
    async def scenario():
        for token, code in [("not a token", 3500), ("", 3501)]:
            events = Events(clients)
            client = Client(
                server.websocket, events, token=token, use_protobuf=clients.protobuf, proxy=None
            )
            await client.connect()
            await until(lambda: events.disconnected, "the refusal is told")
            assert events.disconnected[0].code == code

        async def get_token():
            return server.token("alice")

        async with clients.connected("alice", get_token=get_token, exp=1) as alice:
            assert alice.connected

    run(scenario())
