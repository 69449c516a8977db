"""PyPI `cent`, plain HTTP and `curl` against the HTTP API: every method, batches, the pipeline, every refusal."""

import base64
import json
import subprocess
import uuid

import cent
import pytest

from harness import ApiError, RawSocket, Server, get, request, until


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with cent.Client(f"{server.http}/api", server.api_key) as client:
        yield client


@pytest.fixture
def listener(server):
    """A connected WebSocket client with a user of its own, which the tests act on."""
    with RawSocket(server) as listener:
        listener.user = fresh("user")
        listener.id = listener.connect(server, listener.user)["client"]
        yield listener


def fresh(namespace):
    return f"{namespace}:{uuid.uuid4().hex[:12]}"


def subscribe(listener, channel):
    listener.send_commands({"id": 7, "subscribe": {"channel": channel}})
    return listener.read_reply(7)["subscribe"]


def pushes(listener, count):
    """The next pushes but joins and leaves."""
    got = []
    while len(got) < count:
        for reply in listener.read_replies():
            push = reply.get("push")
            if push and "join" not in push and "leave" not in push:
                got.append(push)
    return got


def code_of(call):
    with pytest.raises((cent.CentApiResponseError, ApiError)) as refused:
        call()
    return refused.value.code


class TestCent:
    def test_publish_and_history(self, client, listener):
        channel = fresh("open")
        position = subscribe(listener, channel)
        results = [client.publish(cent.PublishRequest(channel=channel, data={"n": n})) for n in (1, 2, 3)]
        assert [result.offset for result in results] == [1, 2, 3]
        assert {result.epoch for result in results} == {position["epoch"]}
        assert [push["pub"]["data"] for push in pushes(listener, 3)] == [{"n": 1}, {"n": 2}, {"n": 3}]

        history = client.history(cent.HistoryRequest(channel=channel, limit=2))
        assert [publication.data for publication in history.publications] == [{"n": 1}, {"n": 2}]
        assert (history.offset, history.epoch) == (3, position["epoch"])
        since = cent.StreamPosition(offset=2, epoch=history.epoch)
        newer = client.history(cent.HistoryRequest(channel=channel, limit=10, since=since))
        assert [publication.offset for publication in newer.publications] == [3]
        newest = client.history(cent.HistoryRequest(channel=channel, limit=1, reverse=True))
        assert [publication.offset for publication in newest.publications] == [3]
        assert client.history(cent.HistoryRequest(channel=channel)).publications == []
        everything = client.history(cent.HistoryRequest(channel=channel, limit=-1))
        assert len(everything.publications) == 3

        client.history_remove(cent.HistoryRemoveRequest(channel=channel))
        emptied = client.history(cent.HistoryRequest(channel=channel, limit=-1))
        assert (emptied.publications, emptied.offset, emptied.epoch) == ([], 3, history.epoch)

    def test_publish_options(self, client, listener):
        channel = fresh("open")
        subscribe(listener, channel)
        once = cent.PublishRequest(channel=channel, data=1, idempotency_key="key", tags={"color": "red"})
        assert client.publish(once) == client.publish(once)
        skipped = client.publish(cent.PublishRequest(channel=channel, data=2, skip_history=True))
        assert skipped.offset == 0
        encoded = base64.b64encode(b'{"encoded":true}').decode()
        client.publish(cent.PublishRequest(channel=channel, data=None, b64data=encoded))
        first, second, third = (push["pub"] for push in pushes(listener, 3))
        assert (first["data"], first["tags"], first["offset"]) == (1, {"color": "red"}, 1)
        assert second["data"] == 2 and "offset" not in second
        assert (third["data"], third["offset"]) == ({"encoded": True}, 2)

    def test_broadcast(self, client, listener):
        channels = [fresh("open"), "nowhere:x", fresh("plain")]
        subscribe(listener, channels[0])
        result = client.broadcast(cent.BroadcastRequest(channels=channels, data={"to": "all"}))
        first, second, third = result.responses
        assert (first.error, first.result.offset) == (None, 1)
        assert second.error.code == 102
        assert (third.error, third.result.offset) == (None, 0)
        assert pushes(listener, 1)[0]["pub"]["data"] == {"to": "all"}

    def test_presence(self, client, listener):
        channel = fresh("open")
        subscribe(listener, channel)
        presence = client.presence(cent.PresenceRequest(channel=channel)).presence
        assert list(presence) == [listener.id]
        assert presence[listener.id].user == listener.user
        stats = client.presence_stats(cent.PresenceStatsRequest(channel=channel))
        assert (stats.num_clients, stats.num_users) == (1, 1)
        empty = fresh("open")
        assert client.presence(cent.PresenceRequest(channel=empty)).presence == {}

    def test_subscribe_and_unsubscribe(self, client, listener):
        channel = fresh("token")
        client.publish(cent.PublishRequest(channel=channel, data="before"))
        wanted = cent.SubscribeRequest(
            user=listener.user, channel=channel, info={"role": "guest"}, data={"welcome": True}
        )
        client.subscribe(wanted)
        (push,) = pushes(listener, 1)
        assert push["channel"] == channel
        assert push["subscribe"]["data"] == {"welcome": True}
        assert (push["subscribe"]["recoverable"], push["subscribe"]["offset"]) == (True, 1)
        presence = client.presence(cent.PresenceRequest(channel=channel)).presence
        assert presence[listener.id].chan_info == {"role": "guest"}
        client.subscribe(wanted)
        client.unsubscribe(cent.UnsubscribeRequest(user=listener.user, channel=channel))
        push = pushes(listener, 1)[0]
        assert (push["channel"], push["unsubscribe"]["code"]) == (channel, 2000)
        assert client.presence(cent.PresenceRequest(channel=channel)).presence == {}
        # Of a user whom nobody knows, nothing is subscribed and nothing is wrong.
        client.subscribe(cent.SubscribeRequest(user="nobody", channel=channel))
        client.unsubscribe(cent.UnsubscribeRequest(user="nobody", channel=channel))

    def test_subscribe_recovers_and_overrides(self, client, listener):
        channel = fresh("token")
        epoch = [client.publish(cent.PublishRequest(channel=channel, data=n)) for n in (1, 2, 3)][0].epoch
        client.subscribe(
            cent.SubscribeRequest(
                user=listener.user,
                channel=channel,
                client=listener.id,
                recover_since=cent.StreamPosition(offset=1, epoch=epoch),
                override=cent.ChannelOptionsOverride(presence=cent.BoolValue(value=False)),
            )
        )
        subscribed, *publications = pushes(listener, 3)
        assert "subscribe" in subscribed
        assert [push["pub"]["data"] for push in publications] == [2, 3]
        assert client.presence(cent.PresenceRequest(channel=channel)).presence == {}

    def test_refresh_and_disconnect(self, client, server, listener):
        client.refresh(cent.RefreshRequest(user=listener.user, expire_at=4102444800))
        (push,) = pushes(listener, 1)
        assert push["refresh"]["expires"] is True and push["refresh"]["ttl"] > 0
        disconnect = cent.Disconnect(code=4123, reason="bye")
        client.disconnect(cent.DisconnectRequest(user=listener.user, disconnect=disconnect))
        assert listener.read_close() == (4123, "bye")
        with RawSocket(server) as other:
            other.connect(server, listener.user)
            client.refresh(cent.RefreshRequest(user=listener.user, expired=True))
            assert other.read_close() == (3005, "connection expired")

    def test_channels_and_info(self, client, server, listener):
        channel = fresh("open")
        subscribe(listener, channel)
        channels = client.channels(cent.ChannelsRequest()).channels
        assert channels[channel].num_clients == 1
        matching = client.channels(cent.ChannelsRequest(pattern=channel[:-4] + "*")).channels
        assert list(matching) == [channel]
        assert client.channels(cent.ChannelsRequest(pattern="nothing:*")).channels == {}
        (node,) = client.info(cent.InfoRequest()).nodes
        assert node.uid and node.name and node.version
        assert node.num_clients >= 1 and node.num_subs >= 1 and node.num_users >= 1 and node.num_channels >= 1
        until(lambda: client.info(cent.InfoRequest()).nodes[0].uptime >= 1, "the node grows older")

    @pytest.mark.parametrize("parallel", [False, True])
    def test_batch(self, client, parallel):
        channel = fresh("open")
        publish, presence, broadcast, history = client.batch(
            cent.BatchRequest(
                requests=[
                    cent.PublishRequest(channel=channel, data=1),
                    cent.PresenceRequest(channel=channel),
                    cent.BroadcastRequest(channels=[fresh("open"), fresh("plain")], data=2),
                    cent.HistoryRequest(channel=fresh("open"), limit=1),
                ],
                parallel=parallel,
            )
        ).replies
        assert publish.offset == 1
        assert presence.presence == {}
        assert len(broadcast.responses) == 2
        assert history.publications == []

    def test_errors(self, client, server):
        publish = lambda channel: client.publish(cent.PublishRequest(channel=channel, data=1))
        assert code_of(lambda: publish("nowhere:x")) == 102
        assert code_of(lambda: publish("")) == 107
        assert code_of(lambda: publish("object:x")) == 107
        assert code_of(lambda: client.presence(cent.PresenceRequest(channel="plain:x"))) == 108
        assert code_of(lambda: client.presence_stats(cent.PresenceStatsRequest(channel="plain:x"))) == 108
        assert code_of(lambda: client.history(cent.HistoryRequest(channel="plain:x"))) == 108
        since = cent.StreamPosition(offset=1, epoch="other")
        assert code_of(lambda: client.history(cent.HistoryRequest(channel="open:x", since=since))) == 112
        assert code_of(lambda: client.unsubscribe(cent.UnsubscribeRequest(user="x", channel=""))) == 107
        with pytest.raises(cent.CentUnauthorizedError):
            with cent.Client(f"{server.http}/api", "wrong key") as stranger:
                stranger.info(cent.InfoRequest())


class TestHttp:
    def test_keys_open_the_api_in_three_ways(self, server):
        body = b'{"channel":"plain:x","data":1}'
        ask = lambda headers={}, query="": request("POST", f"{server.http}/api/publish{query}", body, headers)
        key = server.api_key
        assert ask({"X-API-Key": key}).json() == {"result": {}}
        assert ask({"Authorization": f"apikey {key}"}).json() == {"result": {}}
        assert ask({"Authorization": f"APIKEY {key}"}).json() == {"result": {}}
        assert ask(query=f"?api_key={key}").json() == {"result": {}}
        for refused in [ask(), ask({"X-API-Key": "wrong"}), ask({"X-API-Key": ""}), ask(query="?api_key=wrong")]:
            assert refused.status == 401
            assert refused.body, "a refusal says why"
        assert ask({"Authorization": f"Bearer {key}"}).status == 401

    def test_bodies_are_exact(self, server):
        channel = fresh("plain")
        answer = server.post("/api/publish", json.dumps({"channel": channel, "data": {}}).encode())
        assert answer.body == b'{"result":{}}'
        assert answer.headers["content-type"].startswith("application/json")
        answer = server.post("/api/publish", b'{"channel":"nowhere:x","data":{}}')
        assert answer.body == b'{"error":{"code":102,"message":"unknown channel"}}'
        answer = server.post("/api/presence", b'{"channel":"open:nobody-is-here"}')
        assert answer.body == b'{"result":{"presence":{}}}'
        answer = server.post("/api/presence_stats", b'{"channel":"open:nobody-is-here"}')
        assert answer.body == b'{"result":{"num_clients":0,"num_users":0}}'
        answer = server.post("/api/disconnect", b'{"user":"nobody"}')
        assert answer.body == b'{"result":{}}'

    def test_unknown_fields_are_ignored(self, server):
        body = json.dumps({"channel": fresh("plain"), "data": 1, "label_filter": {}, "future": [1]}).encode()
        assert server.post("/api/publish", body).json() == {"result": {}}

    @pytest.mark.parametrize("body", [b"", b"hello", b"[]", b"1", b'{"channel":', b'{"channel":1}', b"\xff\xfe{}"])
    def test_bodies_that_cannot_be_read_are_400(self, server, body):
        assert server.post("/api/publish", body).status == 400

    def test_methods_and_paths(self, server):
        headers = {"X-API-Key": server.api_key}
        assert get(f"{server.http}/api/publish", headers).status == 405
        assert request("PUT", f"{server.http}/api/publish", b"{}", headers).status == 405
        unknown = server.post("/api/no_such_method", b"{}")
        assert unknown.status == 404 or unknown.json()["error"]["code"] == 104
        assert server.post("/api/rpc", b'{"method":"x","params":{}}').json()["error"]["code"] == 104

    def test_errors_as_statuses(self, server):
        transport = {"X-Centrifugo-Error-Mode": "transport"}
        cases = [
            ("publish", {"channel": "nowhere:x", "data": 1}, 404, 102),
            ("publish", {"channel": "", "data": 1}, 400, 107),
            ("presence", {"channel": "plain:x"}, 400, 108),
            ("history", {"channel": "open:x", "since": {"offset": 1, "epoch": "other"}}, 416, 112),
        ]
        for method, params, status, code in cases:
            answer = server.post(f"/api/{method}", json.dumps(params).encode(), transport)
            assert (answer.status, answer.json()["code"]) == (status, code), method
            assert "error" not in answer.json()

    def test_versions_drop_what_is_old(self, server):
        channel = fresh("open")
        assert server.publish(channel, "v5", version=5)["offset"] == 1
        assert server.publish(channel, "v4", version=4)["offset"] == 1
        assert server.publish(channel, "v5 again", version=5)["offset"] == 1
        assert server.publish(channel, "v6", version=6)["offset"] == 2
        assert server.publish(channel, "other epoch", version=1, version_epoch="b")["offset"] == 3
        kept = server.api("history", {"channel": channel, "limit": -1})["publications"]
        assert [publication["data"] for publication in kept] == ["v5", "v6", "other epoch"]

    def test_batch_replies_name_their_method(self, server):
        commands = [
            {"publish": {"channel": fresh("open"), "data": 1}},
            {"publish": {"channel": "nowhere:x", "data": 1}},
            {"disconnect": {"user": "nobody"}},
            {"no_such_method": {}},
            {},
        ]
        answer = server.post("/api/batch", json.dumps({"commands": commands}).encode())
        first, second, third, fourth, fifth = answer.json()["replies"]
        assert first["publish"]["offset"] == 1
        assert second == {"error": {"code": 102, "message": "unknown channel"}}
        assert third == {"disconnect": {}}
        assert fourth["error"]["code"] == fifth["error"]["code"] == 104

    def test_the_api_answers_on_the_internal_port_too(self, server):
        headers = {"X-API-Key": server.api_key}
        answer = request("POST", f"{server.internal}/api/publish", b'{"channel":"plain:x","data":1}', headers)
        assert answer.json() == {"result": {}}

    def test_many_publishers_at_once_keep_one_order_per_topic(self, server, listener):
        channel = fresh("open")
        subscribe(listener, channel)
        # Eight processes of curl, each publishing fifty times over its own connection.
        publishers = []
        for publisher in range(8):
            transfers = []
            for number in range(50):
                body = json.dumps({"channel": channel, "data": [publisher, number]})
                transfers += ["--next"] if transfers else []
                transfers += ["-s", "-S", "--fail", "-o", "/dev/null", "-H", f"X-API-Key: {server.api_key}"]
                transfers += ["--data", body, f"{server.http}/api/publish"]
            publishers.append(subprocess.Popen(["curl", "--noproxy", "*", *transfers]))
        got = [push["pub"] for push in pushes(listener, 400)]
        assert [publisher.wait() for publisher in publishers] == [0] * 8
        assert [publication["offset"] for publication in got] == list(range(1, 401))
        for publisher in range(8):
            own = [number for source, number in (publication["data"] for publication in got) if source == publisher]
            assert own == list(range(50))
        assert len(server.api("history", {"channel": channel, "limit": 10})["publications"]) == 10


class TestPipeline:
    """The legacy endpoint: several commands in one body, answers in the same order, always status 200."""

    def test_commands_are_answered_in_order(self, server):
        channel = fresh("open")
        commands = [
            {"id": 1, "method": "publish", "params": {"channel": channel, "data": {"n": 1}}},
            {"method": "publish", "params": {"channel": channel, "data": {"n": 2}}},
            {"id": 3, "method": "PUBLISH", "params": {"channel": "nowhere:x", "data": 1}},
            {"id": 4, "method": 5, "params": {"channel": channel}},
            {"id": 5, "method": "history", "params": {"channel": channel, "limit": 2}},
        ]
        answer = server.post("/api", "\n".join(map(json.dumps, commands)).encode())
        assert answer.status == 200
        assert not answer.body.endswith(b"\n")
        first, second, third, fourth, fifth = map(json.loads, answer.text.split("\n"))
        assert (first["id"], first["result"]["offset"]) == (1, 1)
        assert "id" not in second and second["result"]["offset"] == 2
        assert third == {"id": 3, "error": {"code": 102, "message": "unknown channel"}}
        assert fourth == {"id": 4, "result": {"num_clients": 0, "num_users": 0}}
        assert [publication["data"] for publication in fifth["result"]["publications"]] == [{"n": 1}, {"n": 2}]

    def test_any_white_space_between_commands(self, server):
        command = json.dumps({"method": 0, "params": {"channel": fresh("plain"), "data": 1}}).encode()
        answer = server.post("/api", b"  " + command + command + b" \r\n\t " + command + b"\n")
        assert [json.loads(line) for line in answer.text.split("\n")] == [{"result": {}}] * 3

    @pytest.mark.parametrize("body", [b"", b"  \n ", b"hello", b'{"method":"no_such_method","params":{}}', b"[]"])
    def test_bodies_that_cannot_be_read_are_400(self, server, body):
        assert server.post("/api", body).status == 400

    def test_it_needs_a_key_too(self, server):
        assert request("POST", f"{server.http}/api", b'{"method":"info","params":{}}', {}).status == 401


def test_on_one_node_a_blocked_user_is_closed_and_kept_out(server):
    with RawSocket(server) as client:
        client.connect(server, "blocked")
        server.api("block_user", {"user": "blocked"})
        assert client.read_close()[0] == 3507
    with RawSocket(server) as client:
        client.send_commands({"id": 1, "connect": {"token": server.token("blocked")}})
        assert client.read_close()[0] == 3507
    server.api("unblock_user", {"user": "blocked"})
    with RawSocket(server) as client:
        client.connect(server, "blocked")


def test_the_api_can_be_kept_to_the_internal_port():
    with Server({"api": {"on": "internal"}}) as server:
        headers, body = {"X-API-Key": server.api_key}, b'{"channel":"plain:x","data":1}'
        assert request("POST", f"{server.http}/api/publish", body, headers).status == 404
        assert request("POST", f"{server.internal}/api/publish", body, headers).status == 200


def test_without_keys_the_api_is_closed_and_names_the_setting():
    with Server({"api": {"keys": []}}) as server:
        answer = request("POST", f"{server.http}/api/info", b"{}", {"X-API-Key": ""})
        assert answer.status == 401
        assert "api.keys" in answer.text
