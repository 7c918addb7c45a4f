//! Wakers that are up to something: they call the client that keeps them when they are woken and
//! when they are dropped, and own a publish of it. Under the client's lock that would never end.

use core::future::{Future, pending, ready};
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::{Arc, Mutex, mpsc};
use std::task::Wake;
use std::thread;

use futures_lite::Stream;

use super::by_hand::{ManualRuntime, poll};
use super::producer::{Producer, Publish};
use super::{Consumer, Message, Outcome};

#[test]
fn whoever_waits_for_a_publish_may_call_the_producer() {
    in_time(|| {
        let world = ManualRuntime::default();
        let producer = world.producer();
        // The second one waits for room.
        let taken = producer.publish("topic", "body");
        let waiting = producer.publish("topic", "body");
        let dropped = [producer.publish("topic", "body"), producer.publish("topic", "body")];
        let [mut taken, mut waiting] = [pin!(taken), pin!(waiting)];
        let strangers = || stranger(&producer);
        for future in [&mut taken, &mut waiting] {
            poll_twice(future.as_mut(), strangers);
        }
        for future in dropped {
            poll_twice(Box::pin(future).as_mut(), strangers);
        }
        world.end();
        let outcome = |future: Pin<&mut Publish>| match poll(future, &Waker::noop().clone()) {
            Poll::Ready(Err(error)) => Some(error.outcome()),
            Poll::Ready(Ok(())) | Poll::Pending => None,
        };
        assert_eq!(outcome(taken), Some(Outcome::Unknown));
        assert_eq!(outcome(waiting), Some(Outcome::NotStored));
    });
}

#[test]
fn whoever_waits_for_a_receipt_may_call_the_producer() {
    in_time(|| {
        for is_dropped in [false, true] {
            let world = ManualRuntime::default();
            let producer = world.producer();
            let mut receipt = Box::pin(producer.enqueue("topic", "body").unwrap());
            poll_twice(receipt.as_mut(), || stranger(&producer));
            if is_dropped {
                drop(receipt);
            }
            world.end();
        }
    });
}

#[test]
fn whoever_waits_for_the_end_may_call_the_client() {
    in_time(|| {
        for is_dropped in [false, true] {
            let world = ManualRuntime::default();
            let (producer, consumer) = (world.producer(), world.consumer());
            // So that the end takes its time.
            let receipt = producer.enqueue("topic", "body").unwrap();
            let mut closed = Box::pin(producer.close());
            poll_twice(closed.as_mut(), || stranger(&producer));
            let mut stopped = Box::pin(consumer.stop(Duration::MAX));
            poll(stopped.as_mut(), &listener(&consumer)).is_ready();
            if is_dropped {
                drop((closed, stopped, receipt));
            }
            world.end();
        }
    });
}

#[test]
fn whoever_waits_for_events_may_call_the_client() {
    in_time(|| {
        let world = ManualRuntime::default();
        let (producer, mut consumer) = (world.producer(), world.consumer());
        let (mut heard, mut seen) = (producer.events(), consumer.events());
        let (mut forgotten, mut left) = (producer.events(), consumer.events());
        poll_twice(pin!(heard.next()).as_mut(), || stranger(&producer));
        poll_twice(pin!(seen.next()).as_mut(), || listener(&consumer));
        for _ in 0..2 {
            let (strange, listening) = (stranger(&producer), listener(&consumer));
            assert!(next(&mut forgotten, &strange).is_pending());
            assert!(next(&mut left, &listening).is_pending());
            assert!(next(&mut heard, &strange).is_pending());
            assert!(next(&mut seen, &listening).is_pending());
        }
        drop((forgotten, left));
        // Something happens, and then everything ends.
        assert!(consumer.handle().add_nsqd("b:1") && producer.add_nsqd("b:1"));
        assert!(next(&mut seen, Waker::noop()).is_ready());
        world.end();
        assert!(next(&mut consumer, Waker::noop()).is_ready());
    });
}

#[test]
fn whoever_waits_for_messages_may_call_the_consumer() {
    in_time(|| {
        for is_dropped in [false, true] {
            let world = ManualRuntime::default();
            let mut consumer = world.consumer();
            for _ in 0..2 {
                let strange = listener(&consumer);
                assert!(next(&mut consumer, &strange).is_pending());
            }
            let mut message = Box::pin(consumer.next());
            poll_twice(message.as_mut(), || listener(&consumer));
            let mut work = Box::pin(consumer.for_each_concurrent(1, |_: Message| pending::<()>()));
            poll_twice(work.as_mut(), || listener(&consumer));
            if is_dropped {
                drop((message, work));
                drop(consumer);
            }
            world.end();
        }
    });
}

/// Also the tasks of the client itself: the runtime is the program's choice, and so are its wakers.
#[test]
fn the_runtime_may_call_the_client() {
    in_time(|| {
        let world = ManualRuntime::default();
        let (producer, consumer) = (world.producer(), world.consumer());
        for _ in 0..3 {
            // The drivers, and then the connections that they have begun.
            world.poll_all(|| stranger(&producer));
            world.poll_all(|| listener(&consumer));
        }
        assert!(consumer.handle().add_nsqd("b:1") && producer.add_nsqd("b:1"));
        world.poll_all(|| stranger(&producer));
        assert!(consumer.handle().remove_nsqd("b:1") && producer.remove_nsqd("b:1"));
        world.poll_all(|| listener(&consumer));
        world.end();
    });
}

/// What was dropped is forgotten at once, however many there were.
#[test]
fn a_dropped_future_takes_its_waker_along() {
    let world = ManualRuntime::default();
    let (producer, mut consumer) = (world.producer(), world.consumer());
    let _taken = producer.enqueue("topic", "body").unwrap();
    let (mut heard, mut seen) = (producer.events(), consumer.events());
    let count = Arc::new(Counted);
    let waker = Waker::from(Arc::clone(&count));
    for _ in 0..1000 {
        for future in [
            Box::pin(async { drop(consumer.next().await) }) as Pin<Box<dyn Future<Output = ()>>>,
            Box::pin(consumer.for_each_concurrent(3, |_: Message| ready(()))),
            Box::pin(async { drop(heard.next().await) }),
            Box::pin(async { drop(seen.next().await) }),
            Box::pin(async { drop(producer.publish("topic", "body").await) }),
        ] {
            let mut future = future;
            assert!(poll(future.as_mut(), &waker).is_pending());
        }
    }
    let handle = consumer.handle();
    let mut closing = Box::pin(producer.close());
    let mut stopping = Box::pin(handle.stop(Duration::MAX));
    let receipt = producer.enqueue("topic", "body").err();
    assert!(receipt.is_some());
    assert!(poll(closing.as_mut(), &waker).is_pending());
    let _ = poll(stopping.as_mut(), &waker);
    drop((closing, stopping));
    let _ = next(&mut consumer, &waker);
    drop(consumer);
    assert_eq!(Arc::strong_count(&count), 2, "ours and its waker");
}

struct Counted;

impl Wake for Counted {
    fn wake(self: Arc<Self>) {}
}

/// Calls the producer whenever it can, and owns a publish.
fn stranger(producer: &Producer) -> Waker {
    let mut publish = Box::pin(producer.publish("topic", "body"));
    let _ = poll(publish.as_mut(), Waker::noop());
    let owned = producer.clone();
    let act = move || drop(owned.stats());
    Waker::from(Arc::new(Stranger { act: Box::new(act), _publish: Some(Mutex::new(publish)) }))
}

/// Calls the consumer whenever it can.
fn listener(consumer: &Consumer) -> Waker {
    let handle = consumer.handle();
    let act = move || drop(handle.stats());
    Waker::from(Arc::new(Stranger { act: Box::new(act), _publish: None }))
}

struct Stranger {
    act: Box<dyn Fn() + Send + Sync>,
    _publish: Option<Mutex<Pin<Box<Publish>>>>,
}

impl Wake for Stranger {
    fn wake(self: Arc<Self>) {
        (self.act)();
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        (self.act)();
    }
}

/// Twice, so that the second waker is kept in place of the first.
fn poll_twice<F: Future + ?Sized>(mut future: Pin<&mut F>, waker: impl Fn() -> Waker) {
    for _ in 0..2 {
        assert!(poll(future.as_mut(), &waker()).is_pending());
    }
}

fn next<S: Stream + Unpin>(stream: &mut S, waker: &Waker) -> Poll<Option<S::Item>> {
    Pin::new(stream).poll_next(&mut Context::from_waker(waker))
}

/// On a thread of its own, which is left behind if it hangs.
fn in_time(test: impl FnOnce() + Send + 'static) {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || {
        test();
        sender.send(()).unwrap();
    });
    match receiver.recv_timeout(PATIENCE) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("a waker was called under the lock"),
        _ => thread.join().unwrap(),
    }
}

const PATIENCE: Duration = Duration::from_secs(60);
