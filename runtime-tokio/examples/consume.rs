//! Consumes five messages, those of the example `publish`, and ends.
//!
//! ```console
//! $ cargo run -p sansq-tokio --example consume -- 127.0.0.1:4150
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use core::error::Error;
use core::time::Duration;
use std::env;

use sansq_tokio::{ConsumerConfig, consumer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let nsqd = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4150".into());
    // With several nsqds, `.nsqlookupd("127.0.0.1:4161")` finds those that have the topic.
    let config = ConsumerConfig::new("orders", "shipping")?.nsqd(nsqd).max_in_flight(10);
    let consumer = consumer(config)?;

    for _ in 0..5 {
        // `None` would mean that somebody has stopped the consumer.
        let Some(message) = consumer.next().await else { break };
        println!("{} (attempt {})", message.body().escape_ascii(), message.attempts());
        // One that is dropped without an answer comes again.
        message.finish()?;
    }

    // Gives back what nobody has taken, and waits up to 5 s for the answers to what somebody has.
    consumer.stop(Duration::from_secs(5)).await;
    println!("finished {} messages", consumer.stats().finished);
    Ok(())
}
