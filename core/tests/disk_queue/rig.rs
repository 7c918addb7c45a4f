//! A queue on a disk in memory: requests wait until a test has them carried out.

use std::collections::VecDeque;

use bytes::Bytes;
use sansq_core::arena::{Key as _, TicketId};
use sansq_core::message::{Message, MessageId, RecordId};
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::storage::memory::MemoryFiles;
use sansq_core::storage::{
    CLOSE_PATIENCE, DiskEvent, DiskOptions, DiskOutput, DiskQueue, Durability, Failure, Op, Popped,
    RequestId, RequestIds, Store, Success, Ticket,
};
use sansq_core::time::{Instant, Now, UnixNanos};

pub(crate) const OPTIONS: DiskOptions = DiskOptions {
    max_bytes_per_file: 100 * 1024 * 1024,
    sync_every: 2500,
    sync_timeout: core::time::Duration::from_secs(2),
    max_msg_size: 1024 * 1024,
    max_delay: core::time::Duration::from_secs(3600),
};

/// What a queue asked for.
#[derive(Debug, Default)]
pub(crate) struct Out {
    requests: RequestIds,
    pub(crate) asked: VecDeque<(RequestId, Op)>,
    pub(crate) written: Vec<(Ticket, bool)>,
    pub(crate) events: Vec<DiskEvent>,
}

impl DiskOutput for Out {
    fn ask(&mut self, op: Op) -> RequestId {
        let id = self.requests.next_id();
        self.asked.push_back((id, op));
        id
    }

    fn stored(&mut self, ticket: Ticket, result: Result<Durability, &Failure>) {
        self.written.push((ticket, result.is_ok()));
    }

    fn event(&mut self, event: DiskEvent) {
        self.events.push(event);
    }
}

#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) queue: DiskQueue,
    pub(crate) out: Out,
    pub(crate) files: MemoryFiles,
    pub(crate) store: Store,
    pub(crate) options: DiskOptions,
    pub(crate) now: Now,
}

impl Rig {
    /// A queue `t:c` on an empty disk, opened.
    pub(crate) fn new(options: DiskOptions) -> Self {
        Self::over(queue("t", Some("c")), options, MemoryFiles::new())
    }

    /// A queue on what there is, opened.
    pub(crate) fn over(store: Store, options: DiskOptions, files: MemoryFiles) -> Self {
        let mut rig = Self::unopened(store, options, files);
        rig.settle();
        rig
    }

    pub(crate) fn unopened(store: Store, options: DiskOptions, files: MemoryFiles) -> Self {
        let mut out = Out::default();
        let queue = DiskQueue::open(options, &mut out);
        Self { queue, out, files, store, options, now: Now::from_millis(1) }
    }

    /// Carries the next request out. `false` if there is none.
    pub(crate) fn step(&mut self) -> bool {
        let Some((id, op)) = self.out.asked.pop_front() else { return false };
        let result = self.files.execute(&self.store, &op);
        self.complete(id, result);
        true
    }

    pub(crate) fn complete(&mut self, id: RequestId, result: Result<Success, Failure>) {
        self.queue.handle(id, result, self.now, &mut self.out);
    }

    /// What is asked for and not carried out, in order.
    pub(crate) fn asked(&self) -> impl Iterator<Item = &Op> {
        self.out.asked.iter().map(|(_, op)| op)
    }

    /// Carries all requests out.
    pub(crate) fn settle(&mut self) {
        while self.step() {}
    }

    /// Time passes until the queue's next deadline. `false` if it has none.
    pub(crate) fn wait(&mut self) -> bool {
        let Some(at) = self.queue.poll_timeout() else { return false };
        let passed = at.saturating_since(self.now.instant);
        self.now = self.now.after(passed);
        self.queue.handle_timeout(self.now, &mut self.out);
        true
    }

    /// Carries everything out, all deadlines included, as long as there are any.
    pub(crate) fn rest(&mut self) {
        self.settle();
        for _ in 0..1000 {
            if !self.wait() {
                return;
            }
            self.settle();
        }
        panic!("it never comes to rest: {:?}", self.queue);
    }

    pub(crate) fn push(&mut self, message: &Message, ticket: Option<Ticket>) {
        self.queue.push(message, ticket, self.now, &mut self.out);
    }

    /// Pushes a message with this body, and has it written.
    pub(crate) fn put(&mut self, id: u64, body: &[u8]) {
        self.push(&message(id, body), None);
        self.settle();
    }

    pub(crate) fn pop(&mut self) -> Option<Popped> {
        self.queue.pop(self.now, &mut self.out)
    }

    /// Pops, reading as long as that helps.
    pub(crate) fn next(&mut self) -> Option<Popped> {
        loop {
            let popped = self.pop();
            if popped.is_some() || !self.step() {
                return popped;
            }
        }
    }

    pub(crate) fn finish(&mut self, record: RecordId) {
        self.queue.finish(record, self.now, &mut self.out);
    }

    /// Pops and finishes everything, and says what it was.
    pub(crate) fn drain(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(Popped { mut message, .. }) = self.next() {
            if let Some(record) = message.record.take() {
                self.finish(record);
            }
            messages.push(message);
        }
        self.settle();
        messages
    }

    /// Closes the queue and gives back the disk.
    pub(crate) fn close(mut self, deferred: &[(MessageId, Instant)]) -> MemoryFiles {
        let until = self.now.instant + CLOSE_PATIENCE;
        self.queue.close(deferred, until, self.now, &mut self.out);
        self.settle();
        assert!(self.queue.is_closed());
        assert_eq!(self.queue.poll_timeout(), None);
        self.files
    }

    /// Opens the queue anew on the same disk.
    pub(crate) fn reopen(self, files: MemoryFiles) -> Self {
        Self::over(self.store, self.options, files)
    }

    /// What the meta file holds, in one line.
    pub(crate) fn meta(&self) -> Option<String> {
        meta(&self.files, &self.store)
    }
}

pub(crate) fn meta(files: &MemoryFiles, store: &Store) -> Option<String> {
    let name = store.file(sansq_core::storage::File::Meta).to_string();
    let text = core::str::from_utf8(files.get(&name)?).expect("it is text");
    Some(text.trim_end().replace('\n', " "))
}

/// The ticket of a publish.
pub(crate) fn published(number: u64) -> Ticket {
    Ticket::publish(TicketId::new(number as u32, 0))
}

/// The ticket of a message that another queue keeps.
pub(crate) fn kept(number: u64) -> Ticket {
    Ticket::handed_on(TicketId::new(number as u32, 0))
}

pub(crate) fn queue(topic: &str, channel: Option<&str>) -> Store {
    let channel = channel.map(|channel| ChannelName::new(channel).expect("a name"));
    Store::Queue(TopicName::new(topic).expect("a name"), channel)
}

pub(crate) fn message(id: u64, body: &[u8]) -> Message {
    let (id, timestamp) = (MessageId(id), UnixNanos(1_795_352_174_000_000_000 + id as i64));
    Message { id, timestamp, attempts: 0, record: None, body: Bytes::copy_from_slice(body) }
}

pub(crate) fn ids(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.id.0).collect()
}
