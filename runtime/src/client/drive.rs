//! The tasks that a client runs on: one driver, and one for each connection.

use core::future::{self, Future, poll_fn};
use core::mem;
use core::net::IpAddr;
use core::pin::pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;

use bytes::BytesMut;
use futures_lite::future as lite;
use sansq_core::client::{ClientMachine, Dial, DialId};

use super::machine::Client;
use super::setup::NetConfig;
use super::shared::{Order, Shared, Work};
use crate::call;
use crate::io::is_passing;
use crate::listen::error_text;
use crate::runtime::{Runtime, Socket};

/// Drives a client until it has stopped.
pub(super) fn drive<R: Runtime, C: Client>(
    runtime: R,
    net: NetConfig,
    shared: Arc<Shared<C>>,
) -> impl Future<Output = ()> + Send {
    // Made here and not in the task, which a runtime that ends may drop before it has begun.
    work(runtime, net, Ending(shared))
}

async fn work<R: Runtime, C: Client>(runtime: R, net: NetConfig, ending: Ending<C>) {
    let shared = &ending.0;
    // The runtime's time stands still, as tokio's can in tests: then a sleep is over at once when
    // there is nothing else to do. Limits stand still, too, until something happens; this would
    // spin otherwise.
    let mut is_frozen = false;
    loop {
        while let Some(work) = shared.take_work() {
            start(&runtime, &net, shared, work);
        }
        while let Some(task) = shared.next_task() {
            runtime.spawn(task);
        }
        if shared.is_done() {
            break;
        }
        let deadline = shared.arm();
        let late = async {
            match deadline {
                Some(deadline) if !is_frozen => {
                    let wait = deadline.saturating_since(shared.clock().instant());
                    R::sleep(wait).await;
                }
                _ => future::pending().await,
            }
            true
        };
        let rung = async {
            shared.rung().await;
            false
        };
        let is_late = lite::or(rung, late).await;
        let left = deadline.map(|at| at.saturating_since(shared.clock().instant()));
        is_frozen = is_late && left.is_some_and(|left| left > EARLY_MAX);
        if is_late && !is_frozen {
            read_first::<R, C>(shared).await;
            shared.turn(|client, now, out| client.machine_mut().handle_timeout(now, out));
        }
    }
}

/// What has arrived is read before a deadline is judged that it may have kept: all of the program
/// may have been asleep, or the thread blocked that was to read.
async fn read_first<R: Runtime, C: Client>(shared: &Shared<C>) {
    if !shared.ask_to_read() {
        return;
    }
    lite::or(shared.all_read(), R::sleep(READ_TIME)).await;
    // The others' tasks have not run yet. Whatever else is due is not to wait for them.
    shared.postpone(POSTPONED);
}

/// Also when the runtime drops the task, nobody must wait any longer.
struct Ending<C: Client>(Arc<Shared<C>>);

impl<C: Client> Drop for Ending<C> {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn start<R: Runtime, C: Client>(runtime: &R, net: &NetConfig, shared: &Arc<Shared<C>>, work: Work) {
    let shared = Arc::clone(shared);
    match work {
        Work::Dial(dial) => {
            runtime.spawn(connect(runtime.clone(), net.local_address, shared, dial));
        }
        Work::Call(id, call) => {
            let (caller, tls) = (runtime.clone(), net.http_tls.clone());
            runtime.spawn(async move {
                let result = call::carry_out(&caller, &call, tls).await;
                shared.turn(|client, now, out| {
                    client.machine_mut().handle_called(id, result, now, out)
                });
            });
        }
    }
}

/// One connection from the dialling to its end.
async fn connect<R: Runtime, C: Client>(
    runtime: R,
    from: Option<IpAddr>,
    shared: Arc<Shared<C>>,
    dial: Dial,
) {
    let Dial { id, address } = dial;
    let connect = async {
        let mut connecting = pin!(runtime.connect(&address, from));
        let connected = poll_fn(|context| {
            let outcome = connecting.as_mut().poll(context);
            if outcome.is_pending() {
                shared.has_read(id);
            }
            outcome
        });
        Some(connected.await)
    };
    let gone = async {
        shared.gone(id).await;
        None
    };
    let socket = match lite::or(gone, connect).await {
        None => return,
        Some(Ok(socket)) => socket,
        Some(Err(error)) => {
            let text = format!("dial tcp {address}: connect: {}", error_text(&error));
            shared.forget(id);
            shared.turn(|client, now, out| {
                client.machine_mut().handle_connect_failed(id, &text, now, out)
            });
            return;
        }
    };
    shared.turn(|client, now, out| client.machine_mut().handle_connected(id, now, out));
    let mut talk = Talk {
        id,
        socket,
        input: BytesMut::new(),
        output: Vec::new(),
        written: 0,
        is_asked: false,
    };
    let error = match poll_fn(|context| talk.poll(&shared, context)).await {
        Ok(End::Unwanted) => return,
        Ok(End::Closed) => None,
        Err(error) => Some(error_text(&error)),
    };
    shared.forget(id);
    shared.turn(|client, now, out| {
        client.machine_mut().handle_closed(id, error.as_deref(), now, out);
        client.lost(id);
    });
}

/// A connection that is open.
struct Talk<S> {
    id: DialId,
    socket: S,
    input: BytesMut,
    output: Vec<u8>,
    /// How much of `output` the socket has.
    written: usize,
    /// Somebody waits to hear that there is nothing more to read.
    is_asked: bool,
}

/// How a connection ended that did not break.
enum End {
    /// The machine wants it no more.
    Unwanted,
    /// The server sends nothing more.
    Closed,
}

impl<S: Socket> Talk<S> {
    /// Writes what there is and reads what there is. What was read is often answered, so it writes
    /// again before it reads again: what is queued in one turn is one write.
    fn poll<C: Client>(
        &mut self,
        shared: &Shared<C>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<End>> {
        for _ in 0..ROUNDS_MAX {
            match self.poll_write(shared, context) {
                Poll::Ready(Ok(Some(end))) => return Poll::Ready(Ok(end)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // A server that does not read may have to be read from first.
                Poll::Ready(Ok(None)) | Poll::Pending => {}
            }
            let Poll::Ready(count) = self.poll_read(context)? else {
                if self.input.is_empty() {
                    self.input = BytesMut::new();
                }
                if mem::take(&mut self.is_asked) {
                    shared.has_read(self.id);
                }
                return Poll::Pending;
            };
            if count == 0 {
                return Poll::Ready(Ok(End::Closed));
            }
            let (id, input) = (self.id, &mut self.input);
            shared.turn(|client, now, out| client.machine_mut().handle_input(id, input, now, out));
        }
        // Others are to have their turn.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_write<C: Client>(
        &mut self,
        shared: &Shared<C>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Option<End>>> {
        loop {
            match shared.poll_order(self.id, &mut self.output, context) {
                Order::Close(last) => {
                    self.output.extend_from_slice(&last);
                    // What it does not take at once, nobody waits for.
                    let _ = self.poll_flush(context);
                    return Poll::Ready(Ok(Some(End::Unwanted)));
                }
                Order::GoOn { is_asked } => self.is_asked = is_asked,
            }
            if self.output.is_empty() {
                return Poll::Ready(Ok(None));
            }
            ready!(self.poll_flush(context))?;
        }
    }

    /// Writes all of `output`.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.output.get(self.written..)
            && !rest.is_empty()
        {
            ready!(self.socket.poll_writable(context))?;
            match self.socket.try_write(&[IoSlice::new(rest)]) {
                Ok(0) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Ok(count) => self.written += count,
                Err(error) if is_passing(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.written = 0;
        self.output.clear();
        if self.output.capacity() > OUTPUT_KEPT_MAX {
            self.output = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            let is_ready = self.socket.poll_readable(context)?.is_ready();
            // The runtime may not have heard yet of what has arrived.
            if !is_ready && !self.is_asked {
                return Poll::Pending;
            }
            self.input.reserve(READ_LEN);
            match self.socket.try_read(&mut self.input) {
                Err(error) if is_passing(&error) && !is_ready => return Poll::Pending,
                Err(error) if is_passing(&error) => {}
                result => return Poll::Ready(result.map(|(count, _)| count)),
            }
        }
    }
}

/// How long the tasks of connections may take to read what is there before a deadline is judged.
/// They need microseconds, unless their thread is blocked.
const READ_TIME: Duration = Duration::from_millis(100);

/// After this a connection is looked at again whose task could not read.
const POSTPONED: Duration = Duration::from_secs(1);

/// A sleep that is over earlier than this was none.
const EARLY_MAX: Duration = Duration::from_millis(10);

/// Bytes that one read takes at most: some hundred answers or messages of 100 bytes.
const READ_LEN: usize = 16 * 1024;

/// Reads in a row before other tasks of the thread get their turn.
const ROUNDS_MAX: usize = 16;

/// A write buffer above this is given back when it is written.
const OUTPUT_KEPT_MAX: usize = 64 * 1024;
