//! One thread: waits for its connections, and has them do what they are there for.

use core::time::Duration;
use std::io;

use mio::net::TcpStream as Socket;
use mio::{Interest, Token};

use super::BenchError;
use super::cpu::thread_cpu;
use super::flow::Flow;
use super::run::{Run, STALL};
use super::wait::{TICK, TIMER, Waiter};

/// A connection, as its thread sees it.
pub(super) trait Peer {
    /// Its socket.
    fn socket(&mut self) -> &mut Socket;
    /// The run begins.
    fn start(&mut self, run: &Run, flow: &mut Flow) -> Result<(), BenchError>;
    /// The socket can be read or written again, or something is due. Reads at most once.
    fn handle_ready(
        &mut self,
        readable: bool,
        run: &Run,
        flow: &mut Flow,
    ) -> Result<Next, BenchError>;
    /// When something is due by itself.
    fn due(&self) -> Option<u64>;
    /// Whether there is nothing left to do for it.
    fn is_over(&self, run: &Run, now: u64) -> bool;
    /// Whether it ends with work left, which it counts.
    fn give_up(&mut self, _run: &Run, _now: u64, _flow: &mut Flow) -> bool {
        false
    }
    /// All messages came: it is to end in good order.
    fn leave(&mut self, _now: u64) -> Result<(), BenchError> {
        Ok(())
    }
    /// Whether the server is to say something.
    fn waits_for_answer(&self) -> bool {
        false
    }
}

/// What comes next for a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// It is done.
    Done,
    /// There may be more to read already.
    More,
    /// The socket says when.
    Wait,
}

/// The connections of one thread.
#[derive(Debug)]
pub(super) struct Worker<'a, P> {
    run: &'a Run,
    /// `None` for those that are done.
    peers: Vec<Option<P>>,
    live: usize,
    /// Those that may have more to read, and for which their socket does not wake us again.
    unread: Vec<usize>,
    flow: Flow,
    /// When a server said something, to whichever connection.
    heard: u64,
    /// Whether connections are told when all messages came.
    consumes: bool,
    is_leaving: bool,
    /// CPU time of this thread when counting began, and when it ended.
    cpu: (Option<Duration>, Option<Duration>),
}

impl<'a, P: Peer> Worker<'a, P> {
    /// For these connections. If it `consumes`, they end when all messages came; else each by
    /// itself.
    pub(super) fn new(run: &'a Run, peers: Vec<P>, consumes: bool) -> Self {
        let peers: Vec<_> = peers.into_iter().map(Some).collect();
        Self {
            run,
            live: peers.len(),
            peers,
            unread: Vec::new(),
            flow: Flow::default(),
            heard: 0,
            consumes,
            is_leaving: false,
            cpu: (None, None),
        }
    }

    /// Works until all are done, or another thread failed.
    ///
    /// # Errors
    /// The first one of a connection.
    pub(super) fn work(mut self) -> Result<Flow, BenchError> {
        let failed = |error: io::Error| BenchError::Io("waiting", error);
        let mut waiter = Waiter::new().map_err(failed)?;
        for (index, peer) in self.peers.iter_mut().enumerate() {
            let Some(peer) = peer else { continue };
            let interest = Interest::READABLE | Interest::WRITABLE;
            waiter.registry().register(peer.socket(), Token(index), interest).map_err(failed)?;
            peer.start(self.run, &mut self.flow)?;
        }
        self.heard = self.run.now();
        let mut swept = self.heard;
        while self.live > 0 && !self.run.has_failed() {
            let now = self.run.now();
            self.note_cpu(now);
            if self.consumes && !self.is_leaving && self.run.is_consumed(now) {
                self.is_leaving = true;
                self.peers.iter_mut().flatten().try_for_each(|peer| peer.leave(now))?;
            }
            if now.saturating_sub(swept) >= TICK.as_nanos() as u64 {
                swept = now;
                self.sweep(now)?;
            }
            let left = self.carry_out_due(now)?;
            let left = if self.unread.is_empty() { left.saturating_sub(self.run.spin) } else { 0 };
            let events = waiter.wait(left).map_err(failed)?;
            let unread = core::mem::take(&mut self.unread);
            for index in &unread {
                self.handle_ready(*index, true)?;
            }
            for event in events {
                let (Token(index), token) = (event.token(), event.token());
                // What is known to be unread was just handled.
                if token != TIMER && !unread.contains(&index) {
                    let readable =
                        event.is_readable() || event.is_read_closed() || event.is_error();
                    self.handle_ready(index, readable)?;
                }
            }
        }
        let now = self.run.now();
        self.finish_cpu();
        self.run.settle(&mut self.flow, now);
        Ok(self.flow)
    }

    fn handle_ready(&mut self, index: usize, readable: bool) -> Result<(), BenchError> {
        let Some(slot) = self.peers.get_mut(index) else { return Ok(()) };
        let Some(peer) = slot else { return Ok(()) };
        match peer.handle_ready(readable, self.run, &mut self.flow)? {
            Next::Done => {
                *slot = None;
                self.live -= 1;
            }
            Next::More => self.unread.push(index),
            Next::Wait => {}
        }
        if readable {
            self.heard = self.run.now();
        }
        Ok(())
    }

    /// Has what is due done; nanoseconds to what is due next.
    fn carry_out_due(&mut self, now: u64) -> Result<u64, BenchError> {
        if self.consumes {
            return Ok(u64::MAX);
        }
        let mut next = u64::MAX;
        for index in 0..self.peers.len() {
            let due = |peers: &[Option<P>]| peers[index].as_ref().and_then(P::due);
            if due(&self.peers).is_some_and(|due| due <= now) {
                self.handle_ready(index, false)?;
            }
            next = next.min(due(&self.peers).unwrap_or(u64::MAX));
        }
        Ok(next.saturating_sub(self.run.now()))
    }

    /// Looks after connections that nothing happens on.
    fn sweep(&mut self, now: u64) -> Result<(), BenchError> {
        for slot in &mut self.peers {
            let Some(peer) = slot else { continue };
            if peer.is_over(self.run, now) || peer.give_up(self.run, now, &mut self.flow) {
                *slot = None;
                self.live -= 1;
            }
        }
        let is_stalled = now.saturating_sub(self.heard) > STALL;
        if is_stalled && self.peers.iter().flatten().any(P::waits_for_answer) {
            return Err(BenchError::Stalled);
        }
        Ok(())
    }

    fn note_cpu(&mut self, now: u64) {
        if self.cpu.0.is_none() && now >= self.run.start {
            self.cpu.0 = thread_cpu();
        }
        if self.cpu.1.is_none() && now >= self.run.end {
            self.finish_cpu();
        }
    }

    fn finish_cpu(&mut self) {
        let end = *self.cpu.1.get_or_insert_with(|| thread_cpu().unwrap_or_default());
        let spent = self.cpu.0.map(|start| end.saturating_sub(start)).unwrap_or_default();
        self.flow.cpu = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
    }
}
