//! Copies one topic into another until SIGTERM or Ctrl-C, and then ends without losing anything.
//!
//! ```console
//! $ cargo run -p sansq-tokio --example graceful_shutdown -- 127.0.0.1:4150
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use core::error::Error;
use core::time::Duration;
use std::{env, io};

use sansq_tokio::{ConsumerConfig, Message, ProducerConfig, consumer, producer};
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let nsqd = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4150".into());
    let producer = producer(ProducerConfig::new().nsqd(&nsqd))?;
    let consumer = consumer(ConsumerConfig::new("orders", "copies")?.nsqd(nsqd).max_in_flight(50))?;

    let copy = consumer.run(10, |message: Message| {
        let producer = &producer;
        // The original is finished only when the copy is stored.
        async move { producer.publish("orders_copy", message.body().clone()).await }
    });
    let stop = async {
        let asked = asked_to_end()?;
        println!("copying orders to orders_copy; Ctrl-C ends");
        asked.await?;
        // 1. No new messages; those that nobody has begun go back. `copy` is over when the last
        //    handler is.
        println!("stopping");
        consumer.stop(Duration::from_secs(20)).await;
        io::Result::Ok(())
    };
    let ((), stopped) = tokio::join!(copy, stop);
    // 2. Only then the producer, which the handlers needed. It waits for what is under way.
    producer.close().await;
    println!("copied {} messages", consumer.stats().finished);
    Ok(stopped?)
}

/// A future that is over when the process is told to end. Signals count from this call on.
fn asked_to_end() -> io::Result<impl Future<Output = io::Result<()>>> {
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            result = ctrl_c() => result,
            _ = terminate.recv() => Ok(()),
        }
    })
}
