//! Changes that wait to be told to an nsqlookupd, in order.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::protocol::lookup::Registration;

/// A topic or channel that came or went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Change {
    Register(Registration),
    Unregister(Registration),
}

/// The changes that are not sent yet.
///
/// Changes of one topic stay in order, and the state that they lead to is the one that sending all
/// of them would lead to; what makes no difference any more is left out:
///
/// - a REGISTER that waits already and is not followed by an UNREGISTER of its topic is not queued
///   twice;
/// - the UNREGISTER of a channel turns its waiting REGISTER into one of the topic, which a REGISTER
///   of a channel implies;
/// - the UNREGISTER of a topic drops the waiting REGISTERs of the topic and its channels.
///
/// UNREGISTERs are never left out: the reference collects an ephemeral channel only when it is
/// named.
#[derive(Debug, Default)]
pub(super) struct Queue {
    changes: VecDeque<Change>,
    len_max: usize,
}

/// The queue is at its limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Full;

impl Queue {
    /// A queue of everything that exists, with room for `room` changes more.
    pub(super) fn of_all(all: Vec<Registration>, room: usize) -> Self {
        let len_max = all.len().saturating_add(room);
        Self { changes: all.into_iter().map(Change::Register).collect(), len_max }
    }

    /// Queues what exists behind what waits, and has room for `room` changes more.
    pub(super) fn register_again(&mut self, all: Vec<Registration>, room: usize) {
        self.changes.extend(all.into_iter().map(Change::Register));
        self.len_max = self.len_max.max(self.changes.len().saturating_add(room));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(super) fn register(&mut self, registration: Registration) -> Result<(), Full> {
        for change in self.changes.iter().rev() {
            match change {
                Change::Register(waiting) if *waiting == registration => return Ok(()),
                Change::Unregister(gone) if gone.topic == registration.topic => break,
                Change::Register(_) | Change::Unregister(_) => {}
            }
        }
        self.push(Change::Register(registration))
    }

    pub(super) fn unregister(&mut self, registration: Registration) -> Result<(), Full> {
        let Registration { topic, channel } = registration;
        if channel.is_none() {
            let is_moot = |c: &Change| matches!(c, Change::Register(r) if r.topic == topic);
            self.changes.retain(|change| !is_moot(change));
        } else {
            for change in &mut self.changes {
                if *change == Change::Register(registration) {
                    *change = Change::Register(Registration { topic, channel: None });
                }
            }
        }
        self.push(Change::Unregister(registration))
    }

    pub(super) fn pop(&mut self) -> Option<Change> {
        let change = self.changes.pop_front();
        if self.changes.is_empty() {
            // A full registration may have been large; what follows is not.
            self.changes.shrink_to(ROOM_KEPT);
        }
        change
    }

    fn push(&mut self, change: Change) -> Result<(), Full> {
        if self.changes.len() >= self.len_max {
            return Err(Full);
        }
        self.changes.push_back(change);
        Ok(())
    }
}

/// How much room an empty queue keeps, in changes.
const ROOM_KEPT: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{ChannelName, TopicName};
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    fn named(topic: usize, channel: Option<usize>) -> Registration {
        Registration {
            topic: TopicName::new(["t", "u"][topic]).unwrap(),
            channel: channel.map(|channel| ChannelName::new(["c", "d"][channel]).unwrap()),
        }
    }

    /// What an nsqlookupd knows after a change.
    fn apply(known: &mut BTreeSet<Registration>, change: Change) {
        match change {
            Change::Register(r) => {
                known.insert(Registration { channel: None, ..r });
                known.insert(r);
            }
            Change::Unregister(Registration { topic, channel: None }) => {
                known.retain(|r| r.topic != topic);
            }
            Change::Unregister(r) => {
                known.remove(&r);
            }
        }
    }

    #[test]
    fn what_makes_no_difference_is_left_out() {
        let mut queue = Queue::of_all(alloc::vec![named(0, Some(0))], 10);
        queue.register(named(0, Some(0))).unwrap();
        queue.register(named(1, Some(0))).unwrap();
        queue.unregister(named(0, Some(0))).unwrap();
        queue.register(named(0, Some(0))).unwrap();
        queue.unregister(named(1, None)).unwrap();
        let changes: Vec<Change> = core::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(
            changes,
            [
                Change::Register(named(0, None)),
                Change::Unregister(named(0, Some(0))),
                Change::Register(named(0, Some(0))),
                Change::Unregister(named(1, None)),
            ]
        );
    }

    #[test]
    fn the_limit_counts_what_came_later() {
        let mut queue = Queue::of_all(alloc::vec![named(0, None)], 1);
        assert_eq!(queue.register(named(0, Some(0))), Ok(()));
        assert_eq!(queue.register(named(0, Some(1))), Err(Full));
        assert_eq!(queue.register(named(0, Some(0))), Ok(()));
    }

    proptest! {
        #[test]
        fn the_end_is_the_same_as_without_leaving_out(
            start in prop::collection::vec((0..2_usize, prop::option::of(0..2_usize)), 0..4),
            steps in prop::collection::vec(
                prop::option::of((any::<bool>(), 0..2_usize, prop::option::of(0..2_usize))),
                0..20,
            ),
        ) {
            let all: Vec<_> = start.into_iter().map(|(t, c)| named(t, c)).collect();
            let (mut queue, mut sent, mut plain) =
                (Queue::of_all(all.clone(), 100), BTreeSet::new(), BTreeSet::new());
            all.into_iter().for_each(|r| apply(&mut plain, Change::Register(r)));
            for step in steps {
                let Some((comes, topic, channel)) = step else {
                    queue.pop().into_iter().for_each(|change| apply(&mut sent, change));
                    continue;
                };
                let registration = named(topic, channel);
                if comes {
                    queue.register(registration).unwrap();
                    apply(&mut plain, Change::Register(registration));
                } else {
                    queue.unregister(registration).unwrap();
                    apply(&mut plain, Change::Unregister(registration));
                }
            }
            while let Some(change) = queue.pop() {
                apply(&mut sent, change);
            }
            prop_assert_eq!(sent, plain);
        }
    }
}
