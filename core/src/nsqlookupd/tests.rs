use super::*;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use proptest::prelude::*;

use crate::name::{ChannelName, TopicName};
use crate::protocol::lookup::{PeerInfo, ReplyDecoder};

/// An nsqlookupd with its clock, driven as a runtime would.
struct World {
    lookupd: Lookupd,
    now: Now,
    out: Actions,
    log: Vec<String>,
    closed: Vec<ConnId>,
    ports: u16,
}

impl World {
    fn new(config: Config) -> Self {
        Self {
            lookupd: Lookupd::new(config),
            now: Now::from_millis(1_000_000),
            out: Actions::default(),
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
        self.lookupd.handle_input(conn, &mut input, self.now, &mut self.out);
        self.settle();
        self.answers(conn)
    }

    fn answers(&mut self, conn: ConnId) -> Vec<String> {
        let mut owed = Vec::new();
        self.lookupd.swap_transmit(conn, &mut owed);
        let mut owed = BytesMut::from(&owed[..]);
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
    Command::Identify(info).encode(&mut wire);
    wire
}

fn world() -> World {
    World::new(Config {
        broadcast_address: "lookup.example".into(),
        hostname: "vm".into(),
        ..Config::default()
    })
}

#[test]
fn a_session_and_its_log() {
    let mut w = world();
    let a = w.accept();
    assert_eq!(
        w.send(a, hello("n1")),
        [format!(
            "{{\"broadcast_address\":\"lookup.example\",\"hostname\":\"vm\",\"http_port\":4161,\"sansq_version\":\"{}\",\"tcp_port\":4160,\"version\":\"1.3.0\"}}",
            crate::version::SANSQ_VERSION
        )]
    );
    w.pass(Duration::from_millis(23_900));
    assert_eq!(
        w.send(a, "REGISTER t c\nREGISTER t c\nPING\nUNREGISTER t\nUNREGISTER t\nREGISTER u x\n"),
        ["OK"; 6]
    );
    w.eof(a);
    assert_eq!(w.closed, [a]);
    w.lookupd.handle_closed(a, w.now, &mut w.out);
    assert!(w.out.is_empty());
    assert_eq!(
        w.log,
        [
            "INFO TCP: new client(127.0.0.1:1)",
            "INFO CLIENT(127.0.0.1:1): desired protocol magic '  V1'",
            "INFO CLIENT(127.0.0.1:1): IDENTIFY Address:n1 TCP:4150 HTTP:4151 Version:1.3.0",
            "INFO DB: client(127.0.0.1:1) REGISTER category:client key: subkey:",
            "INFO DB: client(127.0.0.1:1) REGISTER category:channel key:t subkey:c",
            "INFO DB: client(127.0.0.1:1) REGISTER category:topic key:t subkey:",
            "INFO CLIENT(127.0.0.1:1): pinged (last ping 23.9s)",
            "WARNING client(127.0.0.1:1) unexpected UNREGISTER category:channel key:t subkey:c",
            "INFO DB: client(127.0.0.1:1) UNREGISTER category:topic key:t subkey:",
            "INFO DB: client(127.0.0.1:1) REGISTER category:channel key:u subkey:x",
            "INFO DB: client(127.0.0.1:1) REGISTER category:topic key:u subkey:",
            "ERROR client(127.0.0.1:1) - EOF",
            "INFO PROTOCOL(V1): [127.0.0.1:1] exiting ioloop",
            "INFO DB: client(127.0.0.1:1) UNREGISTER category:channel key:u subkey:x",
            "INFO DB: client(127.0.0.1:1) UNREGISTER category:topic key:u subkey:",
            "INFO DB: client(127.0.0.1:1) UNREGISTER category:client key: subkey:",
        ]
    );
    // The topics and channels stay known.
    assert_eq!(w.names(), ["t", "t/c", "u", "u/x"]);
    assert_eq!(w.lookup("t"), [""; 0]);
}

#[test]
fn errors_are_told_and_end_the_session() {
    let mut w = world();
    let a = w.producer("n1");
    assert_eq!(
        w.send(a, "REGISTER t\nNONSENSE\nREGISTER u\n"),
        ["OK", "E_INVALID invalid command NONSENSE"]
    );
    assert_eq!((w.closed.as_slice(), w.names()), (&[a][..], vec!["t".to_string()]));
    assert!(w.log.contains(&"ERROR [127.0.0.1:1] - E_INVALID invalid command NONSENSE".into()));
    assert!(w.lookupd.nodes(w.now).is_empty());
    assert_eq!(w.send(a, "PING\n"), [""; 0]);

    let b = w.accept();
    assert_eq!(w.send(b, "GET / HTTP/1.1\r\n\r\n"), ["E_BAD_PROTOCOL"]);
    assert_eq!(
        w.log[w.log.len() - 2..],
        [
            "INFO CLIENT(127.0.0.1:2): desired protocol magic 'GET '",
            "ERROR client(127.0.0.1:2) bad protocol magic 'GET '"
        ]
    );
    let c = w.accept();
    assert_eq!(w.send(c, "  V1IDENTIFY\n\0\0\0\x09{"), [""; 0]);
    w.eof(c);
    assert_eq!(w.answers(c), ["E_BAD_BODY IDENTIFY failed to read body"]);
    let d = w.accept();
    w.send(d, "  ");
    w.eof(d);
    assert_eq!((w.answers(d), w.closed.as_slice()), (vec![], &[a, b, c, d][..]));
}

#[test]
fn ephemeral_names_go_with_their_last_producer() {
    let mut w = world();
    let (a, b) = (w.producer("n1"), w.producer("n2"));
    for conn in [a, b] {
        let ok = w.send(conn, "REGISTER t c#ephemeral\nREGISTER e#ephemeral c\nREGISTER t c\n");
        assert_eq!(ok, ["OK"; 3]);
    }
    w.send(a, "UNREGISTER t c#ephemeral\nUNREGISTER e#ephemeral\n");
    assert_eq!(w.names(), ["e#ephemeral", "e#ephemeral/c", "t", "t/c", "t/c#ephemeral"]);
    // Unlike the reference: the channels of the topic go too, and a disconnect counts.
    w.send(b, "UNREGISTER e#ephemeral\n");
    assert_eq!(w.names(), ["t", "t/c", "t/c#ephemeral"]);
    w.lookupd.handle_closed(b, w.now, &mut w.out);
    w.settle();
    assert_eq!(w.names(), ["t", "t/c"]);
    // An UNREGISTER of the topic applies the rule to its channels.
    w.send(a, "REGISTER t x#ephemeral\nUNREGISTER t\n");
    assert_eq!(w.names(), ["t", "t/c"]);
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
fn a_tombstone_hides_for_a_while_or_until_registered_anew() {
    let mut w = world();
    let a = w.producer("n1");
    let b = w.producer("n2");
    for conn in [a, b] {
        w.send(conn, "REGISTER t c\nREGISTER u\n");
    }
    let bury = |w: &mut World, node: &str, tcp_port| {
        w.lookupd.tombstone(&name("t"), node, tcp_port, w.now, &mut w.out);
        w.settle();
    };
    for node in ["n1:4150", "n1", "n1:04151", ":4151", "n1:4151 "] {
        bury(&mut w, node, None);
    }
    bury(&mut w, "n1:4151", Some(1));
    assert_eq!(w.lookup("t"), ["n1", "n2"]);
    bury(&mut w, "n1:4151", None);
    assert_eq!(
        w.log.last().unwrap(),
        "INFO DB: setting tombstone for producer@n1:4151 of topic(t)"
    );
    assert_eq!((w.lookup("t"), w.lookup("u")), (vec!["n2"], vec!["n1", "n2"]));
    let nodes = w.lookupd.nodes(w.now);
    assert_eq!(nodes[0].topics, [(name("t"), true), (name("u"), false)]);
    w.send(a, "REGISTER t c\nPING\n");
    assert_eq!(w.lookup("t"), ["n2"]);
    w.pass(Duration::from_secs(45) - Duration::from_nanos(1));
    assert_eq!(w.lookup("t"), ["n2"]);
    w.pass(Duration::from_nanos(1));
    assert_eq!(w.lookup("t"), ["n1", "n2"]);
    bury(&mut w, "n1:4151", Some(4150));
    assert_eq!(w.lookup("t"), ["n2"]);
    w.send(a, "UNREGISTER t\nREGISTER t\n");
    assert_eq!(w.lookup("t"), ["n1", "n2"]);
}

#[test]
fn of_two_sessions_of_one_nsqd_the_newer_is_shown() {
    let mut w = world();
    let old = w.producer("n1");
    w.send(old, "REGISTER t\nREGISTER gone\n");
    w.pass(Duration::from_secs(1));
    let new = w.producer("n1");
    w.send(new, "REGISTER t\n");
    w.send(old, "PING\n");
    let ports = |w: &World, topic| -> Vec<u16> {
        let lookup = w.lookupd.lookup(&name(topic), w.now).unwrap();
        lookup.producers.iter().map(|p| p.remote.port()).collect()
    };
    assert_eq!((ports(&w, "t"), ports(&w, "gone")), (vec![2], vec![1]));
    assert_eq!(w.lookupd.nodes(w.now).len(), 1);
    // The end of the old one takes nothing from the new one, not even with the same address.
    w.eof(old);
    assert_eq!((ports(&w, "t"), ports(&w, "gone")), (vec![2], vec![]));
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

#[test]
fn magic_comes_in_time_or_never() {
    let mut w = world();
    let (slow, good) = (w.accept(), w.accept());
    w.send(slow, "  V");
    w.send(good, "  V1");
    assert_eq!(w.lookupd.poll_timeout(), Some(w.now.instant + MAGIC_TIMEOUT));
    w.pass(MAGIC_TIMEOUT - Duration::from_nanos(1));
    assert_eq!(w.closed, []);
    w.pass(Duration::from_nanos(1));
    assert_eq!((w.closed.as_slice(), w.lookupd.poll_timeout()), (&[slow][..], None));
    assert_eq!(w.log.last().unwrap(), "ERROR client(127.0.0.1:1) - no protocol magic in time");
    assert_eq!(w.send(slow, "1PING\n"), [""; 0]);
    assert_eq!(w.send(good, "PING\n"), ["OK"]);
}

#[test]
fn limits() {
    let mut w = World::new(Config {
        connections_max: 2,
        keys_max: 3,
        registrations_max: 4,
        ..Config::default()
    });
    let (a, b) = (w.producer("n1"), w.producer("n2"));
    let c = w.accept();
    assert_eq!(w.send(c, "  V1PING\n"), [""; 0]);
    assert_eq!(w.closed, [c]);
    w.lookupd.handle_closed(c, w.now, &mut w.out);
    assert_eq!(w.send(a, "REGISTER t c\nREGISTER u\nREGISTER t c\n"), ["OK"; 3]);
    assert_eq!(w.send(b, "REGISTER t\n"), ["OK"]);
    assert_eq!(w.lookupd.create_topic(name("v"), &mut w.out), Err(Full));
    assert_eq!(w.lookupd.create_topic(name("u"), &mut w.out), Ok(()));
    assert_eq!(w.send(b, "REGISTER t c\n"), ["E_INVALID REGISTER too many registrations"]);
    assert_eq!(w.send(a, "REGISTER v\n"), ["E_INVALID REGISTER too many registrations"]);
    assert_eq!(w.names(), ["t", "t/c", "u"]);
}

#[test]
fn who_does_not_read_is_not_read() {
    let mut w = world();
    let a = w.accept();
    let mut input = BytesMut::from(&[b"  V1".to_vec(), b"PING\n".repeat(5000)].concat()[..]);
    let mut answered = 0;
    loop {
        w.lookupd.handle_input(a, &mut input, w.now, &mut w.out);
        assert_eq!(w.out.transmit, [a]);
        w.settle();
        let is_blocked = w.lookupd.is_blocked(a);
        let mut owed = Vec::new();
        w.lookupd.swap_transmit(a, &mut owed);
        assert!(owed.len() < OWED_MAX + 6 && !w.lookupd.is_blocked(a));
        answered += owed.len() / 6;
        if !is_blocked {
            break;
        }
        assert!(owed.len() >= OWED_MAX);
    }
    assert_eq!((answered, input.len()), (5000, 0));
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
                w.lookupd.handle_input(conn, &mut input, w.now, &mut w.out);
            }
            w.lookupd.handle_eof(conn, w.now, &mut w.out);
            w.settle();
            (w.answers(conn), w.names(), w.closed, w.log)
        };
        prop_assert_eq!(run(size), run(usize::MAX));
    }
}
