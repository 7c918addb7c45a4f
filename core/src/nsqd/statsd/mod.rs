//! Statistics pushed to statsd over UDP (http-and-ops.md section 8), on shard 0.
//!
//! ```text
//!   Waiting ──interval──► Gathering ──last page──► Measuring ──memory──► Sending ──► Waiting
//!                          │     ▲               └─ without --statsd-mem-stats ─►
//!                          └─page┘
//! ```
//!
//! The statistics of all shards are gathered page by page, a page in a turn, and each page becomes
//! text at once. The text of a push is cut into packets at the ends of lines. The packets are
//! spread evenly over the interval less one second, so that statsd's socket is not flooded; at a
//! stop the rest goes out at once.
//!
//! Limits: one push at a time; if one is still under way when the next is due, the next begins as
//! soon as it is done, and those that are missed meanwhile are left out. So there is at most the
//! text of one push, which has some 500 bytes for each channel, and the counters of the one before
//! it, some 200 bytes for each topic and each channel.

mod text;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use core::mem;
use core::time::Duration;

use bytes::Bytes;

use self::text::{Counters, Text};
use super::config::StatsdOptions;
use super::stats::{Memory, ServerStats, StatsPage};
use crate::address::host_and_port;
use crate::time::{Instant, Now};

/// The prefix that `pattern` stands for on the nsqd at `host` and `port`: `%s` is replaced by the
/// two, with `_` for dots and colons, and a dot is added at the end if there is none.
pub fn statsd_prefix(pattern: &str, host: &str, port: u16) -> String {
    let address = host_and_port(host, port);
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
    counters: Counters,
}

#[derive(Debug)]
enum State {
    Waiting,
    /// With the text of the pages so far, and the page to ask for next and when; `None` while an
    /// answer is awaited.
    Gathering {
        text: Text,
        next: Option<(StatsPage, Instant)>,
    },
    Measuring(Text),
    Sending {
        packets: VecDeque<Bytes>,
        pause: Duration,
        next: Instant,
        /// Not before that time, if many were due at once.
        not_before: Instant,
    },
}

impl Statsd {
    /// The first push comes one interval from now.
    pub(super) fn new(options: StatsdOptions, now: Now) -> Self {
        let due = now.instant + options.interval;
        Self { options, due, state: State::Waiting, counters: Counters::default() }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next worth a call.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting => Some(self.due),
            State::Gathering { next, .. } => next.as_ref().map(|(_, at)| *at),
            State::Measuring(_) => None,
            State::Sending { next, not_before, .. } => Some(*next.max(not_before)),
        }
    }

    /// Sends what is due. Returns the page of the statistics that has to be gathered for
    /// [`handle_stats`](Self::handle_stats), if it is time for one.
    pub(super) fn handle_timeout(
        &mut self,
        now: Now,
        out: &mut impl Extend<StatsdAction>,
    ) -> Option<StatsPage> {
        self.send(now, out);
        match &mut self.state {
            State::Waiting if self.due <= now.instant => {
                self.due = self.due + self.options.interval;
                if self.due <= now.instant {
                    // Several were missed, and nothing is gained by catching up.
                    self.due = now.instant + self.options.interval;
                }
                self.state = State::Gathering { text: Text::default(), next: None };
                Some(StatsPage::Topics(None))
            }
            State::Gathering { next, .. } => {
                next.take_if(|(_, at)| *at <= now.instant).map(|(page, _)| page)
            }
            State::Waiting | State::Measuring(_) | State::Sending { .. } => None,
        }
    }

    /// A page of the statistics is here, without clients.
    pub(super) fn handle_stats(
        &mut self,
        stats: ServerStats,
        now: Now,
        out: &mut impl Extend<StatsdAction>,
    ) {
        let State::Gathering { text, next } = &mut self.state else { return };
        if next.is_some() {
            return;
        }
        let page = stats.next.clone();
        text.add_page(stats, &mut self.counters, &self.options);
        if let Some(page) = page {
            *next = Some((page, now.instant + PAUSE));
            return;
        }
        let text = mem::take(text);
        self.counters.end_push();
        if self.options.mem_stats {
            self.state = State::Measuring(text);
            out.extend([StatsdAction::Measure]);
        } else {
            self.push(text, now, out);
        }
    }

    /// The figures of the memory are here.
    pub(super) fn handle_memory(
        &mut self,
        memory: Memory,
        now: Now,
        out: &mut impl Extend<StatsdAction>,
    ) {
        if let State::Measuring(text) = &mut self.state {
            let mut text = mem::take(text);
            text.add_memory(memory, &self.options);
            self.push(text, now, out);
        }
    }

    /// Sends what is left of a push, and pushes nothing more.
    pub(super) fn stop(&mut self, out: &mut impl Extend<StatsdAction>) {
        if let State::Sending { packets, .. } = mem::replace(&mut self.state, State::Waiting) {
            out.extend(packets.into_iter().map(StatsdAction::Send));
        }
    }

    fn push(&mut self, text: Text, now: Now, out: &mut impl Extend<StatsdAction>) {
        let packets = text.into_packets();
        let count = u32::try_from(packets.len()).unwrap_or(u32::MAX);
        let spread = self.options.interval.saturating_sub(SPARED);
        let pause = spread.checked_div(count).unwrap_or_default();
        out.extend([StatsdAction::Begin(self.options.address.as_str().into())]);
        let next = now.instant;
        self.state = State::Sending { packets, pause, next, not_before: next };
        self.send(now, out);
    }

    fn send(&mut self, now: Now, out: &mut impl Extend<StatsdAction>) {
        let State::Sending { packets, pause, next, not_before } = &mut self.state else { return };
        if *not_before > now.instant {
            return;
        }
        for _ in 0..PACKETS_MAX {
            if *next > now.instant {
                break;
            }
            let Some(packet) = packets.pop_front() else { break };
            out.extend([StatsdAction::Send(packet)]);
            *next = *next + *pause;
        }
        *not_before = now.instant + PAUSE;
        if packets.is_empty() {
            self.state = State::Waiting;
        }
    }
}

/// What fits into a UDP datagram over IPv4.
pub const PACKET_LEN_MAX: usize = 65_507;

/// How much earlier than the next push the last packet goes out.
const SPARED: Duration = Duration::from_secs(1);

/// Between two pages, and between packets that are due and more than a turn sends: others have
/// their turns meanwhile.
const PAUSE: Duration = Duration::from_millis(1);

/// Packets that a turn sends: well below what may wait for the thread that sends them.
const PACKETS_MAX: usize = 256;

#[cfg(test)]
mod tests;
