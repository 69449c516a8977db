"""Python `websockets` as a bare WebSocket: texts and bytes, heartbeats, its own reconnecting, and refusals."""

import asyncio
import json

import pytest
import websockets
from websockets.sync.client import connect

from harness import DEADLINE, Server

HEARTBEAT = ("ping", "pong")


@pytest.fixture(scope="module")
def server():
    with Server({"subscribe": {"subprotocols": ["*"]}}) as server:
        yield server


def address(server, topic, **more):
    query = "".join(f"&{name}={value}" for name, value in more.items())
    return f"ws://127.0.0.1:{server.port}/subscribe?topic={topic}{query}"


def bearer(server, user="alice"):
    return {"Authorization": f"Bearer {server.token(user)}"}


def test_texts_and_bytes_go_both_ways(server):
    with connect(address(server, "open:python"), additional_headers=bearer(server)) as socket:
        socket.send(HEARTBEAT[0])
        assert socket.recv(DEADLINE) == HEARTBEAT[1]
        server.publish("open:python", {"a": "ä"})
        assert json.loads(socket.recv(DEADLINE)) == {"a": "ä"}
        socket.send("not JSON")
        assert socket.recv(DEADLINE) == "not JSON"
        newest = server.api("history", {"channel": "open:python", "limit": 1, "reverse": True})["publications"][0]
        assert (newest["data"], newest["tags"], newest["info"]["user"]) == ("not JSON", {"text": "true"}, "alice")
    with connect(address(server, "bytes:python"), additional_headers=bearer(server)) as socket:
        server.api("publish", {"channel": "bytes:python", "b64data": "/wA="})
        assert socket.recv(DEADLINE) == b"\xff\x00"


def test_any_sub_protocol_is_confirmed_but_those_of_the_centrifuge_protocol(server):
    headers = bearer(server)
    with connect(address(server, "plain:x"), additional_headers=headers, subprotocols=["v2.chat"]) as socket:
        assert socket.subprotocol == "v2.chat"
    with pytest.raises(websockets.InvalidStatus) as refused:
        connect(address(server, "plain:x"), additional_headers=headers, subprotocols=["centrifuge-json"])
    assert refused.value.response.status_code == 400
    assert b"/connection/websocket" in refused.value.response.body


def test_a_refusal_says_why(server):
    with pytest.raises(websockets.InvalidStatus) as refused:
        connect(address(server, "token:x"), additional_headers=bearer(server))
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body)["error"]["code"] == 103


def test_it_comes_back_by_itself(server):
    """As its manual says: a loop over `connect` reconnects."""

    async def story():
        received = asyncio.Queue()

        async def listen():
            async for socket in websockets.connect(
                address(server, "open:loop"), additional_headers=bearer(server)
            ):
                await received.put("open")
                try:
                    async for message in socket:
                        await received.put(message)
                except websockets.ConnectionClosed as closed:
                    await received.put(closed.rcvd.code)

        listening = asyncio.create_task(listen())
        try:
            next_one = lambda: asyncio.wait_for(received.get(), 3 * DEADLINE)  # noqa: E731
            assert await next_one() == "open"
            server.publish("open:loop", 1)
            assert await next_one() == "1"
            # The main thread starts servers, and this coroutine is on it.
            server.restart()
            assert await next_one() == 3001
            assert await next_one() == "open"
            server.publish("open:loop", 2)
            assert await next_one() == "2"
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    asyncio.run(story())


def test_a_cursor_of_an_envelope_goes_on_where_it_was(server):
    topic = "open:envelope"
    url = address(server, topic, envelope="json")
    with connect(url, additional_headers=bearer(server)) as socket:
        assert json.loads(socket.recv(DEADLINE))["subscribed"] == [{"topic": topic}]
        server.publish(topic, 1)
        message = json.loads(socket.recv(DEADLINE))
        assert (message["topic"], message["data"], message["offset"]) == (topic, 1, 1)
    server.publish(topic, 2)
    with connect(f"{url}&cursor={message['cursor']}", additional_headers=bearer(server)) as socket:
        assert json.loads(socket.recv(DEADLINE))["subscribed"] == [{"topic": topic, "recovered": True}]
        assert json.loads(socket.recv(DEADLINE))["data"] == 2
        socket.send("not JSON")
        message = json.loads(socket.recv(DEADLINE))
        assert (message["data"], message["tags"], message["info"]["user"]) == ("not JSON", {"text": "true"}, "alice")
