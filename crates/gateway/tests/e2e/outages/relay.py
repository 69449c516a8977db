"""Stands between a node and its Redis, and does something to the connection for subscriptions alone."""

import asyncio
import contextlib
import threading


class Relay:
    """Passes everything on, but what a subscription connection is sent arrives `lag_seconds` later, in order, and while
    `cuts_subscribers` there is none."""

    def __init__(self, redis, lag_seconds=0.0):
        self.redis, self.lag_seconds = redis, lag_seconds
        self.cuts_subscribers = False

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.server = self.call(asyncio.start_server(self.serve, "127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_):
        self.call(self.end())
        self.loop.call_soon_threadsafe(self.loop.stop)

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    async def end(self):
        self.server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def serve(self, from_node, to_node):
        from_redis, to_redis = await asyncio.open_connection("127.0.0.1", self.redis.port)
        is_subscriber = asyncio.Event()
        late = asyncio.Queue()

        async def ask():
            while asked := await from_node.read(1 << 16):
                if b"SUBSCRIBE" in asked:
                    is_subscriber.set()
                    if self.cuts_subscribers:
                        return
                to_redis.write(asked)
                await to_redis.drain()

        async def listen():
            while answer := await from_redis.read(1 << 16):
                delay = self.lag_seconds if is_subscriber.is_set() else 0
                late.put_nowait((self.loop.time() + delay, answer))

        async def answer():
            while True:
                due, answer = await late.get()
                await asyncio.sleep(due - self.loop.time())
                to_node.write(answer)
                await to_node.drain()

        # Whichever end closes first, the other learns of it.
        tasks = [asyncio.create_task(each()) for each in (ask, listen, answer)]
        with contextlib.closing(to_node), contextlib.closing(to_redis), contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
