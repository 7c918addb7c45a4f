//! The storage thread of a shard, and the shard's end of it.

use core::mem;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use sansq_core::nsqd::ShardId;
use sansq_core::storage::{Done, Request};

use super::data_path::DataPath;
use super::executor::{Executor, Mailbox};
use super::folder::Folder;
use crate::lanes::Lanes;
use crate::server::Ending;

/// A shard's disk. Dropping it lets the thread end when it has done all that it was given.
#[derive(Debug)]
pub struct Disk {
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
}

impl Disk {
    pub(super) fn start(
        folder: Folder,
        asides_max: usize,
        data_path: Arc<DataPath>,
        shard: ShardId,
        lanes: Arc<Lanes>,
    ) -> io::Result<Self> {
        let inbox = Arc::new(Inbox::default());
        let desk = Desk { inbox: Arc::clone(&inbox), lanes: Arc::clone(&lanes), shard };
        let run = move || {
            let ending = Ending::new(lanes);
            let mut executor = Executor::new(folder, desk, asides_max);
            let mut batch = Vec::new();
            while executor.mailbox().wait(&mut batch) {
                executor.run(&mut batch);
            }
            ending.well();
            // Whoever locks the folder next finds everything finished.
            drop(data_path);
        };
        let thread = thread::Builder::new().name(format!("nsqd-{}-disk", shard.0)).spawn(run)?;
        Ok(Self { inbox, thread: Some(thread) })
    }

    /// Hands requests over, and leaves none. Their completions come with the shard's mail.
    ///
    /// The number that waits has no limit of its own: a queue asks for one thing after the other, and
    /// for no more while that is not done.
    pub fn submit(&self, requests: &mut Vec<Request>) {
        if requests.is_empty() {
            return;
        }
        let mut orders = self.inbox.lock();
        orders.requests.append(requests);
        if orders.is_idle {
            self.inbox.filled.notify_one();
        }
    }

    /// Waits until all that was handed over is carried out, and the thread has ended.
    pub fn finish(mut self) {
        self.close();
        if let Some(thread) = self.thread.take() {
            // A panic there has ended the server already, with its own error.
            let _ = thread.join();
        }
    }

    fn close(&self) {
        self.inbox.lock().is_closed = true;
        self.inbox.filled.notify_one();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.close();
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
pub(super) struct Desk {
    inbox: Arc<Inbox>,
    lanes: Arc<Lanes>,
    shard: ShardId,
}

impl Desk {
    /// Waits for requests, and swaps them with `batch`, which is empty. `false` if there will be none.
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
    fn fetch(&mut self, requests: &mut Vec<Request>) {
        requests.append(&mut self.inbox.lock().requests);
    }

    fn report(&mut self, done: &mut Vec<Done>) {
        self.lanes.post_done(self.shard, done);
        self.lanes.ring(self.shard);
    }
}
