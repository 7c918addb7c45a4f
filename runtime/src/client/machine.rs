//! The two clients' machines, with what belongs to their handles, seen alike by the driver.

use core::fmt::{self, Display};
use core::future::Future;
use core::pin::Pin;
use core::task::Waker;
use std::sync::Arc;

use bytes::BytesMut;
use sansq_core::client::{CallId, DialId, NetActions};
use sansq_core::http::call::CallResult;
use sansq_core::log::Level;
use sansq_core::time::{Instant, Now};

use super::events;
use super::shared::Shared;

/// What a driver needs of a client. The methods are those of
/// [`ProducerPool`](sansq_core::client::ProducerPool) and [`Consumer`](sansq_core::client::Consumer),
/// with their contract.
pub(super) trait Client: fmt::Debug + Send + Sized + 'static {
    /// What a call asks for.
    type Actions: fmt::Debug + Default + Send;

    /// The part of it that is about connections.
    fn net(actions: &mut Self::Actions) -> &mut NetActions;
    /// The dial has succeeded.
    fn handle_connected(&mut self, id: DialId, now: Now, out: &mut Self::Actions);
    /// The dial has failed.
    fn handle_connect_failed(&mut self, id: DialId, error: &str, now: Now, out: &mut Self::Actions);
    /// Bytes have arrived.
    fn handle_input(&mut self, id: DialId, input: &mut BytesMut, now: Now, out: &mut Self::Actions);
    /// The connection is gone.
    fn handle_closed(&mut self, id: DialId, error: Option<&str>, now: Now, out: &mut Self::Actions);
    /// An nsqlookupd answered, or did not.
    fn handle_called(&mut self, id: CallId, result: CallResult, now: Now, out: &mut Self::Actions);
    /// A deadline may be due.
    fn handle_timeout(&mut self, now: Now, out: &mut Self::Actions);
    /// The next deadline.
    fn poll_timeout(&self) -> Option<Instant>;
    /// Swaps the bytes to be written with an empty buffer.
    fn swap_transmit(&mut self, id: DialId, now: Now, spare: &mut Vec<u8>);
    /// Whether it asks for nothing any more.
    fn is_stopped(&self) -> bool;

    /// Hands what the actions have for the program to the program. What is left in them is
    /// [`net`](Self::net).
    fn settle(&mut self, now: Now, out: &mut Self::Actions, wakers: &mut Wakers);
    /// Nothing drives it any more, stopped or not: nobody must wait for it.
    fn end(&mut self, wakers: &mut Wakers);

    /// Whether [`next_task`](Self::next_task) has one.
    fn has_task(&self) -> bool {
        false
    }
    /// Something of the program's to run beside the connections.
    fn next_task(_shared: &Arc<Shared<Self>>) -> Option<Task> {
        None
    }
}

/// What a runtime is given to run.
pub(super) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What is done once the lock is free again: tasks are woken, and lines logged. Whoever listens to the log may
/// well publish what it hears through this very client.
#[derive(Default)]
pub(super) struct Wakers {
    wakers: Vec<Waker>,
    lines: Vec<(Level, Box<dyn Display + Send>)>,
}

impl Wakers {
    /// Adds one, if there is one.
    pub(super) fn add(&mut self, waker: Option<Waker>) {
        self.wakers.extend(waker);
    }

    /// Adds all and leaves none.
    pub(super) fn append(&mut self, wakers: &mut Vec<Waker>) {
        self.wakers.append(wakers);
    }

    /// Adds a line for the log.
    pub(super) fn log(&mut self, level: Level, line: impl Display + Send + 'static) {
        self.lines.push((level, Box::new(line)));
    }

    pub(super) fn wake(self) {
        self.wakers.into_iter().for_each(Waker::wake);
        self.lines.into_iter().for_each(|(level, line)| events::log(level, line));
    }
}

impl fmt::Debug for Wakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wakers").field("wakers", &self.wakers).finish_non_exhaustive()
    }
}

/// Keeps `waker` among `wakers`, once.
pub(super) fn remember(wakers: &mut Vec<Waker>, waker: &Waker) {
    if !wakers.iter().any(|known| known.will_wake(waker)) {
        wakers.push(waker.clone());
    }
}
