//! `sansq pub`: publishes its arguments, or what comes in on standard input.

use core::future::{Future, pending};
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::collections::VecDeque;
use std::io::BufRead;
use std::thread;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sansq_core::name::TopicName;
use sansq_tokio::{
    ConnectionError, Events, Producer, ProducerEvent, PublishError, Receipt, RetryPolicy,
};
use sansq_toolkit::http;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::clients::{self, Orders};
use super::lookup::{self, Port};
use super::progress::Progress;
use super::{PubOptions, ToolError};

/// Publishes the messages of the arguments or of standard input, to every nsqd that is named, or to
/// one that an nsqlookupd knows; until there are no more, or a signal comes. Returns how many
/// messages were acknowledged by each.
///
/// # Errors
/// [`ToolError`] for the first message that was not published.
pub fn run_pub(mut options: PubOptions) -> Result<u64, ToolError> {
    let mut acknowledged = 0;
    clients::run(false, async |orders: watch::Sender<Orders>| {
        if !options.lookupd_http_address.is_empty() {
            let lookupds = options.lookupd_http_address.clone();
            let asking = move || {
                lookup::nsqds(&http::default_agent(), &lookupds, None, Port::Tcp, lookup::GRACE)
            };
            let Some(found) = clients::unless_stopped(&orders, asking).await? else {
                return Ok(());
            };
            let none = || ToolError::Lookup("the nsqlookupds know no nsqd".into());
            let found = found.map_err(ToolError::Lookup)?.into_iter().next();
            options.nsqd_tcp_address = vec![found.ok_or_else(none)?];
        }
        let publishing = Publishing::new(&options)?;
        acknowledged = publishing.run(feed(&options)?, orders.subscribe()).await?;
        Ok(())
    })?;
    Ok(acknowledged)
}

/// What is read, or why it can't be.
type Input = std::io::Result<Vec<Bytes>>;

/// Reads the messages on a thread of its own, which is not waited for.
fn feed(options: &PubOptions) -> Result<Receiver<Input>, ToolError> {
    let (events, inbox) = channel(BATCHES_MAX);
    let (messages, delimiter) = (options.messages.clone(), options.delimiter);
    let feeding = move || {
        if !messages.is_empty() {
            let _ = events.blocking_send(Ok(messages.into_iter().map(Bytes::from).collect()));
        } else if let Err(error) = read(&mut std::io::stdin().lock(), delimiter, &events) {
            let _ = events.blocking_send(Err(error));
        }
    };
    thread::Builder::new().name("read messages".into()).spawn(feeding).map_err(ToolError::Start)?;
    Ok(inbox)
}

/// Reads messages, as many at a time as are there without waiting. Empty ones are skipped: NSQ has
/// no messages without a body.
fn read(input: &mut impl BufRead, delimiter: u8, events: &Sender<Input>) -> std::io::Result<()> {
    let mut message = Vec::new();
    loop {
        let buffered = input.fill_buf()?;
        if buffered.is_empty() {
            break;
        }
        let len = buffered.len();
        let mut messages = Vec::new();
        for piece in buffered.split_inclusive(|byte| *byte == delimiter) {
            match piece.strip_suffix(&[delimiter]) {
                Some(end) => {
                    message.extend_from_slice(end);
                    let whole = core::mem::take(&mut message);
                    if !whole.is_empty() {
                        messages.push(Bytes::from(whole));
                    }
                }
                None => message.extend_from_slice(piece),
            }
        }
        input.consume(len);
        if !messages.is_empty() && events.blocking_send(Ok(messages)).is_err() {
            return Ok(());
        }
    }
    if !message.is_empty() {
        let _ = events.blocking_send(Ok(vec![Bytes::from(message)]));
    }
    Ok(())
}

struct Publishing {
    topic: TopicName,
    /// Messages that wait for room, or for their time if there is a rate.
    queue: VecDeque<Bytes>,
    /// Time between two messages; zero for none.
    interval: Duration,
    next_at: Instant,
    nsqds: Vec<Nsqd>,
    progress: Progress,
}

struct Nsqd {
    address: String,
    producer: Producer,
    /// Messages and bytes that it has not answered yet.
    outstanding: usize,
    outstanding_bytes: usize,
    /// How many of them there may be, and of bytes.
    max: (usize, usize),
    acknowledged: u64,
}

impl Publishing {
    fn new(options: &PubOptions) -> Result<Self, ToolError> {
        let nsqd = |address: &String| {
            let mut max = (0, 0);
            let (nsqds, producer_opt) = (core::slice::from_ref(address), &options.producer_opt);
            let producer = clients::producer_for("to_nsq", nsqds, producer_opt, |options| {
                // In the order of the input, or not at all.
                options.retry = RetryPolicy::Never;
                let of = &options.producer;
                max = (
                    of.max_outstanding.min(OUTSTANDING_MAX),
                    (of.max_outstanding_bytes / 2).min(OUTSTANDING_LEN_MAX),
                );
            })?;
            let (address, outstanding) = (address.clone(), 0);
            let (outstanding_bytes, acknowledged) = (0, 0);
            Ok(Nsqd { address, producer, outstanding, outstanding_bytes, max, acknowledged })
        };
        Ok(Self {
            topic: options.topic,
            queue: VecDeque::new(),
            interval: interval(options.rate),
            next_at: Instant::now(),
            nsqds: options.nsqd_tcp_address.iter().map(nsqd).collect::<Result<_, ToolError>>()?,
            progress: Progress::new("published"),
        })
    }

    async fn run(
        mut self,
        mut inbox: Receiver<Input>,
        mut orders: watch::Receiver<Orders>,
    ) -> Result<u64, ToolError> {
        let stopped = clients::stopped(&mut orders);
        let watched = self.nsqds.iter().map(|nsqd| failure(nsqd.producer.events()));
        let mut failures: FuturesUnordered<_> = watched.collect();
        let mut outstanding = FuturesUnordered::new();
        let mut is_over = false;
        tokio::pin!(stopped);
        while !is_over || !self.queue.is_empty() || !outstanding.is_empty() {
            self.publish(&outstanding)?;
            let paced = !self.queue.is_empty() && self.has_room();
            tokio::select! {
                () = &mut stopped => break,
                Some(answer) = outstanding.next() => self.count(answer)?,
                Some((address, error)) = failures.next() => {
                    let acknowledged = 0;
                    let error = PublishError::NotSent(error);
                    return Err(ToolError::Publish { address, acknowledged, error });
                }
                input = inbox.recv(), if !is_over && self.queue.is_empty() => match input {
                    Some(messages) => self.queue.extend(messages.map_err(ToolError::Input)?),
                    None => is_over = true,
                },
                () = sleep_until(self.next_at), if paced => {}
            }
        }
        for nsqd in &self.nsqds {
            nsqd.producer.close().await;
        }
        // After a signal there are some that were answered only now.
        while let Some(answer) = outstanding.next().await {
            self.count(answer)?;
        }
        self.progress.finish();
        Ok(self.nsqds.iter().map(|nsqd| nsqd.acknowledged).min().unwrap_or(0))
    }

    fn has_room(&self) -> bool {
        self.nsqds
            .iter()
            .all(|nsqd| nsqd.outstanding < nsqd.max.0 && nsqd.outstanding_bytes <= nsqd.max.1)
    }

    /// Hands messages to the producers as far as all of them have room, and as their time comes.
    fn publish(&mut self, outstanding: &FuturesUnordered<Unanswered>) -> Result<(), ToolError> {
        while self.has_room() && (self.interval.is_zero() || self.next_at <= Instant::now()) {
            let Some(body) = self.queue.pop_front() else { break };
            for (index, nsqd) in self.nsqds.iter_mut().enumerate() {
                let receipt = nsqd.producer.enqueue(self.topic, body.clone());
                let receipt = receipt.map_err(|error| nsqd.failed(error))?;
                nsqd.outstanding += 1;
                nsqd.outstanding_bytes += body.len();
                outstanding.push(Unanswered { index, len: body.len(), receipt });
            }
            if !self.interval.is_zero() {
                self.next_at = self.next_at.max(Instant::now()) + self.interval;
            }
        }
        Ok(())
    }

    fn count(&mut self, (index, len, outcome): Answered) -> Result<(), ToolError> {
        let Some(nsqd) = self.nsqds.get_mut(index) else { return Ok(()) };
        nsqd.outstanding -= 1;
        nsqd.outstanding_bytes -= len;
        outcome.map_err(|error| nsqd.failed(error))?;
        nsqd.acknowledged += 1;
        if index == 0 {
            self.progress.add(1);
        }
        Ok(())
    }
}

impl Nsqd {
    fn failed(&self, error: PublishError) -> ToolError {
        let (address, acknowledged) = (self.address.clone(), self.acknowledged);
        ToolError::Publish { address, acknowledged, error }
    }
}

/// The number of an nsqd, the length of a message, and what became of it.
type Answered = (usize, usize, Result<(), PublishError>);

/// A message that is not answered yet.
struct Unanswered {
    index: usize,
    len: usize,
    receipt: Receipt,
}

impl Future for Unanswered {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answered> {
        let outcome = Pin::new(&mut self.receipt).poll(context);
        outcome.map(|outcome| (self.index, self.len, outcome))
    }
}

/// Is over when the nsqd can't be connected to and never could: a person waits, so it is not tried
/// again.
#[expect(clippy::wildcard_enum_match_arm, reason = "only the first outcome matters")]
async fn failure(mut events: Events<ProducerEvent>) -> (String, ConnectionError) {
    while let Some(event) = events.next().await {
        if let ProducerEvent::Nsqd { nsqd, event } = event {
            match *event {
                ProducerEvent::Connected { .. } => break,
                ProducerEvent::Disconnected { error, .. } => return ((*nsqd).to_owned(), error),
                _ => {}
            }
        }
    }
    pending().await
}

/// Time between two messages at so many per second.
fn interval(rate: u64) -> Duration {
    match u32::try_from(rate) {
        Ok(0) => Duration::ZERO,
        Ok(rate) => Duration::from_secs(1) / rate,
        // More than can be told from no limit.
        Err(_) => Duration::ZERO,
    }
}

/// What may be outstanding before no more is handed to a producer; well below its own limits.
const OUTSTANDING_MAX: usize = 1000;
const OUTSTANDING_LEN_MAX: usize = 16 * 1024 * 1024;

/// Batches that were read and wait to be published: each has what was there at once, 8 KiB mostly.
const BATCHES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_end_at_the_delimiter_and_empty_ones_are_skipped() {
        let (events, mut inbox) = channel(100);
        // A buffer of three bytes, so that messages are cut.
        let mut input = std::io::BufReader::with_capacity(3, &b"one\n\n\ntwo\r\nthree"[..]);
        read(&mut input, b'\n', &events).unwrap();
        drop(events);
        let mut messages = Vec::new();
        while let Some(batch) = inbox.blocking_recv() {
            messages.extend(batch.unwrap());
        }
        assert_eq!(messages, ["one", "two\r", "three"]);
    }
}
