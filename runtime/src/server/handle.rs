//! A server from outside: its threads, and their end.

use core::time::Duration;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;

use crate::lanes::Lanes;
use crate::listen::Listener;
use crate::log::Program;
use crate::socket::Address;
use crate::storage::{DiskThread, Engine};

/// A running server. Dropping it asks the server to end, without waiting for that.
#[derive(Debug)]
pub struct ServerHandle {
    program: Program,
    tcp_addr: Address,
    http_addr: Option<Address>,
    https_addr: Option<Address>,
    lanes: Arc<Lanes>,
    threads: Vec<thread::JoinHandle<io::Result<()>>>,
    disks: Vec<thread::JoinHandle<()>>,
    /// Gone when all of them have ended.
    disks_at_work: (Option<Sender<()>>, Receiver<()>),
}

impl ServerHandle {
    /// A server of no threads yet; [`start`](Self::start) adds them.
    pub fn new(
        program: Program,
        tcp: &Listener,
        http: Option<&Listener>,
        lanes: Arc<Lanes>,
    ) -> Self {
        let (at_work, ended) = channel();
        Self {
            program,
            tcp_addr: tcp.address.clone(),
            http_addr: http.map(|http| http.address.clone()),
            https_addr: None,
            lanes,
            threads: Vec::new(),
            disks: Vec::new(),
            disks_at_work: (Some(at_work), ended),
        }
    }

    /// The same with a listener for HTTPS.
    #[must_use]
    pub fn with_https(mut self, https: Option<&Listener>) -> Self {
        self.https_addr = https.map(|https| https.address.clone());
        self
    }

    /// Starts a thread.
    ///
    /// # Errors
    /// If the operating system refuses it. The handle is to be dropped then, which ends the others.
    pub fn start(
        &mut self,
        name: String,
        run: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        self.threads.push(thread::Builder::new().name(name).spawn(run)?);
        Ok(())
    }

    /// Starts the storage thread of a shard. It ends when the shard has, and all that was asked of
    /// it is done.
    ///
    /// # Errors
    /// If the operating system refuses it. The handle is to be dropped then, which ends the others.
    pub(crate) fn start_disk(&mut self, disk: DiskThread<impl Engine>) -> io::Result<()> {
        let name = disk.name();
        let at_work = self.disks_at_work.0.clone();
        let run = move || {
            let _at_work = at_work;
            disk.run();
        };
        self.disks.push(thread::Builder::new().name(name).spawn(run)?);
        Ok(())
    }

    /// Where NSQ's protocol is spoken.
    pub const fn tcp_addr(&self) -> &Address {
        &self.tcp_addr
    }

    /// Where the HTTP API listens, unless it is switched off.
    pub const fn http_addr(&self) -> Option<&Address> {
        self.http_addr.as_ref()
    }

    /// Where the HTTP API listens over TLS, if it does.
    pub const fn https_addr(&self) -> Option<&Address> {
        self.https_addr.as_ref()
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
        // One that failed may have failed because of a disk that does not answer.
        if result.is_ok() {
            drop(self.disks_at_work.0.take());
            if self.disks_at_work.1.recv_timeout(DISK_END_MAX) == Err(RecvTimeoutError::Timeout) {
                return Err(io::Error::other("a storage thread does not end: its disk hangs"));
            }
            for disk in self.disks.drain(..) {
                disk.join().map_err(|_| io::Error::other("a storage thread panicked"))?;
            }
            if self.program == Program::Nsqd {
                self.program.info("NSQ: stopping subsystems");
                self.program.info("NSQ: bye");
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

/// How long a storage thread may take to end that has nothing left to do.
const DISK_END_MAX: Duration = Duration::from_secs(10);

/// Ends a server.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<Lanes>);

impl Stopper {
    /// Asks the server to end, as [`ServerHandle::shut_down`] does. Asking again changes nothing.
    pub fn shut_down(&self) {
        self.0.shut_down();
    }
}

/// Ends the whole server if its thread ends badly.
#[derive(Debug)]
pub(crate) struct Ending {
    lanes: Arc<Lanes>,
    is_well: bool,
}

impl Ending {
    /// To be held by a thread of the server as long as it lives.
    pub(crate) const fn new(lanes: Arc<Lanes>) -> Self {
        Self { lanes, is_well: false }
    }

    /// The thread ends as it should.
    pub(crate) fn well(mut self) {
        self.is_well = true;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.is_well {
            self.lanes.give_up();
        }
    }
}
