use std::collections::BTreeSet;

use sansq_core::name::{ChannelName, TopicName};
use sansq_core::nsqd::{
    ChannelStats, LATENCY_BOUNDS, LatencyStats, LatencyTotals, ServerStats, ShardId, ShardStats,
    TopicStats,
};
use sansq_core::nsqlookupd::{Counters, LookupdStats};

use super::*;
use crate::meter::Meter;

/// Two samples of up to a millisecond, and three of more than an hour.
fn totals() -> LatencyTotals {
    let mut totals = LatencyTotals { sum: Duration::from_millis(10_500), ..Default::default() };
    (totals.counts[0], totals.counts[LATENCY_BOUNDS.len()]) = (2, 3);
    totals
}

fn nsqd(aggregate: bool) -> String {
    let channel = |name: &str, percentiles| ChannelStats {
        name: ChannelName::new(name).unwrap(),
        depth: 3,
        backend_depth: 1,
        in_flight_count: 2,
        deferred_count: 4,
        message_count: 6,
        zone_local_msg_count: 1,
        region_local_msg_count: 2,
        global_msg_count: 5,
        requeue_count: 5,
        timeout_count: 7,
        client_count: 1,
        idle_client_count: 0,
        ready_client_count: 1,
        clients: None,
        paused: true,
        latency: LatencyStats { count: 1, percentiles, totals: Some(totals()) },
    };
    let topic = |name: &str, channels| TopicStats {
        name: TopicName::new(name).unwrap(),
        channels,
        depth: 1,
        backend_depth: 0,
        message_count: 10,
        message_bytes: 100,
        paused: false,
        latency: LatencyStats::default(),
    };
    let first = vec![channel("c", vec![(0.99, 1_500_000)]), channel("d#ephemeral", vec![])];
    let stats = ServerStats {
        topics: vec![topic("a", first), topic("b", vec![])],
        topic_known: true,
        shards: vec![ShardStats {
            id: ShardId(0),
            connections: 9,
            unanswered_bytes: 7,
            unanswered_waits: 3,
        }],
        failure: Some("disk full".into()),
        ..ServerStats::default()
    };
    let meter = Meter::default();
    meter.note(Duration::from_micros(3));
    meter.note(Duration::from_secs(2));
    text(NsqdPage {
        stats,
        aggregate,
        start_time: 1_700_000_000,
        memory: Some(sansq_core::nsqd::http::Memory { heap_in_use_bytes: 5, ..Default::default() }),
        lanes: vec![4],
        requests: vec![(7, 3)],
        refused_connections: 12,
        turns: vec![meter.turns()],
        visitors: (8, 2),
        unwritten: (6, 1),
        http_unanswered: (5, 6),
        http_answers: (70_000, 4),
    })
}

fn nsqlookupd() -> String {
    let counters = Counters { pings: 3, lookups: 4, refused: 9, ..Counters::default() };
    let stats = LookupdStats {
        topics: 1,
        channels: 2,
        unused_names: 8,
        registrations: 3,
        producers: 4,
        inactive_producers: 5,
        tombstones: 6,
        connections: 7,
        counters,
    };
    let turns = Meter::default().turns();
    let answers = (80_000, 5);
    text(LookupdPage { stats, turns, visitors: (8, 2), answers, unwritten: (6, 1) })
}

fn text(page: impl Collector) -> String {
    let reply = reply(page);
    assert_eq!(reply.status, 200);
    String::from_utf8(reply.body.to_vec()).unwrap()
}

#[track_caller]
fn has_lines(page: &str, lines: &[&str]) {
    for line in lines {
        assert!(page.lines().any(|l| l == *line), "{line}: {page}");
    }
}

#[test]
fn figures_of_each_topic_and_channel() {
    has_lines(
        &nsqd(false),
        &[
            "nsqd_info{version=\"1.3.0\",sansq_version=\"0.1.0\"} 1",
            "nsqd_healthy 0",
            "nsqd_connections{shard=\"0\"} 9",
            "nsqd_lane_length{shard=\"0\"} 4",
            "nsqd_storage_requests_total{shard=\"0\"} 7",
            "nsqd_storage_length{shard=\"0\"} 3",
            "nsqd_refused_connections_total 12",
            "nsqd_http_connections 8",
            "nsqd_http_evictions_total 2",
            "nsqd_http_answer_bytes 70000",
            "nsqd_http_answer_waits_total 4",
            "nsqd_log_lines_lost_total 6",
            "nsqd_log_lines_left_out_total 1",
            "nsqd_turn_seconds_count{shard=\"0\"} 2",
            "nsqd_turn_seconds_bucket{le=\"0.000004096\",shard=\"0\"} 1",
            "nsqd_turn_seconds_bucket{le=\"1.073741824\",shard=\"0\"} 1",
            "nsqd_turn_seconds_bucket{le=\"+Inf\",shard=\"0\"} 2",
            "nsqd_topic_message_bytes_total{topic=\"b\"} 100",
            "nsqd_channel_deferred{topic=\"a\",channel=\"d#ephemeral\"} 4",
            "nsqd_channel_deliveries_total{topic=\"a\",channel=\"c\"} 8",
            "nsqd_channel_starved{topic=\"a\",channel=\"c\"} 0",
            "nsqd_channel_paused{topic=\"a\",channel=\"c\"} 1",
            "nsqd_channel_e2e_processing_latency_seconds{topic=\"a\",channel=\"c\",quantile=\"0.99\"} 0.0015",
            "nsqd_channel_e2e_latency_seconds_bucket{le=\"0.001\",topic=\"a\",channel=\"c\"} 2",
            "nsqd_channel_e2e_latency_seconds_bucket{le=\"3600.0\",topic=\"a\",channel=\"c\"} 2",
            "nsqd_channel_e2e_latency_seconds_bucket{le=\"+Inf\",topic=\"a\",channel=\"c\"} 5",
            "nsqd_channel_e2e_latency_seconds_sum{topic=\"a\",channel=\"c\"} 10.5",
            "# TYPE nsqd_topic_messages counter",
            "# EOF",
        ],
    );
}

#[test]
fn sums_name_no_topic() {
    let page = nsqd(true);
    has_lines(
        &page,
        &[
            "nsqd_topics 2",
            "nsqd_topic_messages_total 20",
            "nsqd_channel_paused 2",
            "nsqd_channel_e2e_latency_seconds_count 10",
            "# EOF",
        ],
    );
    assert!(!page.contains("topic=") && !page.contains("quantile"), "{page}");
}

#[test]
fn figures_of_nsqlookupd() {
    has_lines(
        &nsqlookupd(),
        &[
            "nsqlookupd_tombstones 6",
            "nsqlookupd_http_evictions_total 2",
            "nsqlookupd_http_answer_bytes 80000",
            "nsqlookupd_http_answer_waits_total 5",
            "nsqlookupd_log_lines_lost_total 6",
            "nsqlookupd_unused_names 8",
            "nsqlookupd_refused_total 9",
            "nsqlookupd_commands_total{command=\"PING\"} 3",
            "nsqlookupd_http_requests_total{request=\"lookup\"} 4",
            "nsqlookupd_turn_seconds_count{shard=\"0\"} 0",
        ],
    );
}

/// The dashboard asks for nothing that there is not.
#[test]
fn the_dashboard_knows_these_names() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/grafana/nsq.json");
    let dashboard = std::fs::read_to_string(path).unwrap();
    let pages = nsqd(false) + &nsqlookupd();
    let known: BTreeSet<_> = pages
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let asked: BTreeSet<_> = dashboard
        .split(|c| !is_part(c))
        .filter(|word| ["nsqd_", "nsqlookupd_", "process_"].iter().any(|p| word.starts_with(p)))
        .collect();
    assert!(asked.len() > 20, "{asked:?}");
    let unknown: Vec<_> = asked.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
