//! The storage thread of a shard, and the shard's end of it.

#[cfg(all(test, sansq_loom))]
mod interleavings;

use core::mem;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use sansq_core::nsqd::ShardId;
use sansq_core::storage::{Completion, Request, Store};

use super::data_path::DataPath;
use super::executor::{Executor, Mailbox};
use super::folder::Folder;
use crate::lanes::Lanes;
use crate::log::Program;
use crate::meter::Meter;
use crate::server::Ending;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// A shard's end of its storage thread. Dropping it lets the thread end when it has done all that
/// it was given.
#[derive(Debug)]
pub struct Disk {
    inbox: Arc<Inbox>,
    meter: Arc<Meter>,
    /// Where the metadata is, for the log.
    metadata: PathBuf,
}

/// A storage thread that is still to be started.
#[derive(Debug)]
pub struct DiskThread {
    executor: Executor<Desk>,
    data_path: Arc<DataPath>,
}

impl Disk {
    /// A disk and its thread.
    pub(super) fn new(
        folder: Folder,
        asides_max: usize,
        data_path: Arc<DataPath>,
        shard: ShardId,
        lanes: Arc<Lanes>,
    ) -> (Self, DiskThread) {
        let inbox = Arc::new(Inbox::default());
        let metadata = data_path.path().join(Store::Metadata.to_string());
        let meter = lanes.meter(shard);
        let desk = Desk { inbox: Arc::clone(&inbox), meter: Arc::clone(&meter), lanes, shard };
        let executor = Executor::new(folder, desk, asides_max);
        (Self { inbox, meter, metadata }, DiskThread { executor, data_path })
    }

    /// Hands requests over, and leaves none. Their completions come with the shard's mail.
    ///
    /// The number that waits has no limit of its own: a queue asks for one thing after the other,
    /// and for no more while that is not done.
    pub fn submit(&self, requests: &mut Vec<Request>) {
        if requests.is_empty() {
            return;
        }
        for request in requests.iter() {
            if request.store == Store::Metadata {
                let path = self.metadata.display();
                let line = format_args!("NSQ: persisting topic/channel metadata to {path}");
                Program::Nsqd.info(line);
            }
        }
        self.meter.note_requested(requests.len());
        let mut orders = self.inbox.lock();
        orders.requests.append(requests);
        if orders.is_idle {
            self.inbox.filled.notify_one();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.inbox.lock().is_closed = true;
        self.inbox.filled.notify_one();
    }
}

impl DiskThread {
    /// Its name.
    pub fn name(&self) -> String {
        format!("nsqd-{}-disk", self.executor.mailbox().shard.0)
    }

    /// Works until the shard has dropped its end and everything is done. If it panics, the server
    /// ends.
    pub fn run(self) {
        let Self { mut executor, data_path } = self;
        let ending = Ending::new(Arc::clone(&executor.mailbox().lanes));
        let mut batch = Vec::new();
        while executor.mailbox().wait(&mut batch) {
            executor.run(&mut batch);
        }
        executor.end();
        ending.well();
        // Last: whoever locks the folder next finds everything finished.
        drop(executor);
        drop(data_path);
    }
}

/// What is between the two threads.
#[derive(Debug, Default)]
struct Inbox {
    orders: Mutex<Orders>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Orders {
    requests: Vec<Request>,
    /// Nothing more comes.
    is_closed: bool,
    /// The thread sleeps.
    is_idle: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Orders> {
        // Nothing panics while it holds the lock but an allocation that fails.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The storage thread's end.
#[derive(Debug)]
pub(super) struct Desk {
    inbox: Arc<Inbox>,
    meter: Arc<Meter>,
    lanes: Arc<Lanes>,
    shard: ShardId,
}

impl Desk {
    /// Waits for requests, and swaps them with `batch`, which is empty. `false` if there will be
    /// none.
    fn wait(&self, batch: &mut Vec<Request>) -> bool {
        let mut orders = self.inbox.lock();
        while orders.requests.is_empty() {
            if orders.is_closed {
                return false;
            }
            orders.is_idle = true;
            orders = self.inbox.filled.wait(orders).unwrap_or_else(PoisonError::into_inner);
            orders.is_idle = false;
        }
        mem::swap(&mut orders.requests, batch);
        true
    }
}

impl Mailbox for Desk {
    fn fetch(&self, requests: &mut Vec<Request>) {
        requests.append(&mut self.inbox.lock().requests);
    }

    fn report(&self, completions: &mut Vec<Completion>) {
        self.meter.note_completed(completions.len());
        self.lanes.post_completions(self.shard, completions);
        self.lanes.ring(self.shard);
    }
}
