//! Deadlines on threads that come to them late: the driver's task runs before that of a connection
//! to which something has come.

use core::future::Future;
use core::pin::Pin;
use core::task::{Poll, Waker};
use core::time::Duration;
use std::thread;
use std::time::Instant;

use sansq_core::client::ConsumerOptions;

use super::by_hand::{ManualRuntime, poll};
use super::{Consumer, Publish};

/// The tasks of a client with one connection.
const DRIVER: usize = 0;
const CONNECTION: usize = 1;

#[test]
fn what_has_arrived_is_read_before_a_server_is_found_silent() {
    let (world, consumer) = silent();
    world.say(0, b"_heartbeat_");
    run(&world, DRIVER);
    assert!(is_subscribed(&consumer), "it was not asked whether something has come");
    run(&world, CONNECTION);
    assert!(is_subscribed(&consumer));
}

#[test]
fn a_server_that_is_silent_is_left() {
    let (world, consumer) = silent();
    run(&world, DRIVER);
    assert!(is_subscribed(&consumer));
    run(&world, CONNECTION);
    run(&world, DRIVER);
    assert!(!is_subscribed(&consumer));
    let errors = &consumer.stats().connections[0].errors;
    assert_eq!(errors.by_code.get("read_timeout"), Some(&1), "{errors:?}");
}

#[test]
fn a_connection_whose_thread_is_blocked_is_not_judged() {
    let (world, consumer) = silent();
    ManualRuntime::let_time_be_up();
    for _ in 0..3 {
        run(&world, DRIVER);
    }
    assert!(is_subscribed(&consumer));
}

/// Its answer is there, although nobody has read it in time.
#[test]
fn an_answer_that_has_arrived_is_read_before_a_publish_is_late() {
    let world = ManualRuntime::default();
    let producer = world.producer();
    run(&world, DRIVER);
    world.say(0, b"OK");
    run(&world, CONNECTION);
    let time = Duration::from_millis(5);
    let mut publish = Box::pin(producer.publish("topic", "body").within(time));
    assert!(poll_publish(&mut publish).is_pending());
    run(&world, CONNECTION);
    pass(2 * time);
    world.say(0, b"OK");
    run(&world, DRIVER);
    assert!(poll_publish(&mut publish).is_pending());
    run(&world, CONNECTION);
    assert_eq!(poll_publish(&mut publish), Poll::Ready(Ok(())));
}

/// A publish's time is the caller's: it ends also while the connection's task is stuck.
#[test]
fn a_publish_does_not_wait_for_a_thread_that_is_blocked() {
    let world = ManualRuntime::default();
    let producer = world.producer();
    run(&world, DRIVER);
    world.say(0, b"OK");
    run(&world, CONNECTION);
    let time = Duration::from_millis(5);
    let mut publish = Box::pin(producer.publish("topic", "body").within(time));
    assert!(poll_publish(&mut publish).is_pending());
    run(&world, CONNECTION);
    pass(2 * time);
    ManualRuntime::let_time_be_up();
    run(&world, DRIVER);
    assert!(matches!(poll_publish(&mut publish), Poll::Ready(Err(_))));
    assert_eq!(producer.stats().connected, 1);
}

/// As under tokio's paused time, where a sleep is over when there is nothing else to do.
#[test]
fn time_that_stands_still_makes_nobody_spin() {
    let world = ManualRuntime::default();
    let (_producer, _consumer) = (world.producer(), world.consumer());
    ManualRuntime::let_time_be_up();
    for _ in 0..3 {
        world.poll_all(|| Waker::noop().clone());
    }
    assert!(ManualRuntime::sleeps() <= 8, "{}", ManualRuntime::sleeps());
}

/// A consumer whose server has said nothing for too long; nobody has noticed yet.
fn silent() -> (ManualRuntime, Consumer) {
    let world = ManualRuntime::default();
    let mut options = ConsumerOptions::default();
    let time = Duration::from_millis(5);
    options.connection.heartbeat_interval = Some(time);
    options.connection.read_timeout = time;
    let consumer = world.consumer_with(options);
    run(&world, DRIVER);
    for _ in ["IDENTIFY", "SUB"] {
        world.say(0, b"OK");
        run(&world, CONNECTION);
    }
    assert!(is_subscribed(&consumer));
    // The driver sleeps until the deadline, and wakes behind it.
    pass(2 * time);
    (world, consumer)
}

fn is_subscribed(consumer: &Consumer) -> bool {
    consumer.stats().connections[0].is_subscribed
}

fn run(world: &ManualRuntime, task: usize) {
    world.poll_at(task, Waker::noop());
}

fn poll_publish(publish: &mut Pin<Box<Publish>>) -> Poll<<Publish as Future>::Output> {
    poll(publish.as_mut(), Waker::noop())
}

/// The clients' clock is the real one.
fn pass(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        thread::yield_now();
    }
}
