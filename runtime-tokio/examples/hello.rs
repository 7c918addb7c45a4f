//! Publishes a message and consumes it: what the README shows, word for word.
//!
//! ```console
//! $ cargo run -p sansq-tokio --example hello
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use core::error::Error;
use core::time::Duration;

use sansq_tokio::{ConsumerConfig, ProducerConfig, consumer, producer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let nsqd = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4150".into());
    let producer = producer(ProducerConfig::new().nsqd(&nsqd))?;
    producer.publish("greetings", "hello").await?;

    let consumer = consumer(ConsumerConfig::new("greetings", "readers")?.nsqd(&nsqd))?;
    if let Some(message) = consumer.next().await {
        println!("{}", message.body().escape_ascii());
        message.finish()?;
    }
    consumer.stop(Duration::from_secs(5)).await;
    Ok(())
}
