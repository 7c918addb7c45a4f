//! What clients have sent and have no answer to yet has a limit in bytes, and nobody starves at it.

use core::time::Duration;

use sansq_core::client::frame::Frame;
use sansq_core::nsqd::config::{
    ALLOWANCE_LEN, BODY_PATIENCE, COMMAND_DEADLINE_WITHOUT_HEARTBEAT, IDENTITY_LEN_MAX,
    PUB_COUNTS_MAX,
};
use sansq_core::nsqd::{AdminReply, AdminRequest, Config, StatsFilter};
use sansq_core::testing::{ClientId, Holds, Node};

use crate::pub_command;

const SHARDS: [u16; 2] = [1, 3];

/// Bodies of up to 400 KiB, and room for some of them.
fn config() -> Config {
    Config {
        disk: true,
        mem_queue_size: 0,
        max_msg_size: MESSAGE_LEN,
        max_body_size: BODY_LEN,
        max_unanswered_bytes: 4 * BODY_LEN,
        ..Config::default()
    }
}

const BODY_LEN: usize = 400 * 1024;
const MESSAGE_LEN: usize = 100 * 1024;

/// An MPUB of about [`BODY_LEN`].
fn mpub(topic: &str) -> Vec<u8> {
    let message =
        [&(MESSAGE_LEN as u32 - 16).to_be_bytes()[..], &[b'x'; MESSAGE_LEN - 16]].concat();
    let body = [&4_u32.to_be_bytes()[..], &message.repeat(4)].concat();
    let line = format!("MPUB {topic}\n");
    [line.as_bytes(), &(body.len() as u32).to_be_bytes(), &body].concat()
}

fn oks(count: usize) -> Vec<Frame> {
    vec![Frame::Response("OK".into()); count]
}

/// Whether all is within the limits.
fn check(node: &Node) {
    for shard in node.shards() {
        let held = shard.held();
        assert!(held.unanswered_len <= 2 * BODY_LEN, "{held:?}");
        assert!(held.room_len <= shard.room_len_max(), "{held:?}");
    }
}

fn room_len(node: &Node) -> usize {
    node.shards().iter().map(|shard| shard.held().room_len).sum()
}

fn waits(node: &mut Node) -> u64 {
    match node.admin(0, AdminRequest::Stats(StatsFilter::default())) {
        Some(AdminReply::Stats(stats)) => {
            stats.shards.iter().map(|shard| shard.unanswered_waits).sum()
        }
        other => panic!("statistics are expected, not {other:?}"),
    }
}

fn set_heartbeats(node: &mut Node, client: ClientId, millis: i32) {
    let json = format!("{{\"heartbeat_interval\":{millis}}}");
    let len = (json.len() as u32).to_be_bytes();
    node.send(client, &[b"IDENTIFY\n", &len[..], json.as_bytes()].concat());
    assert_eq!(node.frames(client), oks(1));
}

#[test]
fn a_disk_that_hangs_holds_no_more_than_there_is_room_for() {
    for shards in SHARDS {
        let mut node = Node::new(shards, config());
        let clients: Vec<_> = (0..9).map(|n| node.client(n % usize::from(shards))).collect();
        node.set_holds(Holds::DISK);
        // Topics are at home here and elsewhere.
        let bytes: Vec<_> = (0..9).map(|n| mpub(&format!("t{n}")).repeat(10)).collect();
        let mut unsent: Vec<_> = bytes.iter().map(|bytes| &bytes[..]).collect();
        for (client, unsent) in clients.iter().zip(&mut unsent) {
            node.feed(*client, unsent);
            check(&node);
        }
        let len = room_len(&node);
        assert!(len > BODY_LEN && len <= 5 * BODY_LEN * usize::from(shards), "{len}");
        assert!(waits(&mut node) > 0);
        node.set_holds(Holds::NOTHING);
        while unsent.iter().any(|unsent| !unsent.is_empty()) {
            for (client, unsent) in clients.iter().zip(&mut unsent) {
                node.feed(*client, unsent);
                check(&node);
            }
        }
        for client in clients {
            assert_eq!(node.frames(client), oks(10));
        }
        assert_eq!(room_len(&node), 0);
    }
}

#[test]
fn what_clients_leave_behind_counts_until_it_is_done() {
    for shards in SHARDS {
        let mut node = Node::new(shards, config());
        node.set_holds(Holds::DISK);
        for n in 0..40 {
            let client = node.client(n % usize::from(shards));
            node.feed(client, &mut &mpub("t").repeat(4)[..]);
            check(&node);
            node.close(client);
            check(&node);
        }
        for n in 0..1000 {
            let client = node.client(n % usize::from(shards));
            node.send(client, &pub_command("t", &"x".repeat(ALLOWANCE_LEN / 2)));
            node.close(client);
            check(&node);
        }
        node.set_holds(Holds::NOTHING);
        assert_eq!(room_len(&node), 0);
        let client = node.client(0);
        node.feed(client, &mut &mpub("t")[..]);
        assert_eq!(node.frames(client), oks(1));
    }
}

/// Nobody compares the size that an MPUB declares with what it has, so that it may turn out to need
/// more room than it was given.
#[test]
fn a_body_that_needs_more_than_it_said_waits_without_what_it_has() {
    let mut node = Node::new(1, config());
    node.set_holds(Holds::DISK);
    let body = mpub("t");
    let client = node.client(0);
    node.feed(client, &mut &body[..]);
    let liar = node.client(0);
    let mut lie = body.clone();
    lie[7..11].copy_from_slice(&(40 * 1024_u32).to_be_bytes());
    node.feed(liar, &mut &lie[..36 * 1024]);
    let mut unsent = &lie[36 * 1024..];
    for _ in 0..8 {
        node.feed(liar, &mut unsent);
        check(&node);
        node.wait(Duration::from_secs(1));
    }
    assert!(!unsent.is_empty() && !node.is_closed(liar), "the broker does not read, and blames it");
    node.set_holds(Holds::NOTHING);
    node.feed(liar, &mut unsent);
    assert_eq!(node.frames(liar), oks(1));
    assert_eq!(room_len(&node), 0);
}

#[test]
fn half_bodies_hold_up_nobody_for_long() {
    for shards in SHARDS {
        let mut node = Node::new(shards, config());
        let body = mpub("t");
        let slow: Vec<_> = (0..20).map(|_| node.client(0)).collect();
        for client in &slow {
            node.feed(*client, &mut &body[..body.len() / 2]);
            check(&node);
        }
        // Whose messages are small notices nothing, and neither do other commands.
        let small = node.client(0);
        for _ in 0..100 {
            node.send(small, &pub_command("t", &"x".repeat(ALLOWANCE_LEN / 4)).repeat(3));
            assert_eq!(node.frames(small), oks(3));
        }
        // Who has a large one waits for its turn.
        let large = node.client(0);
        let mut unsent = &body[..];
        node.feed(large, &mut unsent);
        assert_eq!(node.frames(large), []);
        let mut waited = Duration::ZERO;
        while !node.frames(large).ends_with(&oks(1)) {
            node.wait(Duration::from_secs(1));
            node.feed(large, &mut unsent);
            waited += Duration::from_secs(1);
            assert!(waited <= BODY_PATIENCE * 21, "it starves");
        }
        // They were told, one after the other.
        let is_told =
            |frame: &Frame| matches!(frame, Frame::Error(text) if text.starts_with(b"E_BAD"));
        for client in slow {
            assert!(node.is_closed(client) && node.frames(client).iter().any(is_told));
        }
        assert_eq!(room_len(&node), 0);
    }
}

#[test]
fn a_slow_body_that_is_in_nobodys_way_has_its_time() {
    let mut node = Node::new(1, config());
    let (client, body) = (node.client(0), mpub("t"));
    set_heartbeats(&mut node, client, 60_000);
    for part in body.chunks(body.len() / 5 + 1) {
        node.wait(BODY_PATIENCE * 2);
        node.send(client, part);
    }
    assert_eq!(node.frames(client).last(), oks(1).last());
    assert_eq!(room_len(&node), 0);
}

#[test]
fn a_command_has_to_be_there_in_time_without_heartbeats_too() {
    // What comes first, and what comes then, now and then.
    let unfinished: [(&[u8], &[u8]); 7] = [
        (b"P", b"U"),
        (b"PUB t", b"t"),
        (b"PUB t\n\0\0", b""),
        (b"PUB t\n\0\0\0\x64half", b"x"),
        (b"MPUB t\n\0\0\0\x64\0\0\0\x02\0\0\0\x01x\0", b""),
        (b"IDENTIFY\n\0\0\0\x64{", b"x"),
        (&mpub("t")[..BODY_LEN / 2], b"x"),
    ];
    for (bytes, more) in unfinished {
        let mut node = Node::new(1, config());
        let client = node.client(0);
        set_heartbeats(&mut node, client, -1);
        // Idle it may be for as long as it likes.
        node.wait(COMMAND_DEADLINE_WITHOUT_HEARTBEAT * 10);
        node.send(client, b"NOP\n");
        node.send(client, bytes);
        // A byte now and then buys no time.
        for _ in 0..59 {
            node.wait(Duration::from_secs(1));
            node.send(client, more);
        }
        assert!(!node.is_closed(client), "{}", bytes.escape_ascii());
        node.wait(Duration::from_secs(2));
        assert!(node.is_closed(client), "{}", bytes.escape_ascii());
        assert_eq!(room_len(&node), 0);
    }
}

/// What a client says of itself is kept, and shown, as far as anybody needs it.
#[test]
fn texts_of_a_client_have_a_limit() {
    let mut node = Node::new(1, config());
    let client = node.client(0);
    let long = "\u{e9}".repeat(100_000);
    let texts = ["client_id", "hostname", "user_agent", "topology_region", "topology_zone"];
    let members: Vec<_> = texts.iter().map(|name| format!("\"{name}\":\"a{long}\"")).collect();
    // Longer than what the tests' nodes take as a body otherwise.
    let json = format!("{{{}}}", members[..2].join(","));
    for json in [json, format!("{{{}}}", members[2..4].join(",")), format!("{{{}}}", members[4])] {
        let len = (json.len() as u32).to_be_bytes();
        node.feed(client, &mut &[b"IDENTIFY\n", &len[..], json.as_bytes()].concat()[..]);
        let filter = StatsFilter { include_clients: true, ..StatsFilter::default() };
        node.send(client, &pub_command("t", "x"));
        let Some(AdminReply::Stats(stats)) = node.admin(0, AdminRequest::Stats(filter)) else {
            panic!("statistics are expected");
        };
        let shown = &stats.producers[0];
        let shown = [&shown.client_id, &shown.hostname, &shown.user_agent];
        assert!(shown.iter().all(|text| text.len() <= IDENTITY_LEN_MAX), "{shown:?}");
        assert!(
            shown.iter().any(|text| text.len() >= IDENTITY_LEN_MAX - 1) || json.contains("zone")
        );
    }
}

#[test]
fn a_client_that_publishes_to_many_topics_has_a_limit_of_counts() {
    let mut node = Node::new(2, Config { disk: false, mem_queue_size: 10, ..config() });
    let client = node.client(0);
    for n in 0..PUB_COUNTS_MAX + 10 {
        node.publish(client, &format!("t{n}"), "x");
    }
    let filter = StatsFilter { include_clients: true, ..StatsFilter::default() };
    let Some(AdminReply::Stats(stats)) = node.admin(0, AdminRequest::Stats(filter)) else {
        panic!("statistics are expected");
    };
    assert_eq!(stats.producers[0].pub_counts.len(), PUB_COUNTS_MAX);
    assert_eq!(stats.topics.len(), PUB_COUNTS_MAX + 10);
}
