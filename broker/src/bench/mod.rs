//! `sansq bench`: a load generator for any server that speaks NSQ's protocol.
//!
//! One blocking thread per connection, independent of the runtimes under test. It is meant to cost
//! far less than the server: commands are built once and only their time stamps rewritten, reads fill
//! a large buffer, FINs leave in one write per read, and nothing is allocated per message.
//!
//! A body carries a marker of this run and the time of its publish command, both read by the same
//! process, so that delivery latency needs no clock in common with the server. Messages without
//! the marker (left over, or made up by the server) count, but not for latency.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use std::io;
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sansq_core::name::TopicName;

mod connection;
mod consumer;
mod options;
mod publisher;
mod report;

pub use options::{BenchOptions, Mode};
pub use report::{Flow, Report};

use connection::Connection;
use consumer::Consumer;
use publisher::Publisher;

/// Puts load on a server and says what it did.
///
/// # Errors
/// [`BenchError`] if a connection can't be made, ends early, or gets an answer that is no success.
pub fn run(options: &BenchOptions) -> Result<Report, BenchError> {
    let topic = match options.topic {
        Some(topic) => topic,
        None => fresh_topic()?,
    };
    let marker = since_epoch().as_nanos() as u64 ^ (u64::from(std::process::id()) << 48);
    let address = options.nsqd_tcp_address.as_str();

    // Consumers first: a message that finds no channel would wait on the topic.
    let mut consumers = Vec::new();
    if options.mode != Mode::Pub {
        for _ in 0..options.consumers {
            let connection = Connection::open(address)?;
            consumers.push(Consumer::subscribe(connection, options, topic, marker)?);
        }
    }
    let mut publishers = Vec::new();
    if options.mode != Mode::Sub {
        for _ in 0..options.connections {
            let connection = Connection::open(address)?;
            publishers.push(Publisher::new(connection, options, topic, marker)?);
        }
    }

    let shared = Shared {
        clock: Clock(Instant::now()),
        end: options.duration.as_nanos() as u64,
        publishing: AtomicUsize::new(publishers.len()),
        published: AtomicU64::new(0),
        received: AtomicU64::new(0),
        heard: AtomicU64::new(0),
        failed: AtomicBool::new(false),
    };
    let (published, received) = thread::scope(|scope| {
        let shared = &shared;
        let consumers: Vec<_> = (consumers.into_iter())
            .map(|consumer| scope.spawn(move || shared.watch(consumer.run(shared))))
            .collect();
        let publishers: Vec<_> = (publishers.into_iter())
            .map(|publisher| {
                scope.spawn(move || {
                    let flow = shared.watch(publisher.run(shared));
                    shared.publishing.fetch_sub(1, Ordering::AcqRel);
                    flow
                })
            })
            .collect();
        (join(publishers), join(consumers))
    });
    Ok(Report::new(options, topic, published?, received?))
}

/// Why a run came to nothing.
#[derive(Debug)]
pub enum BenchError {
    /// The bodies of one connection's window don't fit into memory.
    CommandsTooLarge,
    /// The connection failed; what it was used for, and how.
    Io(&'static str, io::Error),
    /// The server sent what is no frame of the protocol.
    Malformed,
    /// The server refused a command with this error.
    Refused(String),
    /// The server did not answer within ten seconds.
    Stalled,
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandsTooLarge => {
                f.write_str("--size times --batch times --window is more than a gigabyte")
            }
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::Malformed => f.write_str("the server's answer is not NSQ's protocol"),
            Self::Refused(error) => write!(f, "the server answered {error}"),
            Self::Stalled => f.write_str("the server did not answer for ten seconds"),
        }
    }
}

impl core::error::Error for BenchError {}

/// What the threads of a run know of each other.
#[derive(Debug)]
struct Shared {
    clock: Clock,
    /// When publishers and, without publishers, consumers stop.
    end: u64,
    /// Publishers that still run.
    publishing: AtomicUsize,
    /// Messages that were acknowledged.
    published: AtomicU64,
    /// Messages that were delivered.
    received: AtomicU64,
    /// When the last of them came, to whichever consumer.
    heard: AtomicU64,
    /// Whether a thread gave up; the others then do too.
    failed: AtomicBool,
}

impl Shared {
    fn watch<T>(&self, result: Result<T, BenchError>) -> Result<T, BenchError> {
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        result
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn note_received(&self, messages: u64, now: u64) {
        if messages > 0 {
            self.received.fetch_add(messages, Ordering::Relaxed);
            self.heard.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// Whether the publishers are done and all that they published was delivered, or will not be.
    fn is_delivered(&self, now: u64) -> bool {
        self.publishing.load(Ordering::Acquire) == 0
            && (self.received.load(Ordering::Relaxed) >= self.published.load(Ordering::Relaxed)
                || self.silent(now) > STALL)
    }

    /// Whether the time is up or, to whichever consumer, no more comes.
    fn is_dry(&self, now: u64) -> bool {
        let any = self.received.load(Ordering::Relaxed) > 0;
        now >= self.end || (any && self.silent(now) > IDLE)
    }

    fn silent(&self, now: u64) -> u64 {
        now.saturating_sub(self.heard.load(Ordering::Relaxed))
    }
}

/// Nanoseconds since the start of the run.
#[derive(Clone, Copy, Debug)]
struct Clock(Instant);

impl Clock {
    fn nanos(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// Adds up what the threads did; a failure of one is a failure of all.
fn join(
    threads: Vec<thread::ScopedJoinHandle<'_, Result<Flow, BenchError>>>,
) -> Result<Flow, BenchError> {
    threads.into_iter().try_fold(Flow::default(), |sum, thread| {
        let flow = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(sum.plus(flow))
    })
}

fn fresh_topic() -> Result<TopicName, BenchError> {
    let name = format!("sansq_bench_{:x}", since_epoch().as_millis());
    TopicName::new(name).map_err(|error| BenchError::Refused(error.to_string()))
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Bytes of a body that carry the marker and the time of publishing.
const STAMP: usize = 16;
/// In mode `sub`, how long nothing comes before the channel counts as drained.
const IDLE: u64 = 1_000_000_000;
/// How long a server may leave a command unanswered.
const STALL: u64 = 10_000_000_000;

#[cfg(test)]
mod tests;
