//! What sansq needs of a runtime. An adapter implements this for its own, and is done.

use core::fmt;
use core::future::{Future, poll_fn};
use core::net::IpAddr;
use core::task::{Context, Poll};
use core::time::Duration;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::time::Instant;

use bytes::BytesMut;
use futures_lite::future;
use sansq_core::nsqd::Peer;

use crate::socket::{ListenSocket, Stream};

/// A runtime as clients need it. Their tasks go to whichever thread it sends them to.
pub trait Runtime: Clone + Send + Sync + 'static {
    /// A connection over TCP that was dialled.
    type Socket: Socket + Send;

    /// Starts a task that nobody waits for, on the program's own threads.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);
    /// Is over after `time`.
    fn sleep(time: Duration) -> impl Future<Output = ()> + Send + Sync + 'static;
    /// Connects to the first of the addresses of `host:port` that takes it, from the address `from`
    /// if one is given. Small writes are to be sent at once.
    fn connect(
        &self,
        address: &str,
        from: Option<IpAddr>,
    ) -> impl Future<Output = io::Result<Self::Socket>> + Send;
}

/// A runtime as servers need it. Each of their threads runs its own tasks.
pub trait ServerRuntime: Runtime + Default + fmt::Debug {
    /// A thread of a server.
    type Thread: Thread<Runtime = Self>;

    /// Runs `life` and the tasks that it starts on the calling thread, until `life` is over.
    ///
    /// # Errors
    /// That of `life`, or the operating system's if it has no room for another runtime.
    fn run<T>(&self, life: impl AsyncFnOnce(Rc<Self::Thread>) -> io::Result<T>) -> io::Result<T>;
}

/// A thread of a server, which runs its own tasks. Nothing here goes to another thread.
pub trait Thread: fmt::Debug + 'static {
    /// The thread's runtime.
    type Runtime: ServerRuntime<Thread = Self>;
    /// A client's connection.
    type Socket: Socket + fmt::Debug;
    /// A socket that listens.
    type Listener: Listener;
    /// A task that was started.
    type Task: Task + fmt::Debug;

    /// What it is one of.
    fn runtime(&self) -> &Self::Runtime;
    /// Starts a task on this thread. It is called by `life` of [`ServerRuntime::run`], or by a
    /// task.
    fn spawn(&self, task: impl Future<Output = ()> + 'static) -> Self::Task;
    /// Lets the other tasks of the thread, and what its sockets have to say, come first.
    fn yield_now() -> impl Future<Output = ()>;
    /// Is over at `time`, exact to a millisecond. One task at a time waits for this.
    fn sleep_until(&self, time: Instant) -> impl Future<Output = ()>;
    /// Has a socket waited for on this thread.
    ///
    /// # Errors
    /// If the operating system has no room for it.
    fn adopt(&self, stream: Stream) -> io::Result<Self::Socket>;
    /// The opposite: the socket alone, for another thread.
    ///
    /// # Errors
    /// If it can't be let go.
    fn release(socket: Self::Socket) -> io::Result<Stream>;
    /// Has a listening socket waited for on this thread.
    ///
    /// # Errors
    /// If the operating system has no room for it.
    fn listen(&self, socket: ListenSocket) -> io::Result<Self::Listener>;
}

/// A task of a thread.
pub trait Task {
    /// Drops it, wherever it waits. Cancelling itself takes effect where the task waits next.
    fn cancel(self);
    /// Lets it run to its end.
    fn detach(self);
}

/// A socket that listens.
pub trait Listener: 'static {
    /// Waits for the next connection.
    fn accept(&self) -> impl Future<Output = io::Result<(Stream, Peer)>>;
}

/// A socket that is never waited for in a call, but polled for readiness. At most one task waits to
/// read from it and one to write to it.
pub trait Socket: Unpin + 'static {
    /// Waits until there may be something to read.
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Waits until there may be room to write.
    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Appends what has arrived to `input`, up to its capacity. Returns how much that was (0: the
    /// other side sends nothing more), and whether that is known to be all, which saves the call
    /// that would find it out.
    ///
    /// # Errors
    /// The operating system's reason; `WouldBlock` if there is nothing now.
    fn try_read(&self, input: &mut BytesMut) -> io::Result<(usize, bool)>;
    /// Writes some of `parts`.
    ///
    /// # Errors
    /// The operating system's reason; `WouldBlock` if there is no room now.
    fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Says that nothing more comes.
    ///
    /// # Errors
    /// The operating system's reason.
    fn shut_down_writing(&self) -> io::Result<()>;
}

/// Waits until there may be something to read.
pub(crate) async fn readable(socket: &impl Socket) -> io::Result<()> {
    poll_fn(|context| socket.poll_readable(context)).await
}

/// Waits until there may be room to write.
pub(crate) async fn writable(socket: &impl Socket) -> io::Result<()> {
    poll_fn(|context| socket.poll_writable(context)).await
}

/// The outcome of `task`, or `None` if it takes longer than `limit`.
pub(crate) async fn within<R: Runtime, T>(
    limit: Duration,
    task: impl Future<Output = T>,
) -> Option<T> {
    let late = async {
        R::sleep(limit).await;
        None
    };
    future::or(async { Some(task.await) }, late).await
}
