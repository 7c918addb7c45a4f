//! Consumes with many handlers at once, on all cores, until a line is read from standard input; then stops in
//! good order. Messages that fail too often go to another topic.
//!
//! ```console
//! $ cargo run --example worker_pool -- 127.0.0.1:4150 numbers
//! ```

#![expect(clippy::print_stdout, reason = "an example speaks to whoever runs it")]

use core::time::Duration;
use std::env;
use std::io::{self, stdin};
use std::sync::Arc;

use sansq_tokio::{ConsumerConfig, Message, ProducerConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn core::error::Error>> {
    let mut args = env::args().skip(1);
    let (Some(nsqd), Some(topic)) = (args.next(), args.next()) else {
        return Err("usage: worker_pool <nsqd's host:port> <topic>".into());
    };
    let graveyard = sansq_tokio::producer(ProducerConfig::new().nsqd(&nsqd))?;
    let grave = format!("{topic}.dead");
    let config = ConsumerConfig::new(&topic, "workers")?.nsqd(nsqd).max_in_flight(64).dead_letter(
        move |message| {
            let (graveyard, grave) = (graveyard.clone(), grave.clone());
            async move {
                // If that fails, the message is dropped here and comes again.
                if graveyard.publish(grave, message.body().clone()).await.is_ok() {
                    let _ = message.finish();
                }
            }
        },
    );
    let consumer = Arc::new(sansq_tokio::consumer(config)?);

    // Each task has eight handlers; the runtime spreads the tasks over its threads.
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let consumer = Arc::clone(&consumer);
            tokio::spawn(async move { consumer.run(8, work).await })
        })
        .collect();

    tokio::task::spawn_blocking(|| stdin().read_line(&mut String::new())).await??;
    consumer.stop(Duration::from_secs(30)).await;
    for worker in workers {
        worker.await?;
    }
    println!("{:?}", consumer.stats());
    Ok(())
}

/// An error brings the message back later, and slows the consumer down while everything fails.
async fn work(message: Message) -> io::Result<()> {
    let number: u64 = str::from_utf8(message.body())
        .map_err(io::Error::other)?
        .trim()
        .parse()
        .map_err(io::Error::other)?;
    if number.is_multiple_of(10_000) {
        println!("{number}, attempt {}", message.attempts());
    }
    Ok(())
}
