//! Statistics pushed to statsd over UDP (http-and-ops.md section 8), on shard 0.
//!
//! ```text
//!   Waiting ──interval──► Gathering ──stats of all shards──► Measuring ──memory──► Sending ──► Waiting
//!                                   └──────────── without --statsd-mem-stats ─────►
//! ```
//!
//! Each push is one text, cut into packets at the ends of lines. The packets are spread evenly over
//! the interval less one second, so that statsd's socket is not flooded; at a stop the rest goes
//! out at once.
//!
//! Limits: one push at a time; while one is under way, the next is left out. So there is at most
//! the text of one push, which has some 500 bytes for each channel, and the counters of the one
//! before it.

mod text;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use core::time::Duration;

use bytes::Bytes;

use super::http::Memory;
use super::stats::ServerStats;
use crate::time::{Instant, Now};

/// What an operator decides about statsd, by the names of the flags without `statsd-`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StatsdOptions {
    /// Where statsd listens, as `host:port`; empty for nowhere.
    pub address: String,
    /// What names begin with: as it is, so see [`statsd_prefix`].
    pub prefix: String,
    /// The time between two pushes, above one second.
    pub interval: Duration,
    /// Whether figures of the process's memory are pushed.
    pub mem_stats: bool,
    /// Bytes of a packet, up to [`PACKET_LEN_MAX`]; 0 for 4096. A line that is longer is a packet
    /// by itself.
    pub udp_packet_size: usize,
    /// Whether ephemeral topics and channels are left out.
    pub exclude_ephemeral: bool,
}

impl Default for StatsdOptions {
    /// The reference's defaults.
    fn default() -> Self {
        Self {
            address: String::new(),
            prefix: String::from("nsq."),
            interval: Duration::from_secs(60),
            mem_stats: true,
            udp_packet_size: 508,
            exclude_ephemeral: false,
        }
    }
}

/// The prefix that `pattern` stands for on the nsqd at `host` and `port`: `%s` is replaced by the
/// two, with `_` for dots and colons, and a dot is added at the end if there is none.
pub fn statsd_prefix(pattern: &str, host: &str, port: u16) -> String {
    let address =
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut prefix = pattern.replace("%s", &address.replace(['.', ':'], "_"));
    if !prefix.is_empty() && !prefix.ends_with('.') {
        prefix.push('.');
    }
    prefix
}

/// What the driver does for statsd.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StatsdAction {
    /// Call [`Shard::handle_memory`](super::Shard::handle_memory).
    Measure,
    /// A push begins: find out where this `host:port` is, and send there what follows. If that
    /// fails, say so in the log and drop what follows.
    Begin(Box<str>),
    /// Send this datagram.
    Send(Bytes),
}

/// What is pushed when.
#[derive(Debug)]
pub(super) struct Statsd {
    options: StatsdOptions,
    /// When the next push is due.
    due: Instant,
    state: State,
    /// What the last push said, for the differences.
    last: ServerStats,
}

#[derive(Debug)]
enum State {
    Waiting,
    Gathering,
    Measuring(Box<ServerStats>),
    Sending { packets: VecDeque<Bytes>, pause: Duration, next: Instant },
}

impl Statsd {
    /// The first push comes one interval from now.
    pub(super) fn new(options: StatsdOptions, now: Now) -> Self {
        let due = now.instant + options.interval;
        Self { options, due, state: State::Waiting, last: ServerStats::default() }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next worth a call.
    pub(super) fn poll_timeout(&self) -> Instant {
        match &self.state {
            State::Sending { next, .. } => self.due.min(*next),
            State::Waiting | State::Gathering | State::Measuring(_) => self.due,
        }
    }

    /// Sends what is due. Returns whether a push begins: statistics have to be gathered for
    /// [`handle_stats`](Self::handle_stats) then.
    pub(super) fn handle_timeout(&mut self, now: Now, out: &mut impl Extend<StatsdAction>) -> bool {
        self.send(now, out);
        if self.due > now.instant {
            return false;
        }
        self.due = self.due + self.options.interval;
        if self.due <= now.instant {
            // Several were missed, and nothing is gained by catching up.
            self.due = now.instant + self.options.interval;
        }
        if !matches!(self.state, State::Waiting) {
            return false;
        }
        self.state = State::Gathering;
        true
    }

    /// The statistics are here, without clients.
    pub(super) fn handle_stats(
        &mut self,
        stats: ServerStats,
        now: Now,
        out: &mut impl Extend<StatsdAction>,
    ) {
        if !matches!(self.state, State::Gathering) {
            return;
        }
        if self.options.mem_stats {
            self.state = State::Measuring(Box::new(stats));
            out.extend([StatsdAction::Measure]);
        } else {
            self.push(stats, None, now, out);
        }
    }

    /// The figures of the memory are here.
    pub(super) fn handle_memory(
        &mut self,
        memory: Memory,
        now: Now,
        out: &mut impl Extend<StatsdAction>,
    ) {
        if let State::Measuring(stats) = &mut self.state {
            let stats = core::mem::take(&mut **stats);
            self.push(stats, Some(memory), now, out);
        }
    }

    /// Sends what is left of a push, and pushes nothing more.
    pub(super) fn stop(&mut self, out: &mut impl Extend<StatsdAction>) {
        if let State::Sending { packets, .. } = core::mem::replace(&mut self.state, State::Waiting)
        {
            out.extend(packets.into_iter().map(StatsdAction::Send));
        }
    }

    fn push(
        &mut self,
        stats: ServerStats,
        memory: Option<Memory>,
        now: Now,
        out: &mut impl Extend<StatsdAction>,
    ) {
        let packets = text::packets(&self.options, &stats, &self.last, memory);
        self.last = stats;
        let count = u32::try_from(packets.len()).unwrap_or(u32::MAX);
        let spread = self.options.interval.saturating_sub(SPARED);
        let pause = spread.checked_div(count).unwrap_or_default();
        out.extend([StatsdAction::Begin(self.options.address.as_str().into())]);
        self.state = State::Sending { packets, pause, next: now.instant };
        self.send(now, out);
    }

    fn send(&mut self, now: Now, out: &mut impl Extend<StatsdAction>) {
        let State::Sending { packets, pause, next } = &mut self.state else { return };
        while *next <= now.instant
            && let Some(packet) = packets.pop_front()
        {
            out.extend([StatsdAction::Send(packet)]);
            *next = *next + *pause;
        }
        if packets.is_empty() {
            self.state = State::Waiting;
        }
    }
}

/// What fits into a UDP datagram over IPv4.
pub const PACKET_LEN_MAX: usize = 65_507;

/// How much earlier than the next push the last packet goes out.
const SPARED: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
