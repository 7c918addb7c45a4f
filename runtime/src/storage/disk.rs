//! The storage thread of a shard, and the shard's end of it.

#[cfg(all(test, sansq_loom))]
mod interleavings;

use core::mem;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use sansq_core::nsqd::ShardId;
use sansq_core::storage::{Completion, Request, Store};

use super::engine::Engine;
use super::executor::Mailbox;
use crate::lanes::Lanes;
use crate::log::Program;
use crate::meter::Meter;
use crate::server::Ending;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// A shard's end of its storage thread. Dropping it lets the thread end when it has done all that
/// it was given.
#[derive(Debug)]
pub(crate) struct Disk {
    inbox: Arc<Inbox>,
    meter: Arc<Meter>,
    /// Where the list of topics and channels is kept, for the log.
    list_path: PathBuf,
}

/// A storage thread that is still to be started.
#[derive(Debug)]
pub(crate) struct DiskThread<E> {
    engine: E,
    desk: Desk,
}

impl Disk {
    /// The two ends of the storage thread of a shard, on which `engine` is to run.
    pub(crate) fn new<E: Engine>(
        engine: E,
        list_path: PathBuf,
        shard: ShardId,
        lanes: Arc<Lanes>,
    ) -> (Self, DiskThread<E>) {
        let (inbox, meter) = (Arc::new(Inbox::default()), lanes.meter(shard));
        let desk = Desk { inbox: Arc::clone(&inbox), meter: Arc::clone(&meter), lanes, shard };
        (Self { inbox, meter, list_path }, DiskThread { engine, desk })
    }

    /// Hands requests over, and leaves none. Their completions come with the shard's mail.
    ///
    /// The number that waits has no limit of its own: a queue asks for one thing after the other,
    /// and for no more while that is not done.
    pub(crate) fn submit(&self, requests: &mut Vec<Request>) {
        if requests.is_empty() {
            return;
        }
        for request in requests.iter() {
            if request.store == Store::Metadata {
                let path = self.list_path.display();
                Program::Nsqd
                    .info(format_args!("NSQ: persisting topic/channel metadata to {path}"));
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

impl<E: Engine> DiskThread<E> {
    /// Its name.
    pub(crate) fn name(&self) -> String {
        format!("nsqd-{}-disk", self.desk.shard.0)
    }

    /// Works until the shard has dropped its end and everything is done. If it panics, the server
    /// ends.
    pub(crate) fn run(self) {
        let Self { engine, desk } = self;
        let ending = Ending::new(Arc::clone(&desk.lanes));
        engine.run(desk);
        ending.well();
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

/// An engine's end of a storage thread: where requests come from, and completions go to.
#[derive(Clone, Debug)]
pub struct Desk {
    inbox: Arc<Inbox>,
    meter: Arc<Meter>,
    lanes: Arc<Lanes>,
    shard: ShardId,
}

impl Desk {
    /// Waits for requests, and swaps them with `batch`, which is empty. `false` if there will be
    /// none. Only one thread may wait at a time.
    pub fn wait(&self, batch: &mut Vec<Request>) -> bool {
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

    /// Appends what was asked for meanwhile; never waits.
    pub fn fetch(&self, requests: &mut Vec<Request>) {
        requests.append(&mut self.inbox.lock().requests);
    }

    /// Hands completions over, and leaves none.
    pub fn report(&self, completions: &mut Vec<Completion>) {
        self.meter.note_completed(completions.len());
        self.lanes.post_completions(self.shard, completions);
        self.lanes.ring(self.shard);
    }
}

impl Mailbox for Desk {
    fn fetch(&self, requests: &mut Vec<Request>) {
        self.fetch(requests);
    }

    fn report(&self, completions: &mut Vec<Completion>) {
        self.report(completions);
    }
}
