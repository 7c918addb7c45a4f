//! Producers and consumers, against servers of ours and against brokers that do as they are told.

mod broker;
mod consumer;
mod faults;
mod producer;
mod upgrade;

use core::time::Duration;

use sansq_runtime::client::{AddressError, ConsumerConfig, PoolOptions, Producer, ProducerConfig};

use crate::harness::{self, Server};

/// Long enough for anything that happens at all.
const GRACE: Duration = Duration::from_secs(30);

/// What no nsqd can be dialled at, and why.
const BAD_ADDRESSES: [(&str, AddressError); 4] = [
    ("", AddressError::Host),
    ("127.0.0.1", AddressError::Port),
    ("127.0.0.1:99999", AddressError::Port),
    ("http://127.0.0.1:4150", AddressError::Scheme),
];

/// A producer for this address that soon tries again.
fn producer(address: impl ToString) -> Producer {
    harness::producer(ProducerConfig::new().nsqd(address.to_string()).options(quick()))
}

fn quick() -> PoolOptions {
    let mut options = PoolOptions::default();
    options.producer.backoff_min = Duration::from_millis(1);
    options.producer.backoff_max = Duration::from_millis(20);
    options
}

/// What consumes `topic` from this server.
fn channel(server: &Server, topic: &str) -> ConsumerConfig {
    ConsumerConfig::new(topic, "channel").unwrap().nsqd(server.tcp_addr().to_string())
}

/// Publishes these bodies.
async fn publish(server: &Server, topic: &str, bodies: &[&str]) {
    let producer = producer(server.tcp_addr());
    for body in bodies {
        producer.publish(topic, body.to_string()).await.unwrap();
    }
    producer.close().await;
}
