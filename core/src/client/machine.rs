//! The clients with several connections, seen alike by those who drive them.

use alloc::vec::Vec;
use core::fmt;

use bytes::BytesMut;

use super::actions::{DialId, LookupCallId, NetActions};
use crate::http::call::CallResult;
use crate::machine::MachineActions;
use crate::time::{Instant, Now};

/// A client with any number of connections: [`ProducerPool`](super::ProducerPool) or
/// [`Consumer`](super::Consumer). The [module](super) says what a driver does.
pub trait ClientMachine: fmt::Debug {
    /// What a call leaves behind for the driver and the program.
    type Actions: MachineActions;

    /// The part of it that is about connections and requests.
    fn net(actions: &mut Self::Actions) -> &mut NetActions;
    /// The dial has succeeded.
    fn handle_connected(&mut self, id: DialId, now: Now, out: &mut Self::Actions);
    /// The dial has failed; `error` is the system's text.
    fn handle_connect_failed(&mut self, id: DialId, error: &str, now: Now, out: &mut Self::Actions);
    /// Bytes have arrived; takes all complete frames out of `input`.
    fn handle_input(&mut self, id: DialId, input: &mut BytesMut, now: Now, out: &mut Self::Actions);
    /// The connection is gone: closed by the server, or broken with the system's text.
    fn handle_closed(&mut self, id: DialId, error: Option<&str>, now: Now, out: &mut Self::Actions);
    /// An nsqlookupd answered, or did not.
    fn handle_called(
        &mut self,
        id: LookupCallId,
        result: CallResult,
        now: Now,
        out: &mut Self::Actions,
    );
    /// Time has passed.
    fn handle_timeout(&mut self, now: Now, out: &mut Self::Actions);
    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    fn poll_timeout(&self) -> Option<Instant>;
    /// Adds the connections to `ids` about which [`handle_timeout`](Self::handle_timeout) would
    /// judge by what has come from them: those that are silent, or owe an answer, for too long. A
    /// driver that may have come to its timer late reads from them first.
    fn overdue(&self, now: Now, ids: &mut Vec<DialId>);
    /// Does not judge this connection before `until`, because it could not be read from.
    fn postpone(&mut self, id: DialId, until: Instant);
    /// Empties `spare` and fills it with the bytes to write next to this connection, none if there
    /// are none.
    fn swap_transmit(&mut self, id: DialId, now: Now, spare: &mut Vec<u8>);
    /// Nothing drives it any more.
    fn abort(&mut self);
    /// Whether it asks for nothing any more.
    fn is_stopped(&self) -> bool;
}
