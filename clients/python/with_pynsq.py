"""pynsq, the official client, on tornado."""

import asyncio

import nsq

from life import NotPublished


class Pynsq:
    def __init__(self, nsqd):
        self.writer = nsq.Writer([nsqd], reconnect_interval=0.5)
        self.readers = []

    @classmethod
    async def open(cls, nsqd):
        library = cls(nsqd)
        while not library.writer.conns:  # it tells nobody when it is connected
            await asyncio.sleep(0.02)
        return library

    async def close(self):
        for reader in self.readers:
            reader.close()

    async def publish(self, topic, body):
        await self._published(self.writer.pub, topic, body)

    async def publish_many(self, topic, bodies):
        await self._published(self.writer.mpub, topic, bodies)

    async def publish_after(self, topic, delay_ms, body):
        await self._published(self.writer.dpub, topic, delay_ms, body)

    async def subscribe(self, topic, channel, lookupd, msg_timeout_ms):
        messages = asyncio.Queue()

        def handle(message):
            message.enable_async()
            messages.put_nowait(message)

        reader = nsq.Reader(
            topic,
            channel,
            message_handler=handle,
            lookupd_http_addresses=[f"http://{lookupd}"],
            lookupd_poll_interval=1,
            max_in_flight=10,
            msg_timeout=msg_timeout_ms / 1000,
        )
        self.readers.append(reader)
        return Consumer(messages)

    async def _published(self, command, *args):
        answer = asyncio.get_running_loop().create_future()

        def handle(_connection, data):
            if not answer.done():
                answer.set_result(data)

        command(*args, callback=handle)
        data = await answer
        if data != b"OK":
            raise NotPublished(repr(data))


class Consumer:
    def __init__(self, messages):
        self.messages = messages

    async def receive(self):
        return Message(await self.messages.get())


class Message:
    def __init__(self, message):
        self.message, self.body, self.attempts = message, message.body, message.attempts

    async def finish(self):
        self.message.finish()

    async def requeue(self, delay_ms):
        # The reader's own back-off would hold up everything else.
        self.message.requeue(backoff=False, time_ms=delay_ms)

    async def touch(self):
        self.message.touch()
