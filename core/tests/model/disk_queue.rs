//! A queue on disk, what it should do, and a disk that breaks what it may break.
//!
//! While the process lives, everything is known exactly: what is popped, in which order, and how
//! deep the queue is. After a crash the model knows what has to be there (what was appended; if the
//! power was lost, what was synced), what may be there (what was ever pushed and not emptied), and
//! the order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use sansq_core::arena::{Key as _, TicketId};
use sansq_core::message::{Message, MessageId, RecordId};
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::rng::Rng;
use sansq_core::storage::memory::MemoryFiles;
use sansq_core::storage::{
    CLOSE_PATIENCE, DiskEvent, DiskOptions, DiskOutput, DiskQueue, Durability, Failure,
    FailureKind, Op, Popped, RequestId, RequestIds, Store, Success, Ticket,
};
use sansq_core::time::{Now, UnixNanos};

/// Something that happens to a queue. Numbers choose among what there is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// A message of this length is pushed, with somebody waiting or not.
    Push { len: u16, ticket: bool },
    /// The first message is popped.
    Pop,
    /// A message that was popped is finished.
    Finish(u8),
    /// The disk does so many of the things it was asked for.
    Disk(u8),
    /// The disk does something before what it was asked for earlier.
    Ahead(u8),
    /// The next deadline comes.
    Wait,
    /// Everything is dropped.
    Empty,
    /// The queue is closed and opened again.
    Reopen,
    /// The process dies, within an append or not, and starts again.
    Kill { torn: bool, seed: u8 },
    /// The power goes and comes back.
    PowerLoss { torn: bool, seed: u8 },
    /// From now on work of this kind fails, or all is well.
    Fault(u8),
}

#[derive(Debug, Default)]
struct Out {
    requests: RequestIds,
    asked: VecDeque<(RequestId, Op)>,
    written: Vec<(u64, bool)>,
    damage: usize,
    log: Vec<String>,
}

impl DiskOutput for Out {
    fn ask(&mut self, op: Op) -> RequestId {
        self.log.push(format!("{op:?}"));
        let id = self.requests.next_id();
        self.asked.push_back((id, op));
        id
    }

    fn stored(&mut self, ticket: Ticket, result: Result<Durability, &Failure>) {
        self.written.push((ticket.id.index().into(), result.is_ok()));
    }

    fn event(&mut self, event: DiskEvent) {
        self.log.push(format!("{event}"));
        self.damage += usize::from(matches!(
            event,
            DiskEvent::Damaged { .. } | DiskEvent::BadMeta | DiskEvent::Vanished { .. }
        ));
    }
}

/// Where a record was written.
#[derive(Clone, Copy, Debug)]
struct RecordPlace {
    file: u64,
    offset: u64,
    /// It would survive a loss of power.
    is_synced: bool,
}

const NOWHERE: RecordPlace = RecordPlace { file: u64::MAX, offset: 0, is_synced: false };

/// The queue, its disk, and what should be in it.
#[derive(Debug)]
pub(crate) struct Model {
    queue: DiskQueue,
    out: Out,
    files: MemoryFiles,
    store: Store,
    options: DiskOptions,
    now: Now,
    next_id: u64,
    /// Pushed and neither popped nor refused, in order.
    waiting: VecDeque<u64>,
    /// Waiting, and somebody is to be told what becomes of them.
    tickets: BTreeSet<u64>,
    /// Popped and not finished.
    popped: Vec<(u64, Option<RecordId>)>,
    /// Appended and neither finished nor emptied.
    appended: BTreeMap<u64, RecordPlace>,
    /// Somebody was told that it is written, or it was popped.
    promised: BTreeSet<u64>,
    /// Data files of which a sync failed: what is in them may be lost whatever happens later.
    suspect: BTreeSet<u64>,
    /// May be found after a crash.
    possible: BTreeSet<u64>,
    /// What may be found until it is removed from the disk: emptied.
    emptied: Vec<BTreeSet<u64>>,
    has_crashed: bool,
    has_lost_power: bool,
    /// Something that was synced is gone: a sync had failed, and then the power.
    is_damaged: bool,
    /// There was trouble, and so perhaps a probe behind the records. Where it is not cut off before
    /// a crash, it is found.
    has_probed: bool,
    /// Everything that was asked and said, for comparing runs.
    pub(crate) log: Vec<String>,
}

pub(crate) const OPTIONS: DiskOptions = DiskOptions {
    max_bytes_per_file: 600,
    sync_every: 8,
    sync_timeout: core::time::Duration::from_secs(2),
    // What the steps push is shorter: only records of messages that may be published are taken for
    // torn ones.
    max_msg_size: 2048,
    max_delay: core::time::Duration::from_secs(3600),
};

impl Model {
    pub(crate) fn new(options: DiskOptions) -> Self {
        let topic = TopicName::new("t").expect("a name");
        let store = Store::Queue(topic, ChannelName::new("c").ok());
        let mut out = Out::default();
        let queue = DiskQueue::open(options, &mut out);
        let mut model = Self {
            queue,
            out,
            files: MemoryFiles::new(),
            store,
            options,
            now: Now::from_millis(5),
            next_id: 0,
            waiting: VecDeque::new(),
            tickets: BTreeSet::new(),
            popped: Vec::new(),
            appended: BTreeMap::new(),
            promised: BTreeSet::new(),
            suspect: BTreeSet::new(),
            possible: BTreeSet::new(),
            emptied: Vec::new(),
            has_crashed: false,
            has_lost_power: false,
            is_damaged: false,
            has_probed: false,
            log: Vec::new(),
        };
        model.settle();
        model
    }

    /// Does one step and checks everything.
    ///
    /// # Panics
    /// If the queue is wrong.
    pub(crate) fn step(&mut self, step: Step) {
        match step {
            Step::Push { len, ticket } => self.push(len, ticket),
            Step::Pop => self.pop(),
            Step::Finish(which) => self.finish(which),
            Step::Disk(count) => {
                for _ in 0..count {
                    self.disk();
                }
            }
            Step::Ahead(which) => self.disk_ahead(which),
            Step::Wait => {
                self.wait();
            }
            Step::Empty => self.empty(),
            Step::Reopen => self.reopen(),
            Step::Kill { torn, seed } => {
                self.crash(torn, seed);
                self.open(false);
            }
            Step::PowerLoss { torn, seed } => {
                let mut rng = self.crash(torn, seed);
                self.files.lose_power(&mut rng);
                self.open(true);
            }
            Step::Fault(kind) => self.fault(kind),
        }
        self.check();
    }

    fn push(&mut self, len: u16, ticket: bool) {
        if self.queue.room() == 0 && ticket {
            return;
        }
        assert!(usize::from(len) < self.options.max_msg_size, "too long to be published");
        let id = self.next_id;
        self.next_id += 1;
        self.waiting.push_back(id);
        self.possible.insert(id);
        if ticket {
            self.tickets.insert(id);
        }
        let ticket = ticket.then(|| Ticket::publish(TicketId::new(id as u32, 0)));
        self.queue.push(&message(id, len), ticket, self.now, &mut self.out);
        self.tell();
    }

    fn pop(&mut self) {
        let was_ready = self.queue.has_ready();
        let popped = self.queue.pop(self.now, &mut self.out);
        assert_eq!(popped.is_some(), was_ready);
        let Some(Popped { message, due }) = popped else { return };
        let id = message.id.0;
        assert_eq!(Some(id), self.waiting.pop_front());
        assert_eq!((due, message.timestamp), (None, UnixNanos(id as i64)));
        // There is no checksum: holes in what was not synced can come out as zeros.
        let may_be = |byte: u8| byte == id as u8 || self.has_lost_power && byte == 0;
        assert!(message.body.iter().all(|byte| may_be(*byte)));
        assert!(!self.tickets.contains(&id), "{id} was popped before anybody knew that it lasts");
        assert!(message.record.is_some() || !self.appended.contains_key(&id));
        if message.record.is_some() {
            self.promised.insert(id);
        }
        self.popped.push((id, message.record));
    }

    fn finish(&mut self, which: u8) {
        if self.popped.is_empty() {
            return;
        }
        let (id, record) = self.popped.remove(usize::from(which) % self.popped.len());
        self.appended.remove(&id);
        self.promised.remove(&id);
        if let Some(record) = record {
            self.queue.finish(record, self.now, &mut self.out);
        }
        self.tell();
    }

    /// The disk does one of the things that need not wait for an earlier one.
    fn disk_ahead(&mut self, which: u8) {
        let asked = &self.out.asked;
        let is_free = |at: &usize| {
            let op = &asked[*at].1;
            asked.iter().take(*at).all(|(_, earlier)| !op.depends_on(earlier))
        };
        let free: Vec<_> = (0..asked.len()).filter(is_free).collect();
        if !free.is_empty() {
            self.disk_at(free[usize::from(which) % free.len()]);
        }
    }

    /// The disk does the next thing. `false` if there is none.
    fn disk(&mut self) -> bool {
        self.disk_at(0)
    }

    fn disk_at(&mut self, at: usize) -> bool {
        self.has_probed |= self.queue.failure().is_some();
        let Some((id, op)) = self.out.asked.remove(at) else { return false };
        let result = self.files.execute(&self.store, &op);
        self.note(&op, &result);
        self.queue.handle(id, result, self.now, &mut self.out);
        self.tell();
        true
    }

    /// What the outcome of an operation means for what has to be found.
    fn note(&mut self, op: &Op, result: &Result<Success, Failure>) {
        match op {
            Op::Append { file, offset, data, .. } => {
                // What lies behind goes in any case: nobody knows how far one that fails came.
                let promised = &self.promised;
                self.appended.retain(|id, place| {
                    let is_cut = place.file == *file && place.offset >= *offset;
                    assert!(!is_cut || !promised.contains(id), "{id} was promised and cut off");
                    !is_cut
                });
                if result.is_err() {
                    return;
                }
                let mut offset = *offset;
                for (id, len) in records(&data.concat()) {
                    if self.possible.contains(&id) && !self.emptied.iter().any(|e| e.contains(&id))
                    {
                        self.appended
                            .insert(id, RecordPlace { file: *file, offset, is_synced: false });
                    }
                    offset += len;
                }
            }
            Op::Sync { file } if result.is_err() => {
                self.suspect.insert(*file);
            }
            Op::Sync { file } if !self.suspect.contains(file) => {
                for place in self.appended.values_mut().filter(|place| place.file == *file) {
                    place.is_synced = true;
                }
            }
            Op::RemoveAll => {
                let emptied = self.emptied.remove(0);
                if result.is_ok() {
                    self.possible.retain(|id| !emptied.contains(id));
                }
            }
            Op::Open
            | Op::Read { .. }
            | Op::Remove { .. }
            | Op::Replace { .. }
            | Op::SetAside { .. }
            | Op::Sync { .. } => {}
        }
    }

    /// Takes in what the queue said.
    fn tell(&mut self) {
        for (id, is_written) in self.out.written.drain(..) {
            assert!(self.tickets.remove(&id), "{id} was told twice");
            if is_written {
                let is_known = self.appended.contains_key(&id)
                    || self.emptied.iter().any(|emptied| emptied.contains(&id));
                assert!(is_known, "{id} was promised and is not on disk");
                self.promised.insert(id);
            } else {
                self.waiting.retain(|waiting| *waiting != id);
            }
        }
        self.log.append(&mut self.out.log);
    }

    fn wait(&mut self) -> bool {
        let Some(at) = self.queue.poll_timeout() else { return false };
        self.now = self.now.after(at.saturating_since(self.now.instant));
        self.queue.handle_timeout(self.now, &mut self.out);
        self.tell();
        true
    }

    fn settle(&mut self) {
        while self.disk() {}
    }

    fn empty(&mut self) {
        // Emptying ends the trouble, and a probe may be under way.
        self.has_probed |= self.queue.failure().is_some();
        self.waiting.clear();
        self.popped.clear();
        self.appended.clear();
        self.promised.clear();
        let asked = |out: &Out| out.asked.iter().filter(|(_, op)| *op == Op::RemoveAll).count();
        let before = asked(&self.out);
        self.queue.empty(self.now, &mut self.out);
        match self.emptied.last_mut() {
            // The request before does for this one too.
            Some(last) if asked(&self.out) == before => last.clone_from(&self.possible),
            _ => self.emptied.push(self.possible.clone()),
        }
        self.tell();
        assert!(self.queue.is_empty());
    }

    /// Closes the queue on a disk that is well, and opens it again.
    fn reopen(&mut self) {
        self.files.faults = Default::default();
        self.files.capacity = None;
        self.settle();
        let until = self.now.instant + CLOSE_PATIENCE;
        self.queue.close(&[], until, self.now, &mut self.out);
        self.tell();
        self.settle();
        for _ in 0..100 {
            if self.queue.is_closed() {
                break;
            }
            self.wait();
            self.settle();
        }
        assert!(self.queue.is_closed(), "{:?}", self.queue);
        assert!(self.tickets.is_empty());
        for id in &self.waiting {
            let is_written = self.appended.contains_key(id) || self.is_damaged;
            assert!(is_written, "{id} was not written by a clean stop");
        }
        // What is written of an empty queue is right again, whatever was wrong before.
        self.is_damaged &= !self.waiting.is_empty();
        self.open(false);
    }

    /// The process dies, after a part of the next thing that the disk had to do.
    fn crash(&mut self, torn: bool, seed: u8) -> Rng {
        let mut rng = Rng::new(seed.into());
        self.has_crashed = true;
        if torn && let Some((_, op)) = self.out.asked.pop_front() {
            self.files.tear(&self.store, &op, &mut rng);
            if let Op::Append { file, offset, .. } = op {
                // What lies behind is cut off in any case.
                let cut = Op::Append { file, offset, data: Vec::new(), sync: false };
                self.note(&cut, &Ok(Success::Stored(Durability::Written)));
            }
        }
        self.files.faults = Default::default();
        self.files.capacity = None;
        rng
    }

    /// Opens the queue anew, and compares what is in it with what should be.
    fn open(&mut self, is_power_lost: bool) {
        let (found, depth, is_damaged) = self.look();
        self.has_probed |= self.queue.failure().is_some();
        self.is_damaged |= is_damaged || is_power_lost && !self.suspect.is_empty();
        let mut sorted = found.clone();
        sorted.sort_unstable();
        sorted.dedup();
        // A disk that failed to sync may bring back what was cut off a file and written again in
        // the next.
        assert!(found == sorted || self.is_damaged, "out of order, or twice: {found:?}");
        for id in &found {
            assert!(self.possible.contains(id), "{id} was invented");
        }
        for (id, place) in &self.appended {
            // Who comes upon a hole leaves out what is behind it in that file.
            let is_in_holes = self.is_damaged && self.suspect.contains(&place.file);
            let has_to_be = (place.is_synced || !is_power_lost) && !is_in_holes;
            assert!(!has_to_be || found.binary_search(id).is_ok(), "{id} is lost");
        }
        assert!(self.is_damaged || depth == found.len() as u64, "{depth} is not {}", found.len());
        self.has_lost_power |= is_power_lost;
        let may_be_damaged = self.has_lost_power || self.has_probed;
        assert!(may_be_damaged || !is_damaged, "a healthy disk was called damaged");

        self.out = Out::default();
        self.queue = DiskQueue::open(self.options, &mut self.out);
        // What emptying did not come to is as it was.
        self.emptied.clear();
        self.tickets.clear();
        self.popped.clear();
        // A process that starts again finds what is on disk; only that lasts which is synced. Of a
        // file that the disk did not keep whole, records behind a hole come only as far as the
        // framing leads.
        let is_sound = |id: &&u64| {
            let place = self.appended.get(id);
            !self.is_damaged
                || place.is_some_and(|place| place.is_synced && !self.suspect.contains(&place.file))
        };
        self.appended = found
            .iter()
            .filter(is_sound)
            .map(|id| (*id, self.appended.get(id).copied().unwrap_or(NOWHERE)))
            .map(|(id, place)| {
                (id, RecordPlace { is_synced: place.is_synced || is_power_lost, ..place })
            })
            .collect();
        self.promised.retain(|id| self.appended.contains_key(id));
        self.waiting = found.into();
        self.settle();
    }

    /// What somebody finds who takes everything out of a copy of the disk, how much it was said to
    /// be, and whether something was damaged.
    fn look(&self) -> (Vec<u64>, u64, bool) {
        let mut files = self.files.clone();
        let mut out = Out::default();
        let mut queue = DiskQueue::open(self.options, &mut out);
        while let Some((id, op)) = out.asked.pop_front() {
            queue.handle(id, files.execute(&self.store, &op), self.now, &mut out);
        }
        let (mut found, depth) = (Vec::new(), queue.depth());
        loop {
            if let Some(popped) = queue.pop(self.now, &mut out) {
                found.push(popped.message.id.0);
                continue;
            }
            let Some((id, op)) = out.asked.pop_front() else { break };
            queue.handle(id, files.execute(&self.store, &op), self.now, &mut out);
        }
        assert!(queue.is_empty() && queue.depth() == 0);
        (found, depth, out.damage > 0)
    }

    fn fault(&mut self, kind: u8) {
        self.files.faults = Default::default();
        self.files.capacity = None;
        let fault = Some(FailureKind::Other);
        match kind % 7 {
            0 => self.files.faults.append = fault,
            1 => self.files.faults.sync = fault,
            2 => self.files.faults.replace = fault,
            3 => self.files.faults.read = fault,
            4 => {
                let used: usize = self
                    .files
                    .names()
                    .filter_map(|name| self.files.get(name))
                    .map(<[u8]>::len)
                    .sum();
                self.files.capacity = Some(used as u64 + 200);
            }
            _ => {}
        }
    }

    fn check(&self) {
        // After a crash there may be bytes in sight of which only reading tells that they are
        // nothing.
        let (depth, waiting) = (self.queue.depth(), self.waiting.len() as u64);
        let is_in_doubt = self.has_crashed && depth == waiting + 1;
        if !self.is_damaged && !is_in_doubt {
            assert_eq!(depth, waiting, "depth");
        }
        assert!(waiting == 0 || !self.queue.is_empty());
        assert!(waiting > 0 || self.queue.is_empty() || is_in_doubt || self.is_damaged);
        assert!(depth >= waiting || self.is_damaged);
        assert!(self.out.asked.len() < 100, "{:?}", self.out.asked);
    }

    /// Ends a run: the disk is well, everything is taken out, and nothing is left to do.
    pub(crate) fn end(&mut self) {
        self.step(Step::Fault(6));
        for _ in 0..10_000 {
            self.settle();
            if !self.wait() {
                break;
            }
        }
        assert!(self.queue.poll_timeout().is_none() && self.tickets.is_empty());
        while !self.queue.is_empty() {
            let before = self.waiting.len();
            self.step(Step::Pop);
            let is_working = self.disk();
            assert!(
                is_working || self.queue.is_empty() || self.waiting.len() < before,
                "stuck: {:?}",
                self.queue
            );
        }
        while !self.popped.is_empty() {
            self.step(Step::Finish(0));
        }
        self.step(Step::Reopen);
        assert!(self.queue.is_empty());
        let records: usize = self
            .files
            .names()
            .filter(|name| !name.ends_with(".bad"))
            .filter(|name| name.contains(".diskqueue.0"))
            .count();
        assert!(records <= 1, "{records} data files are left of nothing");
    }
}

fn message(id: u64, len: u16) -> Message {
    let body = Bytes::from(vec![id as u8; usize::from(len) + 1]);
    Message { id: MessageId(id), timestamp: UnixNanos(id as i64), attempts: 0, record: None, body }
}

/// The ids and lengths of the records in the bytes of an append. There is none in a probe, which is
/// of zeros.
fn records(mut bytes: &[u8]) -> Vec<(u64, u64)> {
    let mut records = Vec::new();
    if bytes.iter().all(|byte| *byte == 0) {
        return records;
    }
    while let Some((size, rest)) = bytes.split_first_chunk::<4>() {
        let (record, behind) = rest.split_at(u32::from_be_bytes(*size) as usize);
        let id = MessageId::parse(&record[10..26]).expect("an id").0;
        records.push((id, record.len() as u64 + 4));
        bytes = behind;
    }
    records
}
