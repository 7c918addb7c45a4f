//! Publishes each line of standard input, many at a time, and says what became of them.
//!
//! ```console
//! $ seq 100000 | cargo run -p sansq-tokio --example publish_lines -- 127.0.0.1:4150 numbers
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::env;
use std::io::{self, BufRead, stdin};

use sansq_tokio::{Outcome, Producer, ProducerConfig, PublishError, Receipt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn core::error::Error>> {
    let mut args = env::args().skip(1);
    let nsqd = args.next().unwrap_or_else(|| "127.0.0.1:4150".into());
    let topic = args.next().unwrap_or_else(|| "lines".into());
    let producer = sansq_tokio::producer(ProducerConfig::new().nsqd(nsqd))?;
    let mut receipts = Vec::new();
    let mut counts = Counts::default();
    for line in stdin().lock().lines() {
        receipts.push(take(&producer, &topic, line?).await?);
        // Answers come in the order of publishing, so waiting for the oldest wastes nothing.
        if receipts.len() == 1000 {
            counts.settle(&mut receipts).await;
        }
    }
    counts.settle(&mut receipts).await;
    producer.close().await;
    println!("{counts:?}");
    Ok(())
}

/// Enqueues a line. When there is no room, publishes it and waits, which makes room.
async fn take(producer: &Producer, topic: &str, line: String) -> io::Result<Option<Receipt>> {
    match producer.enqueue(topic, line.clone()) {
        Ok(receipt) => Ok(Some(receipt)),
        Err(PublishError::Full) => {
            producer.publish(topic, line).await.map(|()| None).map_err(io::Error::other)
        }
        Err(error) => Err(io::Error::other(error)),
    }
}

#[derive(Debug, Default)]
struct Counts {
    stored: usize,
    not_stored: usize,
    perhaps_stored: usize,
}

impl Counts {
    async fn settle(&mut self, receipts: &mut Vec<Option<Receipt>>) {
        for receipt in receipts.drain(..) {
            let result = match receipt {
                Some(receipt) => receipt.await,
                None => Ok(()),
            };
            match result.map_err(|error| error.outcome()) {
                Ok(()) => self.stored += 1,
                Err(Outcome::Unknown) => self.perhaps_stored += 1,
                Err(Outcome::Rejected | Outcome::NotStored) => self.not_stored += 1,
            }
        }
    }
}
