//! The two clients' machines, with what belongs to their handles, seen alike by the driver.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use std::sync::Arc;

use sansq_core::client::{ClientMachine, DialId};
use sansq_core::time::{Instant, Now};

use super::shared::Shared;
use super::wakers::Wakers;

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
