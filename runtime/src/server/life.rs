//! What nsqd and nsqlookupd have in common as servers: the life of one of their threads.

use core::time::Duration;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use futures_lite::future;
use sansq_core::log::Level;
use sansq_core::nsqd::ShardId;

use super::handle::Ending;
use super::turn::{Driven, Driver};
use crate::lanes::{Lanes, Mail};
use crate::listen::SocketFile;
use crate::log::Program;
use crate::runtime::{ServerRuntime, Task, Thread, within};
use crate::socket::Address;

/// A listener at work.
#[derive(Debug)]
pub(crate) struct Door<T: Thread> {
    program: Program,
    name: &'static str,
    address: Address,
    task: T::Task,
    /// Goes with the door.
    _file: Option<SocketFile>,
}

impl<T: Thread> Door<T> {
    pub(crate) fn new(
        program: Program,
        name: &'static str,
        address: Address,
        file: Option<SocketFile>,
        task: T::Task,
    ) -> Self {
        program.info(format_args!("{name}: listening on {address}"));
        Self { program, name, address, task, _file: file }
    }

    /// Stops listening.
    fn close(self) {
        self.program.info(format_args!("{}: closing {}", self.name, self.address));
        self.task.cancel();
    }
}

/// A machine's driver, with the listeners that are its part.
pub(crate) type Opened<M, T> = (Rc<Driver<M, T>>, Vec<Door<T>>);

/// A thread of a server: a runtime of its own around one machine, which `open` sets up, with the
/// listeners that are its part.
pub(crate) fn run<M: Driven, R: ServerRuntime>(
    runtime: &R,
    id: ShardId,
    lanes: Arc<Lanes>,
    open: impl FnOnce(Rc<R::Thread>) -> io::Result<Opened<M, R::Thread>>,
) -> io::Result<()> {
    let ending = Ending::new(Arc::clone(&lanes));
    let result = runtime.run(async move |thread| {
        let (driver, doors) = open(thread)?;
        let failure = async {
            driver.failed.wait().await;
            Err(io::Error::other("a task panicked"))
        };
        future::or(live(&driver, id, &lanes, doors), failure).await
    });
    if result.is_ok() {
        ending.well();
    }
    result
}

/// Answers the doorbell until the server is to end; then closes the doors, waits for the last
/// connections, and for the disk to take what is only in memory.
async fn live<M: Driven, T: Thread>(
    driver: &Rc<Driver<M, T>>,
    id: ShardId,
    lanes: &Lanes,
    doors: Vec<Door<T>>,
) -> io::Result<()> {
    let mut mail = Mail::default();
    while !lanes.is_stopping() {
        lanes.wait(id).await;
        lanes.collect(id, &mut mail);
        M::receive(driver, &mut mail);
    }
    doors.into_iter().for_each(Door::close);
    driver.shut_down();
    // Other shards may need an answer for a connection of theirs.
    let settle = async {
        while !lanes.is_empty() {
            lanes.wait(id).await;
            lanes.collect(id, &mut mail);
            M::receive(driver, &mut mail);
        }
    };
    if within::<T::Runtime, _>(STOP_TIME, settle).await.is_none() {
        let line = "TCP: gave up sending to clients that did not read in time";
        M::PROGRAM.log(Level::Warn, line);
    }
    flush(driver, id, lanes, mail).await
}

/// Has everything written to the disk that is to outlast the server.
async fn flush<M: Driven, T: Thread>(
    driver: &Rc<Driver<M, T>>,
    id: ShardId,
    lanes: &Lanes,
    mut mail: Mail,
) -> io::Result<()> {
    // What other shards had to say before the last connection was gone.
    lanes.collect(id, &mut mail);
    M::receive(driver, &mut mail);
    driver.flush();
    // Also what a timer did is heard of: a turn after which all is flushed rings.
    while !driver.look(|turn| turn.machine.is_flushed()) {
        lanes.wait(id).await;
        lanes.collect(id, &mut mail);
        M::receive(driver, &mut mail);
    }
    driver
        .look(|turn| turn.machine.flush_failure())
        .map_or(Ok(()), |why| Err(io::Error::other(why)))
}

/// How long a stopping server waits for its clients to take what is owed to them.
const STOP_TIME: Duration = Duration::from_secs(5);
