//! Publishes three messages.
//!
//! ```console
//! $ cargo run -p sansq-smol --example smol_publish -- 127.0.0.1:4150
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use core::error::Error;
use core::time::Duration;
use std::env;

use sansq_smol::{ProducerConfig, producer};

fn main() -> Result<(), Box<dyn Error>> {
    let nsqd = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4150".into());
    // Its tasks run on smol's global executor. `producer_on` chooses async-std's instead.
    let producer = producer(ProducerConfig::new().nsqd(nsqd))?;
    smol::block_on(async {
        // Over when the nsqd has the message. Without an nsqd it would wait for 30 s; here for 5.
        producer.publish("letters", "alpha").within(Duration::from_secs(5)).await?;
        // Two messages in one command.
        producer.publish_many("letters", ["beta", "gamma"]).await?;
        producer.close().await;
        println!("published 3 messages to letters");
        Ok(())
    })
}
