//! Handlers for jobs, eight at a time and on all cores; what fails too often goes to a topic of its
//! own.
//!
//! ```console
//! $ cargo run -p sansq-tokio --example worker_pool -- 127.0.0.1:4150
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use core::error::Error;
use core::time::Duration;
use std::env;
use std::sync::Arc;

use sansq_tokio::{Config, ConsumerConfig, Message, Producer, ProducerConfig, consumer, producer};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let nsqd = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4150".into());
    let producer = producer(ProducerConfig::new().nsqd(&nsqd))?;
    producer.publish_many("jobs", ["2", "3", "5", "seven", "11", "13"]).await?;

    // go-nsq's names, as they would stand in a file or on a command line.
    let mut config = Config::default();
    config.set("max_in_flight", "8")?;
    config.set("max_attempts", "2")?;
    // So short only for the sake of an example: failed jobs come again after 90 s by default.
    config.set("default_requeue_delay", "10ms")?;
    config.set("backoff_multiplier", "10ms")?;

    let (over, mut all_over) = unbounded_channel();
    let dead = (producer.clone(), over.clone());
    let config = ConsumerConfig::new("jobs", "workers")?
        .nsqd(nsqd)
        .config(&config)?
        // In place of the handler, once a message was attempted more than `max_attempts` times.
        .dead_letter(move |message: Message| {
            let (producer, over) = dead.clone();
            async move {
                // If that fails, the message is dropped here, and comes again.
                if producer.publish("jobs_dead", message.body().clone()).await.is_ok() {
                    let _ = message.finish();
                    let _ = over.send(false);
                }
            }
        });
    let consumer = Arc::new(consumer(config)?);

    // Two tasks with four handlers each. The runtime may have the tasks on two threads; handlers
    // that wait more than they compute could all be in one.
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let (consumer, producer, over) =
                (Arc::clone(&consumer), producer.clone(), over.clone());
            let handler = move |message| work(message, producer.clone(), over.clone());
            tokio::spawn(async move { consumer.run(4, handler).await })
        })
        .collect();

    // A real worker goes on until it is told to stop; this one until its six jobs are over.
    let mut done = 0;
    for _ in 0..6 {
        done += i32::from(all_over.recv().await == Some(true));
    }
    consumer.stop(Duration::from_secs(5)).await;
    for worker in workers {
        worker.await?;
    }
    producer.close().await;
    println!("{done} jobs done, {} dead", 6 - done);
    Ok(())
}

/// `Ok` finishes the message. An error is logged and requeues it, and the consumer slows down.
async fn work(
    message: Message,
    producer: Producer,
    over: UnboundedSender<bool>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let number: u64 = core::str::from_utf8(message.body())?.parse()?;
    producer.publish("squares", (number * number).to_string()).await?;
    println!("{number} squared is {}", number * number);
    let _ = over.send(true);
    Ok(())
}
