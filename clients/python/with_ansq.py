"""ansq, the asyncio client."""

import ansq

from life import NotPublished


class Ansq:
    def __init__(self, writer):
        self.writer = writer
        self.readers = []

    @classmethod
    async def open(cls, nsqd):
        # ansq 0.3.0 loses count of its answers if something is published after a connection was lost and before its own
        # reconnecting has noticed. So it is told to reconnect, by the method that it has for that.
        options = ansq.ConnectionOptions(auto_reconnect=False)
        return cls(await ansq.create_writer(nsqd_tcp_addresses=[nsqd], connection_options=options))

    async def close(self):
        for reader in self.readers:
            await reader.close()
        await self.writer.close()

    async def publish(self, topic, body):
        await self._published(self.writer.pub, topic, body)

    async def publish_many(self, topic, bodies):
        await self._published(self.writer.mpub, topic, *bodies)

    async def publish_after(self, topic, delay_ms, body):
        await self._published(self.writer.dpub, topic, body, delay_ms)

    async def subscribe(self, topic, channel, lookupd, msg_timeout_ms):
        features = ansq.ConnectionFeatures(msg_timeout=msg_timeout_ms)
        reader = await ansq.create_reader(
            topic=topic,
            channel=channel,
            lookupd_http_addresses=[lookupd],
            lookupd_poll_interval=200,
            connection_options=ansq.ConnectionOptions(features=features),
        )
        self.readers.append(reader)
        return Consumer(reader)

    async def _published(self, command, *args):
        (connection,) = self.writer.connections
        try:
            if not connection.is_connected:
                await connection.reconnect()
            answer = await command(*args)
        except Exception as error:
            raise NotPublished from error
        if not answer.is_ok:
            raise NotPublished(answer.text)


class Consumer:
    def __init__(self, reader):
        self.reader = reader

    async def receive(self):
        message = None
        while message is None:  # None: a connection was closed
            message = await self.reader.wait_for_message()
        return Message(message)


class Message:
    def __init__(self, message):
        self.message, self.body, self.attempts = message, message.body, message.attempts

    async def finish(self):
        await self.message.fin()

    async def requeue(self, delay_ms):
        await self.message.req(delay_ms)

    async def touch(self):
        await self.message.touch()
