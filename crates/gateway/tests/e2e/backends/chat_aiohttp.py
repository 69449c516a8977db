"""The backend of a chat: it says who connects, who may enter a room, and keeps what is written there.

python chat_aiohttp.py PORT
"""

import sys
import time

from aiohttp import web

SESSIONS = {"s-ann": "ann", "s-bob": "bob"}
ROOMS = {"room:lobby": {"ann", "bob"}, "room:staff": {"ann"}}

messages = []
left = []
routes = web.RouteTableDef()


def result(**fields):
    return web.json_response({"result": fields})


def error(code, message, temporary=False):
    return web.json_response({"error": {"code": code, "message": message, "temporary": temporary}})


@routes.post("/connect")
async def connect(request):
    call = await request.json()
    assert call["encoding"] == "json" and "user" not in call
    user = SESSIONS.get(request.cookies.get("session")) or call.get("data", {}).get("name")
    if user is None:
        return web.json_response({"disconnect": {"code": 4501, "reason": "sign in first"}})
    return result(
        user=user,
        info={"name": user.title()},
        data={
            "rooms": sorted(room for room, members in ROOMS.items() if user in members),
            "cookies": sorted(request.cookies),
        },
        channels=["room:lobby"],
        expire_at=int(time.time()) + 2 if user == "short" else 0,
    )


@routes.post("/refresh")
async def refresh(request):
    call = await request.json()
    left.append(call["user"])
    if left.count(call["user"]) > 1:
        return result(expired=True)
    return result(expire_at=int(time.time()) + 2)


@routes.post("/subscribe")
async def subscribe(request):
    call = await request.json()
    if call["user"] not in ROOMS.get(call["channel"], ()):
        return error(403, f"{call['user']} is not in this room")
    return result(info={"since": call.get("data")}, data={"topic": "cats"})


@routes.post("/publish")
async def publish(request):
    call = await request.json()
    text = call["data"]["text"]
    if "spam" in text:
        return error(1001, "no spam, please")
    if text == "leave":
        return web.json_response({"disconnect": {"code": 4502, "reason": "you asked for it"}})
    message = {"id": len(messages) + 1, "text": text.replace("damn", "d***")}
    messages.append((call["user"], call["channel"], message))
    return result(data=message, tags={"kind": "message"})


@routes.post("/rpc")
async def rpc(request):
    call = await request.json()
    if call["method"] == "count":
        return result(data={"count": len(messages), "asked": call.get("data")})
    return error(404, "there is no such method")


if __name__ == "__main__":
    app = web.Application()
    app.add_routes(routes)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
