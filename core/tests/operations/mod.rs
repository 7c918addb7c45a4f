//! What operators see and change while a node runs, over one shard and over several.
use core::time::Duration;

use sansq_core::client::frame::Frame;
use sansq_core::name::TopicName;
use sansq_core::nsqd::{
    AdminError, AdminReply, AdminRequest, Config, PeerAction, StatsdAction, StatsdOptions, TopicOp,
};
use sansq_core::testing::Node;

use crate::{message, ok, stats, text};

/// The addresses dialled, and how many connections were closed, since the last call.
fn peers(node: &mut Node) -> (Vec<String>, usize) {
    let (mut dialled, mut closed) = (Vec::new(), 0);
    for (_, action) in node.peers.drain(..) {
        match action {
            PeerAction::Dial(address) => dialled.push(address.into()),
            PeerAction::Close => closed += 1,
            PeerAction::Send(_) => {}
        }
    }
    (dialled, closed)
}

#[test]
fn the_list_of_nsqlookupds_changes_while_the_node_runs() {
    for shards in [1, 3] {
        let config =
            Config { lookupd_tcp_addresses: vec!["a:1".into(), "b:1".into()], ..Config::default() };
        let mut node = Node::new(shards, config);
        assert_eq!(peers(&mut node), (vec!["a:1".into(), "b:1".into()], 0));
        let last = usize::from(shards) - 1;
        let mut set = |list: &[&str]| {
            let list = list.iter().map(|address| (*address).into()).collect();
            let reply = node.admin(last, AdminRequest::Lookupds(list));
            assert_eq!(reply, Some(AdminReply::Done));
            peers(&mut node)
        };
        // Those that stay notice nothing, and nobody is dialled twice.
        assert_eq!(set(&["b:1", "c:1", "c:1"]), (vec!["c:1".into()], 1));
        assert_eq!(set(&["c:1", "b:1"]), (vec![], 0));
        assert_eq!(set(&[]), (vec![], 2));
        assert_eq!(set(&["a:1"]), (vec!["a:1".into()], 0));
        let text: Vec<_> = node.events.iter().map(ToString::to_string).collect();
        let removed = text.iter().position(|line| line == "LOOKUP(a:1): removing peer").unwrap();
        let added = text.iter().position(|line| line == "LOOKUP(c:1): adding peer").unwrap();
        assert!(removed < added, "{text:?}");
        node.shut_down();
        let reply = node.admin(last, AdminRequest::Lookupds(vec!["d:1".into()]));
        assert_eq!(reply, Some(AdminReply::Refused(AdminError::Exiting)));
        assert_eq!(peers(&mut node), (vec![], 1));
    }
}

#[test]
fn latency_is_the_time_from_publishing_to_finishing() {
    for shards in [1, 3] {
        let config = Config {
            e2e_processing_latency_percentiles: vec![1.0, 0.5],
            e2e_processing_latency_window_time: Duration::from_secs(10),
            ..Config::default()
        };
        let mut node = Node::new(shards, config);
        let (producer, other) = (node.client(0), node.consumer(0, "t", "other", 9));
        let consumer = node.consumer(0, "t", "c", 9);
        for seconds in [1, 2] {
            node.publish(producer, "t", "x");
            node.wait(Duration::from_secs(seconds));
            let (id, ..) = message(&mut node, consumer);
            node.send(consumer, format!("FIN {id}\n").as_bytes());
        }
        let Some(Frame::Message(first)) = node.frames(other).into_iter().next() else { panic!() };
        node.send(other, format!("FIN {}\n", text(&first.id)).as_bytes());
        let shown = |node: &mut Node| {
            let topic = stats(node).topics.remove(0);
            let channels: Vec<_> = topic.channels.into_iter().map(|c| c.latency).collect();
            (topic.latency, channels)
        };
        let second = 1_000_000_000;
        let (topic, channels) = shown(&mut node);
        assert_eq!((topic.count, &topic.percentiles[0]), (3, &(1.0, 3 * second)));
        assert!(topic.percentiles[1].1.abs_diff(2 * second) < second / 100, "{topic:?}");
        assert_eq!((channels[0].count, &channels[0].percentiles[0]), (2, &(1.0, 2 * second)));
        assert_eq!((channels[1].count, &channels[1].percentiles[1]), (1, &(0.5, 3 * second)));
        node.wait(Duration::from_secs(11));
        let (topic, _) = shown(&mut node);
        assert_eq!((topic.count, &topic.percentiles[0]), (0, &(1.0, 0)));
    }
}

#[test]
fn statsd_hears_of_all_shards_every_interval() {
    for shards in [1, 4] {
        let statsd = StatsdOptions {
            address: "statsd:8125".into(),
            prefix: "p.".into(),
            interval: Duration::from_secs(5),
            ..StatsdOptions::default()
        };
        let mut node = Node::new(shards, Config { statsd, ..Config::default() });
        let producer = node.client(0);
        let lines = |node: &mut Node| {
            let mut text = String::new();
            for action in node.statsd.drain(..) {
                match action {
                    StatsdAction::Send(packet) => text += core::str::from_utf8(&packet).unwrap(),
                    StatsdAction::Begin(address) => assert_eq!(&*address, "statsd:8125"),
                    StatsdAction::Measure => panic!("answered already"),
                }
            }
            text.lines().map(String::from).collect::<Vec<_>>()
        };
        for topic in 0..8 {
            node.publish(producer, &format!("t{topic}"), "body");
        }
        node.wait(Duration::from_millis(4_999));
        assert_eq!(lines(&mut node), [""; 0]);
        node.wait(Duration::from_millis(4_001));
        let first = lines(&mut node);
        assert_eq!(first.len(), 8 * 4 + 9);
        for topic in 0..8 {
            assert_eq!(first[4 * topic], format!("p.topic.t{topic}.message_count:1|c"));
            assert_eq!(first[4 * topic + 1], format!("p.topic.t{topic}.message_bytes:4|c"));
        }
        assert_eq!(first.last().unwrap(), "p.mem.gc_runs:0|c");
        node.publish(producer, "t3", "again");
        node.wait(Duration::from_secs(1));
        let begun = lines(&mut node).len();
        // What is left goes out at a stop.
        node.shut_down();
        assert!(begun < first.len());
        assert_eq!(begun + lines(&mut node).len(), first.len());
        assert!(node.events.iter().any(|event| event.to_string() == "STATSD: closing"));
        node.wait(Duration::from_secs(60));
        assert_eq!(lines(&mut node), [""; 0]);
    }
}

/// No turn gathers more than a page of all shards' topics.
#[test]
fn statsd_hears_of_many_topics_page_by_page() {
    for shards in [1, 4] {
        let statsd = StatsdOptions {
            address: "statsd:8125".into(),
            mem_stats: false,
            // Of a line each.
            udp_packet_size: 1,
            ..StatsdOptions::default()
        };
        let mut node = Node::new(shards, Config { statsd, ..Config::default() });
        let names: Vec<_> = (0..3000).map(|n| format!("t{n:04}")).collect();
        for name in &names {
            let create = AdminRequest::Topic(TopicName::new(name).unwrap(), TopicOp::Create);
            assert_eq!(node.admin(0, create), Some(AdminReply::Done));
        }
        node.wait(Duration::from_secs(60));
        let pages = names.len() / 256 / usize::from(shards);
        node.wait(Duration::from_millis(pages as u64 - 1));
        assert_eq!(node.statsd, []);
        node.wait(Duration::from_secs(59));
        let lines: Vec<_> = node.statsd.drain(..).collect();
        assert_eq!(lines[0], StatsdAction::Begin("statsd:8125".into()));
        let count = |name| format!("nsq.topic.{name}.message_count:0|c\n");
        let counts: Vec<_> = lines[1..].iter().step_by(4).cloned().collect();
        let expected = names.iter().map(|name| StatsdAction::Send(count(name).into()));
        assert_eq!(lines.len(), 1 + 4 * names.len());
        assert!(counts.into_iter().eq(expected));
    }
}

/// The numbers were probed with the reference.
#[test]
fn near_consumers_come_first_and_are_counted_apart() {
    for shards in [1, 3] {
        let config = Config {
            topology_aware_consumption: true,
            topology_zone: "here".into(),
            topology_region: "land".into(),
            ..Config::default()
        };
        let mut node = Node::new(shards, config);
        let mut consumer = |zone: &str, region: &str| {
            let client = node.client(0);
            let identity = format!(r#"{{"topology_zone":"{zone}","topology_region":"{region}"}}"#);
            let mut commands = b"IDENTIFY\n".to_vec();
            commands.extend_from_slice(&(identity.len() as u32).to_be_bytes());
            commands.extend_from_slice(identity.as_bytes());
            commands.extend_from_slice(b"SUB t c\nRDY 10\n");
            node.send(client, &commands);
            assert_eq!(node.frames(client), [ok(), ok()]);
            client
        };
        let far = consumer("there", "abroad");
        let region = consumer("there", "land");
        let zone = consumer("here", "land");
        let silent = node.consumer(0, "t", "c", 0);
        let producer = node.client(0);
        for n in 0..25 {
            node.publish(producer, "t", n.to_string());
        }
        let numbers = |range: core::ops::Range<u32>| -> Vec<String> {
            range.map(|n| n.to_string()).collect()
        };
        assert_eq!(node.bodies(zone), numbers(0..10));
        assert_eq!(node.bodies(region), numbers(10..20));
        assert_eq!(node.bodies(far), numbers(20..25));
        // Who did not identify is nowhere near.
        node.send(silent, b"RDY 1\n");
        node.send(far, b"RDY 0\n");
        node.publish(producer, "t", "last");
        assert_eq!(node.bodies(silent), ["last"]);
        let channel = stats(&mut node).topics.remove(0).channels.remove(0);
        let counts = (channel.zone_local_msg_count, channel.region_local_msg_count);
        assert_eq!((counts, channel.global_msg_count), ((10, 10), 6));
    }
}
