//! TLS, Snappy and Deflate between our clients and our servers.

use sansq_core::nsqd::TlsRequired;
use sansq_core::upgrade::Layer;
use sansq_runtime::client::{ConnectionOptions, ConsumerOptions, Outcome, ProducerConfig};

use super::super::upgrade::{layers, start_tls, tls};
use super::{GRACE, channel, quick};
use crate::harness::{self, Server, block_on};

/// A producer of this server's that asks for these layers.
fn through(server: &Server, connection: ConnectionOptions) -> ProducerConfig {
    let mut options = quick();
    options.producer.connection = connection;
    ProducerConfig::new().nsqd(server.tcp_addr().to_string()).options(options)
}

fn connection(with_tls: bool, packing: Option<Layer>) -> ConnectionOptions {
    let mut options = ConnectionOptions::default();
    if with_tls {
        options.upgrades.tls = Some(tls().1.clone());
        options.upgrades.tls_server_name = Some(String::from("nsqd.example"));
    }
    match packing {
        None | Some(Layer::Tls) => {}
        Some(Layer::Snappy) => options.upgrades.snappy = true,
        Some(Layer::Deflate(level)) => options.upgrades.deflate = Some(level),
    }
    options
}

#[test]
fn messages_pass_through_every_stack_of_layers() {
    let server = start_tls(2, TlsRequired::No);
    block_on(async {
        for (number, (with_tls, packing)) in layers().into_iter().enumerate() {
            let topic = format!("layers{number}");
            let connection = connection(with_tls, packing);
            let producer = harness::producer(through(&server, connection.clone()));
            let options =
                ConsumerOptions { connection, max_in_flight: 10, ..ConsumerOptions::default() };
            let consumer = harness::consumer(channel(&server, &topic).options(options));
            // Some that fit into a packet and one that fits into no buffer.
            let bodies: Vec<_> = [1, 100, 1_000_000].map(|len| vec![b'x'; len]).into();
            producer.publish_many(&topic, bodies.clone()).await.unwrap();
            let mut received = Vec::new();
            for _ in 0..3 {
                let message = consumer.next().await.unwrap();
                received.push(message.body().clone());
                message.finish().unwrap();
            }
            received.sort_by_key(bytes::Bytes::len);
            assert!(received == bodies);
            consumer.stop(GRACE).await;
            producer.close().await;
        }
    });
    server.stop();
}

#[test]
fn a_server_that_requires_tls_gets_nothing_in_the_clear() {
    let server = start_tls(1, TlsRequired::Yes);
    block_on(async {
        let plain = harness::producer(through(&server, connection(false, None)));
        let within = core::time::Duration::from_millis(200);
        let refused = plain.publish("secret", "body").within(within).await.unwrap_err();
        assert_ne!(refused.outcome(), Outcome::Unknown);
        let secured = harness::producer(through(&server, connection(true, None)));
        secured.publish("secret", "body").await.unwrap();
    });
    server.stop();
}
