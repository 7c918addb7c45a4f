//! What all servers' machines have in common, for those who drive them: runtimes, the simulator,
//! tests.

use core::fmt;

use bytes::BytesMut;

use crate::arena::ConnId;
use crate::time::{Instant, Now};
use crate::transmit::Transmit;

/// A server: [`Shard`](crate::nsqd::Shard) or [`Lookupd`](crate::nsqlookupd::Lookupd). How its
/// driver takes a turn says the [crate's page](crate#the-turn).
///
/// Connections come in by a method of the machine's own, `accept`, since what is known of the peer
/// differs.
pub trait Machine: fmt::Debug {
    /// What its calls ask of the driver.
    type Actions: MachineActions;

    /// Carries out the commands that are complete in `input`, takes them out of it and leaves the
    /// rest. The driver bounds one call's work by what it reads into `input` at a time.
    fn handle_input(
        &mut self,
        conn: ConnId,
        input: &mut BytesMut,
        now: Now,
        out: &mut Self::Actions,
    ) -> ReadState;

    /// The peer sends nothing more, though it may still read. It gets what is owed to it, then a
    /// close action follows. To be called when [`handle_input`](Self::handle_input) has taken all
    /// that it can.
    fn handle_eof(&mut self, conn: ConnId, now: Now, out: &mut Self::Actions);

    /// `bytes` of what was swapped out have been written.
    fn handle_sent(&mut self, conn: ConnId, bytes: usize, now: Now, out: &mut Self::Actions);

    /// The socket is gone, whichever side closed it. To be called exactly once for every connection
    /// that the machine still has.
    fn handle_closed(&mut self, conn: ConnId, now: Now, out: &mut Self::Actions);

    /// Swaps the bytes to be written to `conn` with `spare`, which has to be empty and may have
    /// room to reuse.
    ///
    /// # Panics
    /// If `spare` is not empty: its bytes would be sent to the wrong peer, or twice.
    fn swap_transmit(&mut self, conn: ConnId, spare: &mut Transmit);

    /// Looks at every deadline that is due. Calling it early or twice does no harm.
    fn handle_timeout(&mut self, now: Now, out: &mut Self::Actions);

    /// When [`handle_timeout`](Self::handle_timeout) is next worth a call.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Stops: every connection is closed once what is owed is sent, and nothing new is taken.
    fn shut_down(&mut self, now: Now, out: &mut Self::Actions);
}

/// What a machine's calls ask of its driver, which owns it, hands it to every call, carries it out
/// and uses it again.
pub trait MachineActions: fmt::Debug + Default {
    /// Whether there is nothing to do.
    fn is_empty(&self) -> bool;

    /// Forgets everything and keeps the memory.
    fn clear(&mut self);
}

/// What a driver does with a connection's input after a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum ReadState {
    /// Read more; the command under way is expected to take so many bytes more than there are. Make
    /// room for them, but call again with whatever comes: it may be complete before.
    More(usize),
    /// Read nothing until the action `resume`, or nsqd's `rehome`, names the connection.
    Wait,
    /// Read nothing any more: the connection ends.
    Stop,
}
