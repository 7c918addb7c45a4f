//! The flags of `sansq bench`.

use core::time::Duration;

use clap::{Parser, ValueEnum};
use sansq_core::client::ConnectionOptions;
use sansq_core::duration::parse_go_duration;
use sansq_core::name::{ChannelName, TopicName};
use sansq_runtime::client::Config;
use sansq_toolkit::flags;

use super::echo::ECHO;

/// What to put on which server.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "sansq bench",
    bin_name = "sansq bench",
    about = "Puts load on an NSQ server and prints throughput, latency and CPU time",
    long_about = "Puts load on an NSQ server and prints throughput, latency and CPU time.\n\n\
        Closed loop, without --rate: each publishing connection keeps --window commands under way, and \
        sends the next one when one is answered. That finds out how much a server can take; its latencies are \
        those of a server that is kept busy.\n\n\
        Open loop, with --rate: commands are due at fixed times, whether or not the server keeps up, and \
        latency counts from the time a command was due. So a server that stalls for a second is charged for \
        all that should have been sent meanwhile.\n\n\
        Topics that a run makes are deleted at its end; with --topic they are yours and stay, and so they do \
        with --keep. Mode `pub` leaves its messages in the topic until then, unless --drain consumes them; `both` consumes what it \
        publishes; `sub` consumes what is there, or what --prefill puts there first, until --duration is over or \
        nothing has come for a second.",
    after_long_help = "Examples:\n  \
        sansq bench                                     publish and consume, MPUBs of 200\n  \
        sansq bench --mode pub --batch 1 --window 1 --connections 64\n                                                  \
        single PUBs, each waits for its OK\n  \
        sansq bench --mode sub --prefill 5000000        consume what was published before\n  \
        sansq bench --batch 1 --rate 5000 --rdy 100     latency at a fixed rate\n  \
        sansq bench --client-opt tls_v1 --client-opt tls_root_ca_file,ca.pem --client-opt snappy\n  \
        sansq bench --compare 127.0.0.1:4150,127.0.0.1:5150 --rounds 5\n  \
        sansq bench --compare 127.0.0.1:4150,echo --batch 1 --rate 200 --connections 1 --consumers 1 --rdy 1\n\n\
        Exit status: 0 measured; 1 failed; 2 wrong flags; 3 measured, but messages went missing, or the \
        server did not keep up with --rate.",
    args_override_self = true,
    max_term_width = 110
)]
pub struct BenchOptions {
    /// The server's host:port; or `echo`: threads of this program that hand the same bytes on
    #[arg(long, default_value = "127.0.0.1:4150", value_name = "ADDRESS")]
    pub nsqd_tcp_address: String,
    /// Measure two servers in turn, and print the ratios of the first to the second
    #[arg(long, value_name = "ADDRESS,ADDRESS", value_parser = pair, conflicts_with = "nsqd_tcp_address")]
    pub compare: Option<Pair>,
    /// With --compare, how often each server is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// What to do
    #[arg(long, value_enum, default_value_t = Mode::Both)]
    pub mode: Mode,

    /// The topic; with --topics, the beginning of their names [default: a fresh name for each run]
    #[arg(long, value_parser = topic)]
    pub topic: Option<TopicName>,
    /// Topics to publish to, in turn
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub topics: u32,
    /// The channel that consumers subscribe to; with --channels, the beginning of their names
    #[arg(long, default_value = "bench", value_parser = channel)]
    pub channel: ChannelName,
    /// Channels per topic, each of which gets every message
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub channels: u32,
    /// Publishing connections
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub connections: u32,
    /// Consuming connections, dealt to all channels in turn [default: 2, or one per channel]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub consumers: Option<u32>,
    /// Threads of this program for publishing, and as many for consuming
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,

    /// Bytes of a body; below 16 there is no delivery latency
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub size: u32,
    /// What bodies consist of, which matters to compression
    #[arg(long, value_enum, default_value_t = Body::Text)]
    pub body: Body,
    /// Messages per MPUB; 1: PUB
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// Publish commands per connection that may wait for their OK [default: 4; with --rate 250]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub window: Option<u32>,
    /// RDY count of each consumer
    #[arg(long, default_value_t = 2500, value_parser = clap::value_parser!(u32).range(1..))]
    pub rdy: u32,

    /// Messages per second on all connections together: the open loop
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub rate: Option<u64>,
    /// With --rate, how long before a command is due the thread stops sleeping and looks at the
    /// clock again and again, so that it is not late. Costs CPU time
    #[arg(long, default_value = "50us", value_parser = parse_go_duration)]
    pub spin: Duration,
    /// How long to go on before anything is counted [default: 1s; with --prefill 0s, or little is
    /// left to count]
    #[arg(long, value_parser = parse_go_duration)]
    pub warm_up: Option<Duration>,
    /// How long to count
    #[arg(long, default_value = "10s", value_parser = parse_go_duration)]
    pub duration: Duration,
    /// Stop earlier, when so many messages were published, warm-up and whole batches included
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub messages: Option<u64>,
    /// In mode `sub`, publish so many messages first, of which nothing is counted
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub prefill: Option<u64>,
    /// In mode `pub`, consume afterwards what was published, of which nothing is counted: the next
    /// run finds memory that the server has used before
    #[arg(long)]
    pub drain: bool,

    /// The nsqd's HTTP API, for deleting the topics that a run without --topic has made [default:
    /// the port above that of --nsqd-tcp-address]
    #[arg(long, value_name = "ADDRESS")]
    pub nsqd_http_address: Option<String>,
    /// Leave those topics where they are
    #[arg(long)]
    pub keep: bool,

    /// An option of the connections, by go-nsq's name: name,value, or a name alone for true; repeat
    /// for more
    #[arg(long, value_name = "NAME,VALUE")]
    pub client_opt: Vec<String>,
    /// The server's process, whose CPU time is measured; with --compare two [default: found by its
    /// port, if it is on this host]
    #[arg(long, value_delimiter = ',')]
    pub pid: Vec<u32>,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// The two servers of a comparison.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pair {
    /// The one whose figures are divided.
    pub first: String,
    /// The one that they are divided by.
    pub second: String,
}

/// What the load consists of.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Mode {
    /// Publish and consume.
    Both,
    /// Publish only.
    Pub,
    /// Consume what is there.
    Sub,
}

/// What bodies consist of.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Body {
    /// Words, which pack to about a third.
    Text,
    /// Bytes that don't pack.
    Random,
}

impl Mode {
    /// As on the command line.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Pub => "pub",
            Self::Sub => "sub",
        }
    }
}

impl BenchOptions {
    /// Checks what clap does not: what flags mean together.
    ///
    /// # Errors
    /// A text that names the flag.
    pub fn check(&self) -> Result<(), String> {
        let channels = u64::from(self.topics) * u64::from(self.channels);
        if (self.mode != Mode::Pub || self.drain) && u64::from(self.consumers()) < channels {
            return Err(format!(
                "--consumers {}: {channels} channels need a consumer each, or their messages stay",
                self.consumers()
            ));
        }
        if self.prefill.is_some() && self.mode != Mode::Sub {
            return Err("--prefill is for --mode sub".into());
        }
        if self.drain && self.mode != Mode::Pub {
            return Err("--drain is for --mode pub: the others consume anyway".into());
        }
        if self.drain && self.channels > 1 {
            return Err("--drain and --channels: what waits in a topic goes to one channel".into());
        }
        if self.rate.is_some() && self.mode == Mode::Sub {
            return Err("--rate is for publishing, and --mode sub does none".into());
        }
        if self.uses_echo() && (self.mode == Mode::Sub || self.drain || self.channels > 1) {
            return Err(format!("{ECHO} keeps nothing and has one channel"));
        }
        if self.duration.is_zero() {
            return Err("--duration must not be zero".into());
        }
        if self.end_nanos().is_none() {
            return Err("--warm-up and --duration together are more than 100 years".into());
        }
        if self.commands_len() > COMMANDS_MAX {
            return Err(
                "--size times --batch times --window times --connections is more than a gigabyte"
                    .into(),
            );
        }
        let servers = if self.compare.is_some() { 2 } else { 1 };
        if !self.pid.is_empty() && self.pid.len() != servers {
            return Err(format!("--pid: {servers} wanted, as many as servers"));
        }
        self.connection_options().map(drop)
    }

    fn uses_echo(&self) -> bool {
        self.nsqd_tcp_address == ECHO
            || self.compare.as_ref().is_some_and(|pair| pair.first == ECHO || pair.second == ECHO)
    }

    /// Consuming connections.
    pub fn consumers(&self) -> u32 {
        let channels = self.topics.saturating_mul(self.channels);
        self.consumers.unwrap_or_else(|| channels.max(CONSUMERS))
    }

    /// How long to go on before anything is counted.
    pub fn warm_up(&self) -> Duration {
        let default = if self.prefill.is_some() { Duration::ZERO } else { WARM_UP };
        self.warm_up.unwrap_or(default)
    }

    /// Publish commands per connection that may wait for their OK.
    pub fn window(&self) -> u32 {
        let default = match self.rate {
            // Less of large commands, of which few make a server busy.
            Some(_) => OPEN_WINDOW.min((OPEN_WINDOW_LEN / self.commands_len_of(1)) as u32).max(1),
            None => CLOSED_WINDOW,
        };
        self.window.unwrap_or(default)
    }

    /// Nanoseconds from the start to the end of what is counted.
    pub(super) fn end_nanos(&self) -> Option<u64> {
        let total = self.warm_up().checked_add(self.duration)?;
        u64::try_from(total.as_nanos()).ok().filter(|nanos| *nanos <= NANOS_MAX)
    }

    /// What the connections say about themselves, and how they are protected and packed.
    pub(super) fn connection_options(&self) -> Result<ConnectionOptions, String> {
        let mut config = Config::default();
        config.client_id = "sansq-bench".into();
        config.user_agent = concat!("sansq-bench/", env!("CARGO_PKG_VERSION")).into();
        flags::set_options(&mut config, &self.client_opt)
            .and_then(|()| config.connection_options())
            .map_err(|error| format!("--client-opt: {error}"))
    }

    /// Topics are dealt to this many groups of connections, as many as make all groups the same, so
    /// that each topic gets as much as any other.
    pub(super) const fn topic_groups(&self) -> u32 {
        let (mut a, mut b) = (self.topics, self.connections);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    }

    /// About how many bytes all publish commands have that are built in advance.
    fn commands_len(&self) -> u64 {
        self.commands_len_of(self.window().max(self.topics / self.topic_groups()))
    }

    /// The same for a window of this size.
    fn commands_len_of(&self, window: u32) -> u64 {
        let command = u64::from(self.batch).saturating_mul(u64::from(self.size) + 4);
        command.saturating_mul(u64::from(window)).saturating_mul(u64::from(self.connections))
    }
}

/// Two addresses with a comma in between.
fn pair(text: &str) -> Result<Pair, &'static str> {
    match text.split_once(',') {
        Some((first, second))
            if !first.is_empty() && !second.is_empty() && !second.contains(',') =>
        {
            Ok(Pair { first: first.into(), second: second.into() })
        }
        _ => Err("two addresses are wanted: host:port,host:port"),
    }
}

fn topic(text: &str) -> Result<TopicName, sansq_core::name::InvalidName> {
    TopicName::new(text)
}

fn channel(text: &str) -> Result<ChannelName, sansq_core::name::InvalidName> {
    ChannelName::new(text)
}

/// The default of `--warm-up`.
const WARM_UP: Duration = Duration::from_secs(1);

/// Bytes of all commands together: this much is not built by accident.
pub(super) const COMMANDS_MAX: u64 = 1 << 30;
/// Consumers, unless the channels need more.
const CONSUMERS: u32 = 2;
/// Enough to keep a server busy while answers are on their way.
const CLOSED_WINDOW: u32 = 4;
/// In the open loop the window is to keep nothing back that a server would take; servers may answer
/// no more than 256 commands at a time.
const OPEN_WINDOW: u32 = 250;
/// Bytes of all commands together that such a window may have.
const OPEN_WINDOW_LEN: u64 = 256 * 1024 * 1024;
/// A hundred years, with room for sums.
const NANOS_MAX: u64 = 100 * 366 * 24 * 3600 * 1_000_000_000;
