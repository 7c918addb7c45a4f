//! Consuming.

use core::cell::Cell;
use core::convert::Infallible;
use core::panic::AssertUnwindSafe;
use core::pin::pin;
use core::time::Duration;
use std::sync::mpsc;

use futures_lite::future::{poll_once, yield_now, zip};
use futures_lite::{FutureExt, StreamExt};
use sansq_runtime::Signal;
use sansq_runtime::client::{
    AnswerError, ConsumerConfig, ConsumerEvent, ConsumerOptions, Message, ProducerConfig,
    SetupError,
};

use super::super::client::PATIENCE;
use super::super::{options, start, start_lookupd};
use super::broker::{Broker, Peer};
use super::{BAD_ADDRESSES, GRACE, channel, producer, publish, quick};
use crate::harness::{self, Server, block_on};

#[test]
fn messages_come_are_finished_and_do_not_come_again() {
    let server = start(2);
    block_on(async {
        let sent: Vec<_> = (0..50).map(|n| n.to_string()).collect();
        let bodies: Vec<_> = sent.iter().map(String::as_str).collect();
        let mut consumer = harness::consumer(channel(&server, "round").max_in_flight(7));
        publish(&server, "round", &bodies).await;
        let mut received = Vec::new();
        for _ in 0..50 {
            // As a stream, and by itself.
            let message = if received.len() % 2 == 0 {
                StreamExt::next(&mut consumer).await.unwrap()
            } else {
                sansq_runtime::client::Consumer::next(&consumer).await.unwrap()
            };
            assert_eq!((message.attempts(), message.is_exhausted()), (1, false));
            assert_eq!(message.nsqd(), server.tcp_addr().to_string());
            assert!(message.id().iter().all(u8::is_ascii_hexdigit));
            assert!(message.timestamp().0 > 0);
            received.push(text(&message).parse::<u32>().unwrap());
            message.finish().unwrap();
        }
        received.sort_unstable();
        assert!(received.into_iter().eq(0..50));
        consumer.stop(GRACE).await;
        assert!(consumer.next().await.is_none());
        let stats = consumer.stats();
        assert_eq!((stats.received, stats.finished, stats.requeued), (50, 50, 0));
    });
    assert_eq!(depth(&server, "round"), 0);
    server.stop();
}

#[test]
fn a_client_needs_names_and_an_address() {
    block_on(async {
        assert!(matches!(ConsumerConfig::new("a b", "c"), Err(SetupError::Topic(_))));
        assert!(matches!(ConsumerConfig::new("a", ""), Err(SetupError::Channel(_))));
        let nowhere = harness::try_consumer(ConsumerConfig::new("a", "c").unwrap());
        assert_eq!(nowhere.err(), Some(SetupError::NoAddress));
        for (nsqd, error) in BAD_ADDRESSES {
            let bad = ConsumerConfig::new("a", "c").unwrap().nsqd("127.0.0.1:1").nsqd(nsqd);
            let bad = harness::try_consumer(bad).err();
            assert_eq!(bad, Some(SetupError::Nsqd(nsqd.into(), error)));
            let consumer = harness::consumer(ConsumerConfig::new("a", "c").unwrap().nsqd("a:1"));
            assert!(!consumer.handle().add_nsqd(nsqd));
            assert_eq!(consumer.stats().connections.len(), 1);
        }
    });
}

#[test]
fn handlers_run_at_once_up_to_the_limit_and_to_their_end() {
    let server = start(1);
    block_on(async {
        publish(&server, "workers", &["a", "b", "c", "d", "e", "f"]).await;
        let consumer = harness::consumer(channel(&server, "workers").max_in_flight(10));
        let (at_work, most, all) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let last = Signal::default();
        let work = consumer.run(3, async |_| {
            at_work.set(at_work.get() + 1);
            most.set(most.get().max(at_work.get()));
            all.set(all.get() + 1);
            // Nobody gets on before three are here.
            while most.get() < 3 {
                yield_now().await;
            }
            at_work.set(at_work.get() - 1);
            if all.get() == 6 {
                last.ring();
            }
            Ok::<_, Infallible>(())
        });
        let stop = async {
            last.wait().await;
            consumer.stop(GRACE).await;
        };
        zip(work, stop).await;
        assert_eq!((most.get(), all.get()), (3, 6));
        assert_eq!(consumer.stats().finished, 6);
    });
    assert_eq!(depth(&server, "workers"), 0);
    server.stop();
}

#[test]
fn what_fails_comes_again_until_it_does_not_fail() {
    let server = start(1);
    block_on(async {
        publish(&server, "failing", &["a", "b", "c"]).await;
        let mut options = restless();
        // Between two failures nothing is asked for.
        options.backoff_multiplier = Duration::from_millis(1);
        options.max_attempts = 0;
        let consumer = harness::consumer(channel(&server, "failing").options(options));
        let mut events = consumer.events();
        let (done, last) = (Cell::new(0), Signal::default());
        let work = consumer.run(2, async |message: Message| {
            if message.attempts() < 4 {
                return Err("not yet");
            }
            done.set(done.get() + 1);
            if done.get() == 3 {
                last.ring();
            }
            Ok(())
        });
        let stop = async {
            last.wait().await;
            consumer.stop(GRACE).await;
        };
        zip(work, stop).await;
        let stats = consumer.stats();
        assert_eq!((stats.finished, stats.requeued), (3, 9));
        let mut levels = Vec::new();
        while let Some(event) = events.next().await {
            if let ConsumerEvent::Backoff { level, .. } = event {
                levels.push(level);
            }
        }
        assert_eq!(levels.first(), Some(&1));
    });
    server.stop();
}

#[test]
fn a_message_that_is_dropped_comes_again() {
    let server = start(1);
    block_on(async {
        publish(&server, "dropped", &["body"]).await;
        let consumer = harness::consumer(channel(&server, "dropped").options(restless()));
        drop(consumer.next().await.unwrap());
        let again = consumer.next().await.unwrap();
        assert_eq!((text(&again), again.attempts()), (String::from("body"), 2));
        again.requeue_without_backoff(Duration::ZERO).unwrap();
        let again = consumer.next().await.unwrap();
        assert_eq!(again.attempts(), 3);
        again.finish().unwrap();
        consumer.stop(GRACE).await;
        assert_eq!(consumer.stats().backoff_level, 0);
    });
    server.stop();
}

#[test]
fn a_handler_that_panics_gives_back_what_is_being_handled() {
    let server = start(1);
    block_on(async {
        publish(&server, "panic", &["calm", "panic"]).await;
        let mut options = restless();
        options.backoff_multiplier = Duration::from_millis(1);
        let consumer = harness::consumer(channel(&server, "panic").options(options));
        let here = Cell::new(0);
        let both = Signal::default();
        let work = consumer.run(2, async |message: Message| {
            here.set(here.get() + 1);
            if message.body() == "panic" {
                while here.get() < 2 {
                    both.wait().await;
                }
                panic!("on purpose");
            }
            both.ring();
            core::future::pending::<Result<(), Infallible>>().await
        });
        assert!(AssertUnwindSafe(work).catch_unwind().await.is_err());
        let mut again = Vec::new();
        for _ in 0..2 {
            let message = consumer.next().await.unwrap();
            assert_eq!(message.attempts(), 2);
            again.push(text(&message));
            message.finish().unwrap();
        }
        again.sort();
        assert_eq!(again, ["calm", "panic"]);
    });
    server.stop();
}

#[test]
fn what_was_attempted_too_often_is_for_the_hook() {
    let server = start(1);
    block_on(async {
        publish(&server, "dead", &["body"]).await;
        let (tell, told) = mpsc::channel();
        let mut options = restless();
        options.max_attempts = 2;
        let consumer = harness::consumer(channel(&server, "dead").options(options).dead_letter(
            move |message| {
                let tell = tell.clone();
                async move {
                    let letter = (text(&message), message.attempts(), message.is_exhausted());
                    message.finish().unwrap();
                    tell.send(letter).unwrap();
                }
            },
        ));
        for attempts in 1..=2 {
            let message = consumer.next().await.unwrap();
            assert_eq!(message.attempts(), attempts);
        }
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), (String::from("body"), 3, true));
        consumer.stop(GRACE).await;
        assert!(consumer.next().await.is_none());
    });
    assert_eq!(depth(&server, "dead"), 0);
    server.stop();
}

#[test]
fn stopping_waits_for_answers_and_gives_back_the_rest() {
    let server = start(1);
    block_on(async {
        publish(&server, "stop", &["a", "b", "c"]).await;
        let consumer = harness::consumer(channel(&server, "stop").options(restless()));
        let held = consumer.next().await.unwrap();
        let mut stop = pin!(consumer.stop(GRACE));
        assert_eq!(poll_once(&mut stop).await, None);
        assert!(consumer.next().await.is_none());
        let kept = text(&held);
        held.finish().unwrap();
        stop.await;
        let next = harness::consumer(channel(&server, "stop").options(restless()));
        let mut others = Vec::new();
        for _ in 0..2 {
            let message = next.next().await.unwrap();
            others.push(text(&message));
            message.finish().unwrap();
        }
        others.push(kept);
        others.sort();
        assert_eq!(others, ["a", "b", "c"]);
        next.stop(GRACE).await;
    });
    assert_eq!(depth(&server, "stop"), 0);
    server.stop();
}

#[test]
fn at_the_end_of_the_grace_messages_go_back() {
    let server = start(1);
    block_on(async {
        publish(&server, "grace", &["body"]).await;
        let consumer = harness::consumer(channel(&server, "grace"));
        let held = consumer.next().await.unwrap();
        consumer.stop(Duration::from_millis(1)).await;
        assert!(held.finish().is_err());
        let consumer = harness::consumer(channel(&server, "grace"));
        assert_eq!(consumer.next().await.unwrap().attempts(), 2);
    });
    server.stop();
}

#[test]
fn a_consumer_that_is_dropped_gives_back_what_nobody_has() {
    let server = start(1);
    block_on(async {
        publish(&server, "drop", &["a", "b"]).await;
        let consumer = harness::consumer(channel(&server, "drop").options(restless()));
        let held = consumer.next().await.unwrap();
        let kept = text(&held);
        drop(consumer);
        let next = harness::consumer(channel(&server, "drop").options(restless()));
        let other = next.next().await.unwrap();
        assert_ne!(text(&other), kept);
        other.finish().unwrap();
        held.finish().unwrap();
        next.stop(GRACE).await;
    });
    assert_eq!(depth(&server, "drop"), 0);
    server.stop();
}

#[test]
fn pausing_and_touching_are_what_the_nsqd_sees() {
    let (address, broker) = Broker::run(|broker| {
        let mut peer = subscribed(&broker);
        let mut seen = vec![peer.command()];
        peer.frame(2, b"\0\0\0\0\0\0\0\x01\0\x01abcdefghijklmnopbody");
        seen.extend((0..4).map(|_| peer.command()));
        seen
    });
    block_on(async {
        let config = ConsumerConfig::new("topic", "channel").unwrap().nsqd(address);
        let consumer = harness::consumer(config.max_in_flight(3));
        let message = consumer.next().await.unwrap();
        message.touch().unwrap();
        message.finish().unwrap();
        let handle = consumer.handle();
        handle.pause();
        handle.resume();
        // What follows from both at once may be nothing.
        handle.change_max_in_flight(2);
        handle.pause();
        assert_eq!(
            broker.join().unwrap(),
            ["RDY 3", "TOUCH abcdefghijklmnop", "FIN abcdefghijklmnop", "RDY 0", "RDY 3"]
        );
    });
}

#[test]
fn two_that_wait_get_one_message_each() {
    let server = start(1);
    block_on(async {
        let consumer = harness::consumer(channel(&server, "two").max_in_flight(2));
        let take = async || text(&consumer.next().await.unwrap());
        let both = zip(take(), take());
        let ((first, second), ()) = zip(both, publish(&server, "two", &["a", "b"])).await;
        let mut both = [first, second];
        both.sort();
        assert_eq!(both, ["a", "b"]);
    });
    server.stop();
}

#[test]
fn nsqlookupd_says_where_to_consume_and_to_publish() {
    let lookupd = start_lookupd();
    let mut options = options(2);
    options.config.lookupd_tcp_addresses = vec![lookupd.tcp_addr().to_string()];
    let server = Server::nsqd(options).unwrap();
    let directory = lookupd.http_addr().unwrap().to_string();
    block_on(async {
        let mut often = quick();
        often.lookupd.poll_interval = Duration::from_millis(10);
        let config = ProducerConfig::new().nsqlookupd(&directory).options(often);
        let producer = harness::producer(config);
        producer.publish("found", "body").await.unwrap();
        let mut options = restless();
        options.lookupd_poll_interval = Duration::from_millis(10);
        let config = ConsumerConfig::new("found", "channel").unwrap();
        let consumer = harness::consumer(config.nsqlookupd(&directory).options(options));
        let message = consumer.next().await.unwrap();
        assert_eq!(message.nsqd(), server.tcp_addr().to_string());
        message.finish().unwrap();
        consumer.stop(GRACE).await;
    });
    server.stop();
    lookupd.stop();
}

#[test]
fn a_consumer_outlives_a_restart_of_its_nsqd() {
    let server = start(1);
    let address = server.tcp_addr();
    block_on(async {
        publish(&server, "again", &["before"]).await;
        let consumer = harness::consumer(channel(&server, "again").options(restless()));
        let mut events = consumer.events();
        let message = consumer.next().await.unwrap();
        server.stop();
        while !matches!(events.next().await, Some(ConsumerEvent::Disconnected { .. })) {}
        assert_eq!(message.finish(), Err(AnswerError::ConnectionLost));
        let mut options = options(1);
        options.tcp_address = address.to_string();
        let server = Server::nsqd(options).unwrap();
        producer(address).publish("again", "after").await.unwrap();
        let message = consumer.next().await.unwrap();
        assert_eq!(text(&message), "after");
        message.finish().unwrap();
        consumer.stop(GRACE).await;
        server.stop();
    });
}

#[test]
fn a_whole_consumer_moves_to_another_task() {
    let server = start(1);
    block_on(async {
        publish(&server, "spawn", &["a", "b"]).await;
        let (tell, told) = mpsc::channel();
        let consumer = harness::consumer(channel(&server, "spawn").options(restless()));
        let handle = consumer.handle();
        harness::spawn(async move {
            consumer
                .run(2, move |message| {
                    let tell = tell.clone();
                    async move {
                        tell.send(text(&message)).unwrap();
                        Ok::<_, Infallible>(())
                    }
                })
                .await;
        });
        let mut bodies = [0; 2].map(|_| told.recv_timeout(PATIENCE).unwrap());
        bodies.sort();
        assert_eq!(bodies, ["a", "b"]);
        handle.stop(GRACE).await;
        assert_eq!(handle.stats().finished, 2);
    });
    server.stop();
}

/// Requeues that come at once, and redials that come soon.
fn restless() -> ConsumerOptions {
    ConsumerOptions {
        max_in_flight: 5,
        default_requeue_delay: Duration::ZERO,
        redial_min: Duration::from_millis(1),
        redial_max: Duration::from_millis(20),
        ..ConsumerOptions::default()
    }
}

/// A connection that has subscribed.
fn subscribed(broker: &Broker) -> Peer {
    let mut peer = broker.accept();
    assert_eq!(peer.command(), "SUB topic channel");
    peer.ok();
    peer
}

fn text(message: &Message) -> String {
    String::from_utf8(message.body().to_vec()).unwrap()
}

/// How many messages the topic's channel has, in memory and in flight, according to the server.
fn depth(server: &Server, topic: &str) -> u64 {
    let target = format!("/stats?format=json&topic={topic}");
    let answer = super::super::http::get(server.http_addr().unwrap(), &target);
    let number = |key: &str| -> u64 {
        let key = format!("\"{key}\":");
        let counts = answer.split(&key).skip(1);
        counts.map(|rest| rest.split([',', '}']).next().unwrap().parse::<u64>().unwrap()).sum()
    };
    number("depth") + number("in_flight_count") + number("deferred_count")
}
