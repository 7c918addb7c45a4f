//! `sansq tail`: prints the messages of topics as they come.

use core::cell::Cell;
use core::time::Duration;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_lite::future::poll_once;
use futures_util::future::join_all;
use sansq_core::name::{ChannelName, TopicName};
use sansq_tokio::{Consumer, Message};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::clients::{self, Orders, Subscription};
use super::{TailOptions, ToolError};

/// Prints messages until a signal comes, standard output is closed or enough are printed.
///
/// Every message is finished once it is written. An nsqd that goes is connected to again; one that
/// is named and can't be reached at the start is an error.
///
/// # Errors
/// [`ToolError`] if a server can't be reached or standard output fails.
pub fn run_tail(mut options: TailOptions) -> Result<(), ToolError> {
    options.settle();
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let number = unix.subsec_nanos() % 1_000_000;
    let channel =
        options.channel.or_else(|| ChannelName::new(format!("tail{number:06}#ephemeral")).ok());
    let channel = channel.ok_or_else(|| ToolError::Usage("no channel".into()))?;
    let sources = options.sources.clone();
    clients::run_with(&sources, false, |orders| run(options, channel, orders))
}

async fn run(
    options: TailOptions,
    channel: ChannelName,
    orders: watch::Sender<Orders>,
) -> Result<(), ToolError> {
    let left = Cell::new(if options.n > 0 { options.n } else { u64::MAX });
    let works = options.topic.iter().map(async |topic| {
        let subscription = Subscription {
            tool: "nsq_tail",
            topic: *topic,
            channel,
            sources: &options.sources,
            max_in_flight: options.max_in_flight,
            // Whatever comes is printed.
            max_attempts: 0,
            lookupd_poll_interval: LOOKUPD_POLL_INTERVAL,
        };
        let tail = Tail {
            topic: options.print_topic.then_some(*topic),
            consumer: subscription.consumer()?,
            left: &left,
        };
        let result = tail.run(&options.sources.nsqd_tcp_address, orders.subscribe()).await;
        // One that ends, ends all.
        orders.send_modify(|orders| orders.stops = true);
        tail.consumer.stop(STOP_GRACE).await;
        result
    });
    join_all(works).await.into_iter().collect()
}

/// A topic that is printed.
struct Tail<'a> {
    /// What to print in front of each message.
    topic: Option<TopicName>,
    consumer: Consumer,
    /// Messages to print, of all topics together.
    left: &'a Cell<u64>,
}

impl Tail<'_> {
    async fn run(
        &self,
        named: &[String],
        mut orders: watch::Receiver<Orders>,
    ) -> Result<(), ToolError> {
        let failure = clients::failure(self.consumer.events(), named);
        let printing = self.print();
        tokio::pin!(printing);
        tokio::select! {
            error = failure => return Err(error),
            result = &mut printing => return result,
            () = clients::stopped(&mut orders) => {}
        }
        // What is being printed is finished as well, if standard output takes it.
        tokio::select! {
            result = printing => result,
            () = self.consumer.stop(STOP_GRACE) => Ok(()),
        }
    }

    /// Prints until there are enough.
    async fn print(&self) -> Result<(), ToolError> {
        while let Some(messages) = self.next().await {
            let bodies: Vec<Bytes> =
                messages.iter().map(|message| message.body().clone()).collect();
            let topic = self.topic;
            // Standard output may make it wait, and servers want to hear from us meanwhile.
            let printing = spawn_blocking(move || print(topic, &bodies)).await;
            printing.map_err(|_| ToolError::Failed("printing"))?.map_err(ToolError::Output)?;
            for message in messages {
                // What timed out while it was printed comes again.
                let _ = message.finish();
            }
        }
        Ok(())
    }

    /// The next message, and those that are there already; `None`: there were enough.
    async fn next(&self) -> Option<Vec<Message>> {
        if self.left.get() == 0 {
            return None;
        }
        let mut messages = vec![self.consumer.next().await?];
        // Another topic may have had the last one meanwhile; then this one goes back.
        let room = usize::try_from(self.left.get()).unwrap_or(usize::MAX).min(BATCH_MAX);
        if room == 0 {
            for message in messages {
                let _ = message.requeue_without_backoff(Duration::ZERO);
            }
            return None;
        }
        while messages.len() < room
            && let Some(Some(message)) = poll_once(self.consumer.next()).await
        {
            messages.push(message);
        }
        self.left.set(self.left.get() - messages.len() as u64);
        Some(messages)
    }
}

/// Prints messages, one per line.
fn print(topic: Option<TopicName>, bodies: &[Bytes]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for body in bodies {
        if let Some(topic) = topic {
            write!(out, "{topic} | ")?;
        }
        out.write_all(body)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// How often nsqlookupds are asked: somebody sits and waits.
const LOOKUPD_POLL_INTERVAL: Duration = Duration::from_secs(5);

/// How long the end may take.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Messages that are printed at a time.
const BATCH_MAX: usize = 200;
