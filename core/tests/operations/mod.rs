//! What operators see and change while a node runs, over one shard and over several.
use core::time::Duration;

use sansq_core::nsqd::{AdminError, AdminReply, AdminRequest, Config, PeerAction};

use crate::common::{Frame, Node};
use crate::{message, stats};

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
        let Some(Frame::Message { id, .. }) = node.frames(other).into_iter().next() else {
            panic!()
        };
        node.send(other, format!("FIN {id}\n").as_bytes());
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
