//! smol and async-std as sansq needs them.

use core::fmt;
use core::future::Future;
use core::net::IpAddr;
use core::time::Duration;
use std::io;
use std::rc::{Rc, Weak};
use std::time::Instant;

use sansq_runtime::reactor::{Reactor, Socket};
use sansq_runtime::runtime::{Runtime, ServerRuntime, Task, Thread};
use sansq_runtime::socket::{ListenSocket, Stream};
use smol::{LocalExecutor, Timer, future};

use crate::net::{Dialled, Listener};

/// What clients run on, and what the threads of a server wait with.
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

/// A thread of a server: an executor for its tasks, and a reactor for its clients' sockets.
pub struct SmolThread {
    runtime: Executor,
    /// Weak, since the tasks hold it.
    executor: Weak<LocalExecutor<'static>>,
    reactor: Rc<Reactor>,
}

/// A task of such a thread.
#[derive(Debug)]
pub struct SmolTask(smol::Task<()>);

impl Runtime for Executor {
    type Socket = Dialled;

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match self {
            Self::Smol => smol::spawn(task).detach(),
            #[cfg(feature = "async-std")]
            Self::AsyncStd => drop(async_std::task::spawn(task)),
        }
    }

    async fn sleep(time: Duration) {
        Timer::after(time).await;
    }

    async fn connect(&self, address: &str, from: Option<IpAddr>) -> io::Result<Dialled> {
        Dialled::connect(address, from).await
    }
}

impl ServerRuntime for Executor {
    type Thread = SmolThread;

    fn run<T>(&self, life: impl AsyncFnOnce(Rc<SmolThread>) -> io::Result<T>) -> io::Result<T> {
        let executor = Rc::new(LocalExecutor::new());
        let reactor = Reactor::new()?;
        let thread = SmolThread {
            runtime: *self,
            executor: Rc::downgrade(&executor),
            reactor: Rc::clone(&reactor),
        };
        let task = future::or(life(Rc::new(thread)), run_tasks(&executor));
        // The thread waits with the reactor; the rest of what tasks may ask for is the executor's.
        match self {
            Self::Smol => reactor.block_on(task)?,
            #[cfg(feature = "async-std")]
            Self::AsyncStd => async_std::task::block_on(async { reactor.block_on(task) })?,
        }
    }
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

impl Thread for SmolThread {
    type Runtime = Executor;
    type Socket = Socket;
    type Listener = Listener;
    type Task = SmolTask;

    fn runtime(&self) -> &Executor {
        &self.runtime
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) -> SmolTask {
        let executor = self.executor.upgrade().expect("tasks are started by tasks");
        SmolTask(executor.spawn(task))
    }

    async fn yield_now() {
        future::yield_now().await;
    }

    async fn sleep_until(&self, time: Instant) {
        self.reactor.sleep_until(time).await;
    }

    fn adopt(&self, stream: Stream) -> io::Result<Socket> {
        Socket::new(stream, &self.reactor)
    }

    fn release(socket: Socket) -> io::Result<Stream> {
        socket.into_std()
    }

    fn listen(&self, socket: ListenSocket) -> io::Result<Listener> {
        Listener::new(socket)
    }
}

impl fmt::Debug for SmolThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmolThread").field("reactor", &self.reactor).finish_non_exhaustive()
    }
}

impl Task for SmolTask {
    fn cancel(self) {
        drop(self.0);
    }

    fn detach(self) {
        self.0.detach();
    }
}

/// Tasks between two looks at the sockets. A look costs about as much as the shortest task, the
/// longest takes a hundred times that.
const TASKS_MAX: usize = 16;
