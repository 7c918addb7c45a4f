//! The flags of `sansq pub` and `sansq tail`, and those that several tools have.
//!
//! They go by the reference's `to_nsq` and `nsq_tail` where those have a flag
//! (http-and-ops.md sections 10.2 and 10.6).

use core::time::Duration;

use clap::{Args, Parser};
use sansq_core::duration::parse_go_duration;
use sansq_core::name::{ChannelName, TopicName};
use sansq_toolkit::http;
use ureq::Agent;

use super::Sources;

/// What to publish.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "sansq pub",
    bin_name = "sansq pub",
    about = "Publishes its arguments, or else what comes in on standard input, to a topic",
    args_override_self = true,
    max_term_width = 100
)]
pub struct PubOptions {
    /// The topic to publish to
    #[arg(long, value_parser = |text: &str| TopicName::new(text))]
    pub topic: TopicName,
    /// host:port of an nsqd; repeat to publish to each of several
    #[arg(long, default_values_t = [NSQD_ADDRESS.to_owned()], value_name = "ADDRESS")]
    pub nsqd_tcp_address: Vec<String>,
    /// host:port of an nsqlookupd's HTTP API; repeat for more. Publishes to one nsqd that they know
    #[arg(long, value_name = "ADDRESS", conflicts_with = "nsqd_tcp_address")]
    pub lookupd_http_address: Vec<String>,
    /// An option of the producers, by go-nsq's name: name,value, or a name alone for true; repeat
    /// for more
    #[arg(long, value_name = "NAME,VALUE")]
    pub producer_opt: Vec<String>,
    /// The one byte that ends a message on standard input
    #[arg(long, default_value = "\n", hide_default_value = true, value_parser = byte)]
    pub delimiter: u8,
    /// Messages per second; 0: as fast as possible
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// The messages; none: those of standard input
    #[arg(value_name = "MESSAGE")]
    pub messages: Vec<String>,
}

/// What to print.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "sansq tail",
    bin_name = "sansq tail",
    about = "Prints the messages of topics as they come, one per line",
    after_help = "Without any address, messages come from the nsqd at 127.0.0.1:4150.",
    args_override_self = true,
    max_term_width = 100
)]
pub struct TailOptions {
    /// The topic; repeat for more
    #[arg(long, required = true, value_parser = |text: &str| TopicName::new(text))]
    pub topic: Vec<TopicName>,
    /// The channel [default: tail with a number, ephemeral]
    #[arg(long, value_parser = |text: &str| ChannelName::new(text))]
    pub channel: Option<ChannelName>,
    /// Where the messages come from: without any address, 127.0.0.1:4150.
    #[command(flatten)]
    pub sources: Sources,
    /// Messages in flight at a time
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_in_flight: u32,
    /// End after so many messages; 0: go on
    #[arg(long, default_value_t = 0)]
    pub n: u64,
    /// Put the topic in front of each message
    #[arg(long)]
    pub print_topic: bool,
}

/// How long servers may take to answer over HTTP.
#[derive(Clone, Debug, Args)]
pub struct HttpTimeouts {
    /// How long connecting may take
    #[arg(long, default_value = "2s", value_parser = parse_go_duration)]
    pub http_client_connect_timeout: Duration,
    /// How long a request may take
    #[arg(long, default_value = "5s", value_parser = parse_go_duration)]
    pub http_client_request_timeout: Duration,
}

impl HttpTimeouts {
    /// What requests are made with.
    pub(super) fn agent(&self) -> Agent {
        http::agent(self.http_client_connect_timeout, self.http_client_request_timeout)
    }
}

impl TailOptions {
    /// Fills in what the flags leave open: the address, and that no more is in flight than wanted.
    pub fn settle(&mut self) {
        let Sources { nsqd_tcp_address, lookupd_http_address, .. } = &mut self.sources;
        if nsqd_tcp_address.is_empty() && lookupd_http_address.is_empty() {
            nsqd_tcp_address.push(NSQD_ADDRESS.into());
        }
        if let Ok(n @ 1..) = u32::try_from(self.n) {
            self.max_in_flight = self.max_in_flight.min(n);
        }
    }
}

fn byte(text: &str) -> Result<u8, &'static str> {
    match text.as_bytes() {
        [byte] => Ok(*byte),
        _ => Err("it has to be exactly one byte"),
    }
}

/// Where an nsqd on this host listens by default.
const NSQD_ADDRESS: &str = "127.0.0.1:4150";

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use sansq_toolkit::flags;

    use super::*;

    fn parse<P: Parser>(args: &str) -> Result<P, String> {
        let args: Vec<OsString> = args.split(' ').map(Into::into).collect();
        flags::parse(flags::command::<P>(), &args).map_err(|error| error.to_string())
    }

    #[test]
    fn publishing() {
        let options: PubOptions = parse("-topic t --delimiter=; hello world").unwrap();
        assert_eq!(options.topic.as_str(), "t");
        assert_eq!((options.delimiter, options.rate), (b';', 0));
        assert_eq!(options.nsqd_tcp_address, ["127.0.0.1:4150"]);
        assert_eq!(options.messages, ["hello", "world"]);
        assert!(parse::<PubOptions>("-topic a$ x").unwrap_err().contains("1 to 64"));
        assert!(parse::<PubOptions>("-topic t -delimiter ;;").unwrap_err().contains("one byte"));
        assert!(parse::<PubOptions>("x").unwrap_err().contains("--topic"));
    }

    #[test]
    fn tailing() {
        let mut options: TailOptions = parse("-topic a -topic b -n 5 -print-topic").unwrap();
        options.settle();
        assert_eq!(options.topic.len(), 2);
        assert_eq!((options.max_in_flight, options.n, options.print_topic), (5, 5, true));
        assert!(!parse::<TailOptions>("-topic a -print-topic=0").unwrap().print_topic);
        assert_eq!(options.sources.nsqd_tcp_address, ["127.0.0.1:4150"]);
        let mut options: TailOptions = parse("-topic a -lookupd-http-address l:1").unwrap();
        options.settle();
        assert_eq!((options.max_in_flight, options.sources.nsqd_tcp_address.len()), (200, 0));
    }
}
