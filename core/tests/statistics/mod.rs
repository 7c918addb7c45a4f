//! Statistics come in pages, none of which is large.

use core::time::Duration;

use sansq_core::client::frame::Frame;
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::nsqd::{
    AdminReply, AdminRequest, ChannelOp, Config, ServerStats, StatsFilter, StatsPage, TopicOp,
};
use sansq_core::testing::Node;

use crate::text;

const SHARDS: [u16; 2] = [1, 3];

/// Page by page there is the same in the same order, and no page is large.
#[test]
fn statistics_come_in_pages() {
    for shards in SHARDS {
        let mut node = Node::new(shards, Config { mem_queue_size: 1000, ..Config::default() });
        let client = node.client(0);
        for n in 0..2000 {
            node.publish(client, &format!("t{n}"), "x");
        }
        for n in 0..700 {
            let client = node.client(n % usize::from(shards));
            node.publish(client, "t0", "x");
        }
        for n in 0..9 {
            node.consumer(0, "t1", &format!("c{n}"), 0);
        }
        let whole = StatsFilter { include_clients: true, ..StatsFilter::default() };
        for filter in [
            whole.clone(),
            StatsFilter { include_clients: false, ..whole.clone() },
            StatsFilter { topic: TopicName::new("t1").ok(), ..whole.clone() },
            StatsFilter { topic: TopicName::new("none").ok(), ..whole.clone() },
            StatsFilter { channel: ChannelName::new("c3").ok(), ..whole.clone() },
        ] {
            let (mut all, pages) = stats_in_pages(&mut node, &filter);
            let mut expected = ask_stats(&mut node, filter.clone());
            // Connections come by slot and then by shard.
            let by_peer = |stats: &mut ServerStats| {
                stats.producers.sort_by_key(|client| client.peer.to_string());
            };
            by_peer(&mut all);
            by_peer(&mut expected);
            assert_eq!(all, expected);
            assert!(pages > 2 || !filter.include_clients || filter.topic.is_some());
        }
    }
}

/// A topic is on as many pages as its channels need, and a channel on as many as its clients need.
#[test]
fn a_large_topic_is_on_many_pages() {
    for shards in SHARDS {
        let config =
            Config { e2e_processing_latency_percentiles: vec![1.0, 0.5], ..Config::default() };
        let mut node = Node::new(shards, config);
        let producer = node.client(0);
        for n in 0..9 {
            node.publish(producer, &format!("small{n}"), "x");
        }
        let large = TopicName::new("large").unwrap();
        assert_eq!(
            node.admin(0, AdminRequest::Topic(large, TopicOp::Create)),
            Some(AdminReply::Done)
        );
        for n in 0..CHANNELS {
            let channel = ChannelName::new(format!("c{n:05}")).unwrap();
            let create = AdminRequest::Channel(large, channel, ChannelOp::Create);
            assert_eq!(node.admin(0, create), Some(AdminReply::Done));
        }
        // What takes a second in one channel takes two in the other, at the end of the topic.
        let consumers = ["c00001", "c19998"].map(|name| node.consumer(0, "large", name, 1));
        for n in 0..700 {
            node.consumer(n % usize::from(shards), "large", "c10000", n as u32 % 2);
        }
        node.publish(producer, "large", "x");
        for consumer in consumers {
            node.wait(Duration::from_secs(1));
            let frames = node.frames(consumer);
            let Some(Frame::Message(message)) = frames.last() else { panic!("{frames:?}") };
            node.send(consumer, format!("FIN {}\n", text(&message.id)).as_bytes());
        }
        let whole = StatsFilter { include_clients: true, ..StatsFilter::default() };
        for (filter, least) in [
            (whole.clone(), (CHANNELS + 700) / 256),
            (StatsFilter { include_clients: false, ..whole.clone() }, CHANNELS / 256),
            (StatsFilter { topic: Some(large), ..whole.clone() }, (CHANNELS + 700) / 256),
            (
                StatsFilter { channel: ChannelName::new("c10000").ok(), ..whole.clone() },
                CHANNELS / 256,
            ),
        ] {
            let (all, pages) = stats_in_pages(&mut node, &filter);
            let expected = ask_stats(&mut node, filter.clone());
            let latency = &expected.topics[0].latency;
            assert_eq!((latency.count, latency.percentiles[0]), (2, (1.0, 2_000_000_000)));
            assert!(all == expected, "{filter:?}");
            assert!(pages > least, "{pages} for {filter:?}");
        }
        assert_eq!(ask_stats(&mut node, whole).topics[0].channels[10_000].idle_client_count, 350);
    }
}

/// A page goes on behind what has gone since the one before.
#[test]
fn what_goes_between_two_pages_holds_nothing_up() {
    let mut node = Node::new(2, Config::default());
    let topic = TopicName::new("t").unwrap();
    let names: Vec<_> = (0..600).map(|n| ChannelName::new(format!("c{n:03}")).unwrap()).collect();
    let change = |node: &mut Node, channel, op| {
        let done = node.admin(0, AdminRequest::Channel(topic, channel, op));
        assert_eq!(done, Some(AdminReply::Done));
    };
    node.admin(0, AdminRequest::Topic(topic, TopicOp::Create));
    names.iter().for_each(|name| change(&mut node, *name, ChannelOp::Create));
    let (mut all, mut next) = (ServerStats::default(), Some(StatsPage::Topics(None)));
    let mut gone = 0;
    while let Some(page) = next {
        all.append(ask_stats(&mut node, StatsFilter { page: Some(page), ..Default::default() }));
        next = all.next.take();
        if let Some(last) = all.topics[0].channels.last().filter(|_| next.is_some()) {
            change(&mut node, last.name, ChannelOp::Delete);
            gone += 1;
        }
    }
    assert_eq!(gone, 2);
    assert!(all.topics[0].channels.iter().map(|channel| channel.name).eq(names));
    // The topic goes between two pages.
    let page = Some(StatsPage::Topics(None));
    let first = ask_stats(&mut node, StatsFilter { page, ..Default::default() });
    node.admin(0, AdminRequest::Topic(topic, TopicOp::Delete));
    let rest = ask_stats(&mut node, StatsFilter { page: first.next, ..Default::default() });
    assert_eq!((rest.topics.len(), rest.next), (0, None));
}

/// All pages that there are, and how many. None of them is large.
fn stats_in_pages(node: &mut Node, filter: &StatsFilter) -> (ServerStats, usize) {
    let mut all = ServerStats::default();
    let (mut next, mut pages) = (Some(StatsPage::Topics(None)), 0);
    while let Some(page) = next {
        let part = ask_stats(node, StatsFilter { page: Some(page), ..filter.clone() });
        let channels = part.topics.iter().flat_map(|topic| &topic.channels);
        let clients = channels.clone().filter_map(|channel| channel.clients.as_ref());
        let clients = clients.map(Vec::len).sum::<usize>();
        let len = part.topics.len() + channels.count() + clients + part.producers.len();
        assert!(len <= 258 * node.shards().len(), "{len}");
        all.append(part);
        next = all.next.take();
        pages += 1;
    }
    (all, pages)
}

fn ask_stats(node: &mut Node, filter: StatsFilter) -> ServerStats {
    match node.admin(0, AdminRequest::Stats(filter)) {
        Some(AdminReply::Stats(stats)) => *stats,
        other => panic!("statistics are expected, not {other:?}"),
    }
}

const CHANNELS: usize = 20_000;
