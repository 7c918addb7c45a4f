use super::*;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use bytes::Bytes;
use proptest::prelude::*;

use crate::arena::Key as _;
use crate::http::HttpRequest;
use crate::name::{ChannelName, TopicName};
use crate::protocol::lookup::{PeerInfo, ReplyDecoder};

/// An nsqlookupd with its clock, driven as a runtime would.
struct Harness {
    lookupd: Lookupd,
    now: Now,
    out: LookupdActions,
    log: Vec<String>,
    closed: Vec<ConnId>,
    ports: u16,
}

impl Harness {
    fn new(config: LookupdConfig) -> Self {
        Self {
            lookupd: Lookupd::new(config),
            now: Now::from_millis(1_000_000),
            out: LookupdActions::default(),
            log: Vec::new(),
            closed: Vec::new(),
            ports: 0,
        }
    }

    fn accept(&mut self) -> ConnId {
        self.ports += 1;
        let remote = SocketAddr::from(([127, 0, 0, 1], self.ports));
        let conn = self.lookupd.accept(remote, self.now, &mut self.out);
        self.settle();
        conn
    }

    /// Sends bytes and collects what is answered.
    fn send(&mut self, conn: ConnId, bytes: impl AsRef<[u8]>) -> Vec<String> {
        let mut input = BytesMut::from(bytes.as_ref());
        let _ = self.lookupd.handle_input(conn, &mut input, self.now, &mut self.out);
        self.settle();
        self.answers(conn)
    }

    fn answers(&mut self, conn: ConnId) -> Vec<String> {
        let mut owed = Transmit::new();
        self.lookupd.swap_transmit(conn, &mut owed);
        let mut owed = BytesMut::from(&owed.into_vec()[..]);
        let mut answers = Vec::new();
        while let Some(text) = ReplyDecoder::new(usize::MAX).next(&mut owed).unwrap() {
            answers.push(String::from_utf8_lossy(&text).into_owned());
        }
        assert!(owed.is_empty());
        answers
    }

    /// A producer that calls itself `address` and listens on ports 4150 and 4151.
    fn producer(&mut self, address: &str) -> ConnId {
        let conn = self.accept();
        assert_eq!(self.send(conn, hello(address)).len(), 1);
        conn
    }

    fn ask(&mut self, method: &str, path: &str, query: Option<&str>) -> LookupdReply {
        let request = HttpRequest { method, path, query, body: &Bytes::new() };
        self.lookupd.handle_http(&request, self.now, &mut self.out)
    }

    fn settle(&mut self) {
        self.lookupd.registrations.check();
        self.log.extend(self.out.events.iter().map(|event| format!("{} {event}", event.level())));
        self.closed.extend_from_slice(&self.out.close);
        self.out.clear();
    }

    fn pass(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
        self.lookupd.handle_timeout(self.now, &mut self.out);
        self.settle();
    }

    fn eof(&mut self, conn: ConnId) {
        self.lookupd.handle_eof(conn, self.now, &mut self.out);
        self.settle();
    }

    fn lookup(&self, topic: &str) -> Vec<&str> {
        let lookup = self.lookupd.lookup(&name(topic), self.now).unwrap();
        lookup.producers.iter().map(|p| p.info.broadcast_address.as_str()).collect()
    }

    /// The remote ports of the sessions that are shown for a topic.
    fn ports(&self, topic: &str) -> Vec<u16> {
        let lookup = self.lookupd.lookup(&name(topic), self.now).unwrap();
        lookup.producers.iter().map(|p| p.remote.port()).collect()
    }

    /// The nsqds by their remote ports, with their topics.
    fn nodes(&self) -> Vec<(u16, Vec<String>)> {
        let topics = |node: &NodeInfo<'_>| node.topics.iter().map(|(t, _)| t.to_string()).collect();
        let nodes = self.lookupd.nodes(self.now);
        nodes.iter().map(|node| (node.producer.remote.port(), topics(node))).collect()
    }

    fn names(&self) -> Vec<String> {
        self.lookupd.registrations.names()
    }
}

fn name(topic: &str) -> TopicName {
    TopicName::new(topic).unwrap()
}

fn hello(address: &str) -> Vec<u8> {
    let mut wire = b"  V1".to_vec();
    let info = PeerInfo {
        broadcast_address: address.into(),
        hostname: "h".into(),
        http_port: 4151,
        tcp_port: 4150,
        version: "1.3.0".into(),
        ..PeerInfo::default()
    };
    LookupCommand::Identify(info).encode(&mut wire);
    wire
}

fn world() -> Harness {
    Harness::new(LookupdConfig {
        broadcast_address: "lookup.example".into(),
        hostname: "vm".into(),
        ..LookupdConfig::default()
    })
}

#[test]
fn a_silent_producer_is_hidden_until_it_pings() {
    let mut w = world();
    let a = w.producer("n1");
    w.send(a, "REGISTER t c\n");
    w.pass(Duration::from_secs(300));
    assert_eq!((w.lookup("t").len(), w.lookupd.nodes(w.now).len()), (1, 1));
    w.pass(Duration::from_nanos(1));
    // Only PING counts as a sign of life.
    w.send(a, "REGISTER t d\n");
    assert_eq!((w.lookup("t").len(), w.lookupd.nodes(w.now).len()), (0, 0));
    // The wall clock has no say.
    w.now.unix.0 = 0;
    w.send(a, "PING\n");
    w.now.unix.0 = i64::MAX;
    assert_eq!((w.lookup("t").len(), w.lookupd.nodes(w.now).len()), (1, 1));
}

#[test]
fn of_two_sessions_of_one_nsqd_one_is_shown() {
    let mut w = world();
    let old = w.producer("n1");
    w.send(old, "REGISTER t\nREGISTER gone\n");
    w.pass(Duration::from_secs(1));
    let new = w.producer("n1");
    w.send(new, "REGISTER t\n");
    w.send(old, "PING\n");
    assert_eq!((w.ports("t"), w.ports("gone")), (vec![2], vec![1]));
    assert_eq!(w.nodes(), [(2, vec!["gone".into(), "t".into()])]);
    // The end of the old one takes nothing from the new one, not even with the same address.
    w.eof(old);
    assert_eq!((w.ports("t"), w.ports("gone")), (vec![2], vec![]));
    assert_eq!(w.nodes(), [(2, vec!["t".into()])]);
}

#[test]
fn who_says_the_address_of_another_does_not_hide_it() {
    // The impostor comes first or second.
    for is_first in [true, false] {
        let mut w = world();
        let (victim, impostor) = if is_first {
            let impostor = w.producer("n1");
            w.pass(Duration::from_secs(1));
            (w.producer("n1"), impostor)
        } else {
            let victim = w.producer("n1");
            w.send(victim, "REGISTER t c\n");
            w.pass(Duration::from_secs(1));
            (victim, w.producer("n1"))
        };
        w.send(victim, "REGISTER t c\n");
        let port = if is_first { 2 } else { 1 };
        assert_eq!((w.ports("t"), w.nodes()), (vec![port], vec![(port, vec!["t".into()])]));
        // It may be as alive as it likes.
        w.pass(Duration::from_secs(15));
        w.send(victim, "PING\n");
        w.pass(Duration::from_secs(1));
        w.send(impostor, "PING\n");
        assert_eq!((w.ports("t"), w.nodes()), (vec![port], vec![(port, vec!["t".into()])]));
        // With a topic of its own it adds that, and the one that was alive last goes for both.
        w.send(impostor, "REGISTER u\nREGISTER t\n");
        assert_eq!(
            (w.ports("t"), w.nodes()),
            (vec![3 - port], vec![(3 - port, vec!["t".into(), "u".into()])])
        );
        w.pass(Duration::from_secs(15));
        w.send(victim, "PING\n");
        assert_eq!(
            (w.ports("t"), w.nodes()),
            (vec![port], vec![(port, vec!["t".into(), "u".into()])])
        );
        w.lookupd.handle_closed(impostor, w.now, &mut w.out);
        w.settle();
        assert_eq!((w.ports("t"), w.nodes()), (vec![port], vec![(port, vec!["t".into()])]));
        w.pass(Duration::from_secs(301));
        assert_eq!((w.ports("t"), w.nodes()), (vec![], vec![]));
    }
}

#[test]
fn a_silent_impostor_is_no_more_than_silent() {
    let mut w = world();
    let victim = w.producer("n1");
    w.send(victim, "REGISTER t c\n");
    w.pass(Duration::from_secs(1));
    let impostor = w.producer("n1");
    w.send(impostor, "REGISTER t c\n");
    assert_eq!((w.ports("t"), w.nodes()), (vec![2], vec![(2, vec!["t".into()])]));
    w.pass(Duration::from_secs(14));
    w.send(victim, "PING\n");
    assert_eq!((w.ports("t"), w.nodes()), (vec![1], vec![(1, vec!["t".into()])]));
    w.lookupd.tombstone(&name("t"), "n1:4151", None, w.now, &mut w.out);
    assert_eq!(w.ports("t"), [0; 0]);
    assert_eq!(w.lookupd.nodes(w.now)[0].topics, [(name("t"), true)]);
    w.send(victim, "UNREGISTER t\nREGISTER t\n");
    assert_eq!(w.ports("t"), [1]);
    assert_eq!(w.lookupd.nodes(w.now)[0].topics, [(name("t"), false)]);
}

#[test]
fn metrics_count_what_there_is() {
    let mut w = world();
    w.ask("POST", "/channel/create", Some("topic=t&channel=c"));
    w.ask("GET", "/lookup", Some("topic=t"));
    w.ask("GET", "/lookup", None);
    let answer = w.ask("GET", "/metrics", None);
    let LookupdReply::Metrics(stats) = answer else { panic!("{answer:?}") };
    assert_eq!((stats.topics, stats.channels, stats.producers), (1, 1, 0));
    assert_eq!((stats.counters.lookups, stats.counters.other_requests), (2, 2));
}

#[test]
fn deleting_takes_the_registrations_along() {
    let mut w = world();
    let a = w.producer("n1");
    w.send(a, "REGISTER t c\nREGISTER t d\nREGISTER u c\n");
    assert!(w.lookupd.delete_channel(&name("t"), &ChannelName::new("c").unwrap(), &mut w.out));
    w.settle();
    assert_eq!(w.names(), ["t", "t/d", "u", "u/c"]);
    assert!(w.lookupd.delete_topic(&name("t"), &mut w.out));
    w.settle();
    assert!(!w.lookupd.delete_topic(&name("t"), &mut w.out));
    assert_eq!(
        w.log[w.log.len() - 2..],
        ["INFO DB: removing channel(d) from topic(t)", "INFO DB: removing topic(t)"]
    );
    w.send(a, "PING\n");
    assert!(w.lookupd.lookup(&name("t"), w.now).is_none());
    w.send(a, "REGISTER t c\n");
    assert_eq!(
        (w.lookup("t"), w.names()),
        (vec!["n1"], ["t", "t/c", "u", "u/c"].map(String::from).into())
    );
}

const NO_ROOM: &str = "E_INVALID REGISTER too many registrations";
const DROPPED: &str = "E_INVALID PING registrations were dropped, there are too many";

/// A world with room for so many names and registrations, and so many of each connection.
fn small(names_max: usize, registrations_max: usize, per_nsqd: usize) -> Harness {
    Harness::new(LookupdConfig {
        connections_max: 10,
        names_max,
        registrations_max,
        registrations_max_per_nsqd: per_nsqd,
        ..LookupdConfig::default()
    })
}

#[test]
fn names_that_nobody_produces_go_first_and_the_oldest_of_them() {
    let mut w = small(4, 100, 100);
    let a = w.producer("n1");
    w.send(a, "REGISTER t c\nREGISTER u\n");
    w.eof(a);
    w.lookupd.create_topic(name("v"), &mut w.out).unwrap();
    assert_eq!(w.names(), ["t", "t/c", "u", "v"]);
    let b = w.producer("n2");
    assert_eq!(w.send(b, "REGISTER x\n"), ["OK"]);
    assert_eq!(w.names(), ["t", "u", "v", "x"]);
    assert!(
        w.log.contains(
            &"INFO DB: forgetting category:channel key:t subkey:c - it has no producer, \
          and there are too many"
                .into()
        )
    );
    // What is wanted itself does not go.
    assert_eq!(w.send(b, "REGISTER t d\n"), ["OK"]);
    assert_eq!(w.names(), ["t", "t/d", "v", "x"]);
    w.lookupd.create_channel(name("v"), ChannelName::new("c").unwrap(), &mut w.out).unwrap_err();
    assert_eq!(w.names(), ["t", "t/d", "v", "x"]);
    w.lookupd.create_topic(name("y"), &mut w.out).unwrap();
    assert_eq!(w.names(), ["t", "t/d", "x", "y"]);
    let stats = w.lookupd.stats(w.now);
    assert_eq!((stats.unused_names, stats.counters.forgotten_names), (1, 3));
    // What has a producer does not go for a name that would have none.
    assert_eq!(w.send(b, "REGISTER y\n"), ["OK"]);
    assert_eq!(w.lookupd.create_topic(name("z"), &mut w.out), Err(Full));
    assert_eq!(w.lookupd.create_topic(name("y"), &mut w.out), Ok(()));
}

/// However the room is filled, by one or by several, somebody who wants little gets it, and keeps
/// it.
#[test]
fn who_has_the_most_gives_way() {
    for (names, registrations) in [(30, 1000), (1000, 30)] {
        for attackers in 1..5 {
            let mut w = small(names, registrations, 25);
            let honest = w.producer("honest");
            assert_eq!(w.send(honest, "REGISTER mine\n"), ["OK"]);
            let attackers: Vec<_> =
                (0..attackers).map(|n| w.producer(&format!("evil{n}"))).collect();
            for round in 0..30 {
                for conn in &attackers {
                    let fill = format!("REGISTER t{round}x{} c\n", conn.index());
                    w.send(*conn, fill);
                }
            }
            assert_eq!(w.send(honest, "REGISTER more c\nREGISTER mine c\n"), ["OK"; 2]);
            for round in 30..40 {
                for conn in &attackers {
                    w.send(*conn, format!("REGISTER t{round}x{} c\n", conn.index()));
                }
            }
            let late = w.producer("late");
            assert_eq!(w.send(late, "REGISTER late c\n"), ["OK"]);
            for topic in ["mine", "more", "late"] {
                assert_eq!(w.lookup(topic).len(), 1, "{topic} of {names} {registrations}");
            }
            assert_eq!(w.closed, []);
            assert_eq!(w.send(honest, "PING\n"), ["OK"]);
            let told: Vec<_> =
                attackers.iter().flat_map(|conn| w.send(*conn, "PING\nPING\n")).collect();
            assert_eq!(told.contains(&DROPPED.into()), attackers.len() > 1, "{told:?}");
            let stats = w.lookupd.stats(w.now);
            assert!(stats.topics + stats.channels <= names && stats.registrations <= registrations);
        }
    }
}

/// Of two that have as much neither takes from the other.
#[test]
fn equals_do_not_take_from_each_other() {
    let mut w = small(100, 8, 100);
    let (a, b) = (w.producer("n1"), w.producer("n2"));
    for n in 0..4 {
        assert_eq!(w.send(a, format!("REGISTER a{n}\n")), ["OK"]);
        assert_eq!(w.send(b, format!("REGISTER b{n}\n")), ["OK"]);
    }
    assert_eq!(w.send(a, "REGISTER a4\n"), [NO_ROOM]);
    assert_eq!(w.send(b, "REGISTER a0\n"), [NO_ROOM]);
    assert_eq!(w.lookupd.stats(w.now).counters.refused, 2);
    // Names that everybody has make no difference.
    let mut w = small(3, 100, 100);
    let all: Vec<_> = (0..6).map(|n| w.producer(&format!("n{n}"))).collect();
    for conn in &all {
        assert_eq!(w.send(*conn, "REGISTER a\nREGISTER b\nREGISTER c\n"), ["OK"; 3]);
    }
    let late = w.producer("late");
    assert_eq!(w.send(late, "REGISTER d\n"), ["OK"]);
    assert_eq!(w.names(), ["a", "b", "d"]);
}

#[test]
fn a_large_producer_goes_in_slices_and_is_gone_at_once() {
    let mut w = world();
    let (a, b) = (w.producer("n1"), w.producer("n2"));
    let count = registrations::SLICE * 5 / 4;
    let all: String = (0..count).map(|n| format!("REGISTER t{n} c\n")).collect();
    let mut input = BytesMut::from(all.as_bytes());
    while !input.is_empty() {
        let _ = w.lookupd.handle_input(a, &mut input, w.now, &mut w.out);
        w.answers(a);
    }
    w.send(b, "REGISTER t0\n");
    assert_eq!(w.lookup("t0"), ["n1", "n2"]);
    w.log.clear();
    w.eof(a);
    let gone = |w: &Harness| w.log.iter().filter(|line| line.contains("UNREGISTER")).count();
    assert_eq!((w.lookup("t0"), w.lookupd.nodes(w.now).len()), (vec!["n2"], 1));
    let mut turns = 0;
    while w.lookupd.poll_timeout().is_some_and(|at| at <= w.now.instant) {
        let before = gone(&w);
        w.pass(Duration::ZERO);
        assert!(gone(&w) - before <= registrations::SLICE);
        turns += 1;
    }
    assert_eq!((turns, gone(&w)), (3, 2 * count + 1));
    let stats = w.lookupd.stats(w.now);
    assert_eq!((stats.registrations, stats.unused_names), (1, 2 * count - 1));
    // The names stay known, as those of a small one do.
    assert_eq!((stats.topics, stats.channels), (count, count));
}

#[test]
fn who_does_not_read_is_not_read() {
    let mut w = world();
    let a = w.accept();
    let mut input = BytesMut::from(&[b"  V1".to_vec(), b"PING\n".repeat(5000)].concat()[..]);
    let mut answered = 0;
    loop {
        let state = w.lookupd.handle_input(a, &mut input, w.now, &mut w.out);
        assert_eq!(w.out.transmit, [a]);
        w.settle();
        let mut owed = Transmit::new();
        w.lookupd.swap_transmit(a, &mut owed);
        assert!(owed.len() < OWED_MAX + 6);
        answered += owed.len() / 6;
        w.lookupd.handle_sent(a, owed.len(), w.now, &mut w.out);
        if state != ReadState::Wait {
            break;
        }
        assert!(owed.len() >= OWED_MAX);
        assert_eq!(w.out.resume, [a]);
        w.settle();
    }
    assert_eq!((answered, input.len()), (5000, 0));
    assert!(w.out.is_empty(), "one that does not wait is resumed");
}

#[test]
fn shutting_down_closes_all_and_takes_no_more() {
    let mut w = world();
    let (a, b) = (w.producer("n1"), w.accept());
    w.send(a, "REGISTER t\n");
    w.lookupd.shut_down(w.now, &mut w.out);
    w.settle();
    assert_eq!(w.closed, [a, b]);
    assert!(w.lookupd.nodes(w.now).is_empty());
    let c = w.accept();
    assert_eq!(w.closed, [a, b, c]);
    w.lookupd.shut_down(w.now, &mut w.out);
    assert!(w.out.is_empty());
}

#[derive(Clone, Debug)]
enum Op {
    Register(usize, usize, Option<usize>),
    Unregister(usize, usize, Option<usize>),
    Reconnect(usize),
    Create(usize, Option<usize>),
    Delete(usize, Option<usize>),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let channel = || prop::option::of(0..3_usize);
    let op = prop_oneof![
        4 => (0..3_usize, 0..3_usize, channel()).prop_map(|(n, t, c)| Op::Register(n, t, c)),
        3 => (0..3_usize, 0..3_usize, channel()).prop_map(|(n, t, c)| Op::Unregister(n, t, c)),
        1 => (0..3_usize).prop_map(Op::Reconnect),
        1 => (0..3_usize, channel()).prop_map(|(t, c)| Op::Create(t, c)),
        1 => (0..3_usize, channel()).prop_map(|(t, c)| Op::Delete(t, c)),
    ];
    prop::collection::vec(op, 0..40)
}

/// The database as flat sets: every key that exists, and every (producer, key).
#[derive(Default)]
struct Model {
    keys: BTreeSet<(usize, Option<usize>)>,
    pairs: BTreeSet<(usize, usize, Option<usize>)>,
}

impl Model {
    fn leave(&mut self, gone: impl Fn(usize, usize, Option<usize>) -> bool) {
        let left: Vec<_> =
            self.pairs.iter().copied().filter(|(n, t, c)| gone(*n, *t, *c)).collect();
        for pair in &left {
            self.pairs.remove(pair);
        }
        for (_, t, c) in left {
            let is_ephemeral = c.unwrap_or(t) == 2;
            if is_ephemeral && !self.pairs.iter().any(|(_, t2, c2)| (*t2, *c2) == (t, c)) {
                self.keys
                    .retain(|(t2, c2)| if c.is_none() { *t2 != t } else { (*t2, *c2) != (t, c) });
            }
        }
    }
}

proptest! {
    #[test]
    fn the_database_is_what_a_flat_one_would_be(ops in ops()) {
        let topics = ["t", "u", "v#ephemeral"];
        let channels = ["c", "d", "e#ephemeral"];
        let text = |t: usize, c: Option<usize>| {
            c.map_or_else(|| topics[t].into(), |c| format!("{} {}", topics[t], channels[c]))
        };
        let mut w = world();
        let mut model = Model::default();
        let mut nodes = ["n0", "n1", "n2"].map(|address| w.producer(address));
        for op in ops {
            match op {
                Op::Register(n, t, c) => {
                    w.send(nodes[n], format!("REGISTER {}\n", text(t, c)));
                    model.keys.extend([(t, None), (t, c)]);
                    model.pairs.extend([(n, t, None), (n, t, c)]);
                }
                Op::Unregister(n, t, c) => {
                    w.send(nodes[n], format!("UNREGISTER {}\n", text(t, c)));
                    model.leave(|n2, t2, c2| (n2, t2) == (n, t) && (c.is_none() || c2 == c));
                }
                Op::Reconnect(n) => {
                    w.lookupd.handle_closed(nodes[n], w.now, &mut w.out);
                    w.settle();
                    nodes[n] = w.producer(["n0", "n1", "n2"][n]);
                    model.leave(|n2, _, _| n2 == n);
                }
                Op::Create(t, c) => {
                    let channel = c.map(|c| ChannelName::new(channels[c]).unwrap());
                    match channel {
                        Some(c) => w.lookupd.create_channel(name(topics[t]), c, &mut w.out).unwrap(),
                        None => w.lookupd.create_topic(name(topics[t]), &mut w.out).unwrap(),
                    }
                    model.keys.extend([(t, None), (t, c)]);
                }
                Op::Delete(t, c) => {
                    let had = model.keys.contains(&(t, c));
                    let known = match c {
                        Some(c) => {
                            let channel = ChannelName::new(channels[c]).unwrap();
                            w.lookupd.delete_channel(&name(topics[t]), &channel, &mut w.out)
                        }
                        None => w.lookupd.delete_topic(&name(topics[t]), &mut w.out),
                    };
                    prop_assert_eq!(known, had);
                    let is_gone = |t2, c2: Option<usize>| t2 == t && (c.is_none() || c2 == c);
                    model.keys.retain(|(t2, c2)| !is_gone(*t2, *c2));
                    model.pairs.retain(|(_, t2, c2)| !is_gone(*t2, *c2));
                }
            }
            w.settle();
            let names: Vec<String> =
                model.keys.iter().map(|(t, c)| text(*t, *c).replace(' ', "/")).collect();
            prop_assert_eq!(w.names(), names);
            for node in w.lookupd.nodes(w.now) {
                let address = &node.producer.info.broadcast_address;
                let n: usize = address[1..].parse().unwrap();
                let shown: Vec<&str> = node.topics.iter().map(|(t, _)| t.as_str()).collect();
                let expected: Vec<&str> = (0..3)
                    .filter(|t| model.pairs.contains(&(n, *t, None)))
                    .map(|t| topics[t])
                    .collect();
                prop_assert_eq!(shown, expected);
            }
        }
    }

    #[test]
    fn any_bytes_are_survived_and_pieces_do_not_matter(
        pieces in prop::collection::vec(
            prop_oneof![
                Just(b"PING\n".to_vec()),
                Just(b"REGISTER t c\n".to_vec()),
                Just(hello("n")[4..].to_vec()),
                prop::collection::vec(any::<u8>(), 0..6),
            ],
            0..6,
        ),
        size in 1..40_usize,
    ) {
        let wire = [b"  V1".to_vec(), pieces.concat()].concat();
        let run = |size| {
            let mut w = world();
            let conn = w.accept();
            let mut input = BytesMut::new();
            for chunk in wire.chunks(size) {
                input.extend_from_slice(chunk);
                let _ = w.lookupd.handle_input(conn, &mut input, w.now, &mut w.out);
            }
            w.lookupd.handle_eof(conn, w.now, &mut w.out);
            w.settle();
            (w.answers(conn), w.names(), w.closed, w.log)
        };
        prop_assert_eq!(run(size), run(usize::MAX));
    }
}
