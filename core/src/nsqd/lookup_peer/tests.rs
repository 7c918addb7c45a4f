use super::*;
use alloc::collections::BTreeSet;
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
    peer.unregister(named("t", ""), at(0), &mut out);
    out.actions.clear();
    reply(&mut peer, "E_BAD_TOPIC\n", 0, &mut out);
    assert_eq!(
        out.actions,
        [
            Action::Log("ERROR LOOKUPD(l1:4160): UNREGISTER t - E_BAD_TOPIC\\n".into()),
            Action::Close
        ]
    );
    let (mut peer, mut out) = registered(&[]);
    reply(&mut peer, "OK", 0, &mut out);
    assert_eq!(out.done(), [Action::Close]);
    let (mut peer, mut out) = registered(&[]);
    peer.handle_input(&mut BytesMut::from(&1001_u32.to_be_bytes()[..]), at(0), &mut out);
    assert_eq!(out.done(), [Action::Close]);
}

/// When what was refused is tried again, in milliseconds after `from`; PINGs meanwhile are
/// answered.
fn retry(peer: &mut LookupPeer, from: u64, out: &mut Owner) -> (u64, Vec<Action>) {
    loop {
        let due = peer.poll_timeout().unwrap();
        peer.handle_timeout(Now { instant: due, ..at(0) }, out);
        let millis = due.as_nanos() / 1_000_000;
        match out.done() {
            actions if actions == sends("PING\n") => reply(peer, "OK", millis, out),
            actions => return (millis - from, actions),
        }
    }
}

#[test]
fn what_is_refused_is_tried_again_and_the_rest_stays() {
    let (mut peer, mut out) = registered(&[named("a", "")]);
    for topic in ["t", "u", "v"] {
        peer.register(named(topic, "c"), at(0), &mut out);
    }
    out.actions.clear();
    reply(&mut peer, "OK", 1, &mut out);
    reply(&mut peer, "E_INVALID full\n", 1, &mut out);
    reply(&mut peer, "E_INVALID full\n", 2, &mut out);
    let [Action::Log(line)] = &out.actions[..] else { panic!("{:?}", out.actions) };
    assert!(
        line.starts_with(
            "ERROR LOOKUPD(l1:4160): REGISTER u c - E_INVALID full\\n; consumers may not find all \
             topics there, what was refused is tried again in "
        ),
        "{line}"
    );
    out.actions.clear();
    assert!(peer.is_registered());
    assert_eq!(peer.refused(), 2);
    // What of it exists by then is what is tried.
    peer.unregister(named("v", "c"), at(3), &mut out);
    reply(&mut peer, "OK", 4, &mut out);
    out.actions.clear();
    out.all = vec![named("a", ""), named("t", "c"), named("u", "c"), named("v", "")];
    let (mut waited, actions) = retry(&mut peer, 0, &mut out);
    assert_eq!(actions, sends("REGISTER u c\nREGISTER v\n"));
    assert!((1000..=3001).contains(&waited), "{waited}");
    reply(&mut peer, "OK", waited, &mut out);
    // The waits grow up to two minutes, and a PING in between does not end that.
    let mut longest = 0;
    for round in 1..20 {
        reply(&mut peer, "E_INVALID full", waited, &mut out);
        out.actions.clear();
        let (wait, actions) = retry(&mut peer, waited, &mut out);
        let span = (2000 << round).min(120_000);
        assert!((span / 2..=span * 3 / 2 + 2).contains(&wait), "{wait} in round {round}");
        assert_eq!(actions, sends("REGISTER v\n"));
        longest = longest.max(wait);
        waited += wait;
    }
    assert!(longest > 60_000);
    // When it worked, and a PING was answered after that, they begin anew.
    reply(&mut peer, "OK", waited, &mut out);
    let due = peer.poll_timeout().unwrap();
    peer.handle_timeout(Now { instant: due, ..at(0) }, &mut out);
    reply(&mut peer, "OK", waited + 15_000, &mut out);
    out.actions.clear();
    peer.register(named("w", ""), at(waited + 15_001), &mut out);
    out.actions.clear();
    out.all.push(named("w", ""));
    reply(&mut peer, "E_INVALID full", waited + 15_001, &mut out);
    let (wait, actions) = retry(&mut peer, waited + 15_001, &mut out);
    assert!((1000..=3001).contains(&wait), "{wait}");
    assert_eq!((actions, out.all.len()), (sends("REGISTER w\n"), 5));
}

#[test]
fn what_was_dropped_is_told_again() {
    let (mut peer, mut out) = registered(&[named("a", ""), named("t", "c")]);
    peer.handle_timeout(at(15_000), &mut out);
    out.actions.clear();
    reply(&mut peer, "E_INVALID PING registrations were dropped", 15_001, &mut out);
    assert!(peer.is_registered());
    let (waited, actions) = retry(&mut peer, 15_001, &mut out);
    assert!((1000..=3001).contains(&waited), "{waited}");
    assert_eq!(actions, sends("REGISTER a\nREGISTER t c\n"));
}

/// Lines that were sent.
fn count_sent(actions: &[Action]) -> usize {
    let lines = |action: &Action| {
        let Action::Send(text) = action else { panic!("{action:?}") };
        text.lines().count()
    };
    actions.iter().map(lines).sum()
}

/// Answers what was sent, and what is sent then, and counts it.
fn settle(
    peer: &mut LookupPeer,
    mut sent: usize,
    answer: &str,
    millis: u64,
    out: &mut Owner,
) -> usize {
    let mut answered = 0;
    while answered < sent {
        reply(peer, answer, millis, out);
        answered += 1;
        sent += count_sent(&out.done());
    }
    answered
}

#[test]
fn more_than_can_be_remembered_is_all() {
    let all: Vec<_> = (0..REFUSED_MAX + 1).map(|n| named(&format!("t{n}"), "")).collect();
    let (mut peer, mut out) = (peer(), Owner { all: all.clone(), ..Owner::default() });
    peer.start(at(0), &mut out);
    peer.handle_connected(at(0), &mut out);
    reply(&mut peer, INFO, 0, &mut out);
    reply(&mut peer, "OK", 0, &mut out);
    for _ in 1..all.len() {
        reply(&mut peer, "E_INVALID full", 0, &mut out);
    }
    let refused = out.actions.iter().filter(|it| matches!(it, Action::Log(l) if l.contains("E_")));
    assert_eq!(refused.count(), 1);
    out.actions.clear();
    // Those that are refused, without the one that was not.
    let (waited, actions) = retry(&mut peer, 0, &mut out);
    let sent = count_sent(&actions);
    assert_eq!(settle(&mut peer, sent, "E_INVALID full", waited, &mut out), REFUSED_MAX);
    // One more, and it is all.
    peer.register(named("more", ""), at(waited), &mut out);
    out.actions.clear();
    reply(&mut peer, "E_INVALID full", waited, &mut out);
    out.all.push(named("more", ""));
    let (again, actions) = retry(&mut peer, waited, &mut out);
    let sent = count_sent(&actions);
    let count = settle(&mut peer, sent, "OK", waited + again, &mut out);
    assert_eq!(count, REFUSED_MAX + 2);
    assert!(peer.is_registered());
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

#[derive(Clone, Debug)]
enum Step {
    /// A topic or channel comes or goes.
    Create(usize, Option<usize>),
    Delete(usize, Option<usize>),
    /// The connection is made, or comes to its end.
    Connect,
    Lose,
    /// The nsqlookupd answers what it was told first, well or not.
    Answer(bool),
    Pass(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let names = || (0..2_usize, prop::option::weighted(0.7, 0..2_usize));
    prop_oneof![
        4 => names().prop_map(|(t, c)| Step::Create(t, c)),
        3 => names().prop_map(|(t, c)| Step::Delete(t, c)),
        5 => Just(Step::Connect),
        1 => Just(Step::Lose),
        6 => prop::bool::weighted(0.95).prop_map(Step::Answer),
        2 => (0..3000_u16).prop_map(Step::Pass),
    ]
}

/// A peer, what there is, and an nsqlookupd that knows what it was told on this connection.
struct Scene {
    peer: LookupPeer,
    out: Owner,
    now: u64,
    exists: BTreeSet<Registration>,
    known: BTreeSet<Registration>,
    unanswered: VecDeque<String>,
    is_dialing: bool,
}

impl Scene {
    fn step(&mut self, step: Step) {
        let topics = ["t", "u#ephemeral"];
        let name = |t: usize, c: Option<usize>| named(topics[t], c.map_or("", |c| ["c", "d"][c]));
        let Self { peer, out, .. } = self;
        let now = at(self.now);
        match step {
            Step::Create(t, c) => {
                for what in [name(t, None), name(t, c)] {
                    if self.exists.insert(what) {
                        out.all = everything(&self.exists);
                        peer.register(what, now, out);
                    }
                }
            }
            Step::Delete(t, c) => {
                // The channels of a topic are named before it is.
                let what = name(t, c);
                let is_meant =
                    |r: &&Registration| r.topic == what.topic && (c.is_none() || **r == what);
                let gone: Vec<_> = self.exists.iter().filter(is_meant).rev().copied().collect();
                for what in gone {
                    self.exists.remove(&what);
                    out.all = everything(&self.exists);
                    peer.unregister(what, now, out);
                }
            }
            Step::Connect if self.is_dialing => {
                self.is_dialing = false;
                peer.handle_connected(now, out);
            }
            Step::Lose if !self.is_dialing => {
                self.forget();
                self.peer.handle_closed("EOF", now, &mut self.out);
            }
            Step::Answer(is_good) => {
                let Some(command) = self.unanswered.pop_front() else { return };
                let good = if command == "IDENTIFY" { INFO } else { "OK" };
                // A REGISTER that is refused ends nothing, and changes nothing.
                if is_good {
                    self.carry_out_command(&command);
                }
                let Self { peer, out, .. } = self;
                reply(peer, if is_good { good } else { "E_INVALID no" }, self.now, out);
            }
            Step::Pass(millis) => {
                self.now += u64::from(millis);
                peer.handle_timeout(at(self.now), out);
            }
            Step::Connect | Step::Lose => {}
        }
        self.carry_out();
    }

    /// What the nsqlookupd knew was this connection's.
    fn forget(&mut self) {
        self.known.clear();
        self.unanswered.clear();
        self.is_dialing = false;
    }

    fn carry_out(&mut self) {
        for action in self.out.done() {
            match action {
                Action::Dial => {
                    self.forget();
                    self.is_dialing = true;
                }
                Action::Close => self.forget(),
                Action::Send(text) if text.starts_with("  V1") => {
                    self.unanswered.push_back("IDENTIFY".into());
                }
                Action::Send(text) => self.unanswered.extend(text.lines().map(String::from)),
                Action::Log(_) => {}
            }
        }
    }

    /// Whether everything is told and answered, and nothing waits for another try.
    fn is_calm(&self) -> bool {
        let State::Registered(session) = &self.peer.state else { return false };
        self.unanswered.is_empty() && session.retry.due().is_none()
    }

    fn carry_out_command(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        let what = |words: &[&str]| named(words[1], words.get(2).copied().unwrap_or_default());
        match words[0] {
            "PING" | "IDENTIFY" => {}
            "REGISTER" => {
                let what = what(&words);
                self.known.extend([Registration { channel: None, ..what }, what]);
            }
            "UNREGISTER" => {
                let gone = what(&words);
                let stays = |r: &Registration| {
                    if gone.channel.is_none() { r.topic != gone.topic } else { *r != gone }
                };
                self.known.retain(stays);
            }
            other => panic!("{other}"),
        }
    }
}

/// What a [`PeerOutput`] tells of this.
fn everything(exists: &BTreeSet<Registration>) -> Vec<Registration> {
    let has_channels =
        |topic| exists.iter().any(|other| other.topic == topic && other.channel.is_some());
    exists.iter().filter(|r| r.channel.is_some() || !has_channels(r.topic)).copied().collect()
}

proptest! {
    /// Whatever comes and goes while the connection does too: in the end the nsqlookupd knows what
    /// there is, and while all is told and answered it never knows anything else.
    #[test]
    fn the_nsqlookupd_knows_what_there_is(steps in prop::collection::vec(step(), 0..80)) {
        let mut scene = Scene {
            peer: peer(),
            out: Owner::default(),
            now: 0,
            exists: BTreeSet::new(),
            known: BTreeSet::new(),
            unanswered: VecDeque::new(),
            is_dialing: false,
        };
        scene.peer.start(at(0), &mut scene.out);
        scene.carry_out();
        for step in steps {
            scene.step(step);
            if scene.is_calm() {
                prop_assert_eq!(&scene.known, &scene.exists);
            }
        }
        while !scene.is_calm() {
            prop_assert!(scene.now < 1_000_000, "it does not get there");
            scene.step(Step::Connect);
            while !scene.unanswered.is_empty() {
                scene.step(Step::Answer(true));
            }
            if !scene.is_calm() {
                scene.step(Step::Pass(500));
            }
        }
        prop_assert_eq!(&scene.known, &scene.exists);
    }
}
