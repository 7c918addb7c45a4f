//! `sansq stat`: one line of figures of one channel, again and again (http-and-ops.md section
//! 10.1).

use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use clap::{ArgGroup, Parser};
use sansq_core::duration::parse_go_duration;
use sansq_core::name::{ChannelName, TopicName};
use sansq_toolkit::flags;

use super::cluster::{self, ChannelStats, Cluster, Snapshot};
use super::{HttpTimeouts, ToolError};

/// What to show of which channel.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "sansq stat",
    bin_name = "sansq stat",
    about = "Prints rates and depths of a channel, summed over nsqds, again and again",
    after_help = "ingress and egress are messages per second since the line before: what came into \
        the channel, and what left its queue. mem and disk are where the depth (total) lies.",
    group = ArgGroup::new("servers").required(true).args(["nsqd_http_address", "lookupd_http_address"]),
    args_override_self = true,
    max_term_width = 100
)]
pub struct StatOptions {
    /// The topic
    #[arg(long, value_parser = |text: &str| TopicName::new(text))]
    pub topic: TopicName,
    /// The channel
    #[arg(long, value_parser = |text: &str| ChannelName::new(text))]
    pub channel: ChannelName,
    /// host:port of an nsqd's HTTP API; repeat for more
    #[arg(long, value_name = "ADDRESS", value_parser = flags::address)]
    pub nsqd_http_address: Vec<String>,
    /// host:port of an nsqlookupd's HTTP API; repeat for more
    #[arg(long, value_name = "ADDRESS", value_parser = flags::address)]
    pub lookupd_http_address: Vec<String>,
    /// Time between two lines
    #[arg(long, default_value = "2s", value_parser = parse_go_duration)]
    pub interval: Duration,
    /// End after so many lines [default: go on]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// How long nsqds and nsqlookupds may take.
    #[command(flatten)]
    pub http: HttpTimeouts,
}

/// Prints a line per interval until there are enough of them, or a signal comes.
///
/// An nsqd that does not answer is named on standard error, and left out of that line.
///
/// # Errors
/// [`ToolError`] if no nsqd answers, none knows the channel, or standard output fails.
pub fn run_stat(options: StatOptions) -> Result<(), ToolError> {
    let (events, inbox) = sync_channel(1);
    cluster::stop_on_signals(events.clone(), || None)?;
    let cluster = Cluster {
        nsqds: options.nsqd_http_address,
        lookupds: options.lookupd_http_address,
        agent: options.http.agent(),
        topic: Some(options.topic),
    };
    // Nobody changes the focus; but the polling ends with its sender.
    let (_focus, focuses) = sync_channel(0);
    cluster::poll(cluster, options.interval, focuses, events, Some)?;
    show(&inbox, &options.topic, &options.channel, options.count, &mut io::stdout())
}

/// Prints what comes in until `None` does.
fn show(
    inbox: &Receiver<Option<Snapshot>>,
    topic: &str,
    channel: &str,
    count: Option<u64>,
    out: &mut impl Write,
) -> Result<(), ToolError> {
    let mut before: Option<Counts> = None;
    let mut lines = 0;
    while count.is_none_or(|count| lines < count) {
        let Ok(Some(snapshot)) = inbox.recv() else { break };
        if let Some(error) = snapshot.failure() {
            return Err(ToolError::Lookup(error));
        }
        for (address, node) in &snapshot.nodes {
            if let Err(error) = node {
                let _ = writeln!(io::stderr(), "nsqd at {address}: {error}");
            }
        }
        let counts = Counts::new(&snapshot, topic, channel);
        if counts.by_node.is_empty() {
            let text = format!("no nsqd knows the topic {topic} with the channel {channel}");
            return Err(ToolError::Lookup(text));
        }
        if let Some(before) = before.replace(counts.clone()) {
            if lines % LINES_PER_HEADING == 0 {
                out.write_all(HEADING.as_bytes()).map_err(ToolError::Output)?;
            }
            writeln!(out, "{}", Line { before, counts })
                .and_then(|()| out.flush())
                .map_err(ToolError::Output)?;
            lines += 1;
        }
    }
    Ok(())
}

/// The channel at one moment.
#[derive(Clone)]
struct Counts {
    at: Instant,
    by_node: BTreeMap<String, ChannelStats>,
}

impl Counts {
    fn new(snapshot: &Snapshot, topic: &str, channel: &str) -> Self {
        let mut by_node = BTreeMap::new();
        for (address, node) in snapshot.answers() {
            let topics = node.topics().iter().filter(|it| it.topic_name == topic);
            let mut channels = topics.flat_map(|topic| topic.channels());
            if let Some(stats) = channels.find(|it| it.channel_name == channel) {
                by_node.insert(address.to_owned(), stats.clone());
            }
        }
        Self { at: snapshot.at, by_node }
    }
}

/// What is printed: `counts`, and how they changed.
struct Line {
    before: Counts,
    counts: Counts,
}

impl Line {
    /// Messages per second that came in and that left, over the nsqds that were there before as
    /// well.
    fn rates(&self) -> (u64, u64) {
        let millis = self.counts.at.saturating_duration_since(self.before.at).as_millis().max(1);
        let (mut came, mut left) = (0, 0);
        for (address, now) in &self.counts.by_node {
            let Some(before) = self.before.by_node.get(address) else { continue };
            // An nsqd that was restarted counts from 0.
            let more = i128::from(now.message_count.saturating_sub(before.message_count));
            came += more;
            left += more - (i128::from(now.depth) - i128::from(before.depth));
        }
        let per_second = |count: i128| {
            u64::try_from(count.max(0).unsigned_abs() * 1000 / millis).unwrap_or(u64::MAX)
        };
        (per_second(came), per_second(left))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ingress, egress) = self.rates();
        let channels = || self.counts.by_node.values();
        let sum = |of: fn(&ChannelStats) -> i64| channels().map(of).fold(0, i64::saturating_add);
        let count = |of: fn(&ChannelStats) -> u64| channels().map(of).fold(0, u64::saturating_add);
        let (total, disk) = (sum(|it| it.depth), sum(|it| it.backend_depth));
        write!(
            f,
            "{ingress:7} {egress:7} | {total:7} {:7} {disk:7} {:5} {:5} | {:7} {:7} {:12} {:7}",
            total.saturating_sub(disk),
            sum(|it| it.in_flight_count),
            sum(|it| it.deferred_count),
            count(|it| it.requeue_count),
            count(|it| it.timeout_count),
            count(|it| it.message_count),
            sum(|it| it.client_count),
        )
    }
}

/// Lines between two headings.
const LINES_PER_HEADING: u64 = 25;

const HEADING: &str = "\
------rate------+----------------depth----------------+--------------metadata---------------
ingress  egress |   total     mem    disk inflt   def |     req     t-o         msgs clients
";

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(at: Instant, nodes: &[(&str, &str)]) -> Snapshot {
        let node = |(address, channel): &(&str, &str)| {
            let text = format!(
                r#"{{"version":"1.3.0","topics":[{{"topic_name":"t","channels":[{channel}]}}],"producers":null}}"#
            );
            ((*address).to_owned(), Ok(serde_json::from_str(&text).unwrap()))
        };
        Snapshot { at, nodes: nodes.iter().map(node).collect(), lookup_error: None }
    }

    fn shown(snapshots: Vec<Snapshot>, count: Option<u64>) -> Result<String, String> {
        let (sender, inbox) = sync_channel(snapshots.len());
        for snapshot in snapshots {
            sender.send(Some(snapshot)).unwrap();
        }
        drop(sender);
        let mut out = Vec::new();
        show(&inbox, "t", "c", count, &mut out).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn rates_and_sums() {
        let start = Instant::now();
        let first = snapshot(
            start,
            &[
                ("a:1", r#"{"channel_name":"c","message_count":100,"depth":50}"#),
                ("b:1", r#"{"channel_name":"c","message_count":900,"depth":5}"#),
            ],
        );
        let second = snapshot(
            start + Duration::from_secs(2),
            &[
                (
                    "a:1",
                    r#"{"channel_name":"c","message_count":300,"depth":150,"backend_depth":40,
                        "in_flight_count":3,"deferred_count":2,"requeue_count":7,"timeout_count":8,
                        "client_count":2,"clients":null}"#,
                ),
                // It was restarted.
                ("b:1", r#"{"channel_name":"c","message_count":10,"depth":5,"client_count":1}"#),
                // This one is new: its messages did not come in these two seconds.
                ("d:1", r#"{"channel_name":"c","message_count":1000,"depth":1}"#),
            ],
        );
        assert_eq!(
            shown(vec![first, second], None).unwrap(),
            "------rate------+----------------depth----------------+--------------metadata---------------\n\
             ingress  egress |   total     mem    disk inflt   def |     req     t-o         msgs clients\n\
             \x20   100      50 |     156     116      40     3     2 |       7       8         1310       3\n"
        );
    }

    #[test]
    fn the_first_round_is_the_base_and_count_ends_it() {
        let start = Instant::now();
        let channel = r#"{"channel_name":"c"}"#;
        let round = || snapshot(start, &[("a:1", channel)]);
        assert_eq!(shown(vec![round()], None).unwrap(), "");
        let rounds: Vec<_> = core::iter::repeat_with(round).take(100).collect();
        let text = shown(rounds.clone(), Some(26)).unwrap();
        assert_eq!(text.lines().count(), 26 + 2 * 2);
        assert!(text.lines().nth(27).unwrap().starts_with("------rate"));
        assert_eq!(shown(rounds, None).unwrap().lines().count(), 99 + 4 * 2);
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let now = Instant::now();
        let error = shown(vec![snapshot(now, &[("a:1", r#"{"channel_name":"x"}"#)])], None);
        assert_eq!(error.unwrap_err(), "no nsqd knows the topic t with the channel c");
        let mut dead = snapshot(now, &[]);
        assert_eq!(shown(vec![dead.clone()], None).unwrap_err(), "there is no nsqd");
        dead.nodes.insert("a:1".into(), Err("refused".into()));
        assert_eq!(shown(vec![dead], None).unwrap_err(), "nsqd at a:1: refused");
    }
}
