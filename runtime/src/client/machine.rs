//! The two clients' machines, with what belongs to their handles, seen alike by the driver.

use core::fmt::{self, Display};
use core::future::Future;
use core::pin::Pin;
use core::task::Waker;
use std::sync::Arc;

use sansq_core::client::{ClientMachine, DialId};
use sansq_core::log::Level;
use sansq_core::time::{Instant, Now};

use super::events;
use super::shared::Shared;

/// A machine of the core, with those who wait for it.
pub(super) trait Client: fmt::Debug + Send + Sized + 'static {
    /// The machine.
    type Machine: ClientMachine<Actions: Send> + Send;

    /// The machine, to look at.
    fn machine(&self) -> &Self::Machine;
    /// The machine.
    fn machine_mut(&mut self) -> &mut Self::Machine;

    /// The next deadline, of the machine or of those who wait.
    fn poll_timeout(&self) -> Option<Instant> {
        self.machine().poll_timeout()
    }
    /// A connection is gone, and the machine knows.
    fn lost(&mut self, _id: DialId) {}

    /// Hands what the actions have for the program to the program. What is left in them is
    /// [`net`](ClientMachine::net).
    fn settle(&mut self, now: Now, out: &mut Actions<Self>, wakers: &mut Wakers);
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

/// What a call of the machine asks for.
pub(super) type Actions<C> = <<C as Client>::Machine as ClientMachine>::Actions;

/// What a runtime is given to run.
pub(super) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

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
        self.lines.into_iter().for_each(|(level, line)| events::log(level, line));
    }
}

impl fmt::Debug for Wakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wakers").field("wakers", &self.wakers).finish_non_exhaustive()
    }
}
