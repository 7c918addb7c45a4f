use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec;
use core::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::arena::{Key, TicketId};
use crate::name::TopicName;
use crate::storage::memory::MemoryFiles;
use crate::storage::{DiskEvent, Op, RequestIds, Store};

#[derive(Clone, Debug)]
enum Step {
    /// A fresh message, due after so many milliseconds if it is deferred.
    Put(Option<u16>),
    /// So many fresh messages at once.
    PutRun(usize),
    Pop,
    /// At most so many at once, if they came together.
    PopRun(usize),
    /// What was popped can't be handed on.
    PopInVain,
    PutBack(Index),
    Finish(Index),
    DropExcess,
    /// The disk answers one request, or all.
    Complete,
    Settle,
    Pass(u16),
    Empty,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::option::weighted(0.2, 0..5000_u16).prop_map(Step::Put),
        2 => (1..5_usize).prop_map(Step::PutRun),
        6 => Just(Step::Pop),
        1 => (0..5_usize).prop_map(Step::PopRun),
        1 => Just(Step::PopInVain),
        2 => any::<Index>().prop_map(Step::PutBack),
        2 => any::<Index>().prop_map(Step::Finish),
        2 => Just(Step::DropExcess),
        6 => Just(Step::Complete),
        1 => Just(Step::Settle),
        1 => (0..3000_u16).prop_map(Step::Pass),
        1 => prop::bool::weighted(0.2).prop_map(|is| if is { Step::Empty } else { Step::Settle }),
    ]
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Dropped,
    Disk,
    Nowhere,
}

#[derive(Debug, Default)]
struct Out {
    requests: RequestIds,
    asked: VecDeque<(RequestId, Op)>,
    held: Vec<Ticket>,
    written: Vec<Ticket>,
    bodies: Bodies,
}

impl DiskOutput for Out {
    fn ask(&mut self, op: Op) -> RequestId {
        let id = self.requests.next_id();
        self.asked.push_back((id, op));
        id
    }

    fn stored(&mut self, ticket: Ticket, result: Result<Durability, &Failure>) {
        assert!(result.is_ok_and(|reached| reached >= ticket.until));
        self.written.push(ticket);
    }

    fn event(&mut self, _: DiskEvent) {}
}

impl BacklogOutput for Out {
    fn hold(&mut self, ticket: Ticket) {
        self.held.push(ticket);
    }

    fn bodies(&mut self) -> &mut Bodies {
        &mut self.bodies
    }
}

/// A backlog on a disk in memory, and what is known of it.
struct Harness {
    backlog: Backlog,
    kind: Kind,
    limit: usize,
    out: Out,
    files: MemoryFiles,
    now: Now,
    next_id: u64,
    /// The messages that wait, in the order in which they came. Without a disk they leave in that
    /// order.
    waiting: VecDeque<MessageId>,
    /// Those of them that were never popped.
    fresh: BTreeSet<MessageId>,
    due: BTreeMap<MessageId, Instant>,
    popped: Vec<Message>,
}

impl Harness {
    fn new(kind: Kind, limit: usize) -> Self {
        let options = DiskOptions {
            // A file for every few messages.
            max_bytes_per_file: 100,
            sync_every: 3,
            sync_timeout: Duration::from_secs(1),
            max_msg_size: 1024,
            max_delay: Duration::from_secs(3600),
        };
        let beyond = match kind {
            Kind::Dropped => Beyond::Dropped,
            Kind::Disk => Beyond::Disk(options),
            Kind::Nowhere => Beyond::Nowhere,
        };
        let mut out = Out::default();
        Self {
            backlog: Backlog::new(limit, beyond, &mut out),
            kind,
            limit: if kind == Kind::Disk { limit } else { limit.max(1) },
            out,
            files: MemoryFiles::new(),
            now: Now::from_millis(1),
            next_id: 1,
            waiting: VecDeque::new(),
            fresh: BTreeSet::new(),
            due: BTreeMap::new(),
            popped: Vec::new(),
        }
    }

    fn step(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Put(delay) if self.backlog.room() > 0 => {
                let (id, timestamp) = (MessageId(self.next_id), now.unix);
                self.next_id += 1;
                let body = Bytes::from_static(b"twenty bytes of body");
                let message = Message { id, timestamp, attempts: 0, record: None, body };
                let due = delay.map(|delay| now.after(Duration::from_millis(delay.into())).instant);
                let (room, asked) = (self.backlog.memory_room(), self.out.asked.len());
                self.backlog.put(
                    message,
                    due,
                    Some(Ticket::publish(TicketId::new(id.0 as u32, 0))),
                    now,
                    &mut self.out,
                );
                assert!(room == 0 || self.out.asked.len() == asked, "there was room in memory");
                self.waiting.push_back(id);
                self.fresh.insert(id);
                self.due.extend(due.map(|due| (id, due)));
            }
            Step::PutRun(count) => {
                if count <= self.backlog.memory_room().min(self.backlog.room()) {
                    let (first, asked) = (MessageId(self.next_id), self.out.asked.len());
                    let list = (0..count).map(|_| b"twenty bytes of body").collect();
                    self.backlog.put_run(Run { first, timestamp: now.unix, list });
                    assert_eq!(self.out.asked.len(), asked, "there was room in memory");
                    self.next_id += count as u64;
                    let ids = (first.0..self.next_id).map(MessageId);
                    self.waiting.extend(ids.clone());
                    self.fresh.extend(ids);
                }
            }
            Step::PopRun(max) => {
                if let Some(mut run) = self.backlog.pop_run(max) {
                    assert!((1..=max).contains(&run.list.len()));
                    while let Some(message) = run.pop_front(&mut self.out.bodies) {
                        assert_eq!(self.waiting.pop_front(), Some(message.id), "in order");
                        assert!(
                            self.fresh.remove(&message.id) && !self.due.contains_key(&message.id)
                        );
                        self.popped.push(message);
                    }
                }
            }
            Step::Put(_) => assert!(self.waiting.len() >= self.limit && self.kind == Kind::Nowhere),
            Step::Pop => {
                self.pop();
            }
            Step::PopInVain => {
                if self.pop() {
                    let message = self.popped.pop().expect("it was put there");
                    let id = message.id;
                    self.backlog.undo_pop(message);
                    self.waiting.push_front(id);
                    // It comes next, whatever else there is.
                    assert!(self.pop() && self.popped.last().is_some_and(|last| last.id == id));
                }
            }
            Step::PutBack(at) if !self.popped.is_empty() => {
                let mut message = self.popped.swap_remove(at.index(self.popped.len()));
                message.attempts += 1;
                self.waiting.push_back(message.id);
                self.backlog.put_back(message);
            }
            Step::Finish(at) if !self.popped.is_empty() => {
                let message = self.popped.swap_remove(at.index(self.popped.len()));
                self.backlog.finish(message.record, now, &mut self.out);
            }
            Step::PutBack(_) | Step::Finish(_) => {}
            Step::DropExcess => {
                self.backlog.drop_excess();
                if self.kind == Kind::Dropped {
                    for id in self.waiting.drain(self.limit.min(self.waiting.len())..) {
                        self.fresh.remove(&id);
                        self.due.remove(&id);
                    }
                }
            }
            Step::Complete => {
                self.complete();
            }
            Step::Settle => while self.complete() {},
            Step::Pass(millis) => {
                self.now = now.after(Duration::from_millis(millis.into()));
                self.backlog.handle_timeout(self.now, &mut self.out);
            }
            Step::Empty => {
                self.backlog.empty(now, &mut self.out);
                self.waiting.clear();
                self.fresh.clear();
                self.due.clear();
                // The owner forgets what it has as well.
                self.popped.clear();
            }
        }
    }

    /// Whether something was popped; what it has to be is checked.
    fn pop(&mut self) -> bool {
        let Some((message, due)) = self.backlog.pop(self.now, &mut self.out) else {
            assert!(self.waiting.is_empty() || self.kind == Kind::Disk);
            return false;
        };
        let id = message.id;
        let at = self.waiting.iter().position(|other| *other == id);
        let at = at.expect("it waits, and is not popped for the second time");
        assert!(at == 0 || self.kind == Kind::Disk, "the order of coming");
        self.waiting.remove(at);
        if let Some(first) = self.fresh.first().copied().filter(|_| self.fresh.contains(&id)) {
            assert_eq!(id, first, "the order of publishing");
            self.fresh.remove(&id);
        }
        assert_eq!(due, self.due.remove(&id));
        self.popped.push(message);
        true
    }

    /// Whether there was a request.
    fn complete(&mut self) -> bool {
        let Some((id, op)) = self.out.asked.pop_front() else { return false };
        let store = Store::Queue(TopicName::new("t").expect("a name"), None);
        let result = self.files.execute(&store, &op);
        self.backlog.handle(id, result, self.now, &mut self.out);
        true
    }

    fn check(&self) {
        let backlog = &self.backlog;
        assert_eq!(backlog.len(), self.waiting.len() as u64);
        assert_eq!(backlog.is_empty(), self.waiting.is_empty());
        assert_eq!(
            backlog.deferred(),
            self.due.len(),
            "due times of what waits, and of nothing else"
        );
        let in_memory = backlog.len() - backlog.on_disk();
        assert!(backlog.fresh() <= self.limit || self.kind == Kind::Dropped);
        assert!(self.kind == Kind::Disk || in_memory == backlog.len());
    }
}

proptest! {
    /// What waits comes once, fresh messages in the order of publishing and with their due times,
    /// whichever part of them was on disk and however slow that is; each publish hears of its disk
    /// once.
    #[test]
    fn nothing_is_lost_and_the_order_is_kept(
        kind in prop::sample::select(alloc::vec![Kind::Dropped, Kind::Disk, Kind::Disk, Kind::Nowhere]),
        limit in 0..6_usize,
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut world = Harness::new(kind, limit);
        for step in steps {
            world.step(step);
            world.check();
        }
        while !world.waiting.is_empty() {
            let before = world.waiting.len();
            while world.complete() {}
            while world.pop() {}
            world.check();
            prop_assert!(world.waiting.len() < before || !world.out.asked.is_empty(), "it is stuck");
        }
        world.step(Step::Settle);
        let (mut held, mut written) = (world.out.held, world.out.written);
        held.sort_unstable();
        written.sort_unstable();
        prop_assert_eq!(held, written);
    }
}

#[test]
fn a_dropped_message_takes_its_due_time_along() {
    let mut world = Harness::new(Kind::Dropped, 2);
    for _ in 0..1000 {
        world.step(Step::Put(Some(1000)));
        world.step(Step::DropExcess);
        world.check();
    }
    assert_eq!(world.backlog.deferred(), 2);
}
