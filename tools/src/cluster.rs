//! What `/stats` of several nsqds says, asked again and again: what `sansq stat` and `sansq top`
//! show.
//!
//! Each nsqd is asked by a thread of its own. One that does not answer delays the others by a
//! second, and nobody who looks at them at all.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Instant;

use sansq_core::name::TopicName;
use sansq_toolkit::http;
use serde::Deserialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::lookup::{self, Port};
use super::{ToolError, together};

/// Which nsqds, and what of them.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    /// `host:port` of HTTP APIs.
    pub(super) nsqds: Vec<String>,
    /// `host:port` of the HTTP APIs of those who know more.
    pub(super) lookupds: Vec<String>,
    pub(super) agent: ureq::Agent,
    /// Only this topic, and of nsqlookupds only the nsqds that produce it.
    pub(super) topic: Option<TopicName>,
}

/// The answers of one round.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// When the last of them was there.
    pub(super) at: Instant,
    /// By address.
    pub(super) nodes: BTreeMap<String, StatsResult>,
    /// What nsqlookupds failed with, if none answered.
    pub(super) lookup_error: Option<String>,
}

/// What one nsqd answered, or why it did not.
pub(super) type StatsResult = Result<NodeStats, String>;

/// An nsqd. Keys that are missing or `null` are empty: other versions have other keys.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeStats {
    pub(super) version: String,
    pub(super) health: String,
    pub(super) start_time: i64,
    topics: Option<Vec<TopicStats>>,
    /// The consumers of the channel in focus.
    #[serde(skip)]
    pub(super) clients: Vec<ClientStats>,
}

/// A topic of an nsqd.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TopicStats {
    pub(super) topic_name: String,
    channels: Option<Vec<ChannelStats>>,
    pub(super) depth: i64,
    pub(super) backend_depth: i64,
    pub(super) message_count: u64,
    pub(super) paused: bool,
}

/// A channel of a topic.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ChannelStats {
    pub(super) channel_name: String,
    pub(super) depth: i64,
    pub(super) backend_depth: i64,
    pub(super) in_flight_count: i64,
    pub(super) deferred_count: i64,
    pub(super) message_count: u64,
    pub(super) requeue_count: u64,
    pub(super) timeout_count: u64,
    pub(super) client_count: i64,
    clients: Option<Vec<ClientStats>>,
    pub(super) paused: bool,
}

/// A consumer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ClientStats {
    pub(super) client_id: String,
    pub(super) hostname: String,
    pub(super) remote_address: String,
    pub(super) user_agent: String,
    pub(super) ready_count: i64,
    pub(super) in_flight_count: i64,
    pub(super) message_count: u64,
    pub(super) finish_count: u64,
    pub(super) requeue_count: u64,
}

/// The topic and channel whose consumers are wanted too.
pub(super) type Focus = Option<(String, String)>;

impl NodeStats {
    pub(super) fn topics(&self) -> &[TopicStats] {
        self.topics.as_deref().unwrap_or_default()
    }
}

impl TopicStats {
    pub(super) fn channels(&self) -> &[ChannelStats] {
        self.channels.as_deref().unwrap_or_default()
    }
}

impl Snapshot {
    /// The nsqds that answered, by address.
    pub(super) fn answers(&self) -> impl Iterator<Item = (&str, &NodeStats)> {
        self.nodes
            .iter()
            .filter_map(|(address, node)| Some((address.as_str(), node.as_ref().ok()?)))
    }

    /// What failed, if nothing answered.
    pub(super) fn failure(&self) -> Option<String> {
        if self.answers().next().is_some() {
            return None;
        }
        let error = |(address, node): (&String, &StatsResult)| {
            Some(format!("nsqd at {address}: {}", node.as_ref().err()?))
        };
        let first = self.nodes.iter().find_map(error);
        first.or_else(|| self.lookup_error.clone()).or_else(|| Some("there is no nsqd".into()))
    }
}

impl Cluster {
    /// Asks all of them, now.
    pub(super) fn snapshot(&self, focus: &Focus) -> Snapshot {
        let mut addresses = self.nsqds.clone();
        let mut lookup_error = None;
        if !self.lookupds.is_empty() {
            match lookup::nsqds(
                &self.agent,
                &self.lookupds,
                self.topic.as_ref(),
                Port::Http,
                lookup::GRACE,
            ) {
                Ok(found) => addresses.extend(found),
                Err(error) => lookup_error = Some(error),
            }
        }
        addresses.sort();
        addresses.dedup();
        let (own, focus) = (self.clone(), focus.clone());
        let ask = move |address: &str| own.ask(address, &focus);
        let nodes = together::ask_all(&addresses, GRACE, ask).into_iter().collect();
        Snapshot { at: Instant::now(), nodes, lookup_error }
    }

    fn ask(&self, address: &str, focus: &Focus) -> StatsResult {
        let mut url =
            format!("http://{address}/stats?format=json&include_clients=false&include_mem=false");
        if let Some(topic) = &self.topic {
            url.push_str("&topic=");
            url.push_str(&http::escape(topic.as_bytes()));
        }
        let missing = || format!("{address} has no /stats");
        let mut stats: NodeStats = http::get_json(&self.agent, &url)?.ok_or_else(missing)?;
        if let Some((topic, channel)) = focus {
            let url = format!(
                "http://{address}/stats?format=json&include_mem=false&topic={}&channel={}",
                http::escape(topic.as_bytes()),
                http::escape(channel.as_bytes())
            );
            let more: NodeStats = http::get_json(&self.agent, &url)?.unwrap_or_default();
            let channels = more.topics.into_iter().flatten().flat_map(|topic| topic.channels);
            stats.clients = channels.flatten().filter_map(|it| it.clients).flatten().collect();
        }
        Ok(stats)
    }
}

/// Asks every `interval`, on a thread of its own, until nobody listens; and at once when there is
/// another focus. It ends with `focuses`, too.
///
/// # Errors
/// If there is no thread to be had.
pub(super) fn poll<E: Send + 'static>(
    cluster: Cluster,
    interval: Duration,
    focuses: Receiver<Focus>,
    events: SyncSender<E>,
    wrap: impl Fn(Snapshot) -> E + Send + 'static,
) -> Result<(), ToolError> {
    let polling = move || {
        let mut focus = None;
        loop {
            let began = Instant::now();
            if events.send(wrap(cluster.snapshot(&focus))).is_err() {
                return;
            }
            match focuses.recv_timeout(interval.saturating_sub(began.elapsed())) {
                Ok(other) => focus = other,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    };
    thread::Builder::new().name("poll".into()).spawn(polling).map_err(ToolError::Start)?;
    Ok(())
}

/// Tells `events` when the program is to end: on SIGINT, SIGTERM and SIGHUP.
///
/// # Errors
/// If the signals can't be had.
pub(super) fn stop_on_signals<E: Send + 'static>(
    events: SyncSender<E>,
    stop: impl Fn() -> E + Send + 'static,
) -> Result<(), ToolError> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(ToolError::Start)?;
    let waiting = move || {
        for _ in signals.forever() {
            if events.send(stop()).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(waiting).map_err(ToolError::Start)?;
    Ok(())
}

/// How long the others have when one nsqd has answered: nobody waits longer for one that hangs.
const GRACE: Duration = Duration::from_secs(1);
