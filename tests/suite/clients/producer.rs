//! Publishing.

use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Waker};
use core::time::Duration;
use std::sync::{Arc, mpsc};
use std::task::Wake;

use futures_lite::future::poll_once;
use sansq_runtime::client::{
    NetConfig, Outcome, ProducerConfig, ProducerEvent, PublishError, RetryPolicy, SetupError,
};

use super::super::client::{Client, Frame, PATIENCE};
use super::super::{options, start};
use super::broker::Broker;
use super::{BAD_ADDRESSES, producer, quick};
use crate::harness::{self, Server, block_on};

#[test]
fn each_kind_of_publish_reaches_the_channel() {
    let server = start(2);
    block_on(async {
        let producer = producer(server.tcp_addr());
        producer.publish("kinds", "one").await.unwrap();
        producer.publish_many("kinds", ["two", "three"]).await.unwrap();
        producer.publish_after("kinds", Duration::from_millis(1), "four").await.unwrap();
        producer.enqueue("kinds", "five").unwrap().await.unwrap();
        producer.close().await;
        let closed = producer.publish("kinds", "six").await;
        assert_eq!(closed, Err(PublishError::Closed));
    });
    let mut consumer = Client::new(server.tcp_addr());
    consumer.subscribe("kinds", "channel", 5);
    let mut bodies: Vec<_> = (0..5).map(|_| consumer.message().body).collect();
    bodies.sort();
    assert_eq!(bodies, [&b"five"[..], b"four", b"one", b"three", b"two"]);
    server.stop();
}

#[test]
fn what_cannot_be_published_is_refused_before_it_is_sent() {
    let (address, broker) = Broker::run(|broker| broker.accept().command());
    block_on(async {
        let producer = producer(address);
        let mut events = producer.events();
        let invalid = producer.publish("no topic", "body").await.unwrap_err();
        assert!(matches!(invalid, PublishError::Topic(_)), "{invalid}");
        assert_eq!(invalid.outcome(), Outcome::Rejected);
        assert_eq!(producer.publish("topic", "").await, Err(PublishError::EmptyBody));
        let none: [&str; 0] = [];
        let empty = producer.publish_many("topic", none).await;
        assert_eq!(empty, Err(PublishError::EmptyBatch));
        while producer.stats().connected == 0 {
            events.next().await.unwrap();
        }
        producer.close().await;
    });
    // Nothing was sent before the end.
    assert_eq!(broker.join().unwrap(), "");
}

#[test]
fn a_client_needs_an_address_and_sound_options() {
    block_on(async {
        let nowhere = harness::try_producer(ProducerConfig::new());
        assert_eq!(nowhere.err(), Some(SetupError::NoAddress));
        let mut bad = quick();
        bad.producer.max_outstanding = 0;
        let bad = harness::try_producer(ProducerConfig::new().nsqd("127.0.0.1:1").options(bad));
        assert!(matches!(bad, Err(SetupError::Option(_))));
        for (nsqd, error) in BAD_ADDRESSES {
            let bad = harness::try_producer(ProducerConfig::new().nsqd("a:1").nsqd(nsqd)).err();
            assert_eq!(bad, Some(SetupError::Nsqd(nsqd.into(), error)));
            let producer = producer("127.0.0.1:1");
            assert!(!producer.add_nsqd(nsqd));
            assert_eq!(producer.stats().nsqds, ["127.0.0.1:1"]);
        }
    });
}

#[test]
fn many_publishes_are_under_way_at_once() {
    let (address, broker) = Broker::run(|broker| {
        let mut peer = broker.accept();
        // None is answered before all are here.
        let bodies: Vec<_> = (0..500).map(|_| peer.publish()).collect();
        (0..500).for_each(|_| peer.ok());
        peer.command();
        bodies
    });
    block_on(async {
        let producer = producer(address);
        let receipts: Vec<_> =
            (0..500).map(|n| producer.enqueue("topic", n.to_string()).unwrap()).collect();
        for receipt in receipts {
            receipt.await.unwrap();
        }
    });
    let sent = broker.join().unwrap();
    assert!(sent.into_iter().eq((0..500).map(|n| n.to_string())));
}

#[test]
fn a_dropped_publish_leaves_the_answers_of_others_alone() {
    let (tell, told) = mpsc::channel();
    let (go_on, wait) = mpsc::channel();
    let (address, broker) = Broker::run(move |broker| {
        let mut peer = broker.accept();
        let bodies = [peer.publish(), peer.publish(), peer.publish()];
        tell.send(bodies).unwrap();
        wait.recv_timeout(PATIENCE).unwrap();
        peer.ok();
        peer.ok();
        // The third is never answered.
    });
    block_on(async {
        let mut options = quick();
        options.retry = RetryPolicy::Never;
        let config = ProducerConfig::new().nsqd(address).options(options);
        let producer = harness::producer(config);
        let first = producer.enqueue("topic", "first").unwrap();
        let mut second = Box::pin(producer.publish("topic", "second"));
        assert_eq!(poll_once(&mut second).await, None);
        let third = producer.enqueue("topic", "third").unwrap();
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), ["first", "second", "third"]);
        drop(second);
        go_on.send(()).unwrap();
        assert_eq!(first.await, Ok(()));
        assert_eq!(third.await.unwrap_err().outcome(), Outcome::Unknown);
    });
    broker.join().unwrap();
}

#[test]
fn a_publish_that_is_dropped_in_time_is_not_sent() {
    let (tell, told) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let (address, broker) = Broker::run(move |broker| {
        let mut peer = broker.accept_silently();
        tell.send(()).unwrap();
        wait.recv_timeout(PATIENCE).unwrap();
        peer.ok();
        let body = peer.publish();
        peer.ok();
        body
    });
    block_on(async {
        let producer = producer(address);
        told.recv_timeout(PATIENCE).unwrap();
        let mut dropped = Box::pin(producer.publish("topic", "dropped"));
        assert_eq!(poll_once(&mut dropped).await, None);
        drop(dropped);
        let kept = producer.enqueue("topic", "kept").unwrap();
        go_on.send(()).unwrap();
        kept.await.unwrap();
    });
    assert_eq!(broker.join().unwrap(), "kept");
}

#[test]
fn without_room_publishes_wait_in_order() {
    let (tell, told) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let (address, broker) = Broker::run(move |broker| {
        let mut peer = broker.accept();
        let mut bodies = vec![peer.publish()];
        tell.send(()).unwrap();
        wait.recv_timeout(PATIENCE).unwrap();
        for _ in 0..2 {
            peer.ok();
            bodies.push(peer.publish());
        }
        peer.ok();
        bodies
    });
    block_on(async {
        let mut options = quick();
        options.producer.max_outstanding = 1;
        let producer = harness::producer(ProducerConfig::new().nsqd(address).options(options));
        let first = producer.enqueue("topic", "first").unwrap();
        told.recv_timeout(PATIENCE).unwrap();
        let refused = producer.enqueue("topic", "refused");
        assert!(matches!(refused, Err(PublishError::Full)));
        let mut second = Box::pin(producer.publish("topic", "second"));
        let mut dropped = Box::pin(producer.publish("topic", "dropped"));
        let mut third = Box::pin(producer.publish("topic", "third"));
        assert_eq!(poll_once(&mut second).await, None);
        assert_eq!(poll_once(&mut dropped).await, None);
        assert_eq!(poll_once(&mut third).await, None);
        assert_eq!(producer.stats().waiting, 3);
        drop(dropped);
        let late = producer.publish("topic", "late").within(Duration::from_millis(1)).await;
        assert_eq!(late.unwrap_err().outcome(), Outcome::NotStored);
        go_on.send(()).unwrap();
        first.await.unwrap();
        // The third is sent although nobody polls it, when the second is answered.
        second.await.unwrap();
        third.await.unwrap();
    });
    assert_eq!(broker.join().unwrap(), ["first", "second", "third"]);
}

#[test]
fn who_waits_for_room_hears_of_the_close() {
    struct Bell(AtomicBool);
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let (go_on, wait) = mpsc::channel::<()>();
    let (address, broker) = Broker::run(move |broker| {
        let mut peer = broker.accept();
        let body = peer.publish();
        wait.recv_timeout(PATIENCE).unwrap();
        peer.ok();
        body
    });
    block_on(async {
        let mut options = quick();
        options.producer.max_outstanding = 1;
        let producer = harness::producer(ProducerConfig::new().nsqd(address).options(options));
        let first = producer.enqueue("topic", "first").unwrap();
        let bell = Arc::new(Bell(AtomicBool::new(false)));
        let mut second = pin!(producer.publish("topic", "second"));
        let waker = Waker::from(Arc::clone(&bell));
        assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(producer.stats().waiting, 1);
        let mut close = pin!(producer.close());
        assert_eq!(poll_once(&mut close).await, None);
        assert!(bell.0.load(Ordering::Relaxed), "nobody told the second");
        assert_eq!(second.await, Err(PublishError::Closed));
        go_on.send(()).unwrap();
        first.await.unwrap();
        close.await;
    });
    assert_eq!(broker.join().unwrap(), "first");
}

#[test]
fn a_lost_answer_is_said_to_be_lost_and_the_next_publish_connects_again() {
    let (address, broker) = Broker::run(|broker| {
        let first = broker.accept().publish();
        let mut peer = broker.accept();
        let second = peer.publish();
        peer.ok();
        [first, second]
    });
    block_on(async {
        let producer = producer(address);
        let lost = producer.publish("topic", "lost").await.unwrap_err();
        assert_eq!(lost.outcome(), Outcome::Unknown);
        producer.publish("topic", "next").await.unwrap();
    });
    assert_eq!(broker.join().unwrap(), ["lost", "next"]);
}

#[test]
fn what_the_broker_refuses_is_rejected() {
    let (address, broker) = Broker::run(|broker| {
        let mut peer = broker.accept();
        peer.publish();
        peer.frame(1, b"E_BAD_MESSAGE no");
        peer.command()
    });
    block_on(async {
        let rejected = producer(address).publish("topic", "body").await;
        assert_eq!(rejected, Err(PublishError::Rejected(String::from("E_BAD_MESSAGE no"))));
    });
    broker.join().unwrap();
}

#[test]
fn without_a_broker_nothing_is_stored() {
    let (address, broker) = Broker::run(drop);
    broker.join().unwrap();
    block_on(async {
        let producer = producer(&address);
        let error = producer.publish("topic", "body").within(Duration::from_millis(20)).await;
        assert_eq!(error.unwrap_err().outcome(), Outcome::NotStored);
    });
}

#[test]
fn a_producer_outlives_a_restart_of_its_nsqd() {
    let server = start(1);
    let address = server.tcp_addr();
    block_on(async {
        let producer = producer(address);
        let mut events = producer.events();
        producer.publish("restart", "before").await.unwrap();
        server.stop();
        loop {
            let event = events.next().await.unwrap();
            if event.to_string().contains("not connected") {
                break;
            }
        }
        let mut options = options(1);
        options.tcp_address = address.to_string();
        let server = Server::nsqd(options).unwrap();
        producer.publish("restart", "after").await.unwrap();
        producer.close().await;
        let mut last = None;
        while let Some(event) = events.next().await {
            last = Some(event);
        }
        assert_eq!(last, Some(ProducerEvent::Stopped));
        let mut consumer = Client::new(server.tcp_addr());
        consumer.subscribe("restart", "channel", 1);
        assert_eq!(consumer.message().body, b"after");
        server.stop();
    });
}

#[test]
fn what_was_enqueued_is_sent_although_every_handle_is_dropped() {
    let (tell, told) = mpsc::channel();
    let (address, broker) = Broker::run(move |broker| {
        let mut peer = broker.accept();
        let body = peer.publish();
        peer.ok();
        // The producer closes by itself.
        assert_eq!(peer.command(), "");
        tell.send(body).unwrap();
    });
    block_on(async {
        drop(producer(address).enqueue("topic", "body").unwrap());
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "body");
    });
    broker.join().unwrap();
}

#[test]
fn large_bodies_pass_through_small_buffers() {
    let server = start(1);
    let body = vec![b'x'; 1024 * 1024];
    block_on(async {
        let producer = producer(server.tcp_addr());
        let receipts: Vec<_> =
            (0..20).map(|_| producer.enqueue("large", body.clone()).unwrap()).collect();
        for receipt in receipts {
            receipt.await.unwrap();
        }
    });
    let mut consumer = Client::new(server.tcp_addr());
    consumer.subscribe("large", "channel", 1);
    for _ in 0..20 {
        let message = consumer.message();
        assert!(message.body == body);
        consumer.finish(&message);
    }
    consumer.send(b"CLS\n");
    assert_eq!(consumer.frame(), Frame::Response(b"CLOSE_WAIT".to_vec()));
    server.stop();
}

/// Other systems have one address on their loopback interface.
#[cfg(target_os = "linux")]
#[test]
fn connections_come_from_the_address_that_is_set() {
    let (address, broker) = Broker::run(|broker| broker.accept().address());
    block_on(async {
        let mut net = NetConfig::default();
        net.local_address = Some([127, 0, 0, 2].into());
        let config = ProducerConfig::new().nsqd(address).options(quick()).net(net);
        let _producer = harness::producer(config);
        assert_eq!(broker.join().unwrap().to_string(), "127.0.0.2");
    });
}
