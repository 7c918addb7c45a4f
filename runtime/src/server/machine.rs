//! The machines that a server's thread drives, seen alike: nsqd's shard and nsqlookupd.

use core::fmt;
use core::time::Duration;

use bytes::BytesMut;
use sansq_core::arena::ConnId;
use sansq_core::http::{HttpReply, HttpRequest};
use sansq_core::nsqd::{Actions, ReadState, Shard};
use sansq_core::nsqlookupd::{self, CLOSE_TIMEOUT, Lookupd, LookupdReply};
use sansq_core::time::{Instant, Now};
use sansq_core::transmit::Transmit;

use crate::log::{Program, UNWRITTEN};
use crate::meter::Meter;
use crate::metrics::{self, LookupdPage};

/// What the turn and the connection loops of an adapter need of a machine. The methods are those of
/// [`Shard`], with its contract.
pub(super) trait Machine: Sized + 'static {
    /// What a call asks of its driver.
    type Actions: fmt::Debug;

    /// Whose log its lines are in.
    const PROGRAM: Program;
    /// How long a closing connection may take to accept what is owed to it, if the machine itself
    /// does not look after that.
    const CLOSE_TIME: Option<Duration>;

    /// Bytes of a connection.
    fn handle_input(
        &mut self,
        conn: ConnId,
        input: &mut BytesMut,
        now: Now,
        out: &mut Self::Actions,
    ) -> ReadState;
    /// The peer sends nothing more.
    fn handle_eof(&mut self, conn: ConnId, now: Now, out: &mut Self::Actions);
    /// So many bytes have been written.
    fn handle_sent(&mut self, conn: ConnId, bytes: usize, now: Now, out: &mut Self::Actions);
    /// The socket is gone.
    fn handle_closed(&mut self, conn: ConnId, now: Now, out: &mut Self::Actions);
    /// Swaps the bytes to be written with an empty buffer.
    fn swap_transmit(&mut self, conn: ConnId, spare: &mut Transmit);
    /// A deadline may be due.
    fn handle_timeout(&mut self, now: Now, out: &mut Self::Actions);
    /// The next deadline.
    fn poll_timeout(&self) -> Option<Instant>;
    /// Whether everything is on the disk that was only in memory when it was flushed, or was given
    /// up.
    fn is_flushed(&self) -> bool;
    /// What was given up, in words.
    fn flush_failure(&self) -> Option<String>;

    /// Whether there is nothing to do.
    fn is_empty(actions: &Self::Actions) -> bool;
}

impl Machine for Shard {
    type Actions = Actions;

    const PROGRAM: Program = Program::Nsqd;
    /// Shards have a deadline of their own for that.
    const CLOSE_TIME: Option<Duration> = None;

    fn handle_input(
        &mut self,
        conn: ConnId,
        input: &mut BytesMut,
        now: Now,
        out: &mut Actions,
    ) -> ReadState {
        self.handle_input(conn, input, now, out)
    }

    fn handle_eof(&mut self, conn: ConnId, now: Now, out: &mut Actions) {
        self.handle_eof(conn, now, out);
    }

    fn handle_sent(&mut self, conn: ConnId, bytes: usize, now: Now, out: &mut Actions) {
        self.handle_sent(conn, bytes, now, out);
    }

    fn handle_closed(&mut self, conn: ConnId, now: Now, out: &mut Actions) {
        self.handle_closed(conn, now, out);
    }

    fn swap_transmit(&mut self, conn: ConnId, spare: &mut Transmit) {
        self.swap_transmit(conn, spare);
    }

    fn handle_timeout(&mut self, now: Now, out: &mut Actions) {
        self.handle_timeout(now, out);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.poll_timeout()
    }

    fn is_flushed(&self) -> bool {
        self.is_flushed()
    }

    fn flush_failure(&self) -> Option<String> {
        self.flush_failure().map(|failure| failure.to_string())
    }

    fn is_empty(actions: &Actions) -> bool {
        actions.is_empty()
    }
}

/// nsqlookupd's machine, with what a shard's driver expects and it does not say itself.
#[derive(Debug)]
pub(super) struct Registrar(pub Lookupd);

impl Registrar {
    /// Answers a request of the HTTP interface. `meter` is that of its thread, `answers` what its
    /// answers take.
    pub(super) fn handle_http(
        &mut self,
        request: &HttpRequest<'_>,
        meter: &Meter,
        answers: (u64, u64),
        now: Now,
        out: &mut RegistrarActions,
    ) -> HttpReply {
        match self.0.handle_http(request, now, &mut out.machine) {
            LookupdReply::Metrics(stats) => {
                let (turns, visitors) = (meter.turns(), meter.visitors());
                let unwritten = UNWRITTEN.counts();
                metrics::reply(LookupdPage { stats, turns, visitors, answers, unwritten })
            }
            LookupdReply::Reply(reply) => reply,
        }
    }
}

/// What a [`Registrar`] asks of its driver.
#[derive(Debug, Default)]
pub(super) struct RegistrarActions {
    /// What the machine asks for.
    pub machine: nsqlookupd::LookupdActions,
    /// Connections whose answers have gone out, so that more of their commands may be taken.
    pub resume: Vec<ConnId>,
}

impl Machine for Registrar {
    type Actions = RegistrarActions;

    const PROGRAM: Program = Program::Nsqlookupd;
    const CLOSE_TIME: Option<Duration> = Some(CLOSE_TIMEOUT);

    fn handle_input(
        &mut self,
        conn: ConnId,
        input: &mut BytesMut,
        now: Now,
        out: &mut RegistrarActions,
    ) -> ReadState {
        self.0.handle_input(conn, input, now, &mut out.machine);
        if self.0.is_blocked(conn) { ReadState::Wait } else { ReadState::More(1) }
    }

    fn handle_eof(&mut self, conn: ConnId, now: Now, out: &mut RegistrarActions) {
        self.0.handle_eof(conn, now, &mut out.machine);
    }

    fn handle_sent(&mut self, conn: ConnId, _bytes: usize, _now: Now, out: &mut RegistrarActions) {
        if !self.0.is_blocked(conn) {
            out.resume.push(conn);
        }
    }

    fn handle_closed(&mut self, conn: ConnId, now: Now, out: &mut RegistrarActions) {
        self.0.handle_closed(conn, now, &mut out.machine);
    }

    fn swap_transmit(&mut self, conn: ConnId, spare: &mut Transmit) {
        // Answers are short, and most often there is one.
        let mut owed = Vec::new();
        self.0.swap_transmit(conn, &mut owed);
        spare.push(&owed);
    }

    fn handle_timeout(&mut self, now: Now, out: &mut RegistrarActions) {
        self.0.handle_timeout(now, &mut out.machine);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.0.poll_timeout()
    }

    /// nsqlookupd remembers nothing.
    fn is_flushed(&self) -> bool {
        true
    }

    fn flush_failure(&self) -> Option<String> {
        None
    }

    fn is_empty(actions: &RegistrarActions) -> bool {
        actions.machine.is_empty() && actions.resume.is_empty()
    }
}
