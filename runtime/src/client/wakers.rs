//! What touches the program's own code, which nobody may do while a client's lock is held: wakers,
//! lines of the log, and things of the program's that are dropped.

use core::fmt::{self, Display};
use core::mem;
use core::task::{Context, Waker};

use sansq_core::log::Level;

/// A waker on its way to where it is kept, and on the way back the one that it replaces.
#[derive(Debug)]
pub(super) struct Offer(Option<Waker>);

impl Offer {
    /// To be made, and dropped, while the lock is free.
    pub(super) fn of(context: &Context<'_>) -> Self {
        Self(Some(context.waker().clone()))
    }

    /// Keeps the waker in `place`. To be called once.
    pub(super) const fn put(&mut self, place: &mut Option<Waker>) {
        mem::swap(&mut self.0, place);
    }
}

/// What is done once the lock is free again: tasks are woken, lines logged, and things of the
/// program's dropped. Whoever listens to the log may well publish what it hears through this very
/// client.
#[derive(Default)]
pub(super) struct Wakers {
    wakers: Vec<Waker>,
    dropped: Vec<Box<dyn Send>>,
    lines: Vec<(Level, Box<dyn Display + Send>)>,
}

impl Wakers {
    /// Adds one, if there is one.
    pub(super) fn add(&mut self, waker: Option<Waker>) {
        self.wakers.extend(waker);
    }

    /// Adds something to be dropped, whose drop may be the program's code.
    pub(super) fn discard(&mut self, thing: impl Send + 'static) {
        self.dropped.push(Box::new(thing));
    }

    /// Adds a line for the log.
    pub(super) fn log(&mut self, level: Level, line: impl Display + Send + 'static) {
        self.lines.push((level, Box::new(line)));
    }

    pub(super) fn wake(self) {
        self.wakers.into_iter().for_each(Waker::wake);
        self.lines.into_iter().for_each(|(level, line)| log(level, line));
    }
}

impl fmt::Debug for Wakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wakers").field("wakers", &self.wakers).finish_non_exhaustive()
    }
}

/// Writes a line of the log.
pub(super) fn log(level: Level, line: impl Display) {
    match level {
        Level::Debug => tracing::debug!(target: "sansq::client", "{line}"),
        Level::Info => tracing::info!(target: "sansq::client", "{line}"),
        Level::Warn => tracing::warn!(target: "sansq::client", "{line}"),
        Level::Error | Level::Fatal => tracing::error!(target: "sansq::client", "{line}"),
    }
}
