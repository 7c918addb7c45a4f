//! Who a client finds through nsqlookupds: answers of any kind and bytes, in any order, late, twice
//! or never. An address is found once until it vanishes, vanishes only after as many rounds as are
//! said, and never while somebody lists it; nobody is asked twice at once; what is found can be
//! dialled.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sansq_core::client::directory::{
    Directory, DirectoryChanges, DirectoryOptions, FOUND_MAX, Question,
};
use sansq_core::client::{LookupCallId, NetActions};
use sansq_core::http::call::{CallAnswer, CallFailure, CallResult};
use sansq_core::machine::MachineActions;
use sansq_core::name::TopicName;
use sansq_core::time::Now;

use crate::peer::{self, Reader, STEPS_MAX};

const SERVERS: [&str; 4] = ["a:1", "http://b:2/x?y=z", "https://c:3", "[::1]:4"];
const HOSTS: [&str; 4] = ["a", "b", "c", "::1"];

/// Reads the input as options and steps.
///
/// # Panics
/// If the directory is wrong.
pub fn check(data: &[u8]) {
    let mut reader = Reader::new(data);
    let Some(flags) = reader.next() else { return };
    let mut world = Harness::new(flags);
    for _ in 0..STEPS_MAX {
        let Some(what) = reader.next() else { break };
        world.step(what, &mut reader);
        world.look();
    }
    world.end();
}

struct Harness {
    directory: Directory,
    vanished_after: u32,
    net: NetActions,
    changes: DirectoryChanges,
    now: Now,
    /// Which servers it was given, and has not been told to leave.
    servers: BTreeSet<&'static str>,
    /// What is under way, and whom it asks.
    calls: BTreeMap<LookupCallId, String>,
    asked: BTreeSet<LookupCallId>,
    /// Calls that were answered.
    over: Vec<LookupCallId>,
    /// What was found and has not vanished, and how many rounds had ended when it was.
    known: BTreeMap<String, u32>,
    /// How many regular rounds can have ended at most.
    rounds: u32,
}

impl Harness {
    fn new(flags: u8) -> Self {
        let vanished_after = u32::from(flags >> 1 & 3);
        let options = DirectoryOptions {
            poll_interval: Duration::from_secs(10),
            poll_jitter: Duration::from_secs(3),
            poll_timeout: Duration::from_secs(5),
            vanished_after,
        };
        let question = match flags & 1 {
            0 => Question::Nodes,
            _ => Question::Lookup(TopicName::new("t#ephemeral").expect("a name")),
        };
        Self {
            directory: Directory::new(question, options, flags.into()),
            vanished_after,
            net: NetActions::default(),
            changes: DirectoryChanges::default(),
            now: Now::from_millis(0),
            servers: BTreeSet::new(),
            calls: BTreeMap::new(),
            asked: BTreeSet::new(),
            over: Vec::new(),
            known: BTreeMap::new(),
            rounds: 0,
        }
    }

    fn step(&mut self, what: u8, reader: &mut Reader<'_>) {
        let now = self.now;
        match what % 16 {
            0..=1 => {
                let server = SERVERS[usize::from(reader.byte() % 4)];
                let is_new = self.directory.add(server, now, &mut self.net);
                assert_eq!(is_new, Ok(self.servers.insert(server)));
            }
            2 => {
                let server = SERVERS[usize::from(reader.byte() % 4)];
                assert_eq!(self.directory.remove(server), self.servers.remove(server));
                let host = HOSTS[SERVERS.iter().position(|other| *other == server).unwrap_or(0)];
                self.forget(|asked| asked == host);
            }
            3 => {
                // Anything as an address: it can be asked, or is refused.
                let text = String::from_utf8_lossy(reader.some()).into_owned();
                if self.directory.add(&text, now, &mut self.net) == Ok(true) {
                    assert!(self.directory.remove(&text));
                    self.net.calls.pop();
                    assert_eq!(self.directory.len(), self.servers.len());
                    if self.servers.is_empty() {
                        assert_eq!(self.directory.poll_timeout(), None);
                    }
                }
            }
            4 => self.directory.ask_soon(now),
            5..=9 => {
                let Some(id) = self.call(reader.byte()) else { return };
                let result = answer(reader);
                self.answer(id, result);
            }
            10 => {
                // Once more, or by nobody who was asked.
                let at = usize::from(reader.byte()) % self.over.len().max(1);
                let Some(id) = self.over.get(at).copied() else { return };
                let result = answer(reader);
                self.directory.handle_called(
                    id,
                    result,
                    self.now,
                    &mut self.net,
                    &mut self.changes,
                );
                let (found, vanished) = (&self.changes.found, &self.changes.vanished);
                assert!(found.is_empty() && vanished.is_empty(), "it was answered before");
            }
            11 => {
                if reader.byte() == 0xFF {
                    self.directory.stop();
                    self.servers.clear();
                    self.forget(|_| true);
                }
            }
            12 => {
                let millis = u64::from(reader.byte()) * u64::from(reader.byte());
                self.elapse(Duration::from_millis(millis));
            }
            _ => {
                let Some(at) = self.directory.poll_timeout() else { return };
                self.elapse(at.saturating_since(now.instant));
            }
        }
    }

    /// Whoever is not to be asked any more may answer all the same, in vain.
    fn forget(&mut self, is_gone: impl Fn(&str) -> bool) {
        let gone = self.calls.iter().filter(|(_, host)| is_gone(host));
        self.over.extend(gone.map(|(id, _)| *id));
        self.calls.retain(|_, host| !is_gone(host));
    }

    fn answer(&mut self, id: LookupCallId, result: CallResult) {
        self.calls.remove(&id);
        self.over.push(id);
        self.directory.handle_called(id, result, self.now, &mut self.net, &mut self.changes);
        if !self.changes.vanished.is_empty() {
            assert!(self.vanished_after > 0, "nothing vanishes");
        }
    }

    fn elapse(&mut self, time: Duration) {
        self.now = self.now.after(time);
        // A round ends with its last answer, or with the next one's.
        self.rounds += 1;
        self.directory.handle_timeout(self.now, &mut self.net);
        let (next, now) = (self.directory.poll_timeout(), self.now.instant);
        assert!(next.is_none_or(|next| next > now), "a timer rings for nothing");
    }

    /// What holds after each step.
    fn look(&mut self) {
        for (id, call) in self.net.calls.drain(..) {
            assert!(self.asked.insert(id), "an id is given twice");
            assert!(call.url.target().starts_with('/'), "{:?}", call.url);
            let host = call.url.host().to_owned();
            assert!(self.calls.values().all(|other| *other != host), "{host} is asked twice");
            self.calls.insert(id, host);
        }
        assert!(self.net.is_empty(), "it connects to nobody itself");
        for address in self.changes.vanished.drain(..) {
            let since = self.known.remove(&address).expect("it was found");
            assert!(self.rounds >= since + self.vanished_after.saturating_sub(1), "{address}");
        }
        for address in self.changes.found.drain(..) {
            let (host, port) = address.rsplit_once(':').expect("an address has a port");
            assert!(port.parse::<u16>().is_ok_and(|port| port > 0), "{address}");
            assert!(!host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic()), "{address}");
            let is_new = self.known.insert(address, self.rounds).is_none();
            assert!(is_new, "found twice");
        }
        assert!(self.known.len() <= FOUND_MAX);
        for event in self.changes.events.drain(..) {
            let text = event.to_string();
            assert!(!text.is_empty() && !text.contains(char::is_control), "{text}");
        }
        assert_eq!(self.directory.len(), self.servers.len());
        assert_eq!(self.directory.poll_timeout().is_some(), !self.servers.is_empty());
    }

    /// Whoever is asked lists one nsqd from now on: that one stays, all others vanish.
    fn end(&mut self) {
        if self.servers.is_empty() {
            return;
        }
        // Some may still wait to be asked besides the rounds.
        for _ in 0..2 * (self.vanished_after + 2) + 4 {
            for id in self.calls.keys().copied().collect::<Vec<_>>() {
                let body = r#"{"producers":[{"broadcast_address":"last","tcp_port":9}]}"#.into();
                self.answer(id, Ok(CallAnswer { status: 200, body }));
            }
            self.look();
            let at = self.directory.poll_timeout().expect("somebody is to be asked");
            self.elapse(at.saturating_since(self.now.instant));
            self.look();
        }
        if self.vanished_after > 0 {
            assert_eq!(self.known.keys().collect::<Vec<_>>(), ["last:9"]);
        } else {
            assert!(self.known.contains_key("last:9") || self.known.len() == FOUND_MAX);
        }
    }

    fn call(&self, at: u8) -> Option<LookupCallId> {
        self.calls.keys().nth(usize::from(at) % self.calls.len().max(1)).copied()
    }
}

/// An answer of some kind.
fn answer(reader: &mut Reader<'_>) -> CallResult {
    let flags = reader.byte();
    let (status, body) = match flags % 8 {
        0..=3 => return peer::call_result(reader),
        4 => (200, legacy(flags)),
        5 => (403, format!(r#"{{"https_port":{}}}"#, i32::from(flags) - 100)),
        6 => (404, r#"{"message":"TOPIC_NOT_FOUND"}"#.into()),
        _ if flags & 8 == 8 => return Err(CallFailure::TooBig),
        _ => (200, many(flags)),
    };
    Ok(CallAnswer { status, body: Bytes::from(body) })
}

/// As servers before 1.0 answered.
fn legacy(flags: u8) -> String {
    let port = i32::from(flags) - 9;
    format!(
        r#"{{"status_code":200,"data":{{"producers":[null,{{"address":"n1","tcp_port":{port}}},{{"broadcast_address":"::1","tcp_port":{port}}}]}}}}"#
    )
}

/// More nsqds than are taken, if the highest bits say so.
fn many(flags: u8) -> String {
    let count = if flags >= 0xE0 { FOUND_MAX + 7 } else { usize::from(flags) };
    let list: Vec<_> =
        (0..count).map(|at| format!(r#"{{"broadcast_address":"m{at}","tcp_port":1}}"#)).collect();
    format!(r#"{{"producers":[{}]}}"#, list.join(","))
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        crate::replay_seeds("directory", super::check);
    }
}
