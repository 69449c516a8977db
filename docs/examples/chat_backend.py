"""The backend of a chat: it decides who connects, who enters a room, and what is written there. docs/hooks.md explains it.

    pip install aiohttp
    SIGNATURE_SECRET=5f0c8d1e7b3a49c2a6e4f1d09b8c7a35 python chat_backend.py

What it keeps in memory, an application keeps in its database.
"""

import hmac
import os
import re
import secrets
import time

from aiohttp import web

PORT = int(os.environ.get("PORT", 8100))
SIGNATURE_SECRET = os.environ["SIGNATURE_SECRET"].encode()
# Credentials end after so many seconds, and are then asked about again.
LIFETIME = int(os.environ.get("LIFETIME", 60))
SESSION_SECRET = os.environ.get("SESSION_SECRET", secrets.token_hex()).encode()

USERS = {
    "ann": {"password": "ann-1", "name": "Ann", "role": "moderator"},
    "bob": {"password": "bob-1", "name": "Bob", "role": "guest"},
}
rooms = {"chat:lobby": {"ann", "bob"}, "chat:staff": {"ann"}}
signed_out = set()
messages = []
typing = {}

routes = web.RouteTableDef()


def hexmac(secret, content):
    return hmac.new(secret, content, "sha256").hexdigest()


def expiry():
    return int(time.time()) + LIFETIME


def error(code, message):
    return web.json_response({"error": {"code": code, "message": message}})


def result(**fields):
    return web.json_response({"result": fields})


def user_of(request):
    """The user of a session cookie, which is `sid=USER.SIGNATURE`."""
    user, _, signature = request.cookies.get("sid", "").partition(".")
    known = user in USERS and user not in signed_out
    good = hmac.compare_digest(signature.encode(), hexmac(SESSION_SECRET, user.encode()).encode())
    return user if known and good else None


@web.middleware
async def signed(request, handler):
    """Refuses calls of hooks that the gateway did not sign, or not in the last five minutes."""
    if not request.path.startswith("/hooks/"):
        return await handler(request)
    fields = [field.partition("=") for field in request.headers.get("Fanwire-Signature", "").split(",")]
    sent_at = next((value for name, _, value in fields if name == "t"), "")
    recent = sent_at.isdecimal() and abs(time.time() - int(sent_at)) < 300
    expected = hexmac(SIGNATURE_SECRET, f"{sent_at}.".encode() + await request.read())
    # There are two while the secret is replaced.
    given = [value for name, _, value in fields if name == "v1"]
    if not recent or not any(hmac.compare_digest(value.encode(), expected.encode()) for value in given):
        raise web.HTTPForbidden()
    return await handler(request)


@routes.post("/hooks/connect")
async def connect(request):
    user = user_of(request)
    if user is None:
        # 4500 to 4999: the client does not come back by itself.
        return web.json_response({"disconnect": {"code": 4501, "reason": "sign in first"}})
    return result(
        user=user,
        expire_at=expiry(),
        info={"name": USERS[user]["name"]},
        data={"rooms": [room for room, members in rooms.items() if user in members]},
        channels=["news:all"],
        meta={"role": USERS[user]["role"]},
    )


@routes.post("/hooks/refresh")
async def refresh(request):
    question = await request.json()
    return result(expired=True) if question["user"] in signed_out else result(expire_at=expiry())


@routes.post("/hooks/subscribe")
async def subscribe(request):
    question = await request.json()
    room = question["channel"]
    if question["user"] not in rooms.get(room, ()):
        return error(403, "you are not in this room")
    return result(expire_at=expiry(), data={"count": sum(message["room"] == room for message in messages)})


@routes.post("/hooks/sub_refresh")
async def sub_refresh(request):
    question = await request.json()
    is_member = question["user"] in rooms.get(question["channel"], ())
    return result(expire_at=expiry()) if is_member else result(expired=True)


@routes.post("/hooks/publish")
async def publish(request):
    question = await request.json()
    user, room, data = question["user"], question["channel"], question.get("data")
    if user not in rooms.get(room, ()):
        return error(403, "you are not in this room")
    if not isinstance(data, dict) or not isinstance(data.get("text"), str):
        return error(422, "a message has a text")
    if "buy now" in data["text"].lower() and question.get("meta", {}).get("role") != "moderator":
        return error(422, "no advertising here")
    text = re.sub("damn", "****", data["text"], flags=re.IGNORECASE)
    message = {"id": len(messages) + 1, "user": user, "text": text}
    messages.append({"room": room, **message})
    return result(data=message, tags={"kind": "message"})


@routes.post("/hooks/rpc")
async def rpc(request):
    question = await request.json()
    user, room = question["user"], (question.get("data") or {}).get("room")
    match question["method"]:
        case "messages" if user in rooms.get(room, ()):
            return result(data=[message for message in messages if message["room"] == room])
        case "messages":
            return error(403, "you are not in this room")
        case "typing":
            return result(data=typing)
        case "leave":
            rooms.get(room, set()).discard(user)
            return result()
        case _:
            return error(404, "there is no such method")


@routes.post("/hooks/send")
async def send(request):
    question = await request.json()
    if "typing" in (question.get("data") or {}):
        typing[question["user"]] = question["data"]["typing"]
    return result()


@routes.post("/login")
async def login(request):
    given = await request.json()
    user = given.get("user")
    if user not in USERS or USERS[user]["password"] != given.get("password"):
        raise web.HTTPUnauthorized()
    signed_out.discard(user)
    response = web.Response()
    cookie = f"{user}.{hexmac(SESSION_SECRET, user.encode())}"
    response.set_cookie("sid", cookie, httponly=True, samesite="Lax")
    return response


@routes.post("/logout")
async def logout(request):
    signed_out.add(user_of(request))
    response = web.Response()
    response.del_cookie("sid")
    return response


app = web.Application(middlewares=[signed])
app.add_routes(routes)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=PORT)
