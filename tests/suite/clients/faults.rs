//! What breaks on the way: each ends in its event or error, and the client goes on by itself.

use core::time::Duration;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;

use sansq_runtime::client::{
    ConnectionError, ConnectionOptions, Consumer, ConsumerConfig, ConsumerEvent, ConsumerOptions,
    Events, Message, Outcome, ProducerConfig, PublishError, Secret,
};

use super::super::start;
use super::super::upgrade::tls;
use super::broker::{Broker, Peer};
use super::{GRACE, channel, quick};
use crate::harness::{self, block_on};

#[test]
fn a_broker_that_falls_silent_is_left() {
    let (address, broker) = Broker::run(|broker| {
        // The connection stays open, and nothing comes any more.
        let silent = subscribed(&broker);
        let mut peer = subscribed(&broker);
        peer.frame(2, b"\0\0\0\0\0\0\0\0\0\x010123456789abcdefbody");
        let answer = answer(&mut peer);
        drop(silent);
        answer
    });
    block_on(async {
        let consumer = consumer(&address, impatient());
        let mut events = consumer.events();
        assert_eq!(lost(&mut events).await, ConnectionError::ReadTimeout);
        finish_one(&consumer).await;
        consumer.stop(GRACE).await;
    });
    assert_eq!(broker.join().unwrap(), "FIN 0123456789abcdef");
}

#[test]
fn a_publish_to_a_broker_that_falls_silent_is_in_doubt() {
    let (address, broker) = Broker::run(|broker| {
        let mut silent = broker.accept();
        let first = silent.publish();
        let mut peer = broker.accept();
        let second = peer.publish();
        peer.ok();
        drop(silent);
        [first, second]
    });
    block_on(async {
        let mut options = quick();
        options.producer.connection = impatient();
        let producer = harness::producer(ProducerConfig::new().nsqd(address).options(options));
        let error = producer.publish("topic", "lost").await.unwrap_err();
        assert_eq!(error, PublishError::Unknown(ConnectionError::ReadTimeout));
        producer.publish("topic", "next").await.unwrap();
    });
    assert_eq!(broker.join().unwrap(), ["lost", "next"]);
}

#[test]
fn a_broker_that_dies_within_a_batch_leaves_all_of_it_in_doubt() {
    let (address, broker) = Broker::run(|broker| {
        let mut peer = broker.accept();
        assert_eq!(peer.command(), "MPUB topic");
        peer.body();
        drop(peer);
        let mut peer = broker.accept();
        let after = peer.publish();
        peer.ok();
        after
    });
    block_on(async {
        let producer = super::producer(address);
        let error = producer.publish_many("topic", ["a", "b"]).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown);
        producer.publish("topic", "after").await.unwrap();
    });
    assert_eq!(broker.join().unwrap(), "after");
}

#[test]
fn an_nsqlookupd_that_lies_costs_nothing_but_time() {
    let server = start(1);
    let truth = producers(&server.tcp_addr().to_string());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let nobody = producers("127.0.0.1:1");
        let answers = [
            "this is no JSON",
            r#"{"producers":7}"#,
            r#"{"producers":[{"tcp_port":-1}]}"#,
            &nobody,
        ];
        for answer in answers.into_iter().map(String::from).chain([truth]).cycle() {
            let Ok((socket, _)) = listener.accept() else { return };
            let mut socket = BufReader::new(socket);
            let mut line = String::new();
            while socket.read_line(&mut line).is_ok_and(|len| len > 2) {
                line.clear();
            }
            let len = answer.len();
            let head = "HTTP/1.1 200 OK\r\nX-NSQ-Content-Type: nsq; version=1.0";
            let text =
                format!("{head}\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{answer}");
            let _ = socket.get_mut().write_all(text.as_bytes());
        }
    });
    block_on(async {
        super::publish(&server, "lies", &["body"]).await;
        let often = Duration::from_millis(10);
        let options =
            ConsumerOptions { lookupd_poll_interval: often, ..ConsumerOptions::default() };
        let config = ConsumerConfig::new("lies", "channel").unwrap().nsqlookupd(&directory);
        let consumer = harness::consumer(config.options(options));
        let mut events = consumer.events();
        while !matches!(events.next().await, Some(ConsumerEvent::Directory(_))) {}
        assert!(matches!(lost(&mut events).await, ConnectionError::Dial(_)));
        finish_one(&consumer).await;
        consumer.stop(GRACE).await;
    });
    server.stop();
}

#[test]
fn a_broker_without_tls_is_turned_away_and_asked_again() {
    let server = start(1);
    block_on(async {
        let mut secure = ConnectionOptions::default();
        secure.upgrades.tls = Some(tls().1.clone());
        let mut options = quick();
        options.producer.connection = secure.clone();
        let config = ProducerConfig::new().nsqd(server.tcp_addr().to_string()).options(options);
        let error = harness::producer(config).publish("topic", "secret").await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotStored);
        let options = ConsumerOptions { connection: secure, ..ConsumerOptions::default() };
        let consumer = harness::consumer(channel(&server, "topic").options(options));
        let mut events = consumer.events();
        for _ in 0..2 {
            assert_eq!(lost(&mut events).await, ConnectionError::UpgradeRefused("tls_v1"));
        }
        consumer.stop(GRACE).await;
    });
    server.stop();
}

#[test]
fn a_secret_that_is_refused_is_not_said_again_before_somebody_wants_it() {
    let (address, broker) = Broker::run(|broker| {
        let mut secrets = Vec::new();
        for is_good in [false, true] {
            let mut peer = broker.accept_silently();
            peer.frame(0, br#"{"auth_required":true,"max_rdy_count":2500}"#);
            assert_eq!(peer.command(), "AUTH");
            secrets.push(peer.body());
            if !is_good {
                peer.frame(1, b"E_UNAUTHORIZED AUTH no authorizations found");
                continue;
            }
            peer.frame(0, br#"{"identity":"i","identity_url":"","permission_count":1}"#);
            assert_eq!(peer.command(), "SUB topic channel");
            peer.ok();
            peer.frame(2, b"\0\0\0\0\0\0\0\0\0\x010123456789abcdefbody");
            answer(&mut peer);
        }
        secrets
    });
    block_on(async {
        let auth_secret = Some(Secret::new("hush"));
        let connection = ConnectionOptions { auth_secret, ..ConnectionOptions::default() };
        let consumer = consumer(&address, connection);
        let mut events = consumer.events();
        let error = loop {
            if let ConsumerEvent::GaveUp { error, .. } = events.next().await.unwrap() {
                break error;
            }
        };
        assert_eq!(error.code(), "E_UNAUTHORIZED");
        assert!(consumer.stats().connections[0].is_given_up);
        assert!(consumer.handle().add_nsqd(&address));
        finish_one(&consumer).await;
        consumer.stop(GRACE).await;
    });
    assert_eq!(broker.join().unwrap(), ["hush", "hush"]);
}

/// What an nsqlookupd answers that knows this one nsqd.
fn producers(nsqd: &str) -> String {
    let (host, port) = nsqd.split_once(':').unwrap();
    format!(r#"{{"channels":[],"producers":[{{"broadcast_address":"{host}","tcp_port":{port}}}]}}"#)
}

fn consumer(address: &str, connection: ConnectionOptions) -> Consumer {
    let options = ConsumerOptions {
        connection,
        redial_min: Duration::from_millis(1),
        redial_max: Duration::from_millis(20),
        ..ConsumerOptions::default()
    };
    let config = ConsumerConfig::new("topic", "channel").unwrap().nsqd(address);
    harness::consumer(config.options(options))
}

/// What does not wait for long for signs of life, yet longer than a busy machine holds them up.
fn impatient() -> ConnectionOptions {
    ConnectionOptions {
        read_timeout: Duration::from_millis(500),
        heartbeat_interval: Some(Duration::from_millis(250)),
        ..ConnectionOptions::default()
    }
}

async fn lost(events: &mut Events<ConsumerEvent>) -> ConnectionError {
    loop {
        if let ConsumerEvent::Disconnected { error, redial_after, .. } =
            events.next().await.unwrap()
        {
            assert!(redial_after.is_some());
            return error;
        }
    }
}

async fn finish_one(consumer: &Consumer) {
    let message: Message = consumer.next().await.unwrap();
    assert_eq!(&message.body()[..], b"body");
    message.finish().unwrap();
}

fn subscribed(broker: &Broker) -> Peer {
    let mut peer = broker.accept();
    assert_eq!(peer.command(), "SUB topic channel");
    peer.ok();
    peer
}

/// What a message is answered with.
fn answer(peer: &mut Peer) -> String {
    loop {
        let command = peer.command();
        if command.starts_with("FIN") || command.is_empty() {
            return command;
        }
    }
}
