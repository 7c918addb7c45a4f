//! `sansq bench`: a load generator for any server that speaks NSQ's protocol.
//!
//! It is independent of the runtimes under test, and meant to cost far less than the server, whose
//! cores it may share. A few threads wait for all connections (`worker`); commands are built once,
//! and only their time stamps are rewritten (`commands`); reads fill a large buffer, in which
//! frames are read in place (`link`); FINs leave in one write per read (`consumer`). Nothing is
//! allocated per message. It prints what it cost.
//!
//! A body carries a marker of this run and the time when its command was due, both read by the same
//! process, so that delivery latency needs no clock in common with the server. Messages without the
//! marker (left over, or made up by the server) count, but not for latency.
//!
//! What is measured, and how to read it, is in `docs/BENCH.md`.

use core::cell::Cell;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use sansq_core::client::ConnectionOptions;
use sansq_core::name::{InvalidName, TopicName};
use sansq_core::protocol::frame::OK;
use sansq_core::upgrade::UpgradeError;

mod cleanup;
mod commands;
mod compare;
mod consumer;
mod cpu;
mod echo;
mod flow;
mod handshake;
mod link;
mod options;
mod publisher;
mod report;
mod run;
mod schedule;
mod wait;
mod worker;

pub use compare::{Comparison, Ratio, compare};
pub use flow::Flow;
pub use options::{BenchOptions, Body, Mode, Pair};
pub use report::{Report, Server};

use cleanup::Cleanup;
use commands::Commands;
use consumer::Consumer;
use cpu::Usage;
use echo::{ECHO, Echo};
use handshake::Opened;
use publisher::Publisher;
use run::Run;
use schedule::{Schedule, share};
use worker::{Peer, Worker};

/// Puts load on one server and says what it did.
///
/// # Errors
/// [`BenchError`] if a connection can't be made, ends early, or gets an answer that is no success;
/// or if the options don't [`check`](BenchOptions::check).
pub fn measure(options: &BenchOptions) -> Result<Report, BenchError> {
    options.check().map_err(BenchError::Options)?;
    // It ends with this.
    let echo = if options.nsqd_tcp_address == ECHO {
        Some(Echo::start().map_err(|error| BenchError::Io("listening", error))?)
    } else {
        None
    };
    let address = match &echo {
        Some(echo) => echo.address.to_string(),
        None => options.nsqd_tcp_address.clone(),
    };
    let setup = Setup::new(options, address)?;
    // Behind everything else, however that ends.
    let _cleanup =
        Cleanup::new(options, &setup.address, &setup.topics, (&setup.stop, &setup.connected));
    // Consumers first: a message that finds no channel would wait on the topic.
    let mut server = Server::default();
    let consumers = match options.mode {
        Mode::Pub => Vec::new(),
        Mode::Both | Mode::Sub => setup.consumers(&mut server)?,
    };
    let left = match options.prefill {
        Some(messages) => Some(setup.prefill(messages, &mut server)? * u64::from(options.channels)),
        None => None,
    };
    let end = options.end_nanos().unwrap_or(u64::MAX);
    let mut publishers = Vec::new();
    if options.mode != Mode::Sub {
        publishers = setup.publishers(&mut server, options.rate, options.messages, end)?;
    }
    let start = u64::try_from(options.warm_up().as_nanos()).unwrap_or(u64::MAX);
    let run = Run::new(options.mode, (start, end), publishers.len(), options.channels, left);
    let run = run.spin(options.spin).stopped_by(&setup.stop);
    let (published, received) = setup.go(&run, publishers, consumers, &mut server)?;
    let undelivered = match options.mode {
        Mode::Both => run.expected().saturating_sub(run.received.load(Ordering::Relaxed)),
        Mode::Pub if options.drain => setup.drain(published.total)?,
        Mode::Pub | Mode::Sub => 0,
    };
    Ok(Report::new(options, setup.topics, server, (published, received), undelivered))
}

/// Why a run came to nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum BenchError {
    /// The server wants a secret: `--client-opt auth_secret,…`.
    AuthRequired,
    /// A signal came before the end.
    Interrupted,
    /// The connection failed; what it was used for, and how.
    Io(&'static str, io::Error),
    /// What came through TLS or a compression means nothing.
    Layer(UpgradeError),
    /// The server sent what is no frame of the protocol, or no answer to what was asked.
    Malformed,
    /// A topic's or a channel's name with its number is not valid.
    Name(String, InvalidName),
    /// The server does not grant this option.
    NotGranted(&'static str),
    /// The options don't go together.
    Options(String),
    /// The server refused a command with this error.
    Refused(String),
    /// The server did not answer for ten seconds, or not to the handshake.
    Stalled,
}

impl BenchError {
    fn refused(error: &[u8]) -> Self {
        Self::Refused(String::from_utf8_lossy(error).into_owned())
    }
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AuthRequired => {
                f.write_str("the server wants a secret: --client-opt auth_secret,SECRET")
            }
            Self::Interrupted => f.write_str("interrupted"),
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::Layer(error) => error.fmt(f),
            Self::Malformed => f.write_str("the server's answer is not NSQ's protocol"),
            Self::Name(name, error) => write!(f, "{name}: {error}"),
            Self::NotGranted(option) => {
                write!(f, "the server does not grant {option}, which --client-opt asks for")
            }
            Self::Options(text) => f.write_str(text),
            Self::Refused(error) => write!(f, "the server answered {error}"),
            Self::Stalled => f.write_str("the server did not answer for ten seconds"),
        }
    }
}

impl core::error::Error for BenchError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            Self::Layer(error) => Some(error),
            Self::Name(_, error) => Some(error),
            Self::AuthRequired
            | Self::Interrupted
            | Self::Malformed
            | Self::NotGranted(_)
            | Self::Options(_)
            | Self::Refused(_)
            | Self::Stalled => None,
        }
    }
}

/// What one run is made of.
struct Setup<'a> {
    options: &'a BenchOptions,
    /// The server's, also if the options only have its name.
    address: String,
    connection: ConnectionOptions,
    topics: Vec<String>,
    channels: Vec<String>,
    marker: [u8; 8],
    /// Set by a signal.
    stop: Arc<AtomicBool>,
    /// Set by the first connection.
    connected: Rc<Cell<bool>>,
}

impl<'a> Setup<'a> {
    fn new(options: &'a BenchOptions, address: String) -> Result<Self, BenchError> {
        let nanos = since_epoch().as_nanos() as u64;
        let topic = match &options.topic {
            Some(topic) => topic.to_string(),
            None => format!("sansq_bench_{:x}", nanos / 1_000),
        };
        let topics = numbered(&topic, options.topics);
        let channels = numbered(options.channel.as_ref(), options.channels);
        // The last one is the longest.
        for name in [topics.last(), channels.last()].into_iter().flatten() {
            TopicName::new(name).map_err(|error| BenchError::Name(name.clone(), error))?;
        }
        Ok(Self {
            options,
            address,
            connection: options.connection_options().map_err(BenchError::Options)?,
            topics,
            channels,
            stop: Arc::default(),
            connected: Rc::default(),
            marker: (nanos ^ (u64::from(std::process::id()) << 48)).to_be_bytes(),
        })
    }

    fn open(&self, server: &mut Server) -> Result<Opened, BenchError> {
        let opened = Opened::new(&self.address, &self.connection)?;
        self.connected.set(true);
        if server.version.is_empty() {
            server.version.clone_from(&opened.version);
        }
        if server.pid.is_none() {
            let given = self.options.pid.first().copied();
            let found = || cpu::listener(opened.peer, opened.local);
            // The time of the echo's threads is not told apart from that of the others.
            server.pid = given.or_else(found).filter(|pid| *pid != std::process::id());
        }
        Ok(opened)
    }

    /// What the consumer of this number subscribes to: all topics' first channels, then their
    /// second ones, and then again.
    fn subscription(&self, index: u32) -> (&str, &str) {
        let index = index as usize;
        let (topics, channels) = (self.topics.len(), self.channels.len());
        (&self.topics[index % topics], &self.channels[index / topics % channels])
    }

    /// All consuming connections, subscribed.
    fn consumers(&self, server: &mut Server) -> Result<Vec<Consumer>, BenchError> {
        let consumer = |index| {
            let mut opened = self.open(server)?;
            let (topic, channel) = self.subscription(index);
            let command = format!("SUB {topic} {channel}\n");
            if opened.ask(command.as_bytes())? != OK {
                return Err(BenchError::Malformed);
            }
            Ok(Consumer::new(opened.into_link()?, self.options.rdy, self.marker))
        };
        (0..self.options.consumers()).map(consumer).collect()
    }

    fn publishers(
        &self,
        server: &mut Server,
        rate: Option<u64>,
        messages: Option<u64>,
        end: u64,
    ) -> Result<Vec<Publisher>, BenchError> {
        let BenchOptions { connections, batch, .. } = *self.options;
        let total = messages.map_or(u64::MAX, |messages| messages.div_ceil(batch.into()));
        let publisher = |index| {
            let link = self.open(server)?.into_link()?;
            let topics = self.topics_of(index);
            let commands = Commands::new(self.options, &topics, self.marker, index.into());
            let limit = if messages.is_some() { share(total, index, connections) } else { total };
            let schedule = match rate {
                Some(rate) => Schedule::open(rate, batch, (index, connections), limit, end),
                None => Schedule::closed(limit, end),
            };
            Ok(Publisher::new(link, self.options, commands, schedule))
        };
        (0..connections).map(publisher).collect()
    }

    /// The topics that a publishing connection publishes to, in turn.
    fn topics_of(&self, index: u32) -> Vec<String> {
        let groups = self.options.topic_groups();
        let (first, step) = ((index % groups) as usize, groups as usize);
        self.topics.iter().skip(first).step_by(step).cloned().collect()
    }

    /// Publishes this many messages, in whole batches; how many per topic's channel that are.
    fn prefill(&self, messages: u64, server: &mut Server) -> Result<u64, BenchError> {
        let publishers = self.publishers(server, None, Some(messages), u64::MAX)?;
        let run = Run::new(Mode::Pub, (0, u64::MAX), publishers.len(), 0, None);
        let run = run.stopped_by(&self.stop);
        let (published, _) = self.go(&run, publishers, Vec::new(), &mut Server::default())?;
        Ok(published.total)
    }

    /// Consumes so many messages; how many of them did not come.
    fn drain(&self, messages: u64) -> Result<u64, BenchError> {
        let consumers = self.consumers(&mut Server::default())?;
        let run = Run::new(Mode::Sub, (0, u64::MAX), 0, 1, Some(messages)).stopped_by(&self.stop);
        let (_, received) = self.go(&run, Vec::new(), consumers, &mut Server::default())?;
        Ok(messages.saturating_sub(received.total))
    }

    /// Has threads do it, and looks at the server meanwhile.
    fn go(
        &self,
        run: &Run,
        publishers: Vec<Publisher>,
        consumers: Vec<Consumer>,
        server: &mut Server,
    ) -> Result<(Flow, Flow), BenchError> {
        let threads = usize::from(self.options.threads);
        thread::scope(|scope| {
            let publishers: Vec<_> = deal(publishers, threads)
                .into_iter()
                .map(|peers| scope.spawn(move || publish(run, peers)))
                .collect();
            let consumers: Vec<_> = deal(consumers, threads)
                .into_iter()
                .map(|peers| scope.spawn(move || watch(run, Worker::new(run, peers, true))))
                .collect();
            let are_done = || {
                let mut threads = publishers.iter().chain(&consumers);
                threads.all(thread::ScopedJoinHandle::is_finished)
            };
            if let Some(pid) = server.pid {
                server.watch(run, are_done, || cpu::usage(pid));
            }
            let flows = (join(publishers)?, join(consumers)?);
            if self.stop.load(Ordering::Relaxed) { Err(BenchError::Interrupted) } else { Ok(flows) }
        })
    }
}

impl Server {
    /// Notes what the server uses from the start of counting to its end, or until all `are_done`.
    fn watch(&mut self, run: &Run, are_done: impl Fn() -> bool, usage: impl Fn() -> Option<Usage>) {
        let wait_until = |time: u64| {
            while !are_done() && run.now() < time {
                let left = Duration::from_nanos(time.saturating_sub(run.now()));
                thread::sleep(left.min(wait::TICK));
            }
            Some((usage()?, run.now()))
        };
        let before = wait_until(run.start);
        let after = wait_until(run.end);
        let (Some((before, began)), Some((after, ended))) = (before, after) else { return };
        self.cpu = Some(after.cpu.saturating_sub(before.cpu));
        self.watched = Duration::from_nanos(ended.saturating_sub(began));
        self.memory = Some(after.memory);
    }
}

fn publish(run: &Run, peers: Vec<Publisher>) -> Result<Flow, BenchError> {
    let count = peers.len();
    let flow = watch(run, Worker::new(run, peers, false));
    run.publishing.fetch_sub(count, Ordering::AcqRel);
    flow
}

fn watch<P: Peer>(run: &Run, worker: Worker<'_, P>) -> Result<Flow, BenchError> {
    let result = worker.work();
    if result.is_err() {
        run.fail();
    }
    result
}

/// Deals connections to at most so many threads, none of which is without.
fn deal<T>(peers: Vec<T>, threads: usize) -> Vec<Vec<T>> {
    let mut hands: Vec<Vec<T>> = (0..threads.min(peers.len())).map(|_| Vec::new()).collect();
    let count = hands.len();
    for (index, peer) in peers.into_iter().enumerate() {
        hands[index % count].push(peer);
    }
    hands
}

/// Adds up what the threads did; a failure of one is a failure of all.
fn join(
    threads: Vec<thread::ScopedJoinHandle<'_, Result<Flow, BenchError>>>,
) -> Result<Flow, BenchError> {
    let results: Vec<_> = (threads.into_iter())
        .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        .collect();
    results.into_iter().try_fold(Flow::default(), |sum, flow| Ok(sum.plus(flow?)))
}

/// One name, or so many with numbers of one length behind it, in front of `#ephemeral`.
fn numbered(name: &str, count: u32) -> Vec<String> {
    if count == 1 {
        return vec![name.to_owned()];
    }
    let digits = (count - 1).to_string().len();
    let (stem, suffix) = name.split_once('#').map_or((name, ""), |(stem, _)| (stem, "#ephemeral"));
    (0..count).map(|number| format!("{stem}_{number:0digits$}{suffix}")).collect()
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
