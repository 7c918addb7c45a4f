//! Publishes five messages, in the four ways there are.
//!
//! ```console
//! $ cargo run -p sansq-tokio --example publish -- 127.0.0.1:4150
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use core::error::Error;
use core::time::Duration;
use std::env;

use sansq_tokio::{Outcome, ProducerConfig, producer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let nsqd = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4150".into());
    // It connects in the background, now and whenever the connection is lost.
    let producer = producer(ProducerConfig::new().nsqd(nsqd))?;

    // Over when the nsqd has the message. Without an nsqd it would wait for 30 s; here for 5.
    let published = producer.publish("orders", "apples").within(Duration::from_secs(5)).await;
    if let Err(error) = published {
        // What a program does with a failure depends on what may have become of the message.
        let advice = match error.outcome() {
            Outcome::Rejected => "it never will be taken",
            Outcome::NotStored => "publish it again",
            Outcome::Unknown => "publish it again, if it may come twice",
        };
        return Err(format!("{error}: {advice}").into());
    }

    // Several messages in one command, and one that consumers get later.
    producer.publish_many("orders", ["pears", "plums"]).await?;
    producer.publish_after("orders", Duration::from_millis(50), "quinces").await?;

    // Without waiting: the receipt is a future of the outcome, and may be dropped.
    let receipt = producer.enqueue("orders", "cherries")?;
    receipt.await?;

    // Waits for what is still under way. (Nothing is, here.)
    producer.close().await;
    println!("published 5 messages to orders");
    Ok(())
}
