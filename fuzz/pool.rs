//! A pool of producers at the level of its operations: nsqds that answer, refuse, vanish or send
//! anything, nsqlookupds that answer anything, callers that give up, and events that come too late.
//! Each publish completes exactly once, in time and with the truth, and a closed pool stops.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use sansq_core::client::directory::DirectoryOptions;
use sansq_core::client::{
    ClientMachine, DialId, PoolOptions, ProducerActions, ProducerEvent, ProducerOptions,
    ProducerPool, PublishError, PublishId, RetryPolicy,
};
use sansq_core::name::TopicName;
use sansq_core::time::{Instant, Now};

use crate::peer::{self, ClientCommand, Reader, STEPS_MAX, frame};

const NSQDS: u8 = 3;

/// What an nsqd refuses a publish with.
const REFUSALS: [&str; 6] = [
    "E_PUB_FAILED x",
    "E_MPUB_FAILED x",
    "E_BAD_TOPIC x",
    "E_BAD_MESSAGE x",
    "E_BAD_BODY x",
    "E_UNAUTHORIZED x",
];

/// Reads the input as options and steps.
///
/// # Panics
/// If the pool is wrong.
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

/// An nsqd that is connected.
#[derive(Debug, Default)]
struct Nsqd {
    address: String,
    buffer: BytesMut,
    /// What it was sent and has not answered: the bodies of each command.
    unanswered: Vec<Vec<String>>,
    is_greeted: bool,
    /// It has sent bytes that are none of a model's: whatever it was sent may have any outcome.
    is_wild: bool,
}

#[derive(Debug)]
struct Harness {
    pool: ProducerPool,
    out: ProducerActions,
    now: Now,
    policy: RetryPolicy,
    dials: BTreeMap<DialId, String>,
    nsqds: BTreeMap<DialId, Nsqd>,
    /// Dials and connections that are over.
    gone: Vec<DialId>,
    /// How often a message was stored, for certain or perhaps.
    stored: BTreeMap<String, usize>,
    /// What a wild nsqd was sent.
    wild: BTreeSet<String>,
    outstanding: BTreeMap<PublishId, (String, Instant)>,
    published: usize,
    last: Option<PublishId>,
}

impl Harness {
    fn new(flags: u8) -> Self {
        let policy = [RetryPolicy::NotStored, RetryPolicy::Never, RetryPolicy::Always]
            [usize::from(flags % 3)];
        let producer = ProducerOptions {
            linger: Duration::from_millis([0, 0, 1, 5][usize::from(flags / 3 % 4)]),
            max_outstanding: 20,
            max_outstanding_bytes: 2000,
            max_body_size: 300,
            ..ProducerOptions::default()
        };
        let lookupd = DirectoryOptions::default();
        let options = PoolOptions { producer, retry: policy, lookupd, ..PoolOptions::default() };
        Self {
            pool: ProducerPool::new(options, flags.into()).expect("the options are in range"),
            out: ProducerActions::default(),
            now: Now::from_millis(0),
            policy,
            dials: BTreeMap::new(),
            nsqds: BTreeMap::new(),
            gone: Vec::new(),
            stored: BTreeMap::new(),
            wild: BTreeSet::new(),
            outstanding: BTreeMap::new(),
            published: 0,
            last: None,
        }
    }

    fn step(&mut self, what: u8, reader: &mut Reader<'_>) {
        let now = self.now;
        match what % 32 {
            0..=6 => self.publish(reader),
            7..=10 => self.write(),
            11..=13 => {
                let Some((id, address)) = nth(&self.dials, reader.byte()) else { return };
                self.dials.remove(&id);
                self.nsqds.insert(id, Nsqd { address, ..Nsqd::default() });
                self.pool.handle_connected(id, now, &mut self.out);
                self.write();
                self.ok(id, reader.byte());
            }
            14 => {
                let Some((id, _)) = nth(&self.dials, reader.byte()) else { return };
                self.dials.remove(&id);
                self.gone.push(id);
                self.pool.handle_connect_failed(id, "refused", now, &mut self.out);
            }
            15..=19 => {
                let Some(id) = self.nsqd(reader.byte()) else { return };
                self.ok(id, reader.byte());
            }
            20 => {
                let Some(id) = self.nsqd(reader.byte()) else { return };
                let text = REFUSALS[usize::from(reader.byte()) % REFUSALS.len()];
                let nsqd = self.nsqds.get_mut(&id).expect("it is connected");
                if !nsqd.is_greeted || !nsqd.unanswered.is_empty() {
                    if nsqd.is_greeted {
                        nsqd.unanswered.remove(0);
                    }
                    self.input(id, &frame(1, text.as_bytes()), 3);
                }
            }
            21 => {
                let Some(id) = self.nsqd(reader.byte()) else { return };
                let cut = reader.byte();
                let bytes = reader.some();
                self.nsqds.get_mut(&id).expect("it is connected").make_wild(&mut self.wild);
                self.input(id, bytes, cut);
            }
            22 => {
                let Some(id) = self.nsqd(reader.byte()) else { return };
                self.forget(id);
                let error = (reader.byte() & 1 == 1).then_some("reset");
                self.pool.handle_closed(id, error, now, &mut self.out);
            }
            23 => {
                self.pool.add_nsqd(&address(reader.byte()), now, &mut self.out);
            }
            24 => match reader.byte() {
                flags if flags & 4 == 0 => {
                    self.pool.remove_nsqd(&address(flags), now, &mut self.out);
                }
                flags if flags & 8 == 0 => {
                    self.pool.add_nsqlookupd("l:1", now, &mut self.out).expect("it can be asked");
                }
                _ => {
                    self.pool.remove_nsqlookupd("l:1");
                }
            },
            25 => {
                let Some((id, _)) = nth(&self.outstanding, reader.byte()) else { return };
                self.outstanding.remove(&id);
                assert!(self.pool.abandon(id, now, &mut self.out));
                assert!(!self.pool.abandon(id, now, &mut self.out));
            }
            26 => {
                let millis = u64::from(reader.byte()) * u64::from(reader.byte());
                self.now = now.after(Duration::from_millis(millis));
                self.timeout();
            }
            27..=28 => {
                let Some(at) = self.pool.poll_timeout() else { return };
                self.now = now.after(at.saturating_since(now.instant));
                self.timeout();
            }
            29 => {
                let calls = core::mem::take(&mut self.out.net.calls);
                for (id, _) in calls {
                    let result = peer::call_result(reader);
                    self.pool.handle_called(id, result, now, &mut self.out);
                }
            }
            30 => {
                // Reports that were on their way when it was over.
                let Some(id) = self.gone.get(usize::from(reader.byte())).copied() else { return };
                match reader.byte() % 4 {
                    0 => {
                        self.pool.handle_connected(id, now, &mut self.out);
                        assert!(self.out.net.close.contains(&id), "nobody wants it");
                    }
                    1 => self.pool.handle_connect_failed(id, "late", now, &mut self.out),
                    2 => self.pool.handle_closed(id, None, now, &mut self.out),
                    _ => {
                        let mut late = BytesMut::from(reader.some());
                        self.pool.handle_input(id, &mut late, now, &mut self.out);
                        assert!(late.is_empty());
                    }
                }
            }
            // Rarely, or most runs would be short.
            _ => {
                if reader.byte() == 0xFF {
                    self.pool.close(now, &mut self.out);
                }
            }
        }
    }

    fn publish(&mut self, reader: &mut Reader<'_>) {
        let (flags, len) = (reader.byte(), reader.byte());
        let name = if flags & 3 == 0 { "other" } else { "topic" };
        let topic = TopicName::new(name).expect("a name");
        let body = format!("{:05}{}", self.published, "-".repeat(usize::from(len / 2)));
        let (now, out) = (self.now, &mut self.out);
        let result = match flags >> 2 & 7 {
            0 => self.pool.publish_after(
                &topic,
                Duration::from_millis(9),
                Bytes::from(body.clone()),
                now,
                out,
            ),
            1 => self.pool.publish_many(&topic, &[&body], now, out),
            _ => self.pool.publish(&topic, Bytes::from(body.clone()), now, out),
        };
        match result {
            Ok(id) => {
                assert!(self.last.is_none_or(|last| last < id), "ids rise");
                self.last = Some(id);
                self.published += 1;
                let mut deadline = now.instant + Duration::from_secs(30);
                if flags >= 0xC0 {
                    deadline = now.instant + Duration::from_millis(u64::from(reader.byte()));
                    assert!(self.pool.set_deadline(id, deadline));
                }
                self.outstanding.insert(id, (body, deadline));
            }
            Err(PublishError::Full | PublishError::Closed) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// An nsqd answers what is next.
    fn ok(&mut self, id: DialId, cut: u8) {
        let Some(nsqd) = self.nsqds.get_mut(&id) else { return };
        let answer = if !nsqd.is_greeted {
            nsqd.is_greeted = true;
            &br#"{"max_rdy_count":2500,"version":"1.3.0"}"#[..]
        } else if nsqd.unanswered.is_empty() {
            &b"_heartbeat_"[..]
        } else {
            for body in nsqd.unanswered.remove(0) {
                *self.stored.entry(body).or_default() += 1;
            }
            &b"OK"[..]
        };
        self.input(id, &frame(0, answer), cut);
    }

    /// Bytes come in two pieces.
    fn input(&mut self, id: DialId, bytes: &[u8], cut: u8) {
        let (first, second) = bytes.split_at(usize::from(cut).min(bytes.len()));
        for piece in [first, second] {
            let Some(nsqd) = self.nsqds.get_mut(&id) else { return };
            nsqd.buffer.extend_from_slice(piece);
            self.pool.handle_input(id, &mut nsqd.buffer, self.now, &mut self.out);
            self.drop_closed();
        }
    }

    fn write(&mut self) {
        self.drop_closed();
        let mut spare = b"left over".to_vec();
        for id in core::mem::take(&mut self.out.net.transmit) {
            while {
                self.pool.swap_transmit(id, self.now, &mut spare);
                !spare.is_empty()
            } {
                let nsqd = self.nsqds.get_mut(&id).expect("bytes are for a connection");
                for command in peer::commands(&spare) {
                    if let ClientCommand::Publish { bodies, size } = command {
                        assert!(size <= 300, "a batch is too long: {size}");
                        nsqd.unanswered.push(bodies);
                    }
                }
                if nsqd.is_wild {
                    nsqd.make_wild(&mut self.wild);
                }
            }
        }
    }

    fn timeout(&mut self) {
        self.pool.handle_timeout(self.now, &mut self.out);
        let (next, now) = (self.pool.poll_timeout(), self.now.instant);
        assert!(next.is_none_or(|next| next > now), "a deadline that has passed is done with");
        self.look();
        assert!(self.outstanding.values().all(|(_, at)| *at > now), "a deadline was missed");
    }

    /// Drops what the pool wants dropped, and notes what it wants dialled.
    fn drop_closed(&mut self) {
        for id in core::mem::take(&mut self.out.net.close) {
            self.forget(id);
        }
        for dial in self.out.net.dial.drain(..) {
            assert!(
                self.dials
                    .values()
                    .chain(self.nsqds.values().map(|nsqd| &nsqd.address))
                    .all(|at| *at != dial.address)
            );
            assert_eq!(self.dials.insert(dial.id, dial.address), None);
        }
    }

    /// The connection is over: what it was sent and has not answered is stored, says this nsqd.
    fn forget(&mut self, id: DialId) {
        self.gone.push(id);
        self.dials.remove(&id);
        for body in self.nsqds.remove(&id).into_iter().flat_map(|nsqd| nsqd.unanswered).flatten() {
            *self.stored.entry(body).or_default() += 1;
        }
    }

    /// What holds after each step.
    fn look(&mut self) {
        self.drop_closed();
        for event in self.out.events.drain(..) {
            assert!(!event.to_string().is_empty());
            assert!(event != ProducerEvent::Stopped || self.pool.is_stopped());
        }
        self.out.room = false;
        self.out.net.farewells.clear();
        for (id, result) in self.out.completed.drain(..) {
            let (body, _) =
                self.outstanding.remove(&id).expect("completed once, and only if taken");
            let times = self.stored.get(&body).copied().unwrap_or(0);
            if self.wild.contains(&body) {
                continue;
            }
            match result {
                Ok(()) => assert!(times > 0, "{body} is not stored"),
                Err(PublishError::NotSent(_) | PublishError::Rejected(_)) => {
                    assert_eq!(times, 0, "{body} is stored");
                }
                Err(PublishError::Unknown(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        if self.policy != RetryPolicy::Always {
            let twice =
                self.stored.iter().find(|(body, times)| **times > 1 && !self.wild.contains(*body));
            assert_eq!(twice, None, "a duplicate");
        }
        let bytes: usize = self.outstanding.values().map(|(body, _)| body.len()).sum();
        assert_eq!(self.pool.outstanding(), self.outstanding.len());
        assert!(
            self.pool.outstanding_bytes() >= bytes
                && self.pool.outstanding_bytes() <= bytes + 20 * 8
        );
        let earliest = self.outstanding.values().map(|(_, at)| *at).min();
        assert!(earliest.is_none_or(|at| self.pool.poll_timeout().is_some_and(|next| next <= at)));
    }

    fn nsqd(&self, at: u8) -> Option<DialId> {
        nth(&self.nsqds.keys().map(|id| (*id, ())).collect(), at).map(|(id, ())| id)
    }

    fn end(&mut self) {
        self.pool.close(self.now, &mut self.out);
        for _ in 0..300 {
            self.look();
            if self.pool.is_stopped() {
                break;
            }
            let at = self.pool.poll_timeout().expect("something is due");
            self.now = self.now.after(at.saturating_since(self.now.instant));
            self.timeout();
        }
        assert!(self.pool.is_stopped() && self.pool.poll_timeout().is_none());
        assert!(self.outstanding.is_empty() && self.nsqds.is_empty() && self.dials.is_empty());
    }
}

impl Nsqd {
    fn make_wild(&mut self, wild: &mut BTreeSet<String>) {
        self.is_wild = true;
        wild.extend(self.unanswered.iter().flatten().cloned());
    }
}

fn address(at: u8) -> String {
    format!("n{}:1", at % NSQDS)
}

fn nth<K: Clone, V: Clone>(of: &BTreeMap<K, V>, at: u8) -> Option<(K, V)> {
    let at = usize::from(at) % of.len().max(1);
    of.iter().nth(at).map(|(key, value)| (key.clone(), value.clone()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        crate::replay_seeds("pool", super::check);
    }
}
