//! An nsqlookupd, with the sockets that a runtime would hold. It may stop and start again, which
//! loses everything that it knew.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use sansq_core::arena::ConnId;
use sansq_core::http::HttpRequest;
use sansq_core::http::call::{Call, CallAnswer, CallFailure, CallResult};
use sansq_core::machine::{Machine, MachineActions};
use sansq_core::nsqlookupd::{Lookupd, LookupdActions, LookupdConfig, LookupdReply};
use sansq_core::transmit::Transmit;

use crate::env::Env;
use crate::events::{Alarm, DeadlineOwner};
use crate::net::{End, LinkId, Side};

/// One nsqlookupd.
#[derive(Debug)]
pub(crate) struct Directory {
    index: usize,
    lookupd: Lookupd,
    actions: LookupdActions,
    sessions: BTreeMap<LinkId, Session>,
    by_conn: BTreeMap<ConnId, LinkId>,
    alarm: Alarm,
    is_up: bool,
}

#[derive(Debug)]
struct Session {
    conn: ConnId,
    input: BytesMut,
    outbox: BytesMut,
    closing: bool,
}

impl Directory {
    pub(crate) fn new(index: usize) -> Self {
        Self {
            index,
            lookupd: Lookupd::new(config(index)),
            actions: LookupdActions::default(),
            sessions: BTreeMap::new(),
            by_conn: BTreeMap::new(),
            alarm: Alarm::default(),
            is_up: true,
        }
    }

    pub(crate) const fn is_up(&self) -> bool {
        self.is_up
    }

    /// It dies: connections break, and what it knew is lost.
    pub(crate) fn stop(&mut self, env: &mut Env) {
        for link in core::mem::take(&mut self.sessions).into_keys() {
            env.net.reset(server(link), env.now, &mut env.queue);
        }
        self.by_conn.clear();
        self.lookupd = Lookupd::new(config(self.index));
        self.is_up = false;
    }

    /// It runs again.
    pub(crate) const fn start(&mut self) {
        self.is_up = true;
    }

    /// Answers an HTTP request, unless it does not run.
    pub(crate) fn answer(&mut self, call: &Call, env: &mut Env) -> CallResult {
        if !self.is_up {
            return Err(CallFailure::Failed("connection refused".into()));
        }
        let target = call.url.target();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let body = Bytes::new();
        let request = HttpRequest { method: "GET", path, query: Some(query), body: &body };
        let answer = self.lookupd.handle_http(&request, env.now, &mut self.actions);
        self.settle(env);
        let LookupdReply::Reply(reply) = answer else {
            return Err(CallFailure::Failed("nobody asks for metrics".into()));
        };
        Ok(CallAnswer { status: reply.status, body: reply.body })
    }

    pub(crate) fn accept(&mut self, link: LinkId, env: &mut Env) {
        if !self.is_up {
            return env.net.reset(server(link), env.now, &mut env.queue);
        }
        let remote = ([10, 0, 1, 1], 1024 + (link.0 % 60_000) as u16).into();
        let conn = self.lookupd.accept(remote, env.now, &mut self.actions);
        let (input, outbox) = (BytesMut::new(), BytesMut::new());
        self.sessions.insert(link, Session { conn, input, outbox, closing: false });
        self.by_conn.insert(conn, link);
        env.net.accept(link, env.now, &mut env.queue);
        self.settle(env);
    }

    pub(crate) fn readable(&mut self, link: LinkId, env: &mut Env) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let read = env.net.read(server(link), &mut session.input, env.now, &mut env.queue);
        if read.len > 0 {
            let conn = session.conn;
            self.input(conn, env);
            self.settle(env);
        }
        if read.is_end
            && let Some(session) = self.sessions.get(&link)
        {
            self.lookupd.handle_eof(session.conn, env.now, &mut self.actions);
        }
        self.settle(env);
    }

    /// Gives the machine what there is. What it leaves alone it gets again when what it owes has
    /// been taken.
    fn input(&mut self, conn: ConnId, env: &Env) {
        let link = self.by_conn.get(&conn);
        if let Some(session) = link.and_then(|link| self.sessions.get_mut(link)) {
            let _ = self.lookupd.handle_input(conn, &mut session.input, env.now, &mut self.actions);
        }
    }

    pub(crate) fn writable(&mut self, link: LinkId, env: &mut Env) {
        self.flush(link, env);
        self.settle(env);
    }

    pub(crate) fn reset(&mut self, link: LinkId, env: &mut Env) {
        self.gone(link, env);
        self.settle(env);
    }

    pub(crate) fn deadline(&mut self, env: &mut Env) {
        if self.alarm.rings(env.now) {
            self.lookupd.handle_timeout(env.now, &mut self.actions);
            self.settle(env);
        }
    }

    fn settle(&mut self, env: &mut Env) {
        while !self.actions.is_empty() {
            let actions = core::mem::take(&mut self.actions);
            for event in actions.events {
                env.line(format_args!("  nsqlookupd {}: {event}", self.index));
            }
            for conn in actions.transmit {
                let Some(link) = self.by_conn.get(&conn).copied() else { continue };
                let mut bytes = Transmit::new();
                self.lookupd.swap_transmit(conn, &mut bytes);
                self.lookupd.handle_sent(conn, bytes.len(), env.now, &mut self.actions);
                if let Some(session) = self.sessions.get_mut(&link) {
                    session.outbox.extend_from_slice(&bytes.into_vec());
                }
                self.flush(link, env);
            }
            for conn in actions.resume {
                self.input(conn, env);
            }
            for conn in actions.close {
                let Some(link) = self.by_conn.get(&conn).copied() else { continue };
                if let Some(session) = self.sessions.get_mut(&link) {
                    session.closing = true;
                }
                self.flush(link, env);
            }
        }
        let deadline = self.lookupd.poll_timeout();
        self.alarm.arm(DeadlineOwner::Lookupd(self.index), deadline, env.now, &mut env.queue);
    }

    /// Writes what is owed, and closes the socket if that was all and it is to be closed.
    fn flush(&mut self, link: LinkId, env: &mut Env) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        env.net.write(server(link), &mut session.outbox, env.now, &mut env.queue);
        if session.closing && session.outbox.is_empty() {
            env.net.close(server(link), env.now, &mut env.queue);
            self.gone(link, env);
        }
    }

    fn gone(&mut self, link: LinkId, env: &Env) {
        if let Some(session) = self.sessions.remove(&link) {
            self.by_conn.remove(&session.conn);
            self.lookupd.handle_closed(session.conn, env.now, &mut self.actions);
        }
    }
}

fn config(index: usize) -> LookupdConfig {
    LookupdConfig {
        broadcast_address: format!("lookupd-{index}"),
        hostname: format!("lookupd-{index}"),
        ..LookupdConfig::default()
    }
}

const fn server(link: LinkId) -> End {
    End { link, side: Side::Server }
}
