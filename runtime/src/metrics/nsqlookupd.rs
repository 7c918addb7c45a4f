//! nsqlookupd's metrics.

use core::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use sansq_core::nsqlookupd::LookupdStats;
use sansq_core::version::{NSQ_VERSION, SANSQ_VERSION};

use super::{
    Figure, counter, gauge, show_answers, show_family, show_info, show_turns, show_unwritten,
    show_visitors,
};
use crate::meter::Turns;

/// What the page shows.
#[derive(Debug)]
pub(crate) struct LookupdPage {
    pub(crate) stats: LookupdStats,
    /// Of its one thread.
    pub(crate) turns: Turns,
    /// Connections to the HTTP API, and those that had to go for others.
    pub(crate) visitors: (u64, u64),
    /// Bytes of its answers that are not taken, and how often one had to wait for room.
    pub(crate) answers: (u64, u64),
    /// Lines of the log that were lost, and those that were left out.
    pub(crate) unwritten: (u64, u64),
}

const FIGURES: [Figure<LookupdStats>; 12] = [
    gauge("nsqlookupd_topics", "Topics, with producers or without", |stats| stats.topics as u64),
    gauge("nsqlookupd_channels", "Channels of all topics", |stats| stats.channels as u64),
    gauge("nsqlookupd_unused_names", "Topics and channels without producers", |stats| {
        stats.unused_names as u64
    }),
    gauge(
        "nsqlookupd_registrations",
        "Pairs of a topic or channel and an nsqd that has it",
        |stats| stats.registrations as u64,
    ),
    gauge("nsqlookupd_producers", "nsqds that are alive", |stats| stats.producers as u64),
    gauge("nsqlookupd_inactive_producers", "nsqds that are connected and silent", |stats| {
        stats.inactive_producers as u64
    }),
    gauge("nsqlookupd_tombstones", "Topics that are hidden at an nsqd, each counted", |stats| {
        stats.tombstones as u64
    }),
    gauge("nsqlookupd_connections", "Connections of nsqds", |stats| stats.connections as u64),
    counter(
        "nsqlookupd_errors",
        "Commands whose answer was an error that ended the connection",
        |stats| stats.counters.errors,
    ),
    counter(
        "nsqlookupd_refused",
        "REGISTERs, topics and channels over HTTP without room",
        |stats| stats.counters.refused,
    ),
    counter(
        "nsqlookupd_dropped_registrations",
        "Registrations that an nsqd lost because others wanted the room",
        |stats| stats.counters.dropped_registrations,
    ),
    counter(
        "nsqlookupd_forgotten_names",
        "Topics and channels without producers that were forgotten because others wanted the room",
        |stats| stats.counters.forgotten_names,
    ),
];

impl Collector for LookupdPage {
    fn encode(&self, mut page: DescriptorEncoder<'_>) -> fmt::Result {
        let page = &mut page;
        show_info(
            page,
            "nsqlookupd",
            [("version", NSQ_VERSION), ("sansq_version", SANSQ_VERSION)],
        )?;
        for figure in &FIGURES {
            figure.show_sum(page, core::iter::once(&self.stats))?;
        }
        let counters = &self.stats.counters;
        let commands = [
            ("IDENTIFY", counters.identifies),
            ("PING", counters.pings),
            ("REGISTER", counters.registers),
            ("UNREGISTER", counters.unregisters),
        ];
        let commands = commands.into_iter().map(|(name, count)| ([("command", name)], count));
        show_family(page, "nsqlookupd_commands", "Commands of nsqds", true, commands)?;
        let requests = [("lookup", counters.lookups), ("other", counters.other_requests)];
        let requests = requests.into_iter().map(|(name, count)| ([("request", name)], count));
        show_family(page, "nsqlookupd_http_requests", "Requests over HTTP", true, requests)?;
        show_visitors(page, "nsqlookupd", self.visitors)?;
        show_answers(page, "nsqlookupd", self.answers)?;
        show_unwritten(page, "nsqlookupd", self.unwritten)?;
        show_turns(page, "nsqlookupd_turn_seconds", core::iter::once(self.turns))
    }
}
