//! `sansq to-file`: writes the messages of topics to files (http-and-ops.md section 10.3).
//!
//! [`naming`] says how files are called, [`output`] when they change and when what is in them is
//! safe; here messages are gathered, and finished when they are.

mod naming;
mod output;

use core::time::Duration;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use clap::Parser;
use futures_lite::future::poll_once;
use jiff::Zoned;
use regex_automata::nfa::thompson::pikevm::PikeVM;
use sansq_core::duration::parse_go_duration;
use sansq_core::log::Level;
use sansq_core::name::{ChannelName, TopicName};
use sansq_runtime::host_name;
use sansq_tokio::{Consumer, Message};
use sansq_toolkit::flags;
use sansq_toolkit::log::{TOOL, log};
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

use self::naming::{Naming, Parts};
use self::output::{Moment, Output, Settings};
use super::clients::{self, Orders, Sources, Subscription};
use super::progress::Progress;
use super::{HttpTimeouts, ToolError, lookup};

/// What to write where.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "sansq to-file",
    bin_name = "sansq to-file",
    about = "Writes the messages of topics to files, one per line",
    long_about = "Writes the messages of topics to files, one per line.\n\n\
        A message is finished when its file is synced: after --max-in-flight messages, every \
        --sync-interval, when its file is closed, and when the nsqds have nothing more to send before \
        that. A crash loses none; some come again, and are in two files. SIGHUP closes the files.",
    args_override_self = true,
    max_term_width = 100
)]
pub struct ToFileOptions {
    /// A topic; repeat for more [default: all that nsqlookupds know]
    #[arg(long, value_parser = |text: &str| TopicName::new(text))]
    pub topic: Vec<TopicName>,
    /// Only topics whose name has a match of this regular expression
    #[arg(long, default_value = "", hide_default_value = true, value_name = "REGEX")]
    pub topic_pattern: String,
    /// How often nsqlookupds are asked for topics, without --topic
    #[arg(long, default_value = "1m", value_parser = parse_go_duration)]
    pub topic_refresh: Duration,
    /// The channel
    #[arg(long, default_value = "nsq_to_file", value_parser = |text: &str| ChannelName::new(text))]
    pub channel: ChannelName,
    /// Where the messages come from.
    #[command(flatten)]
    pub sources: Sources,
    /// Messages in flight at a time, of each topic; after so many it is synced
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_in_flight: u32,
    /// The folder for files
    #[arg(long, default_value = "/tmp", value_name = "FOLDER")]
    pub output_dir: PathBuf,
    /// The folder for files that are being written, on the same file system [default: --output-dir]
    #[arg(long, value_name = "FOLDER")]
    pub work_dir: Option<PathBuf>,
    /// The files' names, with their tokens.
    #[arg(long, default_value = "<TOPIC>.<HOST><REV>.<DATETIME>.log", value_name = "FORMAT")]
    #[arg(
        help = "The files' names: <TOPIC>, <HOST>, <PID>, <DATETIME> and <REV>, a number that tells \
        files of one name apart, are filled in"
    )]
    pub filename_format: String,
    /// What a file's time looks like.
    #[arg(long, default_value = "%Y-%m-%d_%H", value_name = "FORMAT")]
    #[arg(help = "<DATETIME>, in strftime's way; with another value begins another file")]
    pub datetime_format: String,
    /// What a file's host looks like, with its tokens.
    #[arg(long, default_value = "<SHORT_HOST>", value_name = "TEXT")]
    #[arg(help = "<HOST>: <SHORT_HOST> and <HOSTNAME> are filled in")]
    pub host_identifier: String,
    /// Pack the files with gzip
    #[arg(long)]
    pub gzip: bool,
    /// How hard to pack: 1 to 9
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub gzip_level: u32,
    /// Make no file before there is a message for it
    #[arg(long)]
    pub skip_empty_files: bool,
    /// Bytes, before packing, above which a file is full; 0: never
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    pub rotate_size: u64,
    /// Time after which a file is closed; 0s: never
    #[arg(long, default_value = "0s", value_parser = parse_go_duration)]
    pub rotate_interval: Duration,
    /// The longest time between two syncs; below the nsqd's --msg-timeout
    #[arg(long, default_value = "30s", value_parser = parse_go_duration)]
    pub sync_interval: Duration,
    /// The quietest lines that are logged: debug, info, warn, error or fatal
    #[arg(long, default_value = "info", value_parser = flags::level(), value_name = "LEVEL")]
    pub log_level: Level,
    /// What each line of the log begins with
    #[arg(long, default_value = "[nsq_to_file] ", value_name = "TEXT")]
    pub log_prefix: String,
    /// How long nsqlookupds may take.
    #[command(flatten)]
    pub http: HttpTimeouts,
}

/// Writes messages until a signal ends it.
///
/// # Errors
/// [`ToolError`] for flags that don't go together, servers that can't be reached at the start, and
/// files that can't be written. Everything that was finished is on disk then.
pub fn run_to_file(options: ToFileOptions) -> Result<(), ToolError> {
    let plan = Plan::new(options)?;
    clients::log_to_stderr(&plan.options.log_prefix, plan.options.log_level, &plan.progress);
    let (progress, sources) = (plan.progress.clone(), plan.options.sources.clone());
    let result = clients::run_with(&sources, true, |orders| run(Arc::new(plan), orders));
    progress.finish();
    result
}

/// The flags, made ready.
#[derive(Debug)]
struct Plan {
    options: ToFileOptions,
    settings: Arc<Settings>,
    pattern: Option<PikeVM>,
    hostname: String,
    progress: Progress,
}

impl Plan {
    fn new(options: ToFileOptions) -> Result<Self, ToolError> {
        let usage = |text: &str| Err(ToolError::Usage(text.into()));
        options.sources.check()?;
        if options.topic.is_empty() && options.sources.lookupd_http_address.is_empty() {
            return usage("--topic is needed, or --lookupd-http-address to find topics");
        }
        if options.sync_interval.is_zero() || options.topic_refresh.is_zero() {
            return usage("--sync-interval and --topic-refresh must not be 0");
        }
        let settings = Settings {
            work_dir: options.work_dir.clone().unwrap_or_else(|| options.output_dir.clone()),
            output_dir: options.output_dir.clone(),
            gzip: options.gzip.then_some(options.gzip_level),
            skips_empty: options.skip_empty_files,
            rotate_size: options.rotate_size,
            rotate_interval: options.rotate_interval,
        };
        let pattern = match options.topic_pattern.as_str() {
            "" => None,
            pattern => Some(PikeVM::new(pattern).map_err(|error| {
                ToolError::Usage(format!("--topic-pattern: {pattern:?} is no pattern: {error}"))
            })?),
        };
        let plan = Self {
            settings: Arc::new(settings),
            pattern,
            hostname: host_name(),
            progress: Progress::new("written"),
            options,
        };
        let naming = plan.naming("t");
        if plan.settings.needs_revision() && !naming.has_revision() {
            return usage(
                "--filename-format needs <REV> with --gzip, --rotate-size, --rotate-interval and --work-dir",
            );
        }
        let example = TopicName::new("t").ok();
        if !plan.options.topic.iter().chain(&example).all(|topic| plan.can_write(topic)) {
            return usage("--filename-format has to name files below --output-dir");
        }
        Ok(plan)
    }

    fn naming(&self, topic: &str) -> Naming {
        let parts = Parts {
            format: &self.options.filename_format,
            datetime: &self.options.datetime_format,
            host: &self.options.host_identifier,
            hostname: &self.hostname,
            is_gzip: self.options.gzip,
        };
        Naming::new(&parts, topic)
    }

    fn wants(&self, topic: &TopicName) -> bool {
        self.pattern
            .as_ref()
            .is_none_or(|pattern| pattern.is_match(&mut pattern.create_cache(), topic.as_str()))
    }

    /// Whether its files are below the folders for files.
    fn can_write(&self, topic: &TopicName) -> bool {
        let name = self.naming(topic).name(&Zoned::now());
        naming::path(&name, 0, self.settings.needs_revision()).is_some()
    }

    /// All topics that nsqlookupds know and that are wanted.
    fn find(&self) -> Result<Vec<TopicName>, String> {
        let agent = self.options.http.agent();
        let mut topics = lookup::topics(&agent, &self.options.sources.lookupd_http_address)?;
        topics.retain(|topic| self.wants(topic));
        Ok(topics)
    }
}

/// Has each topic written by a task of its own, and finds more of them.
async fn run(plan: Arc<Plan>, orders: watch::Sender<Orders>) -> Result<(), ToolError> {
    let mut stop = orders.subscribe();
    let mut topics = BTreeSet::new();
    let mut tasks = JoinSet::new();
    for topic in plan.options.topic.iter().filter(|topic| plan.wants(topic)) {
        if topics.insert(*topic) {
            tasks.spawn(Writing::start(&plan, *topic)?.run(orders.subscribe()));
        }
    }
    let is_finding = plan.options.topic.is_empty();
    if !is_finding && topics.is_empty() {
        return Err(ToolError::Usage("no --topic fits --topic-pattern".into()));
    }
    let mut refresh = interval(plan.options.topic_refresh);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut result = Ok(());
    loop {
        tokio::select! {
            () = clients::stopped(&mut stop) => break,
            Some(ended) = tasks.join_next() => {
                result = ended.unwrap_or(Err(ToolError::Failed("a topic's task")));
                break;
            }
            _ = refresh.tick(), if is_finding => {
                let asking = Arc::clone(&plan);
                match clients::unless_stopped(&orders, move || asking.find()).await? {
                    None => break,
                    Some(Ok(found)) => {
                        for topic in found {
                            if topics.len() >= TOPICS_MAX || !topics.insert(topic) {
                                continue;
                            }
                            if plan.can_write(&topic) {
                                log(TOOL, Level::Info, format_args!("topic {topic} found"));
                                let writing = Writing::start(&plan, topic)?;
                                tasks.spawn(writing.run(orders.subscribe()));
                            } else {
                                log(TOOL, Level::Error, format_args!("no file can be called {topic}"));
                            }
                        }
                    }
                    Some(Err(error)) => log(TOOL, Level::Error, error),
                }
            }
        }
    }
    // One that fails ends all; the others still get what they have to the disk.
    orders.send_modify(|orders| orders.stops = true);
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.unwrap_or(Err(ToolError::Failed("a topic's task")));
        result = result.and(ended);
    }
    result
}

/// A topic that is being written.
struct Writing {
    plan: Arc<Plan>,
    consumer: Consumer,
    /// Away while a thread works with it.
    output: Option<Output>,
    /// Messages that are written and not synced.
    unsynced: Vec<Message>,
}

/// What is to be done with the file after messages are written to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Then {
    Nothing,
    Sync,
    /// Sync, and look whether its time is over.
    Tick,
    Close,
}

impl Writing {
    fn start(plan: &Arc<Plan>, topic: TopicName) -> Result<Self, ToolError> {
        let subscription = Subscription {
            tool: "nsq_to_file",
            topic,
            channel: plan.options.channel,
            sources: &plan.options.sources,
            max_in_flight: plan.options.max_in_flight,
            // Whatever comes is to be in a file.
            max_attempts: 0,
            lookupd_poll_interval: clients::LOOKUPD_POLL_INTERVAL,
        };
        let output = Output::new(Arc::clone(&plan.settings), plan.naming(&topic));
        Ok(Self {
            consumer: subscription.consumer()?,
            plan: Arc::clone(plan),
            output: Some(output),
            unsynced: Vec::new(),
        })
    }

    async fn run(mut self, mut orders: watch::Receiver<Orders>) -> Result<(), ToolError> {
        let named = self.plan.options.sources.nsqd_tcp_address.clone();
        let failure = clients::failure(self.consumer.events(), &named);
        tokio::pin!(failure);
        let mut ticks = interval(self.plan.options.sync_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reopens = orders.borrow().reopens;
        let result = loop {
            tokio::select! {
                error = &mut failure => break Err(error),
                changed = orders.changed() => {
                    let now = *orders.borrow();
                    if changed.is_err() || now.stops {
                        break Ok(());
                    }
                    if now.reopens != reopens {
                        reopens = now.reopens;
                        self.write(Vec::new(), Then::Close).await?;
                    }
                }
                _ = ticks.tick() => self.write(Vec::new(), Then::Tick).await?,
                message = self.consumer.next() => match message {
                    Some(message) => self.gather(message).await?,
                    None => break Ok(()),
                },
            }
        };
        self.write(Vec::new(), Then::Close).await?;
        // Nothing is unanswered now.
        self.consumer.stop(clients::STOP_GRACE).await;
        result
    }

    /// Writes this message and those that are there already.
    async fn gather(&mut self, first: Message) -> Result<(), ToolError> {
        let limit = usize::try_from(self.plan.options.max_in_flight).unwrap_or(usize::MAX);
        let mut messages = vec![first];
        while self.unsynced.len() + messages.len() < limit
            && let Some(Some(message)) = poll_once(self.consumer.next()).await
        {
            messages.push(message);
        }
        let is_full = self.unsynced.len() + messages.len() >= limit;
        let then = if is_full || self.consumer.is_starved() { Then::Sync } else { Then::Nothing };
        self.write(messages, then).await
    }

    /// Writes `messages`, on a thread that may wait for the disk; and finishes those that are safe.
    async fn write(&mut self, messages: Vec<Message>, then: Then) -> Result<(), ToolError> {
        let Some(mut output) = self.output.take() else { return Ok(()) };
        let bodies: Vec<Bytes> = messages.iter().map(|message| message.body().clone()).collect();
        let work = move || {
            let moment = Moment { wall: Zoned::now(), instant: Instant::now() };
            let mut has_closed = false;
            let result = bodies
                .iter()
                .try_for_each(|body| {
                    has_closed |= output.write(body, &moment)?;
                    Ok(())
                })
                .and_then(|()| match then {
                    // A file that was closed has messages from before this call in it.
                    Then::Nothing if has_closed => output.sync(),
                    Then::Nothing => output.flush(),
                    Then::Sync => output.sync(),
                    Then::Tick => output.sync().and_then(|()| output.tick(&moment)),
                    Then::Close => output.close(),
                });
            result.map(|()| (output, has_closed))
        };
        let done = spawn_blocking(work).await.map_err(|_| ToolError::Failed("writing"))?;
        let (output, has_closed) = done.map_err(ToolError::File)?;
        self.output = Some(output);
        let count = messages.len();
        self.unsynced.extend(messages);
        self.plan.progress.add(count);
        if has_closed || then != Then::Nothing {
            for message in self.unsynced.drain(..) {
                clients::answered(message.finish());
            }
        }
        Ok(())
    }
}

/// Topics that are found; each costs a few connections and an open file.
const TOPICS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(args: &str) -> Result<Plan, String> {
        let args: Vec<_> = args.split_ascii_whitespace().map(Into::into).collect();
        let command = flags::command::<ToFileOptions>();
        let options = flags::parse(command, &args).map_err(|error| error.to_string())?;
        Plan::new(options).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_have_to_go_together() {
        for (flags, text) in [
            ("--topic t", "--nsqd-tcp-address or --lookupd-http-address is needed"),
            ("--topic t --nsqd-tcp-address a:1 --lookupd-http-address b:1", "not both"),
            ("--nsqd-tcp-address a:1", "--topic is needed"),
            ("--lookupd-http-address a:1 --topic-pattern (", "is no pattern"),
            ("--lookupd-http-address a:1 --sync-interval 0s", "must not be 0"),
            ("--lookupd-http-address a:1 --gzip --filename-format x", "needs <REV>"),
            ("--lookupd-http-address a:1 --filename-format ../x", "below --output-dir"),
            ("--lookupd-http-address a:1 --gzip-level 10", "1..=9"),
            ("--topic .. --nsqd-tcp-address a:1 --filename-format <TOPIC>/x", "below --output-dir"),
        ] {
            let error = plan(flags).unwrap_err();
            assert!(error.contains(text), "{flags}: {error}");
        }
        let plan = plan("--lookupd-http-address a:1 --gzip=false --work-dir /w").unwrap();
        assert_eq!(plan.settings.gzip, None);
        assert_eq!(plan.settings.work_dir, PathBuf::from("/w"));
    }

    #[test]
    fn patterns_are_not_anchored() {
        let plan = plan("--lookupd-http-address a:1 --topic-pattern rder|^cl").unwrap();
        let wants = |topic| plan.wants(&TopicName::new(topic).unwrap());
        assert_eq!((wants("orders"), wants("clicks"), wants("acl")), (true, true, false));
    }
}
