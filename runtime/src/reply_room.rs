//! Answers of an HTTP API that are made and that their clients have not taken yet: how many bytes
//! of them there are, and how many answers are made at a time.
//!
//! An answer of up to [`SMALL_LEN_MAX`] needs no room, so that probes and look-ups never wait. A
//! longer one takes room from before its first byte is written until its last one is, or until its
//! connection is gone. How long it is shows only when it is made; so one at a time is made that
//! may be long, and the next one when this one has its room. Those about one topic or option
//! have a line of their own, so that they do not wait for those about everything.

use core::mem;
use std::io::IoSlice;
use std::rc::Rc;

use bytes::{Buf, Bytes};
use sansq_core::http::HttpReply;
use sansq_core::input::READ_LEN_MAX;

use crate::room::{Part, Permit};
use crate::turnstile::{Pass, Turnstile};
use crate::visitors::Visit;

/// The room for the answers of a server, by all its HTTP listeners. It belongs to one thread.
#[derive(Debug)]
pub struct ReplyRoom {
    room: Rc<Part>,
    about_everything: Turnstile,
    about_one: Turnstile,
}

/// An answer that was made.
#[derive(Debug)]
pub struct PendingReply {
    pub(crate) reply: HttpReply,
    /// Keeps others from making theirs, until this one has its room.
    pub(crate) pass: Option<Pass>,
    /// The room of the request's body, which bounds those who wait without a pass.
    pub(crate) permit: Option<Permit>,
}

impl ReplyRoom {
    pub(crate) fn new() -> Self {
        Self {
            room: Part::new(ANSWERS_LEN_MAX),
            about_everything: Turnstile::new(),
            about_one: Turnstile::new(),
        }
    }

    /// Waits until nobody else makes an answer about everything, or waits for its room.
    pub(crate) async fn pass(&self) -> Pass {
        self.about_everything.pass().await
    }

    /// Waits until nobody else makes an answer about one topic or option that may be long,
    /// or waits for its room.
    pub(crate) async fn pass_for_one(&self) -> Pass {
        self.about_one.pass().await
    }

    /// Makes an answer that may be long, on this thread, when it is its turn.
    pub(crate) async fn make_in_turn(&self, make: impl FnOnce() -> HttpReply) -> PendingReply {
        let pass = self.pass().await;
        PendingReply { pass: Some(pass), ..make().into() }
    }

    /// Makes an answer that is short most of the time, on this thread, at once. One for which there
    /// is no room is made a second time when it is its turn, so that nobody waits with it.
    pub(crate) async fn make(&self, make: impl Fn() -> HttpReply) -> PendingReply {
        let reply = make();
        if self.has(reply.body.len()) {
            return reply.into();
        }
        drop(reply);
        let pass = self.pass_for_one().await;
        PendingReply { pass: Some(pass), ..make().into() }
    }

    /// Waits for room for `len` bytes, in the order of asking. `None` if none is needed.
    pub(crate) async fn take(&self, len: usize) -> Option<Permit> {
        if len <= SMALL_LEN_MAX { None } else { Some(self.room.take(len).await) }
    }

    /// Whether there is room for `len` bytes at once.
    fn has(&self, len: usize) -> bool {
        len <= SMALL_LEN_MAX || (self.room.missing(len) == 0 && !self.room.is_wanted_now())
    }

    /// How many bytes others have to give back before there is room for `len`.
    pub(crate) fn missing(&self, len: usize) -> usize {
        self.room.missing(len)
    }

    /// Bytes that are taken, and how often somebody had to wait.
    pub(crate) fn figures(&self) -> (u64, u64) {
        (self.room.held(), self.room.waits())
    }
}

impl From<HttpReply> for PendingReply {
    fn from(reply: HttpReply) -> Self {
        Self { reply, pass: None, permit: None }
    }
}

/// Gives back what the body's memory has and its text does not need, which counts nowhere.
pub(crate) fn fit(mut reply: HttpReply) -> HttpReply {
    if reply.body.len() <= SMALL_LEN_MAX {
        return reply;
    }
    let mut body = Vec::from(mem::take(&mut reply.body));
    body.shrink_to_fit();
    reply.body = body.into();
    reply
}

/// The bytes of an answer on their way into the socket, and their room. hyper drops this when it
/// has written the last one.
#[derive(Debug)]
pub struct Unread {
    bytes: Bytes,
    /// Dropped with it.
    _room: Option<Owed>,
}

/// Room that a connection has.
#[derive(Debug)]
pub(crate) struct Owed {
    permit: Permit,
    visit: Rc<Visit>,
}

impl Unread {
    /// `bytes` for the connection of `visit`, and their room, if they need any.
    pub(crate) fn new(bytes: Bytes, permit: Option<Permit>, visit: &Rc<Visit>) -> Self {
        let owe = |permit: Permit| {
            visit.owe(permit.len());
            Owed { permit, visit: Rc::clone(visit) }
        };
        Self { bytes, _room: permit.map(owe) }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.visit.owe_less(self.permit.len());
    }
}

impl Buf for Unread {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn chunks_vectored<'a>(&'a self, parts: &mut [IoSlice<'a>]) -> usize {
        self.bytes.chunks_vectored(parts)
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

/// Bytes of all answers that are made and not taken. A longer one takes all of it, and then waits
/// for nobody.
const ANSWERS_LEN_MAX: usize = 64 * 1024 * 1024;

/// The longest answer that needs no room. hyper holds less than [`BUFFER_LEN_MAX`] and one answer
/// for a connection.
///
/// [`BUFFER_LEN_MAX`]: crate::http::BUFFER_LEN_MAX
const SMALL_LEN_MAX: usize = READ_LEN_MAX;

#[cfg(test)]
mod tests {
    use core::cell::Cell;
    use core::pin::pin;

    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn an_answer_without_room_is_made_again_when_it_is_its_turn() {
        let answers = ReplyRoom::new();
        let made = Cell::new(0);
        let make = |len| {
            let made = &made;
            answers.make(move || {
                made.set(made.get() + 1);
                HttpReply::text(vec![b'x'; len])
            })
        };
        block_on(async {
            let all = answers.take(usize::MAX).await;
            // Short ones wait for nobody.
            let answer = make(SMALL_LEN_MAX).await;
            assert!(answer.pass.is_none() && made.replace(0) == 1);
            let pass = answers.pass_for_one().await;
            let mut long = pin!(make(SMALL_LEN_MAX + 1));
            assert!(poll_once(long.as_mut()).await.is_none());
            assert_eq!(made.get(), 1);
            drop(pass);
            let long = long.await;
            assert!(long.pass.is_some() && made.get() == 2);
            drop(all);
            // With room for it nobody waits.
            assert!(make(SMALL_LEN_MAX + 1).await.pass.is_none());
        });
    }

    #[test]
    fn a_long_answer_is_made_once_and_keeps_its_turn() {
        let answers = ReplyRoom::new();
        let made = Cell::new(0);
        let make = || {
            made.set(made.get() + 1);
            HttpReply::text(vec![b'x'; SMALL_LEN_MAX + 1])
        };
        block_on(async {
            // Without any room.
            let _all = answers.take(usize::MAX).await;
            let first = answers.make_in_turn(make).await;
            assert!(first.pass.is_some() && made.get() == 1);
            let mut second = pin!(answers.make_in_turn(make));
            assert!(poll_once(second.as_mut()).await.is_none());
            assert_eq!(made.get(), 1);
            // What is about one thing does not wait for it, and what is short waits for nobody.
            let one = poll_once(answers.pass_for_one()).await.unwrap();
            let short = answers.make(|| HttpReply::text("short"));
            assert!(poll_once(short).await.unwrap().pass.is_none());
            drop(one);
            drop(first);
            second.await;
            assert_eq!(made.get(), 2);
        });
    }

    #[test]
    fn memory_that_the_text_does_not_need_is_given_back() {
        let mut text = Vec::with_capacity(1 << 20);
        text.resize(SMALL_LEN_MAX + 1, b'x');
        let body = fit(HttpReply::text(text)).body;
        assert_eq!(body.len(), SMALL_LEN_MAX + 1);
        assert_eq!(Vec::from(body).capacity(), SMALL_LEN_MAX + 1);
    }
}
