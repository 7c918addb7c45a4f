//! What operators see and change while a node runs, over one shard and over several.
use sansq_core::nsqd::{AdminError, AdminReply, AdminRequest, Config, PeerAction};

use crate::common::Node;

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
