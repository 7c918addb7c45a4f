//! An nsqlookupd at the level of its operations: nsqds that connect, identify, register, err, fall silent
//! and vanish, requests over HTTP, tombstones, limits and a stop. Beside it runs a model of flat sets:
//! look-ups, lists, statistics and every answer have to be the model's, and no timer rings twice.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use sansq_core::arena::ConnId;
use sansq_core::http::Request;
use sansq_core::name::TopicName;
use sansq_core::nsqlookupd::{Actions, Answer, Config, Lookupd, MAGIC_TIMEOUT};
use sansq_core::protocol::lookup::ReplyDecoder;
use sansq_core::time::{Instant, Now};

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
    let mut world = World::new(flags);
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
}

struct World {
    lookupd: Lookupd,
    config: Config,
    out: Actions,
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

impl World {
    fn new(flags: u8) -> Self {
        let mut config = Config { connections_max: 5, ..Config::default() };
        if flags & 1 == 1 {
            (config.keys_max, config.registrations_max) = (4, 5);
        }
        if flags & 2 == 2 {
            config.inactive_producer_timeout = Duration::from_secs(5);
            config.tombstone_lifetime = Duration::from_secs(2);
        }
        Self {
            lookupd: Lookupd::new(config.clone()),
            config,
            out: Actions::default(),
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
                let left = count - core::mem::take(&mut model.early);
                model.expected.extend(core::iter::repeat_n("OK", left));
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
        if self.keys.len() + keys > self.config.keys_max
            || self.pairs.len() + pairs > self.config.registrations_max
        {
            return self.refuse(conn, "E_");
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
                let more = all.difference(&self.keys).count();
                let has_room = self.keys.len() + more <= self.config.keys_max;
                let (status, _) = self.ask("POST", path, &query);
                assert_eq!(status == 200, has_room, "{path}?{query}: {status}");
                if has_room {
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
        let request = Request { method, path, query: Some(query), body: &Bytes::new() };
        match self.lookupd.handle_http(&request, self.now, &mut self.out) {
            Answer::Metrics(_) => (200, String::new()),
            Answer::Reply(reply) => {
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
            self.lookupd.handle_input(conn, &mut input, self.now, &mut self.out);
            while self.lookupd.is_blocked(conn) {
                self.receive(conn, Judge::Pings);
                self.lookupd.handle_input(conn, &mut input, self.now, &mut self.out);
            }
        }
        assert!(input.is_empty(), "something whole is left");
    }

    /// What the nsqlookupd owes to a connection; the answers that were expected already are checked in
    /// full.
    fn receive(&mut self, conn: ConnId, judge: Judge) {
        let mut owed = Vec::new();
        self.lookupd.swap_transmit(conn, &mut owed);
        let mut owed = BytesMut::from(&owed[..]);
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
                    model.early += 1;
                    assert_eq!(text, "OK");
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
            let shown: BTreeSet<_> = newest(shown.map(|(_, model)| model));
            let producers: Vec<_> = lookup.producers.iter().map(|one| one.remote).collect();
            assert_eq!(producers.len(), shown.len(), "{name}");
            assert_eq!(BTreeSet::from_iter(producers), shown, "{name}");
        }
        let active = self.conns.values().filter(|model| model.identity.is_some());
        let (active, silent): (Vec<_>, Vec<_>) = active.partition(|model| is_active(model));
        let nodes: Vec<_> =
            self.lookupd.nodes(self.now).iter().map(|node| node.producer.remote).collect();
        assert_eq!(BTreeSet::from_iter(nodes), newest(active.iter().copied()));
        let stats = self.lookupd.stats(self.now);
        let tombstones = self.tombstones.keys().filter(|(at, conn)| is_hidden(*at, *conn)).count();
        assert_eq!((stats.topics, stats.topics + stats.channels), (names.len(), self.keys.len()));
        assert_eq!((stats.registrations, stats.tombstones), (self.pairs.len(), tombstones));
        assert_eq!((stats.producers, stats.inactive_producers), (active.len(), silent.len()));
        assert_eq!(stats.connections, self.conns.len());
        assert!(stats.topics + stats.channels <= self.config.keys_max);
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

/// Of several sessions of one nsqd, by its address and TCP port, the newest.
fn newest<'a>(conns: impl Iterator<Item = &'a Conn>) -> BTreeSet<SocketAddr> {
    let mut newest = BTreeMap::new();
    for model in conns {
        let Some((node, session)) = model.identity else { continue };
        let entry = newest.entry(node).or_insert((session, model.remote));
        *entry = (*entry).max((session, model.remote));
    }
    newest.into_values().map(|(_, remote)| remote).collect()
}

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
