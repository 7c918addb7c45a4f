//! What a connection asks of its owner.

use crate::arena::ConnId;
use crate::nsqd::event::Event;

/// Where a connection says what it needs.
pub(in crate::nsqd) trait ConnectionOutput {
    /// For the log.
    fn event(&mut self, event: Event);
    /// It went from nothing to something to send.
    fn transmit(&mut self, conn: ConnId);
    /// It ends.
    fn close(&mut self, conn: ConnId, how: Close);
    /// Its input, which was left alone, goes on.
    fn resume(&mut self, conn: ConnId);
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Close {
    /// Write what is owed, shut the sending side down, read and drop for a moment what the peer
    /// still sends (so that no reset overtakes an error frame, nsqd-protocol.md W20), close the
    /// socket and call [`handle_closed`](crate::nsqd::Shard::handle_closed).
    AfterSending,
    /// Close the socket now and call [`handle_closed`](crate::nsqd::Shard::handle_closed).
    Now,
}

/// What a driver does with a connection's input after a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum ReadState {
    /// Read more; the command under way is expected to take so many bytes more than there are. Make
    /// room for them, but call again with whatever comes: it may be complete before.
    More(usize),
    /// Read nothing until [`Actions::resume`](field@crate::nsqd::Actions::resume) or
    /// [`Actions::rehome`](crate::nsqd::Actions::rehome) names the connection.
    Wait,
    /// Read nothing any more: the connection ends.
    Stop,
}
