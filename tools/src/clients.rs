//! What the tools that consume or publish have in common: a runtime, signals, and clients made of
//! flags.

use core::convert::Infallible;
use core::future::{Future, pending};
use core::time::Duration;
use std::collections::BTreeSet;

use clap::Args;
use sansq_core::log::Level;
use sansq_core::name::{ChannelName, TopicName};
use sansq_tokio::{
    AnswerError, Config, ConfigError, Consumer, ConsumerConfig, ConsumerEvent, Events, Message,
    PoolOptions, Producer, ProducerConfig, SetupError, consumer, producer,
};
use sansq_toolkit::log::{CLIENT, LogFormat, Logs, TOOL, log};
use sansq_toolkit::{flags, http};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::ToolError;
use super::lookup::{self, Port};
use super::progress::Progress;

/// Where messages come from.
#[derive(Args, Clone, Debug, Default)]
pub struct Sources {
    /// host:port of an nsqd to consume from; repeat for more
    #[arg(long, value_name = "ADDRESS", value_parser = flags::address)]
    pub nsqd_tcp_address: Vec<String>,
    /// host:port of an nsqlookupd's HTTP API, which knows the nsqds; repeat for more
    #[arg(long, value_name = "ADDRESS", value_parser = flags::address)]
    pub lookupd_http_address: Vec<String>,
    /// An option of the consumer, by go-nsq's name: name,value, or a name alone for true; repeat
    /// for more
    #[arg(long, value_name = "NAME,VALUE")]
    pub consumer_opt: Vec<String>,
}

/// What a tool consumes, and how.
#[derive(Clone, Debug)]
pub(super) struct Subscription<'a> {
    /// The tool's name, for the nsqd's statistics.
    pub(super) tool: &'static str,
    pub(super) topic: TopicName,
    pub(super) channel: ChannelName,
    pub(super) sources: &'a Sources,
    pub(super) max_in_flight: u32,
    /// Attempts after which a message is given up; 0: never.
    pub(super) max_attempts: u16,
    /// How often nsqlookupds are asked at least.
    pub(super) lookupd_poll_interval: Duration,
}

impl Sources {
    /// Exactly one kind of address is what the reference wants.
    ///
    /// # Errors
    /// [`ToolError::Usage`] for none of them or both.
    pub(super) fn check(&self) -> Result<(), ToolError> {
        match (self.nsqd_tcp_address.is_empty(), self.lookupd_http_address.is_empty()) {
            (true, true) => Err("--nsqd-tcp-address or --lookupd-http-address is needed"),
            (false, false) => Err("use --nsqd-tcp-address or --lookupd-http-address, not both"),
            (true, false) | (false, true) => Ok(()),
        }
        .map_err(|text| ToolError::Usage(text.into()))
    }

    /// Asks the nsqlookupds, if there are any, whether one of them answers: a wrong address is to
    /// end the tool at once, and not to keep it waiting. Returns whether the tool is to go on: not
    /// if it is stopped meanwhile.
    ///
    /// # Errors
    /// [`ToolError::Lookup`] if none does.
    async fn reach(&self, orders: &watch::Sender<Orders>) -> Result<bool, ToolError> {
        if self.lookupd_http_address.is_empty() {
            return Ok(true);
        }
        let lookupds = self.lookupd_http_address.clone();
        let asking = move || {
            lookup::nsqds(&http::default_agent(), &lookupds, None, Port::Tcp, Duration::ZERO)
        };
        match unless_stopped(orders, asking).await? {
            Some(found) => found.map(|_| true).map_err(ToolError::Lookup),
            None => Ok(false),
        }
    }
}

impl Subscription<'_> {
    /// Starts consuming, on the runtime that this is called on.
    ///
    /// # Errors
    /// [`ToolError::Usage`] for options that don't go together.
    pub(super) fn consumer(&self) -> Result<Consumer, ToolError> {
        let (sources, usage) = (self.sources, |error| usage("--consumer-opt", error));
        let mut config = Config::default();
        config.max_attempts = self.max_attempts;
        config.lookupd_poll_interval = self.lookupd_poll_interval;
        flags::set_options(&mut config, &sources.consumer_opt).map_err(usage)?;
        config.max_in_flight = self.max_in_flight;
        config.user_agent = user_agent(self.tool);
        let mut setup = ConsumerConfig::new(self.topic, self.channel).map_err(wrong)?;
        setup.nsqds.clone_from(&sources.nsqd_tcp_address);
        setup.nsqlookupds.clone_from(&sources.lookupd_http_address);
        setup.options = config.consumer_options().map_err(usage)?;
        setup.net = config.net_config().map_err(usage)?;
        consumer(setup).map_err(wrong)
    }
}

/// Starts a producer for some nsqds, of which it chooses one for each message.
///
/// # Errors
/// [`ToolError::Usage`] for options that don't go together.
pub(super) fn producer_for(
    tool: &str,
    nsqds: &[String],
    options: &[String],
    change: impl FnOnce(&mut PoolOptions),
) -> Result<Producer, ToolError> {
    let mut config = Config::default();
    let usage = |error| usage("--producer-opt", error);
    flags::set_options(&mut config, options).map_err(usage)?;
    config.user_agent = user_agent(tool);
    let mut setup = ProducerConfig::new();
    setup.nsqds = nsqds.to_vec();
    setup.options = config.pool_options().map_err(usage)?;
    setup.net = config.net_config().map_err(usage)?;
    change(&mut setup.options);
    producer(setup).map_err(wrong)
}

fn usage(flag: &str, error: ConfigError) -> ToolError {
    ToolError::Usage(format!("{flag}: {error}"))
}

fn wrong(error: SetupError) -> ToolError {
    ToolError::Usage(error.to_string())
}

/// From now on what happens is logged on standard error, above the progress if that is shown.
pub(super) fn log_to_stderr(prefix: &str, level: Level, progress: &Progress) {
    let programs = [(TOOL, prefix, level), (CLIENT, prefix, level)];
    Logs::new(LogFormat::Text, programs).install_to(progress.stderr());
}

/// How a tool introduces itself.
pub(super) fn user_agent(tool: &str) -> String {
    format!("{tool}/{}", sansq_core::version::SANSQ_VERSION)
}

/// Is over when one of the `named` nsqds can't be subscribed to and never could, or refuses the
/// client for good. Later losses are the consumer's to mend.
#[expect(clippy::wildcard_enum_match_arm, reason = "only the first outcome of each matters")]
pub(super) async fn failure(mut events: Events<ConsumerEvent>, named: &[String]) -> ToolError {
    let mut worked = BTreeSet::new();
    let is_named = |nsqd: &str| named.iter().any(|address| *address == *nsqd);
    while let Some(event) = events.next().await {
        match event {
            ConsumerEvent::Subscribed { nsqd, .. } => {
                worked.insert(nsqd);
            }
            ConsumerEvent::GaveUp { nsqd, error } if is_named(&nsqd) => {
                let (address, reason) = ((*nsqd).to_owned(), error.to_string());
                return ToolError::Subscribe { address, reason };
            }
            ConsumerEvent::Disconnected { nsqd, error, .. }
                if is_named(&nsqd) && !worked.contains(&nsqd) =>
            {
                let (address, reason) = ((*nsqd).to_owned(), error.to_string());
                return ToolError::Subscribe { address, reason };
            }
            _ => {}
        }
    }
    pending().await
}

/// Has `handler` answer the messages of `consumer`, up to `limit` of them at once, until the tool
/// is to stop. If this one fails, all are to stop.
///
/// # Errors
/// As [`failure`].
pub(super) async fn consume(
    consumer: Consumer,
    named: &[String],
    limit: usize,
    orders: &watch::Sender<Orders>,
    handler: impl AsyncFn(Message),
) -> Result<(), ToolError> {
    let handle = consumer.handle();
    let mut stop = orders.subscribe();
    let failed = failure(consumer.events(), named);
    let ending = async {
        let result = tokio::select! {
            () = stopped(&mut stop) => Ok(()),
            error = failed => Err(error),
        };
        orders.send_modify(|orders| orders.stops = true);
        handle.stop(STOP_GRACE).await;
        result
    };
    // It ends with the consumer, whose messages are given back by then: nobody waits for a handler
    // that waits for a server that is not there.
    let work = async {
        consumer.for_each_concurrent(limit, |message| handler(message)).await;
        pending::<Infallible>().await
    };
    tokio::select! {
        result = ending => result,
        never = work => match never {},
    }
}

/// Logs that an answer came too late, which is no reason to end.
pub(super) fn answered(result: Result<(), AnswerError>) {
    if let Err(error) = result {
        log(TOOL, Level::Warn, format_args!("a message comes again: {error}"));
    }
}

/// How long messages that are being worked on may take when the tool is to stop.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(5);

/// The reference's `lookupd_poll_interval`.
pub(super) const LOOKUPD_POLL_INTERVAL: Duration = Duration::from_secs(60);

/// The reference's `max_attempts`: a message that fails this often is given up.
pub(super) const MAX_ATTEMPTS: u16 = 5;

/// What signals ask for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Orders {
    /// End in good order.
    pub(super) stops: bool,
    /// How often the files were asked to be closed and opened again.
    pub(super) reopens: u32,
}

/// Runs `work` on a runtime of its own. SIGINT and SIGTERM ask it to stop, and so does SIGHUP
/// unless it `reopens`.
///
/// # Errors
/// What `work` fails with, or [`ToolError::Start`].
pub(super) fn run<F: Future<Output = Result<(), ToolError>>>(
    reopens: bool,
    work: impl FnOnce(watch::Sender<Orders>) -> F,
) -> Result<(), ToolError> {
    let (sender, _) = watch::channel(Orders::default());
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(ToolError::Start)?;
    let orders = sender.clone();
    let waiting = move || {
        for signal in signals.forever() {
            orders.send_modify(|orders| {
                if signal == SIGHUP && reopens {
                    orders.reopens = orders.reopens.wrapping_add(1);
                } else {
                    orders.stops = true;
                }
            });
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(waiting).map_err(ToolError::Start)?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(ToolError::Start)?;
    let result = runtime.block_on(work(sender));
    // Whoever still waits for a server is not waited for.
    runtime.shutdown_background();
    result
}

/// As [`run`], for a tool that consumes from `sources`, once one of them is there.
///
/// # Errors
/// As [`run`], and [`ToolError::Lookup`] if no nsqlookupd answers.
pub(super) fn run_with<F: Future<Output = Result<(), ToolError>>>(
    sources: &Sources,
    reopens: bool,
    work: impl FnOnce(watch::Sender<Orders>) -> F,
) -> Result<(), ToolError> {
    run(
        reopens,
        async |orders| {
            if sources.reach(&orders).await? { work(orders).await } else { Ok(()) }
        },
    )
}

/// As [`run_with`], for a tool that passes on what it consumes: with a log on standard error, whose
/// lines begin with `prefix`, and a line that counts what was `done`.
///
/// # Errors
/// As [`run_with`], and [`ToolError::Usage`] for flags of `sources` that don't go together.
pub(super) fn pass_on(
    sources: &Sources,
    prefix: &str,
    done: &'static str,
    work: impl AsyncFnOnce(watch::Sender<Orders>, &Progress) -> Result<(), ToolError>,
) -> Result<(), ToolError> {
    sources.check()?;
    let progress = Progress::new(done);
    log_to_stderr(prefix, Level::Info, &progress);
    let result = run_with(sources, false, |orders| work(orders, &progress));
    progress.finish();
    result
}

/// What `asking` comes to, on a thread of its own; `None` if the tool is to stop first.
///
/// # Errors
/// [`ToolError::Failed`] if it panics.
pub(super) async fn unless_stopped<T: Send + 'static>(
    orders: &watch::Sender<Orders>,
    asking: impl FnOnce() -> T + Send + 'static,
) -> Result<Option<T>, ToolError> {
    let mut stop = orders.subscribe();
    tokio::select! {
        () = stopped(&mut stop) => Ok(None),
        found = spawn_blocking(asking) => found.map(Some).map_err(|_| ToolError::Failed("asking")),
    }
}

/// Is over when the tool is to stop.
pub(super) async fn stopped(orders: &mut watch::Receiver<Orders>) {
    // Fails only if nobody can give orders any more; then nothing is to stop it.
    if orders.wait_for(|orders| orders.stops).await.is_err() {
        pending::<()>().await;
    }
}
