"""The life of a message, as a client library sees it. Every library goes through the same steps.

A library is given as an object with these coroutines:

    publish(topic, body), publish_many(topic, bodies), publish_after(topic, delay_ms, body)
    subscribe(topic, channel, lookupd, msg_timeout_ms) -> consumer

where a consumer has `receive()`, which returns a message with `body`, `attempts` and the coroutines `finish()`,
`requeue(delay_ms)` and `touch()`. `publish...` raise NotPublished if the message was not accepted.
"""

import asyncio
import time

from servers import PATIENCE


class NotPublished(Exception):
    """The server refused a message, or can't be reached."""


async def live(library, servers):
    """Goes through every step; raises AssertionError at the first that goes wrong."""
    for step in (publish, publish_many, publish_after, requeue, time_out, touch, reconnect):
        began = time.monotonic()
        await asyncio.wait_for(step(library, servers), 4 * PATIENCE)
        print(f"   ok {step.__name__} ({time.monotonic() - began:.1f} s)", flush=True)


async def publish(library, servers):
    """PUB, found through nsqlookupd, FIN."""
    await library.publish("published", b"one")
    consumer = await subscribe(library, servers, "published")
    await expect(consumer, b"one")
    # Now with the consumer there, and with every byte that there is.
    await library.publish("published", bytes(range(256)))
    await expect(consumer, bytes(range(256)))
    await settled(servers, "published", message_count=2, requeue_count=0, timeout_count=0)


async def publish_many(library, servers):
    """MPUB: all of them arrive, each once."""
    bodies = [f"message {i}".encode() for i in range(100)]
    await library.publish_many("many", bodies)
    consumer = await subscribe(library, servers, "many")
    missing = set(bodies)
    while missing:
        message = await receive(consumer)
        assert message.attempts == 1, message.attempts
        missing.remove(message.body)
        await message.finish()
    await settled(servers, "many", message_count=100, requeue_count=0, timeout_count=0)


async def publish_after(library, servers):
    """DPUB: later than what was published after it, and not too early."""
    began = time.monotonic()
    await library.publish_after("deferred", 1500, b"later")
    await library.publish("deferred", b"now")
    consumer = await subscribe(library, servers, "deferred")
    await expect(consumer, b"now")
    await expect(consumer, b"later")
    assert time.monotonic() - began >= 1.5, "deferred for too short a time"
    await settled(servers, "deferred", message_count=2)


async def requeue(library, servers):
    """REQ without and with a delay: the same message again, with one attempt more."""
    await library.publish("requeued", b"again")
    consumer = await subscribe(library, servers, "requeued")
    message = await receive(consumer)
    assert (message.body, message.attempts) == (b"again", 1)
    await message.requeue(0)
    message = await receive(consumer)
    assert (message.body, message.attempts) == (b"again", 2)
    began = time.monotonic()
    await message.requeue(1000)
    await expect(consumer, b"again", attempts=3)
    assert time.monotonic() - began >= 1.0, "requeued for too short a time"
    await settled(servers, "requeued", message_count=1, requeue_count=2, timeout_count=0)


async def time_out(library, servers):
    """A message that is not answered for comes again."""
    await library.publish("timed-out", b"forgotten")
    consumer = await subscribe(library, servers, "timed-out", msg_timeout_ms=1000)
    message = await receive(consumer)
    assert (message.body, message.attempts) == (b"forgotten", 1)
    await expect(consumer, b"forgotten", attempts=2)
    await settled(servers, "timed-out", message_count=1, requeue_count=0, timeout_count=1)


async def touch(library, servers):
    """TOUCH keeps a message for longer than its timeout."""
    await library.publish("touched", b"slow")
    consumer = await subscribe(library, servers, "touched", msg_timeout_ms=3000)
    message = await receive(consumer)
    for _ in range(8):
        await asyncio.sleep(0.5)  # the work that takes so long
        await message.touch()
    await message.finish()
    await settled(servers, "touched", message_count=1, requeue_count=0, timeout_count=0)


async def reconnect(library, servers):
    """Publisher and consumer find their way back after both servers were restarted."""
    await library.publish("reconnected", b"before")
    consumer = await subscribe(library, servers, "reconnected")
    await expect(consumer, b"before")
    await settled(servers, "reconnected", message_count=1)
    await asyncio.to_thread(servers.restart)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            await library.publish("reconnected", b"after")
            break
        except NotPublished:
            # When the publisher tries again is its own affair.
            assert time.monotonic() < deadline, "the publisher does not come back"
            await asyncio.sleep(0.1)
    message = await receive(consumer)
    assert message.body == b"after", message.body
    await message.finish()
    await settled(servers, "reconnected")


CHANNEL = "channel"


async def subscribe(library, servers, topic, msg_timeout_ms=60_000):
    return await library.subscribe(topic, CHANNEL, servers.nsqlookupd.http, msg_timeout_ms)


async def expect(consumer, body, attempts=1):
    message = await receive(consumer)
    assert (message.body, message.attempts) == (body, attempts), (message.body, message.attempts)
    await message.finish()


async def receive(consumer):
    return await asyncio.wait_for(consumer.receive(), PATIENCE)


async def settled(servers, topic, **expected):
    """Every message is finished, and the figures are these."""
    nothing_left = {"depth": 0, "in_flight_count": 0, "deferred_count": 0}
    await asyncio.to_thread(servers.wait_for_stats, topic, CHANNEL, **nothing_left, **expected)
