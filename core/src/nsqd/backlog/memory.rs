//! The part of a backlog that is in memory: messages, and runs of messages that came in one MPUB.

use alloc::boxed::Box;

use bytes::Bytes;

use crate::fifo::Fifo;
use crate::list::MessageList;
use crate::message::{Bodies, Message, MessageId};
use crate::time::UnixNanos;

/// Fresh messages that came in one MPUB, and have one id behind the other.
#[derive(Clone, Debug)]
pub struct Run {
    /// The first one's id.
    pub first: MessageId,
    /// When the broker had read them.
    pub timestamp: UnixNanos,
    /// At least one.
    pub list: MessageList,
}

/// First in, first out.
#[derive(Debug)]
pub(super) struct Memory {
    entries: Fifo<Entry>,
    /// How many messages they are.
    len: usize,
}

/// A message, or a run, which is one allocation for many messages: so that none of them costs more
/// than it would alone.
#[derive(Debug)]
enum Entry {
    /// A message that has no record.
    Plain {
        id: MessageId,
        timestamp: UnixNanos,
        attempts: u16,
        body: Bytes,
    },
    /// One that came from the disk and back from a consumer.
    Recorded(Box<Message>),
    Run(Box<Run>),
}

// A million queued messages should cost little more than their bodies.
const _: () = assert!(size_of::<Entry>() <= 56);

impl From<Message> for Entry {
    fn from(message: Message) -> Self {
        match message {
            Message { id, timestamp, attempts, record: None, body } => {
                Self::Plain { id, timestamp, attempts, body }
            }
            message => Self::Recorded(Box::new(message)),
        }
    }
}

impl Memory {
    pub(super) const fn new() -> Self {
        Self { entries: Fifo::new(), len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn push_back(&mut self, message: Message) {
        self.len += 1;
        self.entries.push_back(message.into());
    }

    pub(super) fn push_front(&mut self, message: Message) {
        self.len += 1;
        self.entries.push_front(message.into());
    }

    pub(super) fn push_run(&mut self, run: Run) {
        self.len += run.list.len();
        self.entries.push_back(Entry::Run(Box::new(run)));
    }

    pub(super) fn pop_front(&mut self, bodies: &mut Bodies) -> Option<Message> {
        if let Some(Entry::Run(run)) = self.entries.front_mut()
            && run.list.len() > 1
        {
            self.len -= 1;
            return run.pop_front(bodies);
        }
        let entry = self.entries.pop_front()?;
        self.len -= 1;
        match entry {
            Entry::Plain { id, timestamp, attempts, body } => {
                Some(Message { id, timestamp, attempts, record: None, body })
            }
            Entry::Recorded(message) => Some(*message),
            Entry::Run(mut run) => run.pop_front(bodies),
        }
    }

    /// Takes out the run that is next, if it is one and has at most `max` messages.
    pub(super) fn pop_run(&mut self, max: usize) -> Option<Run> {
        if !matches!(self.entries.front_mut(), Some(Entry::Run(run)) if run.list.len() <= max) {
            return None;
        }
        let Some(Entry::Run(run)) = self.entries.pop_front() else { return None };
        self.len -= run.list.len();
        Some(*run)
    }

    /// Drops what came last, so that at most `len` messages are left. `dropped` is told of those
    /// that came alone.
    pub(super) fn truncate(&mut self, len: usize, mut dropped: impl FnMut(MessageId)) {
        while self.len > len
            && let Some(last) = self.entries.pop_back()
        {
            match last {
                Entry::Plain { id, .. } => {
                    self.len -= 1;
                    dropped(id);
                }
                Entry::Recorded(message) => {
                    self.len -= 1;
                    dropped(message.id);
                }
                Entry::Run(mut run) => {
                    self.len -= run.list.len();
                    let list = run.list.split_front(len.saturating_sub(self.len) as u32);
                    if !list.is_empty() {
                        self.push_run(Run { list, ..*run });
                    }
                }
            }
        }
    }

    /// How many messages were never delivered.
    pub(super) fn fresh(&self) -> usize {
        let fresh = |entry: &Entry| match entry {
            Entry::Plain { attempts, .. } => usize::from(*attempts == 0),
            Entry::Recorded(message) => usize::from(message.attempts == 0),
            Entry::Run(run) => run.list.len(),
        };
        self.entries.iter().map(fresh).sum()
    }

    /// For how many entries there is room without an allocation.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.entries.capacity()
    }
}

impl Run {
    /// Takes out the first message. A small body is copied to `bodies`.
    pub fn pop_front(&mut self, bodies: &mut Bodies) -> Option<Message> {
        let (id, body) = (self.first, self.list.pop_front(bodies)?);
        self.first = MessageId(id.0 + 1);
        Some(Message { id, timestamp: self.timestamp, attempts: 0, record: None, body })
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::VecDeque;
    use alloc::vec::Vec;
    use core::num::NonZeroU64;

    use proptest::prelude::*;

    use super::*;
    use crate::message::RecordId;

    #[derive(Clone, Debug)]
    enum Step {
        Message,
        Back,
        Front,
        Run(usize),
        Pop(usize),
        PopRun(usize),
        Truncate(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Message),
            Just(Step::Back),
            Just(Step::Front),
            (1_usize..6).prop_map(Step::Run),
            (0_usize..8).prop_map(Step::Pop),
            (0_usize..6).prop_map(Step::PopRun),
            (0_usize..30).prop_map(Step::Truncate),
        ]
    }

    fn message(id: u64) -> Message {
        let body = Bytes::from(id.to_be_bytes().to_vec());
        Message { id: MessageId(id), timestamp: UnixNanos(1), attempts: 0, record: None, body }
    }

    /// One that came back; some of them have a record.
    fn returned(id: u64) -> Message {
        Message { record: NonZeroU64::new(id % 3).map(RecordId), ..message(id) }
    }

    proptest! {
        /// It is a queue of messages, whether they came alone or together.
        #[test]
        fn as_a_plain_queue(steps in prop::collection::vec(step(), 0..60)) {
            let (mut memory, mut model) = (Memory::new(), VecDeque::new());
            let (mut bodies, mut next) = (Bodies::default(), 0);
            for step in steps {
                match step {
                    Step::Message => {
                        memory.push_back(message(next));
                        model.push_back(message(next));
                        next += 1;
                    }
                    Step::Back => {
                        memory.push_back(returned(next));
                        model.push_back(returned(next));
                        next += 1;
                    }
                    Step::Front => {
                        memory.push_front(returned(next));
                        model.push_front(returned(next));
                        next += 1;
                    }
                    Step::Run(count) => {
                        let messages: Vec<_> = (next..).take(count).map(message).collect();
                        let list = messages.iter().map(|message| &message.body).collect();
                        memory.push_run(Run { first: MessageId(next), timestamp: UnixNanos(1), list });
                        next += count as u64;
                        model.extend(messages);
                    }
                    Step::Pop(count) => for _ in 0..count {
                        prop_assert_eq!(memory.pop_front(&mut bodies), model.pop_front());
                    },
                    Step::PopRun(max) => if let Some(mut run) = memory.pop_run(max) {
                        prop_assert!((1..=max).contains(&run.list.len()));
                        while let Some(message) = run.pop_front(&mut bodies) {
                            prop_assert_eq!(Some(message), model.pop_front());
                        }
                    },
                    Step::Truncate(len) => {
                        memory.truncate(len, |_| {});
                        model.truncate(len);
                    }
                }
                prop_assert_eq!((memory.len(), memory.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(memory.fresh(), model.len());
            }
            while let Some(expected) = model.pop_front() {
                prop_assert_eq!(memory.pop_front(&mut bodies), Some(expected));
            }
            prop_assert_eq!(memory.pop_front(&mut bodies), None);
        }
    }
}
