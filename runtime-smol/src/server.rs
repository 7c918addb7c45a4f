//! What nsqd and nsqlookupd have in common as servers: listeners, threads, and their end.

use core::future::Future;
use core::net::SocketAddr;
use core::time::Duration;
use std::io;
use std::net::TcpListener;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::thread;

use sansq_core::log::Level;
use sansq_core::nsqd::ShardId;
use smol::{LocalExecutor, Task, future};

use crate::lanes::{Lanes, Mail};
use crate::log::Program;
use crate::net;
use crate::time::timeout;
use crate::turn::{Driver, Machine};

/// A running server. Dropping it asks the server to end, without waiting for that.
#[derive(Debug)]
pub struct ServerHandle {
    tcp_addr: SocketAddr,
    http_addr: Option<SocketAddr>,
    lanes: Arc<Lanes>,
    threads: Vec<thread::JoinHandle<io::Result<()>>>,
}

impl ServerHandle {
    pub(crate) fn new(tcp: &Listener, http: Option<&Listener>, lanes: Arc<Lanes>) -> Self {
        Self {
            tcp_addr: tcp.address,
            http_addr: http.map(|http| http.address),
            lanes,
            threads: Vec::new(),
        }
    }

    /// Starts a thread. If that fails, the handle is to be dropped, which ends the others.
    pub(crate) fn start(
        &mut self,
        name: String,
        run: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        self.threads.push(thread::Builder::new().name(name).spawn(run)?);
        Ok(())
    }

    /// Where NSQ's protocol is spoken.
    pub const fn tcp_addr(&self) -> SocketAddr {
        self.tcp_addr
    }

    /// Where the HTTP API listens, unless it is switched off.
    pub const fn http_addr(&self) -> Option<SocketAddr> {
        self.http_addr
    }

    /// Asks the server to end: it stops listening, sends what it owes, closes its connections.
    pub fn shut_down(&self) {
        self.lanes.shut_down();
    }

    /// Something to end the server with while another thread waits for it in [`join`](Self::join).
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.lanes))
    }

    /// Whether its threads have ended, by themselves or because they were asked to.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(thread::JoinHandle::is_finished)
    }

    /// Waits for the end, however it comes about.
    ///
    /// # Errors
    /// If a thread failed. Then the others have ended as well.
    pub fn join(mut self) -> io::Result<()> {
        let mut result = Ok(());
        for thread in self.threads.drain(..) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("panicked")));
            if let Err(error) = ended
                && result.is_ok()
            {
                result = Err(io::Error::new(error.kind(), format!("{name} failed - {error}")));
            }
        }
        result
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.lanes.shut_down();
    }
}

/// Ends a server.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<Lanes>);

impl Stopper {
    /// Asks the server to end, as [`ServerHandle::shut_down`] does. Asking again changes nothing.
    pub fn shut_down(&self) {
        self.0.shut_down();
    }
}

/// A listener that is open and accepts nothing yet.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Listener {
    pub(crate) fn open(address: &str) -> io::Result<Self> {
        let socket = net::listen(address)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }
}

/// A listener at work.
#[derive(Debug)]
pub(crate) struct Door {
    program: Program,
    name: &'static str,
    address: SocketAddr,
    task: Task<()>,
}

impl Door {
    pub(crate) fn new(
        program: Program,
        name: &'static str,
        address: SocketAddr,
        task: Task<()>,
    ) -> Self {
        program.info(format_args!("{name}: listening on {address}"));
        Self { program, name, address, task }
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
    fn block_on<T>(self, task: impl Future<Output = T>) -> T {
        match self {
            Self::Smol => smol::block_on(task),
            #[cfg(feature = "async-std")]
            Self::AsyncStd => async_std::task::block_on(task),
        }
    }
}

/// Where a thread's tasks are started. Weak, since the tasks hold it.
pub(crate) type Tasks = Weak<LocalExecutor<'static>>;

/// A thread of a server: an executor of its own around one machine, which `open` sets up, with the
/// listeners that are its part.
pub(crate) fn run<M: Machine>(
    executor: Executor,
    id: ShardId,
    lanes: Arc<Lanes>,
    open: impl FnOnce(Tasks) -> io::Result<(Rc<Driver<M>>, Vec<Door>)>,
) -> io::Result<()> {
    let mut ending = Ending { lanes: Arc::clone(&lanes), is_well: false };
    let tasks = Rc::new(LocalExecutor::new());
    let result = executor.block_on(tasks.run(async {
        let (driver, doors) = open(Rc::downgrade(&tasks))?;
        let life = async {
            live(&driver, id, &lanes, doors).await;
            Ok(())
        };
        let failure = async {
            driver.failed.wait().await;
            Err(io::Error::other("a task panicked"))
        };
        future::or(life, failure).await
    }));
    ending.is_well = result.is_ok();
    result
}

/// Answers the doorbell until the server is to end; then closes the doors, and waits for the last
/// connections.
async fn live<M: Machine>(driver: &Rc<Driver<M>>, id: ShardId, lanes: &Lanes, doors: Vec<Door>) {
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
}

/// Ends the whole server if its thread ends badly.
struct Ending {
    lanes: Arc<Lanes>,
    is_well: bool,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.is_well {
            self.lanes.give_up();
        }
    }
}

/// How long a stopping server waits for its clients to take what is owed to them.
const STOP_TIME: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use sansq_core::options::LookupdOptions;

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
        let mut handle = ServerHandle {
            tcp_addr: lookupd.tcp_addr(),
            http_addr: None,
            lanes: Arc::clone(&lanes),
            threads: Vec::new(),
        };
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
