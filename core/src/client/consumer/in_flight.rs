//! The messages that the program has and that are not answered yet (clients.md section 3.6).
//!
//! A message is let go when its time in flight is over, because the server sends it again then. Its
//! key stays known as late for a while, so that the program learns why its answer was not sent.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use super::super::actions::DialId;
use super::actions::{AnswerError, DeliveryKey};
use crate::message::MESSAGE_ID_LEN;
use crate::time::{Instant, Now};

type Id = [u8; MESSAGE_ID_LEN];

/// How long messages of a connection may be in flight.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TimeLimits {
    /// Without being touched; `None`: the server does not say, and nothing is let go.
    pub(super) msg_timeout: Option<Duration>,
    /// However often they are touched.
    pub(super) max_msg_timeout: Option<Duration>,
    /// Whether the consumer touches them by itself.
    pub(super) auto_touch: bool,
}

/// A message in flight.
#[derive(Debug)]
pub(super) struct Entry {
    serial: u64,
    pub(super) attempts: u16,
    pub(super) received_at: Instant,
    deadline: Option<Instant>,
    /// When there is something to do about it.
    wake: Option<Instant>,
    limits: TimeLimits,
}

/// What time has done to a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Due {
    /// It has been given more time, which the server is to be told.
    Touch(DeliveryKey),
    /// It is let go.
    Over(DeliveryKey),
}

#[derive(Debug, Default)]
pub(super) struct InFlight {
    entries: BTreeMap<(DialId, Id), Entry>,
    wakes: BTreeSet<(Instant, DialId, Id)>,
    late: VecDeque<u64>,
    next_serial: u64,
}

impl InFlight {
    /// A message has come. Returns its key, its deadline, and the delivery that it takes the place
    /// of: the server's clock was ahead of ours.
    pub(super) fn insert(
        &mut self,
        dial: DialId,
        id: Id,
        attempts: u16,
        limits: TimeLimits,
        now: Now,
    ) -> (DeliveryKey, Option<Instant>, Option<DeliveryKey>) {
        let serial = self.next_serial;
        self.next_serial += 1;
        let deadline = limits.msg_timeout.map(|timeout| now.instant + timeout);
        let mut entry =
            Entry { serial, attempts, received_at: now.instant, deadline, wake: None, limits };
        entry.wake = entry.next_wake();
        self.wakes.extend(entry.wake.map(|wake| (wake, dial, id)));
        let replaced = self.entries.insert((dial, id), entry).map(|old| {
            self.forget_wake(&old, dial, id);
            self.note_late(old.serial);
            DeliveryKey { dial, id, serial: old.serial }
        });
        (DeliveryKey { dial, id, serial }, deadline, replaced)
    }

    /// Takes a message out that is to be answered.
    pub(super) fn take(&mut self, key: DeliveryKey) -> Result<Entry, AnswerError> {
        self.check(key)?;
        let entry = self.entries.remove(&(key.dial, key.id)).ok_or(AnswerError::Answered)?;
        self.forget_wake(&entry, key.dial, key.id);
        Ok(entry)
    }

    /// Gives a message more time, as the server does. Returns its new deadline.
    pub(super) fn touch(
        &mut self,
        key: DeliveryKey,
        now: Now,
    ) -> Result<Option<Instant>, AnswerError> {
        self.check(key)?;
        let Some(entry) = self.entries.get_mut(&(key.dial, key.id)) else {
            return Err(AnswerError::Answered);
        };
        let old = entry.wake;
        entry.deadline = entry.touched_deadline(now).or(entry.deadline);
        entry.wake = entry.next_wake();
        let (new, deadline) = (entry.wake, entry.deadline);
        if let Some(wake) = old {
            self.wakes.remove(&(wake, key.dial, key.id));
        }
        self.wakes.extend(new.map(|wake| (wake, key.dial, key.id)));
        Ok(deadline)
    }

    fn check(&self, key: DeliveryKey) -> Result<(), AnswerError> {
        match self.entries.get(&(key.dial, key.id)) {
            Some(entry) if entry.serial == key.serial => Ok(()),
            _ if self.late.contains(&key.serial) => Err(AnswerError::TimedOut),
            _ => Err(AnswerError::Answered),
        }
    }

    /// The next message about which something is to be done.
    pub(super) fn next_due(&mut self, now: Now) -> Option<Due> {
        let (wake, dial, id) = *self.wakes.first()?;
        if wake > now.instant {
            return None;
        }
        let entry = self.entries.get(&(dial, id))?;
        let key = DeliveryKey { dial, id, serial: entry.serial };
        if entry.deadline.is_some_and(|deadline| deadline > now.instant) {
            self.touch(key, now).ok()?;
            return Some(Due::Touch(key));
        }
        self.take(key).ok()?;
        self.note_late(key.serial);
        Some(Due::Over(key))
    }

    /// When [`Self::next_due`] has something.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.wakes.first().map(|(wake, ..)| *wake)
    }

    /// Lets all messages of a connection go, and returns their ids.
    pub(super) fn give_up(&mut self, dial: DialId) -> Vec<Id> {
        let range = (dial, [0; MESSAGE_ID_LEN])..=(dial, [u8::MAX; MESSAGE_ID_LEN]);
        let ids: Vec<Id> = self.entries.range(range).map(|((_, id), _)| *id).collect();
        for id in &ids {
            if let Some(entry) = self.entries.remove(&(dial, *id)) {
                self.forget_wake(&entry, dial, *id);
                self.note_late(entry.serial);
            }
        }
        ids
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = &(DialId, Id)> {
        self.entries.keys()
    }

    fn forget_wake(&mut self, entry: &Entry, dial: DialId, id: Id) {
        if let Some(wake) = entry.wake {
            self.wakes.remove(&(wake, dial, id));
        }
    }

    fn note_late(&mut self, serial: u64) {
        if self.late.len() >= LATE_MAX {
            self.late.pop_front();
        }
        self.late.push_back(serial);
    }
}

impl Entry {
    /// The deadline that a touch gives.
    fn touched_deadline(&self, now: Now) -> Option<Instant> {
        let deadline = now.instant + self.limits.msg_timeout?;
        let latest = self.limits.max_msg_timeout.map(|timeout| self.received_at + timeout);
        Some(latest.map_or(deadline, |latest| deadline.min(latest)))
    }

    fn next_wake(&self) -> Option<Instant> {
        let deadline = self.deadline?;
        let timeout = self.limits.msg_timeout?;
        let latest = self.limits.max_msg_timeout.map(|timeout| self.received_at + timeout);
        let is_last = latest.is_some_and(|latest| deadline >= latest);
        if !self.limits.auto_touch || is_last {
            return Some(deadline);
        }
        // With a quarter of the time left the TOUCH gets there in time.
        let early = timeout / 4;
        Some(Instant::from_nanos(
            deadline.as_nanos().saturating_sub(u64::try_from(early.as_nanos()).unwrap_or(u64::MAX)),
        ))
    }
}

/// How many deliveries that were let go are remembered, so that a late answer is told apart from a
/// second one: some multiple of what is usually in flight. It is for the error's text only.
const LATE_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const DIAL: DialId = DialId(1);
    const ID: Id = [b'a'; MESSAGE_ID_LEN];

    fn limits(auto_touch: bool) -> TimeLimits {
        let max_msg_timeout = Some(Duration::from_secs(150));
        TimeLimits { msg_timeout: Some(Duration::from_secs(60)), max_msg_timeout, auto_touch }
    }

    fn at(secs: u64) -> Now {
        Now::from_millis(secs * 1000)
    }

    #[test]
    fn a_message_is_let_go_at_its_deadline_and_late_answers_are_told_apart() {
        let mut all = InFlight::default();
        let (key, deadline, _) = all.insert(DIAL, ID, 1, limits(false), at(0));
        assert_eq!((deadline, all.next_wake()), (Some(at(60).instant), deadline));
        assert_eq!(all.next_due(at(59)), None);
        assert_eq!(all.next_due(at(60)), Some(Due::Over(key)));
        assert_eq!((all.next_wake(), all.len()), (None, 0));
        assert_eq!(all.take(key).err(), Some(AnswerError::TimedOut));
        let (again, ..) = all.insert(DIAL, ID, 2, limits(false), at(61));
        assert_eq!(all.take(key).err(), Some(AnswerError::TimedOut));
        assert!(all.take(again).is_ok());
        assert_eq!(all.take(again).err(), Some(AnswerError::Answered));
    }

    #[test]
    fn a_message_that_comes_again_takes_the_place_of_the_first() {
        let mut all = InFlight::default();
        let (first, ..) = all.insert(DIAL, ID, 1, limits(false), at(0));
        let (second, _, replaced) = all.insert(DIAL, ID, 2, limits(false), at(59));
        assert_eq!(replaced, Some(first));
        assert_eq!(all.take(first).err(), Some(AnswerError::TimedOut));
        assert_eq!(all.take(second).map(|entry| entry.attempts).ok(), Some(2));
        assert_eq!(all.next_wake(), None);
    }

    #[test]
    fn touches_give_time_up_to_the_servers_limit() {
        let mut all = InFlight::default();
        let (key, ..) = all.insert(DIAL, ID, 1, limits(false), at(0));
        assert_eq!(all.touch(key, at(50)), Ok(Some(at(110).instant)));
        assert_eq!(all.touch(key, at(100)), Ok(Some(at(150).instant)));
        assert_eq!(all.next_due(at(149)), None);
        assert_eq!(all.next_due(at(150)), Some(Due::Over(key)));
        // A server that does not say gives no deadline, and nothing is let go.
        let (key, deadline, _) = all.insert(DIAL, ID, 1, TimeLimits::default(), at(0));
        assert_eq!((deadline, all.touch(key, at(1)), all.next_wake()), (None, Ok(None), None));
    }

    #[test]
    fn it_touches_by_itself_as_long_as_that_helps() {
        let mut all = InFlight::default();
        let (key, ..) = all.insert(DIAL, ID, 1, limits(true), at(0));
        let mut seen = Vec::new();
        while let Some(wake) = all.next_wake() {
            let now = Now { instant: wake, ..Now::default() };
            seen.push((wake.as_nanos() / 1_000_000_000, all.next_due(now).unwrap()));
        }
        let touch = Due::Touch(key);
        assert_eq!(seen, [(45, touch), (90, touch), (150, Due::Over(key))]);
    }

    #[test]
    fn late_keys_are_remembered_within_a_limit() {
        let mut all = InFlight::default();
        for _ in 0..2 * LATE_MAX {
            all.insert(DIAL, ID, 1, limits(false), at(0));
        }
        assert_eq!(all.give_up(DIAL), [ID]);
        assert_eq!((all.late.len(), all.len(), all.next_wake()), (LATE_MAX, 0, None));
    }
}
