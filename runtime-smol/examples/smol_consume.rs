//! Consumes three messages, those of the example `smol_publish`, and ends.
//!
//! ```console
//! $ cargo run -p sansq-smol --example smol_consume -- 127.0.0.1:4150
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use core::error::Error;
use core::time::Duration;
use std::env;

use sansq_smol::{ConsumerConfig, consumer};
use smol::stream::StreamExt;

fn main() -> Result<(), Box<dyn Error>> {
    let nsqd = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4150".into());
    let mut consumer =
        consumer(ConsumerConfig::new("letters", "post")?.nsqd(nsqd).max_in_flight(5))?;
    smol::block_on(async {
        // A consumer is a stream of messages, which ends when the consumer is stopped.
        let mut messages = (&mut consumer).take(3);
        while let Some(message) = messages.next().await {
            println!("{} (attempt {})", message.body().escape_ascii(), message.attempts());
            // One that is dropped without an answer comes again.
            message.finish()?;
        }
        consumer.stop(Duration::from_secs(5)).await;
        println!("finished {} messages", consumer.stats().finished);
        Ok(())
    })
}
