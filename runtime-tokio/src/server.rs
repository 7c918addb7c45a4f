//! What nsqd and nsqlookupd have in common as servers: the life of one of their threads.

use core::time::Duration;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use sansq_core::log::Level;
use sansq_core::nsqd::ShardId;
use sansq_runtime::lanes::{Lanes, Mail};
use sansq_runtime::listen::SocketFile;
use sansq_runtime::socket::Address;
use sansq_runtime::storage::Patience;
use sansq_runtime::{Ending, Program};
use tokio::runtime::Builder;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::timeout;

use crate::turn::{Driven, Driver};

/// A listener at work.
#[derive(Debug)]
pub(crate) struct Door {
    program: Program,
    name: &'static str,
    address: Address,
    task: JoinHandle<()>,
    /// Goes with the door.
    _file: Option<SocketFile>,
}

impl Door {
    pub(crate) fn new(
        program: Program,
        name: &'static str,
        address: Address,
        file: Option<SocketFile>,
        task: JoinHandle<()>,
    ) -> Self {
        program.info(format_args!("{name}: listening on {address}"));
        Self { program, name, address, task, _file: file }
    }

    /// Stops listening.
    fn close(self) {
        self.program.info(format_args!("{}: closing {}", self.name, self.address));
        self.task.abort();
    }
}

/// A thread of a server: a runtime of its own around one machine, which `open` sets up, with the
/// listeners that are its part.
pub(crate) fn run<M: Driven>(
    id: ShardId,
    lanes: Arc<Lanes>,
    open: impl FnOnce() -> io::Result<(Rc<Driver<M>>, Vec<Door>)>,
) -> io::Result<()> {
    let ending = Ending::new(Arc::clone(&lanes));
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let result = LocalSet::new().block_on(&runtime, async move {
        let (driver, doors) = open()?;
        tokio::select! {
            ended = live(&driver, id, &lanes, doors) => ended,
            () = driver.failed.notified() => Err(io::Error::other("a task panicked")),
        }
    });
    // Look-ups of host names may still run; nobody waits for them.
    runtime.shutdown_background();
    if result.is_ok() {
        ending.well();
    }
    result
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
    if timeout(STOP_TIME, settle).await.is_err() {
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
                run(ShardId(0), Arc::clone(&lanes), || {
                    let (driver, doors) = lookupd.open(lanes)?;
                    driver.spawn(async { panic!("on purpose") });
                    Ok((driver, doors))
                })
            })
            .unwrap();
        let error = handle.join().unwrap_err();
        assert_eq!(error.to_string(), "first failed - a task panicked");
    }
}
