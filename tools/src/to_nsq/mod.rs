//! `sansq to-nsq`: publishes what it consumes, elsewhere (http-and-ops.md section 10.5).

mod filter;

use core::cell::{Cell, RefCell};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use futures_util::future::join_all;
use sansq_core::log::Level;
use sansq_core::name::{ChannelName, TopicName};
use sansq_tokio::{Message, Producer, PublishError};
use sansq_toolkit::flags;
use sansq_toolkit::log::{TOOL, log};
use tokio::sync::watch;

use self::filter::{Filter, Verdict};
use super::ToolError;
use super::clients::{self, Orders, Sources, Subscription};
use super::progress::Progress;
use super::status::Status;

/// What to publish where.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "sansq to-nsq",
    bin_name = "sansq to-nsq",
    about = "Consumes topics and publishes their messages to other nsqds",
    long_about = "Consumes topics and publishes their messages to other nsqds.\n\n\
        A message is finished when a destination has acknowledged it. One that none takes comes again \
        later, and the tool slows down.",
    args_override_self = true,
    max_term_width = 100
)]
pub struct ToNsqOptions {
    /// The topic; repeat for more
    #[arg(long, required = true, value_parser = |text: &str| TopicName::new(text))]
    pub topic: Vec<TopicName>,
    /// The channel
    #[arg(long, default_value = "nsq_to_nsq", value_parser = |text: &str| ChannelName::new(text))]
    pub channel: ChannelName,
    /// Where the messages come from.
    #[command(flatten)]
    pub sources: Sources,
    /// host:port of an nsqd to publish to; repeat for more
    #[arg(long, required = true, value_name = "ADDRESS", value_parser = flags::address)]
    pub destination_nsqd_tcp_address: Vec<String>,
    /// An option of the producers, by go-nsq's name: name,value, or a name alone for true; repeat
    /// for more
    #[arg(long, value_name = "NAME,VALUE")]
    pub producer_opt: Vec<String>,
    /// The topic to publish to [default: that of the message]
    #[arg(long, value_parser = |text: &str| TopicName::new(text))]
    pub destination_topic: Option<TopicName>,
    /// How one of several destinations is chosen
    #[arg(long, value_enum, default_value_t = NsqMode::Hostpool)]
    pub mode: NsqMode,
    /// Only messages that are JSON objects with this field
    #[arg(long, value_name = "FIELD", value_parser = flags::filled)]
    pub require_json_field: Option<String>,
    /// Only messages in which that field is this text or number
    #[arg(long, value_name = "VALUE", requires = "require_json_field")]
    pub require_json_value: Option<String>,
    /// Pass on only this field of messages that are JSON objects; repeat for more
    #[arg(long, value_name = "FIELD")]
    pub whitelist_json_field: Vec<String>,
    /// Messages in flight at a time, of each topic
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_in_flight: u32,
    /// Log a line after so many messages; 0: never
    #[arg(long, default_value_t = 250)]
    pub status_every: u64,
}

/// How one of several destinations is chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum NsqMode {
    /// One that is connected and has least to do; another one if it can't take the message.
    Hostpool,
    /// Here as hostpool.
    EpsilonGreedy,
    /// Each in turn.
    RoundRobin,
}

/// Publishes what comes until a signal ends it.
///
/// # Errors
/// [`ToolError`] for flags that don't go together, and for servers to consume from that can't be
/// reached at the start.
pub fn run_to_nsq(options: ToNsqOptions) -> Result<(), ToolError> {
    clients::pass_on(&options.sources, "[nsq_to_nsq] ", "passed on", async |orders, progress| {
        run(&options, orders, progress).await
    })
}

async fn run(
    options: &ToNsqOptions,
    orders: watch::Sender<Orders>,
    progress: &Progress,
) -> Result<(), ToolError> {
    let passing = Passing {
        destinations: Destinations::new(options)?,
        filter: Filter {
            field: options.require_json_field.clone(),
            value: options.require_json_value.clone(),
            whitelist: options.whitelist_json_field.clone(),
        },
        topic: options.destination_topic,
        status: RefCell::new(Status::new("aggregate", options.status_every)),
        progress,
    };
    let limit = usize::try_from(options.max_in_flight).unwrap_or(usize::MAX);
    let mut topics = options.topic.clone();
    topics.sort();
    topics.dedup();
    let works = topics.into_iter().map(async |topic| {
        let subscription = Subscription {
            tool: "nsq_to_nsq",
            topic,
            channel: options.channel,
            sources: &options.sources,
            max_in_flight: options.max_in_flight,
            max_attempts: clients::MAX_ATTEMPTS,
            lookupd_poll_interval: clients::LOOKUPD_POLL_INTERVAL,
        };
        let consumer = subscription.consumer()?;
        let named = &options.sources.nsqd_tcp_address;
        let handler = async |message: Message| passing.pass(topic, message).await;
        clients::consume(consumer, named, limit, &orders, handler).await
    });
    let results = join_all(works).await;
    passing.destinations.close().await;
    results.into_iter().collect()
}

/// What a message goes through.
struct Passing<'a> {
    destinations: Destinations,
    filter: Filter,
    topic: Option<TopicName>,
    status: RefCell<Status>,
    progress: &'a Progress,
}

impl Passing<'_> {
    async fn pass(&self, topic: TopicName, message: Message) {
        let body = match self.filter.judge(message.body()) {
            Verdict::Pass(body) => body,
            Verdict::Drop => return clients::answered(message.finish()),
            Verdict::NoObject => {
                let id = String::from_utf8_lossy(message.id()).into_owned();
                log(TOOL, Level::Error, format_args!("message {id} is no JSON object, dropped"));
                return clients::answered(message.finish());
            }
        };
        let began = Instant::now();
        match self.destinations.publish(self.topic.unwrap_or(topic), body).await {
            Ok(()) => {
                clients::answered(message.finish());
                self.progress.add(1);
                if let Some(line) = self.status.borrow_mut().record(began.elapsed()) {
                    log(TOOL, Level::Info, line);
                }
            }
            Err(error) => {
                log(TOOL, Level::Error, format_args!("a message was not passed on: {error}"));
                clients::answered(message.requeue(None));
            }
        }
    }
}

/// Where messages go: one producer that chooses among its nsqds, or one for each.
struct Destinations {
    producers: Vec<Producer>,
    next: Cell<usize>,
}

impl Destinations {
    fn new(options: &ToNsqOptions) -> Result<Self, ToolError> {
        let new = |nsqds: &[String]| {
            clients::producer_for("nsq_to_nsq", nsqds, &options.producer_opt, |_| {})
        };
        let nsqds = &options.destination_nsqd_tcp_address;
        let producers = match options.mode {
            NsqMode::Hostpool | NsqMode::EpsilonGreedy => vec![new(nsqds)?],
            NsqMode::RoundRobin => {
                nsqds.chunks(1).map(new).collect::<Result<Vec<_>, ToolError>>()?
            }
        };
        Ok(Self { producers, next: Cell::new(0) })
    }

    async fn publish(&self, topic: TopicName, body: bytes::Bytes) -> Result<(), PublishError> {
        let index = self.next.get() % self.producers.len().max(1);
        self.next.set(index + 1);
        match self.producers.get(index) {
            Some(producer) => producer.publish(topic, body).await,
            None => Err(PublishError::Closed),
        }
    }

    async fn close(&self) {
        for producer in &self.producers {
            producer.close().await;
        }
    }
}
