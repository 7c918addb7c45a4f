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
    /// socket and call [`handle_closed`](crate::machine::Machine::handle_closed).
    AfterSending,
    /// Close the socket now and call [`handle_closed`](crate::machine::Machine::handle_closed).
    Now,
}
