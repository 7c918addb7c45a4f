//! The flags of `sansq bench`.

use core::time::Duration;

use clap::{Parser, ValueEnum};
use sansq_core::duration::parse_go_duration;
use sansq_core::name::{ChannelName, TopicName};

/// What to put on which server.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "sansq bench",
    bin_name = "sansq bench",
    about = "Puts load on an NSQ server and prints throughput and latency",
    long_about = "Puts load on an NSQ server and prints throughput and latency.\n\n\
        Mode `pub` leaves its messages in the topic; `both` consumes what it publishes; `sub` \
        consumes what is there, until --duration is over or nothing has come for a second.",
    args_override_self = true,
    max_term_width = 100
)]
pub struct BenchOptions {
    /// The server's host:port
    #[arg(long, default_value = "127.0.0.1:4150", value_name = "ADDRESS")]
    pub nsqd_tcp_address: String,
    /// The topic [default: a fresh name]
    #[arg(long, value_parser = |text: &str| TopicName::new(text))]
    pub topic: Option<TopicName>,
    /// The channel that consumers subscribe to
    #[arg(long, default_value = "bench", value_parser = |text: &str| ChannelName::new(text))]
    pub channel: ChannelName,
    /// What to do
    #[arg(long, value_enum, default_value_t = Mode::Both)]
    pub mode: Mode,
    /// Bytes of a body; below 16 there is no delivery latency
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub size: u32,
    /// Messages per MPUB; 1: PUB
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// Publishing connections
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
    /// Consuming connections
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub consumers: u16,
    /// How long to publish (or, in mode `sub`, to consume)
    #[arg(long, default_value = "10s", value_parser = parse_go_duration)]
    pub duration: Duration,
    /// RDY count of each consumer
    #[arg(long, default_value_t = 2500, value_parser = clap::value_parser!(u32).range(1..))]
    pub rdy: u32,
    /// Publish commands per connection that may wait for their OK
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub window: u32,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
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
