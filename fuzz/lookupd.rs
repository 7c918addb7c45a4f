//! An nsqlookupd at the level of its operations: nsqds that connect, identify, register, err, fall
//! silent and vanish, requests over HTTP, tombstones, limits and a stop. Beside it runs a model of
//! flat sets: look-ups, lists, statistics and every answer have to be the model's, and no timer
//! rings twice. Where something has to give way, it looks at what did, and whether that was fair.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use sansq_core::arena::ConnId;
use sansq_core::http::HttpRequest;
use sansq_core::machine::{Machine, ReadState};
use sansq_core::name::TopicName;
use sansq_core::nsqlookupd::{Lookupd, LookupdActions, LookupdConfig, LookupdReply, MAGIC_TIMEOUT};
use sansq_core::protocol::lookup::ReplyDecoder;
use sansq_core::time::{Instant, Now};
use sansq_core::transmit::Transmit;

use crate::peer::{Reader, STEPS_MAX};

const TOPICS: [&str; 3] = ["t", "u", "v#ephemeral"];
const CHANNELS: [&str; 3] = ["c", "d", "e#ephemeral"];

/// What is refused, and how the answer begins.
const MISTAKES: [(&str, &str); 5] = [
    ("NOPE\n", "E_INVALID"),
    ("REGISTER\n", "E_INVALID"),
    ("REGISTER t!\n", "E_BAD_TOPIC"),
    ("UNREGISTER t c!\n", "E_BAD_CHANNEL"),
    ("IDENTIFY\n\u{0}\u{0}\u{0}\u{2}{}", "E_BAD_BODY"),
];

/// Reads the input as options and steps.
///
/// # Panics
/// If the nsqlookupd is wrong.
pub fn check(data: &[u8]) {
    let mut reader = Reader::new(data);
    let Some(flags) = reader.next() else { return };
    let mut world = Harness::new(flags);
    for _ in 0..STEPS_MAX {
        let Some(what) = reader.next() else { break };
        world.step(what, &mut reader);
        world.settle();
        world.look();
    }
    world.end();
}

type Key = (usize, Option<usize>);

/// A connection, as the model has it.
struct Conn {
    remote: SocketAddr,
    has_magic: bool,
    opened: Instant,
    /// The nsqd that it says it is, and the number of that IDENTIFY.
    identity: Option<(u8, u64)>,
    last_update: Instant,
    is_closing: bool,
    /// How each answer that is owed begins.
    expected: VecDeque<&'static str>,
    /// Answers to PINGs that were taken before all PINGs were read.
    early: usize,
    /// Registrations of it were dropped, which the answer to the next PING tells.
    has_lost: bool,
}

struct Harness {
    lookupd: Lookupd,
    config: LookupdConfig,
    out: LookupdActions,
    now: Now,
    conns: BTreeMap<ConnId, Conn>,
    keys: BTreeSet<Key>,
    pairs: BTreeSet<(ConnId, Key)>,
    tombstones: BTreeMap<(usize, ConnId), Instant>,
    /// Which connections were asked to be closed.
    closes: Vec<ConnId>,
    ports: u16,
    sessions: u64,
    is_stopping: bool,
}

impl Harness {
    fn new(flags: u8) -> Self {
        let mut config = LookupdConfig { connections_max: 5, ..LookupdConfig::default() };
        if flags & 1 == 1 {
            (config.names_max, config.registrations_max) = (4, 5);
            config.registrations_max_per_nsqd = 4;
        }
        if flags & 2 == 2 {
            config.inactive_producer_timeout = Duration::from_secs(5);
            config.tombstone_lifetime = Duration::from_secs(2);
        }
        Self {
            lookupd: Lookupd::new(config.clone()),
            config,
            out: LookupdActions::default(),
            now: Now::from_millis(1_789_000_000_000),
            conns: BTreeMap::new(),
            keys: BTreeSet::new(),
            pairs: BTreeSet::new(),
            tombstones: BTreeMap::new(),
            closes: Vec::new(),
            ports: 0,
            sessions: 0,
            is_stopping: false,
        }
    }

    fn step(&mut self, what: u8, reader: &mut Reader<'_>) {
        match what % 20 {
            0 => self.accept(),
            1..=2 => {
                // A connection that does at once what all do.
                self.accept();
                let Some(conn) = self.conns.keys().next_back().copied() else { return };
                self.magic(conn, reader.byte());
                self.identify(conn, reader);
            }
            3 => {
                let Some(conn) = self.conn(reader.byte()) else { return };
                self.magic(conn, reader.byte());
            }
            4 => {
                let Some(conn) = self.conn(reader.byte()) else { return };
                self.identify(conn, reader);
            }
            5..=8 => {
                let Some(conn) = self.conn(reader.byte()) else { return };
                let key = key(reader.byte());
                self.send(conn, &format!("REGISTER {}\n", text(key)), reader.byte());
                self.register(conn, key);
            }
            9..=10 => {
                let Some(conn) = self.conn(reader.byte()) else { return };
                let key = key(reader.byte());
                self.send(conn, &format!("UNREGISTER {}\n", text(key)), reader.byte());
                self.unregister(conn, key);
            }
            11 => {
                let Some(conn) = self.conn(reader.byte()) else { return };
                let count = usize::from(reader.byte()).pow(2) / 10;
                self.send(conn, &"PING\n".repeat(count), 3);
                let now = self.now.instant;
                let Some(model) = self.talking(conn) else { return };
                let early = core::mem::take(&mut model.early);
                let answers = (0..count).map(|n| {
                    let tells = n == 0 && core::mem::take(&mut model.has_lost);
                    if tells { "E_INVALID PING" } else { "OK" }
                });
                model.expected.extend(answers.skip(early));
                if count > 0 && model.identity.is_some() {
                    model.last_update = now;
                }
            }
            12 => {
                let Some(conn) = self.conn(reader.byte()) else { return };
                let (wire, answer) = MISTAKES[usize::from(reader.byte()) % MISTAKES.len()];
                self.send(conn, wire, reader.byte());
                self.refuse(conn, answer);
            }
            13 => {
                let Some(conn) = self.conn(reader.byte()) else { return };
                if reader.byte() & 1 == 1 {
                    self.lookupd.handle_eof(conn, self.now, &mut self.out);
                    self.close(conn);
                } else {
                    self.hang_up(conn);
                }
            }
            14 => {
                let millis = u64::from(reader.byte()) * u64::from(reader.byte()) / 2;
                self.elapse(Duration::from_millis(millis));
            }
            15 => {
                let Some(at) = self.lookupd.poll_timeout() else { return };
                self.elapse(at.saturating_since(self.now.instant));
            }
            16..=18 => self.http(reader),
            // Rarely, or most runs would be short.
            _ => {
                if reader.byte() == 0xFF {
                    self.lookupd.shut_down(self.now, &mut self.out);
                    self.is_stopping = true;
                    for conn in self.conns.keys().copied().collect::<Vec<_>>() {
                        self.close(conn);
                    }
                }
            }
        }
    }

    fn accept(&mut self) {
        self.ports += 1;
        let remote = SocketAddr::from(([127, 0, 0, 1], self.ports));
        let is_refused = self.is_stopping || self.conns.len() >= self.config.connections_max;
        // Somebody has to be there to be refused, but not the whole world.
        if self.conns.len() > self.config.connections_max {
            return;
        }
        let conn = self.lookupd.accept(remote, self.now, &mut self.out);
        let model = Conn {
            remote,
            has_magic: false,
            opened: self.now.instant,
            identity: None,
            last_update: self.now.instant,
            is_closing: is_refused,
            expected: VecDeque::new(),
            early: 0,
            has_lost: false,
        };
        assert!(self.conns.insert(conn, model).is_none(), "an id is given twice");
        self.closes.extend(is_refused.then_some(conn));
    }

    fn magic(&mut self, conn: ConnId, how: u8) {
        if self.conns[&conn].has_magic {
            return;
        }
        if how == 0xFF {
            self.send(conn, "  V9", 2);
            return self.refuse(conn, "E_BAD_PROTOCOL");
        }
        self.send(conn, "  V1", how);
        if let Some(model) = self.conns.get_mut(&conn).filter(|model| !model.is_closing) {
            model.has_magic = true;
        }
    }

    fn identify(&mut self, conn: ConnId, reader: &mut Reader<'_>) {
        let (node, cut) = (reader.byte() % 4, reader.byte());
        let body = identity(node);
        let len = u32::try_from(body.len()).expect("it is short").to_be_bytes();
        let wire = [b"IDENTIFY\n", &len[..], body.as_bytes()].concat();
        self.input(conn, &wire, cut);
        let (now, session) = (self.now.instant, self.sessions + 1);
        let Some(model) = self.talking(conn) else { return };
        if model.identity.is_some() {
            return self.refuse(conn, "E_INVALID");
        }
        model.identity = Some((node, session));
        model.last_update = now;
        model.expected.push_back("{");
        self.sessions = session;
    }

    fn register(&mut self, conn: ConnId, key: Key) {
        let Some(model) = self.talking(conn) else { return };
        if model.identity.is_none() {
            return self.refuse(conn, "E_INVALID");
        }
        let all = BTreeSet::from([(key.0, None), key]);
        let keys = all.difference(&self.keys).count();
        let pairs = all.iter().filter(|key| !self.pairs.contains(&(conn, **key))).count();
        let size = |of: ConnId| self.pairs.iter().filter(|(conn, _)| *conn == of).count();
        let wanted = size(conn) + pairs;
        if pairs > 0 && wanted > self.config.registrations_max_per_nsqd {
            return self.expect(conn, NO_ROOM);
        }
        if self.keys.len() + keys > self.config.names_max
            || self.pairs.len() + pairs > self.config.registrations_max
        {
            // What goes is not the model's to say: but it is taken from those who have more.
            let sizes: BTreeMap<_, _> = self.conns.keys().map(|of| (*of, size(*of))).collect();
            let lost = self.look_again();
            for (loser, _) in &lost {
                assert!(*loser != conn && sizes[loser] > wanted, "it had no more than others");
            }
            let has_it = all.iter().all(|key| self.pairs.contains(&(conn, *key)));
            let has_any = size_of(&self.pairs, conn) > sizes[&conn];
            assert_eq!(has_it && pairs > 0, has_any, "it has half of what it wants");
            let has_more = |of: &ConnId| size_of(&self.pairs, *of) > wanted;
            assert!(has_it || !self.conns.keys().any(has_more), "somebody has more");
            return self.expect(conn, if has_it { "OK" } else { NO_ROOM });
        }
        self.pairs.extend(all.iter().map(|key| (conn, *key)));
        self.keys.extend(all);
        self.expect(conn, "OK");
    }

    fn unregister(&mut self, conn: ConnId, key: Key) {
        let Some(model) = self.talking(conn) else { return };
        if model.identity.is_none() {
            return self.refuse(conn, "E_INVALID");
        }
        self.leave(|(of, (t, c))| of == conn && t == key.0 && (key.1.is_none() || c == key.1));
        self.expect(conn, "OK");
    }

    /// Takes over what the nsqlookupd knows, which may be more by what one command wants, and less:
    /// who lost which registration.
    fn look_again(&mut self) -> Vec<(ConnId, Key)> {
        let (_, body) = self.ask("GET", "/debug", "");
        let debug: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let before = core::mem::take(&mut self.pairs);
        let names = core::mem::take(&mut self.keys);
        for (t, name) in TOPICS.iter().enumerate() {
            let topic = TopicName::new(*name).expect("a name");
            let channels = self.lookupd.channels(&topic);
            for c in [None, Some(0), Some(1), Some(2)] {
                let is_known = match c {
                    None => self.lookupd.topics().contains(&topic),
                    Some(c) => channels.iter().any(|name| name.as_str() == CHANNELS[c]),
                };
                if !is_known {
                    continue;
                }
                self.keys.insert((t, c));
                let entry = match c {
                    None => format!("topic:{topic}:"),
                    Some(c) => format!("channel:{topic}:{}", CHANNELS[c]),
                };
                for producer in debug[&entry].as_array().into_iter().flatten() {
                    let id = producer["id"].as_str().expect("a text");
                    let is_it = |model: &Conn| model.remote.to_string() == id;
                    let conn = self.conns.iter().find(|(_, model)| is_it(model));
                    self.pairs.insert((*conn.expect("somebody who is there").0, (t, c)));
                }
            }
        }
        let lost: Vec<_> = before.difference(&self.pairs).copied().collect();
        for (conn, (t, c)) in &lost {
            if c.is_none() {
                self.tombstones.remove(&(*t, *conn));
            }
            self.conns.get_mut(conn).expect("it is there").has_lost = true;
        }
        for key in names.difference(&self.keys) {
            let had = before.iter().filter(|(_, of)| of == key);
            assert!(
                had.clone().all(|pair| lost.contains(pair)),
                "a name that is in use is forgotten"
            );
        }
        lost
    }

    /// Forgets pairs, and what is ephemeral and has lost its last one.
    fn leave(&mut self, is_gone: impl Fn((ConnId, Key)) -> bool) {
        let gone: Vec<_> = self.pairs.iter().copied().filter(|pair| is_gone(*pair)).collect();
        self.pairs.retain(|pair| !is_gone(*pair));
        for (conn, (t, c)) in gone {
            if c.is_none() {
                self.tombstones.remove(&(t, conn));
            }
            let is_ephemeral = c.unwrap_or(t) == 2;
            if is_ephemeral && !self.pairs.iter().any(|(_, key)| *key == (t, c)) {
                self.keys.retain(|key| if c.is_none() { key.0 != t } else { *key != (t, c) });
            }
        }
    }

    fn delete(&mut self, key: Key) {
        let is_gone = |other: Key| other.0 == key.0 && (key.1.is_none() || other.1 == key.1);
        self.keys.retain(|other| !is_gone(*other));
        self.pairs.retain(|(_, other)| !is_gone(*other));
        if key.1.is_none() {
            self.tombstones.retain(|(t, _), _| *t != key.0);
        }
    }

    /// A request over HTTP, which may be any.
    fn http(&mut self, reader: &mut Reader<'_>) {
        let (what, key) = (reader.byte(), key(reader.byte()));
        let topic = escaped(TOPICS[key.0]);
        let query = match key.1 {
            None => format!("topic={topic}"),
            Some(c) => format!("topic={topic}&channel={}", escaped(CHANNELS[c])),
        };
        let is_new = !self.keys.contains(&key);
        match what % 8 {
            0..=1 => {
                let path = if key.1.is_none() { "/topic/create" } else { "/channel/create" };
                let all = BTreeSet::from([(key.0, None), key]);
                // Names without producers make room, but none that is wanted.
                let is_used = |key: &&Key| self.pairs.iter().any(|(_, of)| of == *key);
                let used: BTreeSet<_> = self.keys.iter().filter(is_used).copied().collect();
                let has_room = used.union(&all).count() <= self.config.names_max;
                let is_full = self.keys.union(&all).count() > self.config.names_max;
                let (status, _) = self.ask("POST", path, &query);
                let is_there = all.iter().all(|key| self.keys.contains(key));
                assert_eq!(status == 200, has_room || is_there, "{path}?{query}: {status}");
                if is_full {
                    assert_eq!(self.look_again(), []);
                    assert!(status != 200 || all.is_subset(&self.keys));
                } else {
                    self.keys.extend(all);
                }
            }
            2 => {
                let path = if key.1.is_none() { "/topic/delete" } else { "/channel/delete" };
                let (status, _) = self.ask("POST", path, &query);
                let expected = if key.1.is_some() && is_new { 404 } else { 200 };
                assert_eq!(status, expected, "{path}?{query}");
                self.delete(key);
            }
            3..=4 => {
                let node = reader.byte() % 4;
                let mut query = format!("topic={topic}&node=n{}:{}", node / 2, 4151);
                let with_port = reader.byte() & 1 == 1;
                if with_port {
                    query.push_str(&format!("&tcp_port={}", port(node)));
                }
                assert_eq!(self.ask("POST", "/topic/tombstone", &query).0, 200);
                for (conn, model) in &self.conns {
                    let is_meant = model.identity.is_some_and(|(of, _)| {
                        of / 2 == node / 2 && (!with_port || port(of) == port(node))
                    });
                    if is_meant && self.pairs.contains(&(*conn, (key.0, None))) {
                        self.tombstones.insert((key.0, *conn), self.now.instant);
                    }
                }
            }
            5 => {
                // Whatever is asked gets an answer.
                let methods = ["GET", "POST", "PUT", "OPTIONS", "HEAD", ""];
                let method = methods[usize::from(reader.byte()) % methods.len()];
                let paths = ["/lookup", "/topics", "/channels", "/nodes", "/info", "/ping", "/x"];
                let path = paths[usize::from(reader.byte()) % paths.len()];
                let query = String::from_utf8_lossy(reader.some()).into_owned();
                let (status, body) = self.ask(method, path, &query);
                assert!(status < 500, "{method} {path}?{query}: {status} {body}");
            }
            _ => {
                let (_, body) = self.ask("GET", "/debug", "");
                serde_json::from_str::<serde_json::Value>(&body).expect("JSON");
                let (_, body) = self.ask("GET", "/nodes", "");
                serde_json::from_str::<serde_json::Value>(&body).expect("JSON");
                let (status, body) = self.ask("GET", "/lookup", &format!("topic={topic}"));
                serde_json::from_str::<serde_json::Value>(&body).expect("JSON");
                assert_eq!(status == 200, self.keys.contains(&(key.0, None)), "{body}");
            }
        }
    }

    fn ask(&mut self, method: &str, path: &str, query: &str) -> (u16, String) {
        let request = HttpRequest { method, path, query: Some(query), body: &Bytes::new() };
        match self.lookupd.handle_http(&request, self.now, &mut self.out) {
            LookupdReply::Metrics(_) => (200, String::new()),
            LookupdReply::Reply(reply) => {
                (reply.status, String::from_utf8(reply.body.to_vec()).expect("text"))
            }
        }
    }

    fn send(&mut self, conn: ConnId, wire: &str, cut: u8) {
        self.input(conn, wire.as_bytes(), cut);
    }

    /// Bytes come in two pieces. Without magic nothing else is sent.
    fn input(&mut self, conn: ConnId, bytes: &[u8], cut: u8) {
        let model = &self.conns[&conn];
        if !model.has_magic && !bytes.starts_with(b"  V") {
            return;
        }
        let (first, second) = bytes.split_at(usize::from(cut).min(bytes.len()));
        let mut input = BytesMut::new();
        for piece in [first, second] {
            input.extend_from_slice(piece);
            while self.lookupd.handle_input(conn, &mut input, self.now, &mut self.out)
                == ReadState::Wait
            {
                self.receive(conn, Judge::Pings);
                assert_eq!(core::mem::take(&mut self.out.resume), [conn], "it is not read again");
            }
        }
        assert!(input.is_empty(), "something whole is left");
    }

    /// What the nsqlookupd owes to a connection; the answers that were expected already are checked
    /// in full.
    fn receive(&mut self, conn: ConnId, judge: Judge) {
        let mut owed = Transmit::new();
        self.lookupd.swap_transmit(conn, &mut owed);
        self.lookupd.handle_sent(conn, owed.len(), self.now, &mut self.out);
        let mut owed = BytesMut::from(&owed.into_vec()[..]);
        let Some(model) = self.conns.get_mut(&conn) else {
            assert!(owed.is_empty(), "something to send to nobody");
            return;
        };
        while let Some(text) =
            ReplyDecoder::new(usize::MAX).next(&mut owed).expect("answers are whole")
        {
            let text = String::from_utf8_lossy(&text).into_owned();
            match judge {
                Judge::Pings => {
                    let tells = model.early == 0 && model.has_lost;
                    assert_eq!(text == "OK", !tells, "{text}");
                    model.early += 1;
                }
                Judge::All => {
                    let expected = model.expected.pop_front();
                    let is_right = expected.is_some_and(|expected| text.starts_with(expected));
                    assert!(is_right, "{text} instead of {expected:?}");
                }
            }
        }
        assert!(owed.is_empty(), "half an answer");
    }

    /// The connection, if it has said the magic and is not closing.
    fn talking(&mut self, conn: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(&conn).filter(|model| model.has_magic && !model.is_closing)
    }

    fn expect(&mut self, conn: ConnId, answer: &'static str) {
        if let Some(model) = self.conns.get_mut(&conn) {
            model.expected.push_back(answer);
        }
    }

    fn refuse(&mut self, conn: ConnId, answer: &'static str) {
        let Some(model) = self.conns.get_mut(&conn).filter(|model| !model.is_closing) else {
            return;
        };
        let is_magic = answer == "E_BAD_PROTOCOL";
        if !model.has_magic && !is_magic {
            return;
        }
        // Whoever is not identified hears of that first.
        model.expected.push_back(if is_magic { answer } else { "E_" });
        self.close(conn);
    }

    /// The nsqlookupd closes it: what it had is gone.
    fn close(&mut self, conn: ConnId) {
        let Some(model) = self.conns.get_mut(&conn).filter(|model| !model.is_closing) else {
            return;
        };
        model.is_closing = true;
        model.identity = None;
        self.closes.push(conn);
        self.leave(|(of, _)| of == conn);
    }

    /// The socket is gone.
    fn hang_up(&mut self, conn: ConnId) {
        self.receive(conn, Judge::All);
        self.lookupd.handle_closed(conn, self.now, &mut self.out);
        self.conns.remove(&conn);
        self.leave(|(of, _)| of == conn);
    }

    fn elapse(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.lookupd.handle_timeout(self.now, &mut self.out);
        let next = self.lookupd.poll_timeout();
        assert!(next.is_none_or(|next| next > self.now.instant), "a timer rings for nothing");
        let now = self.now.instant;
        let is_late = |model: &Conn| !model.has_magic && model.opened + MAGIC_TIMEOUT <= now;
        let late: Vec<_> =
            self.conns.iter().filter(|(_, model)| is_late(model)).map(|(id, _)| *id).collect();
        for conn in late {
            self.close(conn);
        }
    }

    /// Does what a driver does: sends what is owed, and closes.
    fn settle(&mut self) {
        for conn in core::mem::take(&mut self.out.transmit) {
            self.receive(conn, Judge::All);
        }
        for event in self.out.events.drain(..) {
            assert!(!event.to_string().is_empty());
        }
        let mut closes = core::mem::take(&mut self.out.close);
        closes.sort_unstable();
        let mut expected = core::mem::take(&mut self.closes);
        expected.retain(|conn| self.conns.contains_key(conn));
        expected.sort_unstable();
        assert_eq!(closes, expected, "closed, and to be closed");
        for conn in closes {
            self.hang_up(conn);
        }
        assert!(self.conns.values().all(|model| model.expected.is_empty()), "an answer is missing");
    }

    /// What holds after each step.
    fn look(&self) {
        let now = self.now.instant;
        let topics: Vec<_> = self.keys.iter().filter(|key| key.1.is_none()).collect();
        let names: Vec<_> = topics.iter().map(|(t, _)| TOPICS[*t]).collect();
        let known = self.lookupd.topics();
        assert_eq!(known.iter().map(|name| name.as_str()).collect::<Vec<_>>(), names);
        let is_active = |model: &Conn| {
            now.saturating_since(model.last_update) <= self.config.inactive_producer_timeout
        };
        let is_hidden = |at: usize, conn: ConnId| {
            let tombstone = self.tombstones.get(&(at, conn));
            tombstone
                .is_some_and(|since| now.saturating_since(*since) < self.config.tombstone_lifetime)
        };
        for (at, name) in TOPICS.iter().enumerate() {
            let topic = TopicName::new(*name).expect("a name");
            let Some(lookup) = self.lookupd.lookup(&topic, self.now) else {
                assert!(!self.keys.contains(&(at, None)), "{name} is known");
                continue;
            };
            let channels: Vec<_> = lookup.channels.iter().map(|name| name.as_str()).collect();
            let expected: Vec<_> =
                self.keys.iter().filter(|key| key.0 == at).filter_map(|key| key.1).collect();
            assert_eq!(channels, expected.iter().map(|c| CHANNELS[*c]).collect::<Vec<_>>());
            let has = |conn: &ConnId| self.pairs.contains(&(*conn, (at, None)));
            let shown = self
                .conns
                .iter()
                .filter(|(conn, model)| has(conn) && is_active(model) && !is_hidden(at, **conn));
            let shown: BTreeSet<_> = liveliest(shown.map(|(_, model)| (true, model)));
            let producers: Vec<_> = lookup.producers.iter().map(|one| one.remote).collect();
            assert_eq!(producers.len(), shown.len(), "{name}");
            assert_eq!(BTreeSet::from_iter(producers), shown, "{name}");
        }
        let active = self.conns.iter().filter(|(_, model)| model.identity.is_some());
        let (active, silent): (Vec<_>, Vec<_>) = active.partition(|(_, model)| is_active(model));
        let nodes = self.lookupd.nodes(self.now);
        let shown = nodes.iter().map(|node| node.producer.remote).collect::<BTreeSet<_>>();
        let sessions =
            active.iter().map(|(conn, model)| (size_of(&self.pairs, **conn) > 0, *model));
        assert_eq!(shown, liveliest(sessions));
        for node in &nodes {
            // Its topics are those of all its sessions.
            let of = |remote| self.conns.values().find(|model| model.remote == remote);
            let (nsqd, _) = of(node.producer.remote).and_then(|it| it.identity).expect("a session");
            let same = active.iter().filter(|(_, it)| it.identity.is_some_and(|(n, _)| n == nsqd));
            let conns: BTreeSet<_> = same.map(|(conn, _)| **conn).collect();
            let topics: BTreeSet<_> = self
                .pairs
                .iter()
                .filter(|(conn, key)| conns.contains(conn) && key.1.is_none())
                .map(|(_, (t, _))| TOPICS[*t])
                .collect();
            assert!(node.topics.iter().map(|(name, _)| name.as_str()).eq(topics), "{node:?}");
        }
        let stats = self.lookupd.stats(self.now);
        let tombstones = self.tombstones.keys().filter(|(at, conn)| is_hidden(*at, *conn)).count();
        assert_eq!((stats.topics, stats.topics + stats.channels), (names.len(), self.keys.len()));
        assert_eq!((stats.registrations, stats.tombstones), (self.pairs.len(), tombstones));
        assert_eq!((stats.producers, stats.inactive_producers), (active.len(), silent.len()));
        assert_eq!(stats.connections, self.conns.len());
        assert!(stats.topics + stats.channels <= self.config.names_max);
        assert!(stats.registrations <= self.config.registrations_max);
    }

    fn end(&mut self) {
        for conn in self.conns.keys().copied().collect::<Vec<_>>() {
            self.hang_up(conn);
        }
        self.settle();
        self.look();
        self.elapse(2 * MAGIC_TIMEOUT);
        self.settle();
        assert_eq!(self.lookupd.poll_timeout(), None);
    }

    fn conn(&self, at: u8) -> Option<ConnId> {
        self.conns.keys().nth(usize::from(at) % self.conns.len().max(1)).copied()
    }
}

/// How answers are judged.
#[derive(Clone, Copy)]
enum Judge {
    All,
    /// They are those of many PINGs, which the model has not had yet.
    Pings,
}

/// Of several sessions of one nsqd, by its address and TCP port, the one that goes for it: one that
/// has registered something, of these the one that showed life last, of these the newest.
fn liveliest<'a>(conns: impl Iterator<Item = (bool, &'a Conn)>) -> BTreeSet<SocketAddr> {
    let mut liveliest = BTreeMap::new();
    for (has_any, model) in conns {
        let Some((node, session)) = model.identity else { continue };
        let rank = (has_any, model.last_update, session, model.remote);
        let entry = liveliest.entry(node).or_insert(rank);
        *entry = (*entry).max(rank);
    }
    liveliest.into_values().map(|(.., remote)| remote).collect()
}

/// How many registrations a connection has.
fn size_of(pairs: &BTreeSet<(ConnId, Key)>, conn: ConnId) -> usize {
    pairs.iter().filter(|(of, _)| *of == conn).count()
}

const NO_ROOM: &str = "E_INVALID REGISTER too many registrations";

/// Four nsqds: two hosts, two TCP ports on each.
fn identity(node: u8) -> String {
    format!(
        r#"{{"broadcast_address":"n{}","hostname":"h","http_port":4151,"tcp_port":{},"version":"1"}}"#,
        node / 2,
        port(node)
    )
}

const fn port(node: u8) -> u16 {
    4150 + 10 * (node % 2) as u16
}

/// A topic, or one of its channels.
fn key(at: u8) -> Key {
    let at = usize::from(at % 12);
    (at % 3, (at / 3).checked_sub(1))
}

fn text((topic, channel): Key) -> String {
    match channel {
        None => TOPICS[topic].into(),
        Some(channel) => format!("{} {}", TOPICS[topic], CHANNELS[channel]),
    }
}

fn escaped(name: &str) -> String {
    name.replace('#', "%23")
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        crate::replay_seeds("lookupd", super::check);
    }
}
