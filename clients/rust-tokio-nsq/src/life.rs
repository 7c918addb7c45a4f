//! The life of a message, as tokio-nsq's users see it: the steps of `clients/python/life.py`.
//!
//! tokio-nsq can't ask for a message timeout of its own, so the steps that need one restart nsqd
//! with another default, which makes reconnecting a part of each.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::time::{Instant, sleep, timeout};
use tokio_nsq::{
    NSQChannel, NSQConfigShared, NSQConsumer, NSQConsumerConfig, NSQConsumerConfigSources,
    NSQConsumerLookupConfig, NSQEvent, NSQMessage, NSQProducer, NSQProducerConfig, NSQRequeueDelay,
    NSQTopic,
};

use crate::servers::{PATIENCE, Servers};

/// Goes through every step; ends with the first that goes wrong.
pub async fn live(servers: &mut Servers) -> anyhow::Result<()> {
    let config = NSQProducerConfig::new(servers.nsqd.tcp.to_string()).set_shared(shared());
    let mut producer = Producer { producer: config.build() };
    producer.connected().await?;

    step("publish", publish(&mut producer, servers)).await?;
    step("publish_many", publish_many(&mut producer, servers)).await?;
    step("publish_after", publish_after(&mut producer, servers)).await?;
    step("requeue", requeue(&mut producer, servers)).await?;
    step("reconnect", reconnect(&mut producer, servers)).await?;
    step("time_out", time_out(&mut producer, servers)).await?;
    step("touch", touch(&mut producer, servers)).await
}

/// PUB, found through nsqlookupd, FIN.
async fn publish(producer: &mut Producer, servers: &Servers) -> anyhow::Result<()> {
    let topic = "published";
    producer.publish(topic, b"one").await?;
    let mut consumer = subscribe(servers, topic)?;
    expect(&mut consumer, b"one", 1).await?;
    // Now with the consumer there, and with every byte that there is.
    let body: Vec<u8> = (0..=255).collect();
    producer.publish(topic, &body).await?;
    expect(&mut consumer, &body, 1).await?;
    let figures = [("message_count", 2), ("requeue_count", 0), ("timeout_count", 0)];
    settled(servers, topic, &figures).await
}

/// MPUB: all of them arrive, each once.
async fn publish_many(producer: &mut Producer, servers: &Servers) -> anyhow::Result<()> {
    let topic = "many";
    let bodies: Vec<_> = (0..100).map(|i| format!("message {i}").into_bytes()).collect();
    producer.producer.publish_multiple(&named(topic)?, bodies.clone()).await?;
    producer.accepted().await?;
    let mut consumer = subscribe(servers, topic)?;
    let mut missing: BTreeSet<_> = bodies.into_iter().collect();
    while !missing.is_empty() {
        let message = receive(&mut consumer).await?;
        ensure!(message.attempt == 1, "attempt {}", message.attempt);
        ensure!(missing.remove(&message.body), "{:?} came twice, or never was", message.body);
        message.finish().await;
    }
    let figures = [("message_count", 100), ("requeue_count", 0), ("timeout_count", 0)];
    settled(servers, topic, &figures).await
}

/// DPUB: later than what was published after it, and not too early.
async fn publish_after(producer: &mut Producer, servers: &Servers) -> anyhow::Result<()> {
    let topic = "deferred";
    let began = Instant::now();
    producer.producer.publish_deferred(&named(topic)?, b"later".to_vec(), 1500).await?;
    producer.accepted().await?;
    producer.publish(topic, b"now").await?;
    let mut consumer = subscribe(servers, topic)?;
    expect(&mut consumer, b"now", 1).await?;
    expect(&mut consumer, b"later", 1).await?;
    ensure!(began.elapsed() >= Duration::from_millis(1500), "deferred for too short a time");
    settled(servers, topic, &[("message_count", 2)]).await
}

/// REQ without and with a delay: the same message again, with one attempt more.
async fn requeue(producer: &mut Producer, servers: &Servers) -> anyhow::Result<()> {
    let topic = "requeued";
    producer.publish(topic, b"again").await?;
    let mut consumer = subscribe(servers, topic)?;
    let message = receive(&mut consumer).await?;
    ensure!(message.body == b"again" && message.attempt == 1, "{message:?}");
    message.requeue(NSQRequeueDelay::NoDelay).await;
    let message = receive(&mut consumer).await?;
    ensure!(message.body == b"again" && message.attempt == 2, "{message:?}");
    let began = Instant::now();
    message.requeue(NSQRequeueDelay::CustomDelay(Duration::from_secs(1))).await;
    expect(&mut consumer, b"again", 3).await?;
    ensure!(began.elapsed() >= Duration::from_secs(1), "requeued for too short a time");
    let figures = [("message_count", 1), ("requeue_count", 2), ("timeout_count", 0)];
    settled(servers, topic, &figures).await
}

/// Publisher and consumer find their way back after both servers were restarted.
async fn reconnect(producer: &mut Producer, servers: &mut Servers) -> anyhow::Result<()> {
    let topic = "reconnected";
    producer.publish(topic, b"before").await?;
    let mut consumer = subscribe(servers, topic)?;
    expect(&mut consumer, b"before", 1).await?;
    settled(servers, topic, &[("message_count", 1)]).await?;
    servers.restart(&[]).await?;
    producer.connected().await?;
    producer.publish(topic, b"after").await?;
    let message = receive(&mut consumer).await?;
    ensure!(message.body == b"after", "{message:?}");
    message.finish().await;
    settled(servers, topic, &[]).await
}

/// A message that is not answered for comes again.
async fn time_out(producer: &mut Producer, servers: &mut Servers) -> anyhow::Result<()> {
    servers.restart(&["--msg-timeout=1s"]).await?;
    producer.connected().await?;
    let topic = "timed-out";
    producer.publish(topic, b"forgotten").await?;
    let mut consumer = subscribe(servers, topic)?;
    let unanswered = receive(&mut consumer).await?;
    ensure!(unanswered.body == b"forgotten" && unanswered.attempt == 1, "{unanswered:?}");
    expect(&mut consumer, b"forgotten", 2).await?;
    let figures = [("message_count", 1), ("requeue_count", 0), ("timeout_count", 1)];
    settled(servers, topic, &figures).await
}

/// TOUCH keeps a message for longer than its timeout.
async fn touch(producer: &mut Producer, servers: &mut Servers) -> anyhow::Result<()> {
    servers.restart(&["--msg-timeout=3s"]).await?;
    producer.connected().await?;
    let topic = "touched";
    producer.publish(topic, b"slow").await?;
    let mut consumer = subscribe(servers, topic)?;
    let message = receive(&mut consumer).await?;
    for _ in 0..8 {
        // The work that takes so long.
        sleep(Duration::from_millis(500)).await;
        message.touch().await;
    }
    message.finish().await;
    let figures = [("message_count", 1), ("requeue_count", 0), ("timeout_count", 0)];
    settled(servers, topic, &figures).await
}

struct Producer {
    producer: NSQProducer,
}

impl Producer {
    async fn publish(&mut self, topic: &str, body: &[u8]) -> anyhow::Result<()> {
        self.producer.publish(&named(topic)?, body.to_vec()).await?;
        self.accepted().await
    }

    /// Waits for the answer to what was sent last.
    async fn accepted(&mut self) -> anyhow::Result<()> {
        match timeout(PATIENCE, self.producer.consume()).await.context("no answer")? {
            Some(NSQEvent::Ok()) => Ok(()),
            other => bail!("not accepted: {other:?}"),
        }
    }

    /// Waits until it is connected, for the first time or again.
    async fn connected(&mut self) -> anyhow::Result<()> {
        let connected = async {
            while let Some(event) = self.producer.consume().await {
                if matches!(event, NSQEvent::Healthy()) {
                    return Ok(());
                }
            }
            bail!("the producer has ended")
        };
        timeout(PATIENCE, connected).await.context("not connected")?
    }
}

fn subscribe(servers: &Servers, topic: &str) -> anyhow::Result<NSQConsumer> {
    let channel = NSQChannel::new(CHANNEL).context("a legal name")?;
    let lookup = NSQConsumerLookupConfig::new()
        .set_poll_interval(Duration::from_millis(200))
        .set_addresses(HashSet::from([format!("http://{}", servers.nsqlookupd.http)]));
    let config = NSQConsumerConfig::new(named(topic)?, channel)
        .set_max_in_flight(10)
        .set_sources(NSQConsumerConfigSources::Lookup(lookup))
        .set_rebalance_interval(Duration::from_millis(200))
        .set_shared(shared());
    Ok(config.build())
}

/// Faster than the defaults, so that nobody waits for the client.
fn shared() -> NSQConfigShared {
    NSQConfigShared::new()
        .set_flush_interval(Duration::from_millis(10))
        .set_backoff_max_wait(Duration::from_millis(500))
}

async fn expect(consumer: &mut NSQConsumer, body: &[u8], attempt: u16) -> anyhow::Result<()> {
    let message = receive(consumer).await?;
    ensure!(message.body == body && message.attempt == attempt, "{message:?}");
    message.finish().await;
    Ok(())
}

async fn receive(consumer: &mut NSQConsumer) -> anyhow::Result<NSQMessage> {
    let message = timeout(PATIENCE, consumer.consume_filtered()).await.context("no message")?;
    message.context("the consumer has ended")
}

/// Every message is finished, and the figures are these.
async fn settled(servers: &Servers, topic: &str, figures: &[(&str, u64)]) -> anyhow::Result<()> {
    let nothing_left = [("depth", 0), ("in_flight_count", 0), ("deferred_count", 0)];
    let expected = [&nothing_left, figures].concat();
    servers.wait_for_stats(topic, CHANNEL, &expected).await
}

fn named(topic: &str) -> anyhow::Result<Arc<NSQTopic>> {
    NSQTopic::new(topic).context("a legal name")
}

async fn step(name: &str, run: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let began = Instant::now();
    run.await.with_context(|| format!("step {name}"))?;
    println!("   ok {name} ({:.1} s)", began.elapsed().as_secs_f64());
    Ok(())
}

const CHANNEL: &str = "channel";
