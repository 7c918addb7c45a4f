//! What nsqd and nsqlookupd have in common as servers: the life of one of their threads.

use core::future::Future;
use core::time::Duration;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use sansq_core::log::Level;
use sansq_core::nsqd::ShardId;
use sansq_runtime::lanes::{Lanes, Mail};
use sansq_runtime::listen::SocketFile;
use sansq_runtime::socket::Address;
use sansq_runtime::storage::Patience;
use sansq_runtime::{Ending, Program};
use smol::{LocalExecutor, Task, future};

use crate::reactor::Reactor;
use crate::time::timeout;
use crate::turn::{Driven, Driver};

/// A listener at work.
#[derive(Debug)]
pub(crate) struct Door {
    program: Program,
    name: &'static str,
    address: Address,
    task: Task<()>,
    /// Goes with the door.
    _file: Option<SocketFile>,
}

impl Door {
    pub(crate) fn new(
        program: Program,
        name: &'static str,
        address: Address,
        file: Option<SocketFile>,
        task: Task<()>,
    ) -> Self {
        program.info(format_args!("{name}: listening on {address}"));
        Self { program, name, address, task, _file: file }
    }

    /// Stops listening.
    fn close(self) {
        self.program.info(format_args!("{}: closing {}", self.name, self.address));
        drop(self.task);
    }
}

/// What the threads of a server wait with.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Executor {
    /// smol.
    #[default]
    Smol,
    /// async-std. It is no longer maintained; smol is what its authors point to.
    #[cfg(feature = "async-std")]
    AsyncStd,
}

impl Executor {
    /// The thread waits with `reactor`; the rest of what tasks may ask for is the executor's.
    fn block_on<T>(
        self,
        reactor: &Reactor,
        task: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        match self {
            Self::Smol => reactor.block_on(task)?,
            #[cfg(feature = "async-std")]
            Self::AsyncStd => async_std::task::block_on(async { reactor.block_on(task) })?,
        }
    }
}

/// Where a thread's tasks are started, and what they wait with.
#[derive(Debug)]
pub(crate) struct Tasks {
    /// Weak, since the tasks hold it.
    pub(crate) executor: Weak<LocalExecutor<'static>>,
    pub(crate) reactor: Rc<Reactor>,
}

/// A thread of a server: an executor of its own around one machine, which `open` sets up, with the
/// listeners that are its part.
pub(crate) fn run<M: Driven>(
    executor: Executor,
    id: ShardId,
    lanes: Arc<Lanes>,
    open: impl FnOnce(Tasks) -> io::Result<(Rc<Driver<M>>, Vec<Door>)>,
) -> io::Result<()> {
    let ending = Ending::new(Arc::clone(&lanes));
    let tasks = Rc::new(LocalExecutor::new());
    let reactor = Reactor::new()?;
    let life = async {
        let executor = Rc::downgrade(&tasks);
        let (driver, doors) = open(Tasks { executor, reactor: Rc::clone(&reactor) })?;
        let life = live(&driver, id, &lanes, doors);
        let failure = async {
            driver.failed.wait().await;
            Err(io::Error::other("a task panicked"))
        };
        future::or(life, failure).await
    };
    let result = executor.block_on(&reactor, future::or(life, run_tasks(&tasks)));
    if result.is_ok() {
        ending.well();
    }
    result
}

/// Runs tasks for ever. `LocalExecutor::run` looks at the sockets only once in 200 tasks; while one
/// connection floods the server, that would be every 30 ms, and the others would wait for so long.
async fn run_tasks<T>(tasks: &LocalExecutor<'_>) -> T {
    loop {
        for _ in 0..TASKS_MAX {
            tasks.tick().await;
        }
        future::yield_now().await;
    }
}

/// Answers the doorbell until the server is to end; then closes the doors, waits for the last
/// connections, and for the disk to take what is only in memory.
async fn live<M: Driven>(
    driver: &Rc<Driver<M>>,
    id: ShardId,
    lanes: &Lanes,
    doors: Vec<Door>,
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
    if timeout(STOP_TIME, settle).await.is_none() {
        M::PROGRAM.log(Level::Warn, "TCP: clients did not take in time what was owed to them");
    }
    flush(driver, id, lanes, mail).await
}

/// Has everything written to the disk that is to outlast the server.
async fn flush<M: Driven>(
    driver: &Rc<Driver<M>>,
    id: ShardId,
    lanes: &Lanes,
    mut mail: Mail,
) -> io::Result<()> {
    // What other shards had to say before the last connection was gone.
    lanes.collect(id, &mut mail);
    M::receive(driver, &mut mail);
    driver.turn_with(M::flush);
    let mut patience = Patience::new(driver.clock.now());
    while !driver.look(|turn| turn.machine.is_flushed()) {
        let wait = patience.left(driver.clock.now()).inspect_err(|_| {
            let queues = driver.look(|turn| turn.machine.unflushed()).join(", ");
            M::PROGRAM.log(Level::Error, format_args!("NSQ: not written: {queues}"));
        })?;
        // The time is looked at again, whichever it was.
        let _ = timeout(wait, lanes.wait(id)).await;
        lanes.collect(id, &mut mail);
        patience.note(&mail, driver.clock.now());
        M::receive(driver, &mut mail);
    }
    match driver.look(|turn| M::lost(turn)) {
        0 => Ok(()),
        lost => {
            Err(io::Error::other(format!("{lost} messages could not be written, and are lost")))
        }
    }
}

/// Tasks between two looks at the sockets. A look costs about as much as the shortest task, the longest
/// takes a hundred times that.
const TASKS_MAX: usize = 16;

/// How long a stopping server waits for its clients to take what is owed to them.
const STOP_TIME: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use sansq_core::options::LookupdOptions;
    use sansq_runtime::ServerHandle;

    use super::*;
    use crate::Lookupd;

    #[test]
    fn a_task_that_panics_ends_its_server() {
        let options = LookupdOptions {
            tcp_address: String::from("127.0.0.1:0"),
            http_address: String::from("127.0.0.1:0"),
            ..LookupdOptions::default()
        };
        let lookupd = Lookupd::bind(options).unwrap();
        let lanes = Arc::new(Lanes::new(2));
        let mut handle =
            ServerHandle::new(Program::Nsqlookupd, &lookupd.0.tcp, None, Arc::clone(&lanes));
        handle
            .start(String::from("first"), move || {
                run(Executor::default(), ShardId(0), Arc::clone(&lanes), |tasks| {
                    let (driver, doors) = lookupd.open(lanes, tasks)?;
                    driver.spawn(async { panic!("on purpose") }).detach();
                    Ok((driver, doors))
                })
            })
            .unwrap();
        let error = handle.join().unwrap_err();
        assert_eq!(error.to_string(), "first failed - a task panicked");
    }
}
