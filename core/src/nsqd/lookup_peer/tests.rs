use super::*;
use alloc::format;
use alloc::vec;
use proptest::prelude::*;

use crate::name::{ChannelName, TopicName};
use crate::protocol::lookup::encode_reply;

/// What the machine asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Action {
    Dial,
    Send(String),
    Close,
    Log(String),
}

/// Records, and answers what exists.
#[derive(Default)]
struct Owner {
    all: Vec<Registration>,
    actions: Vec<Action>,
}

impl PeerOutput for Owner {
    fn dial(&mut self) {
        self.actions.push(Action::Dial);
    }

    fn send(&mut self, bytes: &[u8]) {
        // One character per byte, so that lengths can be compared too.
        self.actions.push(Action::Send(bytes.iter().map(|byte| char::from(*byte)).collect()));
    }

    fn close(&mut self) {
        self.actions.push(Action::Close);
    }

    fn registrations(&mut self, all: &mut Vec<Registration>) {
        all.extend_from_slice(&self.all);
    }

    fn event(&mut self, event: LookupPeerEvent) {
        self.actions.push(Action::Log(format!("{} {event}", event.level())));
    }
}

impl Owner {
    /// What happened since the last call, without the log.
    fn done(&mut self) -> Vec<Action> {
        let mut actions = core::mem::take(&mut self.actions);
        actions.retain(|action| !matches!(action, Action::Log(_)));
        actions
    }
}

const INFO: &str = r#"{"broadcast_address":"l1","hostname":"h","http_port":4161,"tcp_port":4160,"version":"1.3.0"}"#;

fn at(millis: u64) -> Now {
    Now::from_millis(millis)
}

fn named(topic: &str, channel: &str) -> Registration {
    let channel = (!channel.is_empty()).then(|| ChannelName::new(channel).unwrap());
    Registration { topic: TopicName::new(topic).unwrap(), channel }
}

fn sends(text: &str) -> Vec<Action> {
    vec![Action::Send(text.into())]
}

fn peer() -> LookupPeer {
    let info = PeerInfo {
        broadcast_address: "n1".into(),
        hostname: "h".into(),
        http_port: 4151,
        tcp_port: 4150,
        version: "1.3.0".into(),
        ..PeerInfo::default()
    };
    LookupPeer::new("l1:4160".into(), &info, 1000, 7)
}

fn reply(peer: &mut LookupPeer, text: &str, millis: u64, out: &mut Owner) {
    let mut wire = Vec::new();
    encode_reply(text.as_bytes(), &mut wire);
    let mut input = BytesMut::from(&wire[..]);
    peer.handle_input(&mut input, at(millis), out);
    assert!(input.is_empty());
}

/// A peer that was registered at 0 ms, with nothing owed to it.
fn registered(all: &[Registration]) -> (LookupPeer, Owner) {
    let (mut peer, mut out) = (peer(), Owner { all: all.to_vec(), ..Owner::default() });
    peer.start(at(0), &mut out);
    peer.handle_connected(at(0), &mut out);
    reply(&mut peer, INFO, 0, &mut out);
    for _ in all {
        reply(&mut peer, "OK", 0, &mut out);
    }
    out.actions.clear();
    (peer, out)
}

/// When a waiting peer dials again, in milliseconds after `from`.
fn wait(peer: &mut LookupPeer, from: u64, out: &mut Owner) -> u64 {
    let until = peer.poll_timeout().unwrap();
    peer.handle_timeout(Now { instant: until, ..at(0) }, out);
    assert_eq!(out.done(), [Action::Dial]);
    until.as_nanos() / 1_000_000 - from
}

#[test]
fn the_first_connection_with_its_log() {
    let (mut peer, mut out) = (peer(), Owner::default());
    out.all = vec![named("t", "c"), named("u", "")];
    assert_eq!(peer.poll_timeout(), None);
    peer.start(at(0), &mut out);
    peer.start(at(0), &mut out);
    peer.register(named("t", "c"), at(0), &mut out);
    assert_eq!(
        out.actions,
        [
            Action::Log("INFO LOOKUP(l1:4160): adding peer".into()),
            Action::Log("INFO LOOKUP connecting to l1:4160".into()),
            Action::Dial,
        ]
    );
    out.actions.clear();
    assert_eq!(peer.poll_timeout(), Some(at(1000).instant));
    peer.handle_connected(at(5), &mut out);
    let body = r#"{"broadcast_address":"n1","hostname":"h","http_port":4151,"tcp_port":4150,"topology_region":"","topology_zone":"","version":"1.3.0"}"#;
    assert_eq!(out.done(), sends(&["  V1IDENTIFY\n\0\0\0", "\u{84}", body].concat()));
    assert_eq!((body.len(), peer.poll_timeout()), (0x84, Some(at(1005).instant)));
    assert!(peer.info().is_none() && !peer.is_registered());
    reply(&mut peer, INFO, 10, &mut out);
    assert_eq!(
        out.actions,
        [
            Action::Log(
                "INFO LOOKUPD(l1:4160): peer info {TCPPort:4160 HTTPPort:4161 Version:1.3.0 BroadcastAddress:l1}"
                    .into()
            ),
            Action::Log("INFO LOOKUPD(l1:4160): channel REGISTER t c".into()),
            Action::Log("INFO LOOKUPD(l1:4160): topic REGISTER u".into()),
            Action::Send("REGISTER t c\nREGISTER u\n".into()),
        ]
    );
    assert_eq!(peer.info().unwrap().http_port, 4161);
    assert_eq!(peer.poll_timeout(), Some(at(1010).instant));
    reply(&mut peer, "OK", 900, &mut out);
    assert_eq!(peer.poll_timeout(), Some(at(1900).instant));
    reply(&mut peer, "OK", 1000, &mut out);
    assert_eq!(peer.poll_timeout(), Some(at(15_010).instant));
}

#[test]
fn changes_are_told_in_order() {
    let (mut peer, mut out) = registered(&[]);
    peer.register(named("t", ""), at(1), &mut out);
    peer.register(named("t", "c"), at(1), &mut out);
    peer.unregister(named("t", "c"), at(1), &mut out);
    peer.unregister(named("t", ""), at(1), &mut out);
    assert_eq!(
        out.done(),
        ["REGISTER t\n", "REGISTER t c\n", "UNREGISTER t c\n", "UNREGISTER t\n"]
            .map(|line| Action::Send(line.into()))
    );
    // Only the first answer has a deadline, until it is there.
    assert_eq!(peer.poll_timeout(), Some(at(1001).instant));
    peer.unregister(named("u", ""), at(900), &mut out);
    assert_eq!(out.actions[0], Action::Log("INFO LOOKUPD(l1:4160): topic UNREGISTER u".into()));
    assert_eq!(peer.poll_timeout(), Some(at(1001).instant));
}

#[test]
fn pings_every_15_seconds() {
    let (mut peer, mut out) = registered(&[]);
    for round in 1..4 {
        let due = round * 15_000;
        assert_eq!(peer.poll_timeout(), Some(at(due).instant));
        peer.handle_timeout(at(due - 1), &mut out);
        assert_eq!(out.actions, []);
        peer.handle_timeout(at(due), &mut out);
        peer.handle_timeout(at(due), &mut out);
        assert_eq!(
            out.actions,
            [
                Action::Log("DEBUG LOOKUPD(l1:4160): sending heartbeat".into()),
                Action::Send("PING\n".into())
            ]
        );
        reply(&mut peer, "OK", due + 1, &mut out);
        out.actions.clear();
    }
}

#[test]
fn the_window_and_the_queue_have_limits() {
    let all: Vec<_> = (0..OUTSTANDING_MAX + 2).map(|n| named(&format!("t{n}"), "")).collect();
    let (mut peer, mut out) = (peer(), Owner { all: all.clone(), ..Owner::default() });
    peer.start(at(0), &mut out);
    peer.handle_connected(at(0), &mut out);
    out.actions.clear();
    reply(&mut peer, INFO, 0, &mut out);
    let sent = |out: &mut Owner| match out.done().as_slice() {
        [Action::Send(lines)] => lines.lines().count(),
        [] => 0,
        other => panic!("{other:?}"),
    };
    assert_eq!(sent(&mut out), OUTSTANDING_MAX);
    reply(&mut peer, "OK", 0, &mut out);
    assert_eq!(sent(&mut out), 1);
    for n in 0..all.len() + QUEUE_ROOM - 1 {
        peer.register(named("x", &format!("c{n}")), at(0), &mut out);
        assert!(peer.is_registered() && sent(&mut out) == 0);
    }
    peer.register(named("x", "more"), at(0), &mut out);
    assert_eq!(
        out.actions,
        [
            Action::Log(
                "ERROR LOOKUPD(l1:4160): REGISTER t1 - too many changes wait for an answer".into()
            ),
            Action::Close
        ]
    );
    out.actions.clear();
    wait(&mut peer, 0, &mut out);
}

#[test]
fn a_lost_connection_is_made_again_at_once_and_tells_all_anew() {
    let (mut peer, mut out) = registered(&[named("t", "")]);
    peer.register(named("t", "c"), at(5), &mut out);
    out.actions.clear();
    peer.handle_closed("EOF", at(10), &mut out);
    assert_eq!(
        out.actions,
        [
            Action::Log("ERROR LOOKUPD(l1:4160): REGISTER t c - EOF".into()),
            Action::Log("INFO LOOKUP connecting to l1:4160".into()),
            Action::Dial,
        ]
    );
    assert_eq!(peer.info().unwrap().broadcast_address, "l1");
    out.all = vec![named("t", "c")];
    peer.handle_connected(at(20), &mut out);
    out.actions.clear();
    reply(&mut peer, INFO, 20, &mut out);
    assert_eq!(out.done(), sends("REGISTER t c\n"));
    reply(&mut peer, "OK", 20, &mut out);
    // A second time without an answered PING in between, it waits.
    peer.handle_closed("EOF", at(30), &mut out);
    assert!(out.actions.contains(&Action::Log("ERROR LOOKUPD(l1:4160): connection - EOF".into())));
    assert_eq!(out.done(), []);
    assert!((1000..4000).contains(&wait(&mut peer, 30, &mut out)));
    peer.handle_connected(at(5000), &mut out);
    reply(&mut peer, INFO, 5000, &mut out);
    reply(&mut peer, "OK", 5000, &mut out);
    peer.handle_timeout(at(20_000), &mut out);
    reply(&mut peer, "OK", 20_000, &mut out);
    out.actions.clear();
    peer.handle_closed("EOF", at(20_001), &mut out);
    assert_eq!(out.done(), [Action::Dial]);
}

#[test]
fn failures_wait_longer_and_longer() {
    let (mut peer, mut out) = (peer(), Owner::default());
    peer.start(at(0), &mut out);
    let (mut now, mut longest) = (0, 0);
    for failure in 0..40 {
        out.actions.clear();
        peer.handle_closed("connection refused", at(now), &mut out);
        assert_eq!(
            out.actions,
            [Action::Log("ERROR LOOKUPD(l1:4160): connect - connection refused".into())]
        );
        out.actions.clear();
        let waited = wait(&mut peer, now, &mut out);
        let bound = [2000, 4000, 8000].get(failure).copied().unwrap_or(15_000);
        assert!((1000..=bound).contains(&waited), "{waited} after {failure} failures");
        longest = longest.max(waited);
        now += waited;
    }
    assert!(longest > 10_000);
}

#[test]
fn what_takes_too_long_is_given_up() {
    let (mut peer, mut out) = (peer(), Owner::default());
    peer.start(at(0), &mut out);
    peer.handle_timeout(at(999), &mut out);
    out.actions.clear();
    peer.handle_timeout(at(1000), &mut out);
    let failed = |command| {
        [Action::Log(format!("ERROR LOOKUPD(l1:4160): {command} - i/o timeout")), Action::Close]
    };
    assert_eq!(out.actions, failed("connect"));
    // What still comes of it is not listened to.
    peer.handle_connected(at(1000), &mut out);
    peer.handle_closed("EOF", at(1000), &mut out);
    reply(&mut peer, INFO, 1000, &mut out);
    assert_eq!(out.actions, failed("connect"));
    out.actions.clear();
    wait(&mut peer, 1000, &mut out);
    peer.handle_connected(at(4000), &mut out);
    out.actions.clear();
    peer.handle_timeout(at(5000), &mut out);
    assert_eq!(out.actions, failed("IDENTIFY"));

    let (mut peer, mut out) = registered(&[]);
    peer.unregister(named("t", "c"), at(0), &mut out);
    peer.register(named("t", "c"), at(999), &mut out);
    out.actions.clear();
    peer.handle_timeout(at(1000), &mut out);
    assert_eq!(out.actions, failed("UNREGISTER t c"));
}

#[test]
fn bad_answers_end_the_connection() {
    for answer in ["E_INVALID go away", "E_INVALID", "OK", "[]", ""] {
        let (mut peer, mut out) = (peer(), Owner::default());
        peer.start(at(0), &mut out);
        peer.handle_connected(at(0), &mut out);
        out.actions.clear();
        reply(&mut peer, answer, 0, &mut out);
        assert_eq!(
            out.actions,
            [Action::Log(format!("ERROR LOOKUPD(l1:4160): IDENTIFY - {answer}")), Action::Close]
        );
    }
    let (mut peer, mut out) = registered(&[]);
    peer.register(named("t", ""), at(0), &mut out);
    out.actions.clear();
    reply(&mut peer, "E_BAD_TOPIC\n", 0, &mut out);
    assert_eq!(
        out.actions,
        [Action::Log("ERROR LOOKUPD(l1:4160): REGISTER t - E_BAD_TOPIC\\n".into()), Action::Close]
    );
    let (mut peer, mut out) = registered(&[]);
    reply(&mut peer, "OK", 0, &mut out);
    assert_eq!(out.done(), [Action::Close]);
    let (mut peer, mut out) = registered(&[]);
    peer.handle_input(&mut BytesMut::from(&1001_u32.to_be_bytes()[..]), at(0), &mut out);
    assert_eq!(out.done(), [Action::Close]);
}

#[test]
fn without_a_broadcast_address_all_else_goes_on() {
    let (mut peer, mut out) = (peer(), Owner::default());
    out.all = vec![named("t", "")];
    peer.start(at(0), &mut out);
    peer.handle_connected(at(0), &mut out);
    out.actions.clear();
    reply(&mut peer, "{}", 0, &mut out);
    assert!(
        out.actions.contains(&Action::Log("ERROR LOOKUPD(l1:4160): no broadcast address".into()))
    );
    assert_eq!(out.done(), sends("REGISTER t\n"));
}

#[test]
fn stopping_says_nothing() {
    let (mut peer, mut out) = registered(&[]);
    peer.stop(&mut out);
    assert_eq!(
        out.actions,
        [Action::Close, Action::Log("INFO LOOKUP(l1:4160): removing peer".into())]
    );
    peer.stop(&mut out);
    peer.handle_closed("EOF", at(0), &mut out);
    peer.handle_timeout(at(99_999), &mut out);
    peer.register(named("t", ""), at(0), &mut out);
    assert_eq!((out.actions.len(), peer.poll_timeout()), (2, None));
}

proptest! {
    /// Whatever the nsqlookupd sends and whenever it goes, the machine never gets stuck: it is
    /// registered, or it has a deadline that leads there.
    #[test]
    fn it_always_comes_back(steps in prop::collection::vec((0..6_u8, 0..3000_u64), 0..60), seed: u64) {
        let (mut peer, mut out) = (peer(), Owner::default());
        peer.rng = crate::rng::Rng::new(seed);
        out.all = vec![named("t", "c")];
        let mut now = 0;
        peer.start(at(now), &mut out);
        for (what, millis) in steps {
            now += millis;
            match what {
                0 => peer.handle_connected(at(now), &mut out),
                1 => peer.handle_closed("EOF", at(now), &mut out),
                2 => reply(&mut peer, INFO, now, &mut out),
                3 => reply(&mut peer, "OK", now, &mut out),
                4 => peer.register(named("t", "d"), at(now), &mut out),
                _ => peer.handle_timeout(at(now), &mut out),
            }
            let due = peer.poll_timeout().expect("it is not stopped");
            prop_assert!(due <= at(now + 15_000).instant || due <= at(now).instant + PING_INTERVAL);
        }
        out.actions.clear();
        for _ in 0..10 {
            now += 15_000;
            peer.handle_timeout(at(now), &mut out);
            let dials = out.done().iter().filter(|action| **action == Action::Dial).count();
            if dials == 1 {
                peer.handle_connected(at(now), &mut out);
                reply(&mut peer, INFO, now, &mut out);
                break;
            }
        }
        prop_assert!(peer.is_registered());
    }

    #[test]
    fn pieces_do_not_matter(bytes in prop::collection::vec(any::<u8>(), 0..30), piece in 1..10_usize) {
        let run = |piece| {
            let (mut peer, mut out) = registered(&[]);
            for n in 0..3 {
                peer.register(named("t", &format!("c{n}")), at(0), &mut out);
            }
            let mut wire = Vec::new();
            encode_reply(b"OK", &mut wire);
            wire.extend_from_slice(&bytes);
            let mut input = BytesMut::new();
            for chunk in wire.chunks(piece) {
                input.extend_from_slice(chunk);
                peer.handle_input(&mut input, at(0), &mut out);
            }
            (peer.is_registered(), peer.poll_timeout(), out.actions)
        };
        prop_assert_eq!(run(piece), run(usize::MAX));
    }
}
