//! AUTH, and the permission of commands (nsqd-protocol.md sections 7.3 and 16).

use alloc::boxed::Box;

use bytes::Bytes;

use super::Shard;
use super::calls::Purpose;
use crate::arena::ConnId;
use crate::http::call::{Call, CallFailure, CallResult};
use crate::nsqd::actions::Actions;
use crate::nsqd::auth::{ClientAuth, Need, Postponed, Step, Verdict};
use crate::nsqd::connection::Reply;
use crate::nsqd::event::Event;
use crate::protocol::command::Command;
use crate::protocol::error::{ErrorCode, ProtocolError};
use crate::time::Now;

impl Shard {
    /// AUTH.
    pub(super) fn authenticate(
        &mut self,
        conn: ConnId,
        secret: Bytes,
        now: Now,
        out: &mut Actions,
    ) {
        let servers = self.config.auth_http_addresses.len();
        let first = self.any_of(servers);
        let Some(connection) = self.clients.conns.get_mut(conn) else { return };
        if connection.auth.as_ref().is_some_and(|auth| auth.is_authorized()) {
            let error = ProtocolError::new(ErrorCode::Invalid, *b"AUTH already set");
            return connection.refuse(error, now, out);
        }
        if servers == 0 {
            let error = ProtocolError::new(ErrorCode::AuthDisabled, *b"AUTH disabled");
            return connection.refuse(error, now, out);
        }
        let mut auth = Box::new(ClientAuth::new(&secret));
        auth.ask(Postponed::Auth, first, servers);
        connection.auth = Some(auth);
        self.calls.push(Purpose::Auth(conn));
    }

    /// Lets a command through that may be carried out now. One that may not is answered; one whose
    /// permission has to be renewed is kept until it is.
    pub(super) fn authorize(
        &mut self,
        conn: ConnId,
        command: Command,
        now: Now,
        out: &mut Actions,
    ) -> Option<Command> {
        if !self.config.is_auth_enabled() {
            return Some(command);
        }
        let Some(need) = Need::of(&command) else { return Some(command) };
        let connection = self.clients.conns.get_mut(conn)?;
        let verdict = match &mut connection.auth {
            Some(auth) => auth.judge(need, now.instant, &mut self.patterns),
            None => Verdict::Refused(need.auth_first()),
        };
        match verdict {
            Verdict::Allowed => return Some(command),
            Verdict::Refused(error) => connection.refuse(error, now, out),
            Verdict::Expired => {
                let servers = self.config.auth_http_addresses.len();
                let first = self.any_of(servers);
                if let Some(auth) =
                    self.clients.conns.get_mut(conn).and_then(|connection| connection.auth.as_mut())
                {
                    auth.ask(Postponed::Command(Box::new(command)), first, servers);
                    self.calls.push(Purpose::Auth(conn));
                }
            }
        }
        None
    }

    /// The request to the auth server whose turn it is.
    pub(super) fn auth_call(&mut self, conn: ConnId) -> Option<Result<Call, CallFailure>> {
        let connection =
            self.clients.conns.get_mut(conn).filter(|connection| connection.is_open())?;
        let facts = connection.facts();
        connection.auth.as_mut()?.call(&facts, &self.config)
    }

    /// An auth server's answer.
    pub(super) fn auth_called(
        &mut self,
        conn: ConnId,
        result: CallResult,
        now: Now,
        out: &mut Actions,
    ) {
        let Some(connection) = self.clients.conns.get_mut(conn).filter(|conn| conn.is_open())
        else {
            return;
        };
        let Some(auth) = &mut connection.auth else { return };
        match auth.answered(result, now.instant, &self.config, &mut self.patterns) {
            None => return,
            Some(Step::Again) => return self.calls.push(Purpose::Auth(conn)),
            Some(Step::Failed(why)) => {
                out.events.push(Event::AuthFailed(connection.peer, why));
                let error = ProtocolError::new(ErrorCode::AuthFailed, *b"AUTH failed");
                connection.refuse(error, now, out);
            }
            Some(Step::Granted(Postponed::Auth)) => match auth.answer() {
                Some(json) => connection.respond(Reply::Json(json), now, out),
                None => {
                    let text = *b"AUTH no authorizations found";
                    connection.refuse(ProtocolError::new(ErrorCode::Unauthorized, text), now, out);
                }
            },
            Some(Step::Granted(Postponed::Command(command))) => {
                self.execute(conn, *command, now, out)
            }
        }
        if let Some(connection) = self.clients.conns.get_mut(conn) {
            connection.handle_asked(now, out);
        }
        self.clients.unsettled.push(conn);
    }

    /// One of `count`, by chance.
    fn any_of(&mut self, count: usize) -> usize {
        if count < 2 { 0 } else { self.rng.below(count as u64) as usize }
    }
}
