//! tokio as sansq needs it.

use core::future::Future;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::io::{self, ErrorKind};
use std::panic;
use std::rc::Rc;
use std::time::Instant;

use sansq_runtime::client::SetupError;
use sansq_runtime::listen::set_options;
use sansq_runtime::runtime::{Runtime, ServerRuntime, Task, Thread};
use sansq_runtime::socket::{ListenSocket, Stream};
use socket2::{Domain, Type};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::runtime::{Builder, Handle};
use tokio::task::{JoinHandle, LocalSet, spawn_local, yield_now};
use tokio::time::{sleep, sleep_until};

use crate::net::{Dialled, Listener, Socket};

/// tokio: the program's runtime for its clients, and one of its own for each thread of a server.
#[derive(Clone, Debug, Default)]
pub struct Tokio {
    /// The program's. Servers need none.
    handle: Option<Handle>,
}

/// A thread of a server, with a current-thread runtime.
#[derive(Debug)]
pub struct TokioThread(Tokio);

/// A task of such a thread.
#[derive(Debug)]
pub struct TokioTask(JoinHandle<()>);

impl Tokio {
    /// The calling thread's runtime.
    pub(crate) fn here() -> Result<Self, SetupError> {
        let handle = Handle::try_current().map_err(|_| SetupError::NoRuntime)?;
        if !is_complete() {
            return Err(SetupError::IncompleteRuntime);
        }
        Ok(Self { handle: Some(handle) })
    }
}

/// Whether this thread's runtime has I/O and time. tokio has no other way to ask.
fn is_complete() -> bool {
    panic::catch_unwind(|| {
        drop(sleep(Duration::ZERO));
        // Neither is it connected, nor is anything sent. Without a descriptor to spare nothing is
        // known, and dialling will say why.
        if let Ok(socket) = socket2::Socket::new(Domain::IPV4, Type::STREAM, None)
            && socket.set_nonblocking(true).is_ok()
        {
            drop(TcpStream::from_std(socket.into()));
        }
    })
    .is_ok()
}

impl Runtime for Tokio {
    type Socket = Dialled;

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match &self.handle {
            Some(handle) => drop(handle.spawn(task)),
            None => drop(tokio::spawn(task)),
        }
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> + Send + Sync + 'static {
        sleep(time)
    }

    async fn connect(&self, address: &str, from: Option<IpAddr>) -> io::Result<Dialled> {
        let mut result = Err(ErrorKind::AddrNotAvailable.into());
        for candidate in lookup_host(address).await? {
            let Some(socket) = open(candidate, from)? else { continue };
            result = socket.connect(candidate).await;
            if result.is_ok() {
                break;
            }
        }
        let stream = result?;
        set_options(&stream);
        Ok(Dialled(stream))
    }
}

/// A socket that comes from `local`; `None` if that is of the other kind of IP.
fn open(target: SocketAddr, local: Option<IpAddr>) -> io::Result<Option<TcpSocket>> {
    if local.is_some_and(|local| local.is_ipv4() != target.is_ipv4()) {
        return Ok(None);
    }
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(local) = local {
        socket.bind(SocketAddr::new(local, 0))?;
    }
    Ok(Some(socket))
}

impl ServerRuntime for Tokio {
    type Thread = TokioThread;

    fn run<T>(&self, life: impl AsyncFnOnce(Rc<TokioThread>) -> io::Result<T>) -> io::Result<T> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let thread = Rc::new(TokioThread(self.clone()));
        let result = LocalSet::new().block_on(&runtime, life(thread));
        // Look-ups of host names may still run; nobody waits for them.
        runtime.shutdown_background();
        result
    }
}

impl Thread for TokioThread {
    type Runtime = Tokio;
    type Socket = Socket;
    type Listener = Listener;
    type Task = TokioTask;

    fn runtime(&self) -> &Tokio {
        &self.0
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) -> TokioTask {
        TokioTask(spawn_local(task))
    }

    async fn yield_now() {
        yield_now().await;
    }

    async fn sleep_until(&self, time: Instant) {
        sleep_until(time.into()).await;
    }

    fn adopt(&self, stream: Stream) -> io::Result<Socket> {
        Socket::from_std(stream)
    }

    fn release(socket: Socket) -> io::Result<Stream> {
        socket.into_std()
    }

    fn listen(&self, socket: ListenSocket) -> io::Result<Listener> {
        Listener::from_std(socket)
    }
}

impl Task for TokioTask {
    fn cancel(self) {
        self.0.abort();
    }

    fn detach(self) {}
}
