//! What is done when the last of its messages is in memory or on disk: publishes are answered, and
//! a topic forgets what it handed on.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::arena::{Arena, TicketId, TopicId};
use crate::message::RecordId;
use crate::nsqd::publish::{NotPublished, Origin};
use crate::nsqd::topic::Volume;
use crate::storage::{Durability, Failure, Ticket};

/// The publishes that wait for the disk, and the one that is being carried out: bounded by what
/// clients may have unanswered. The messages that topics handed on and channels have not written:
/// bounded by the room of the channels' disks.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    open: Arena<TicketId, Pending>,
    /// Records that their topics need no longer; the shard tells them before its call returns.
    pub(super) moved: Vec<(TopicId, RecordId)>,
    /// Publishes that were accepted; the shard has their topics count them before its call returns.
    pub(super) accepted: Vec<(TopicId, Volume)>,
}

#[derive(Debug)]
struct Pending {
    whose: Whose,
    /// The records that are not written yet, and the publish itself until all of it is put.
    missing: u32,
    failure: Option<Box<str>>,
}

#[derive(Debug)]
enum Whose {
    Publisher(Origin, TopicId, Volume),
    Topic(TopicId, RecordId),
}

impl Tickets {
    /// A publish to a topic begins.
    pub(super) fn begin(&mut self, origin: Origin, topic: TopicId, volume: Volume) -> Ticket {
        Ticket::publish(self.insert(Whose::Publisher(origin, topic, volume)))
    }

    /// A topic hands on a message that it has a record of.
    pub(super) fn begin_move(&mut self, topic: TopicId, record: RecordId) -> Ticket {
        Ticket::handed_on(self.insert(Whose::Topic(topic, record)))
    }

    fn insert(&mut self, whose: Whose) -> TicketId {
        self.open.insert(Pending { whose, missing: 1, failure: None })
    }

    /// One record of it goes to disk.
    pub(super) fn hold(&mut self, ticket: Ticket) {
        if let Some(pending) = self.open.get_mut(ticket.id) {
            pending.missing += 1;
        }
    }

    /// A record of it is as safe as that, or is given up; or all of it is put. If nothing is
    /// missing any more of a publish: whom to tell what.
    pub(super) fn release(
        &mut self,
        ticket: Ticket,
        result: Result<Durability, &Failure>,
    ) -> Option<(Origin, Result<(), NotPublished>)> {
        if result.is_ok_and(|reached| reached < ticket.until) {
            return None;
        }
        let pending = self.open.get_mut(ticket.id)?;
        if let Err(failure) = result {
            pending.failure.get_or_insert_with(|| failure.in_words());
        }
        pending.missing -= 1;
        if pending.missing > 0 {
            return None;
        }
        let Pending { whose, failure, .. } = self.open.remove(ticket.id)?;
        match whose {
            Whose::Publisher(origin, topic, volume) => {
                let outcome = failure.map_or(Ok(()), |text| Err(NotPublished::Disk(text)));
                if outcome.is_ok() {
                    self.accepted.push((topic, volume));
                }
                Some((origin, outcome))
            }
            // A channel that was closed without it: the topic has it on disk, and keeps it.
            Whose::Topic(..) if failure.is_some() => None,
            Whose::Topic(topic, record) => {
                self.moved.push((topic, record));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Key;
    use crate::nsqd::ids::{ReplyToken, ShardId};
    use crate::storage::FailureKind;
    use alloc::format;
    use alloc::string::String;
    use proptest::prelude::*;

    /// What a ticket is for, by number, and what of it is open.
    struct Open {
        ticket: Ticket,
        whose: Result<u64, (TopicId, RecordId)>,
        missing: u32,
        failure: Option<String>,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Begin,
        Move,
        Hold(prop::sample::Index),
        Release(prop::sample::Index, bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Begin),
            1 => Just(Step::Move),
            3 => any::<prop::sample::Index>().prop_map(Step::Hold),
            6 => any::<(prop::sample::Index, bool)>().prop_map(|(at, ok)| Step::Release(at, ok)),
        ]
    }

    proptest! {
        /// Everybody hears once, when the last of theirs is there, and of the first failure; what
        /// is asked of a ticket that is done with changes nothing, whoever has its slot now. What
        /// was accepted is counted, and nothing else.
        #[test]
        fn each_is_told_once_and_in_the_end(steps in prop::collection::vec(step(), 0..150)) {
            let mut tickets = Tickets::default();
            let (mut all, mut moved): (Vec<Open>, _) = (Vec::new(), Vec::new());
            let mut accepted = Vec::new();
            for (n, step) in (1..).zip(steps) {
                match step {
                    Step::Begin => {
                        let ticket = tickets.begin(origin(n), TopicId::new(n as u32, 1), volume(n));
                        all.push(Open { ticket, whose: Ok(n), missing: 1, failure: None });
                    }
                    Step::Move => {
                        let record = RecordId(core::num::NonZeroU64::new(n).unwrap());
                        let topic = TopicId::new(n as u32, 0);
                        let ticket = tickets.begin_move(topic, record);
                        let whose = Err((topic, record));
                        all.push(Open { ticket, whose, missing: 1, failure: None });
                    }
                    Step::Hold(at) if !all.is_empty() => {
                        let open = at.get_mut(&mut all);
                        tickets.hold(open.ticket);
                        open.missing += u32::from(open.missing > 0);
                    }
                    Step::Release(at, is_ok) if !all.is_empty() => {
                        let open = at.get_mut(&mut all);
                        let text = format!("failure {n}");
                        let failure = Failure { kind: FailureKind::Full, text: text.as_str().into() };
                        let result = if is_ok { Ok(Durability::Written) } else { Err(&failure) };
                        let told = tickets.release(open.ticket, result);
                        let mut expected = None;
                        if open.missing > 0 {
                            if !is_ok {
                                open.failure.get_or_insert_with(|| format!("disk full - {text}"));
                            }
                            open.missing -= 1;
                            match (open.missing, open.whose) {
                                (0, Ok(token)) => {
                                    let failure = open.failure.as_deref();
                                    let outcome =
                                        failure.map_or(Ok(()), |text| Err(NotPublished::Disk(text.into())));
                                    if outcome.is_ok() {
                                        let topic = TopicId::new(token as u32, 1);
                                        accepted.push((topic, volume(token)));
                                    }
                                    expected = Some((origin(token), outcome));
                                }
                                (0, Err(record)) if open.failure.is_none() => moved.push(record),
                                _ => {}
                            }
                        }
                        prop_assert_eq!(told, expected);
                    }
                    Step::Hold(_) | Step::Release(..) => {}
                }
                prop_assert_eq!(&tickets.moved, &moved);
                prop_assert_eq!(&tickets.accepted, &accepted);
                let open = all.iter().filter(|open| open.missing > 0);
                prop_assert_eq!(tickets.open.len(), open.count());
            }
        }
    }

    fn origin(token: u64) -> Origin {
        Origin::Admin { shard: ShardId(0), token: ReplyToken(token) }
    }

    fn volume(n: u64) -> Volume {
        Volume { messages: n, bytes: 10 * n }
    }

    #[test]
    fn a_publish_is_complete_when_nothing_is_missing() {
        let mut tickets = Tickets::default();
        let topic = TopicId::new(1, 1);
        let begin = |tickets: &mut Tickets, n| tickets.begin(origin(n), topic, volume(n));
        let (first, second) = (begin(&mut tickets, 1), begin(&mut tickets, 2));
        tickets.hold(first);
        tickets.hold(first);
        assert_eq!(tickets.release(first, Ok(Durability::Written)), None);
        assert_eq!(tickets.release(second, Ok(Durability::Written)), Some((origin(2), Ok(()))));
        let failure = Failure { kind: FailureKind::Full, text: "full".into() };
        assert_eq!(tickets.release(first, Err(&failure)), None);
        let refused = Err(NotPublished::Disk("disk full - full".into()));
        assert_eq!(tickets.release(first, Ok(Durability::Written)), Some((origin(1), refused)));
        // It is gone, and its slot used anew.
        let third = begin(&mut tickets, 3);
        assert_eq!(tickets.release(first, Ok(Durability::Written)), None);
        assert_eq!(tickets.release(third, Ok(Durability::Written)), Some((origin(3), Ok(()))));
        assert_eq!(tickets.accepted, [(topic, volume(2)), (topic, volume(3))]);
    }

    #[test]
    fn what_is_less_safe_than_it_has_to_be_is_waited_for() {
        let mut tickets = Tickets::default();
        let topic = TopicId::new(1, 1);
        let levels =
            [Durability::Memory, Durability::Written, Durability::Synced, Durability::Remote];
        for (n, until) in (0..).zip(levels) {
            for reached in levels {
                let ticket = Ticket { until, ..tickets.begin(origin(n), topic, volume(n)) };
                let told = tickets.release(ticket, Ok(reached));
                assert_eq!(told.is_some(), reached >= until, "{reached:?} for {until:?}");
            }
        }
    }

    #[test]
    fn a_record_that_was_handed_on_is_reported_in_the_end() {
        let mut tickets = Tickets::default();
        let (topic, record) = (TopicId::new(3, 4), RecordId(core::num::NonZeroU64::MIN));
        let ticket = tickets.begin_move(topic, record);
        tickets.hold(ticket);
        assert_eq!(
            (tickets.release(ticket, Ok(Durability::Written)), tickets.moved.len()),
            (None, 0)
        );
        assert_eq!(tickets.release(ticket, Ok(Durability::Written)), None);
        assert_eq!(tickets.moved, [(topic, record)]);
    }
}
