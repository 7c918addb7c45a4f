//! Work that is done for one HTTP request at a time, on a thread of its own if it takes long.

use core::cell::RefCell;
use core::convert::Infallible;
use std::rc::Rc;
use std::thread;

use async_channel::Receiver;
use sansq_core::http::HttpReply;

use crate::room::{Part, Permit};

/// A place that one at a time may have.
#[derive(Debug)]
pub(crate) struct Turnstile(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    place: Rc<Part>,
    /// Is closed when the last thread that was started has ended.
    thread: RefCell<Option<Receiver<Infallible>>>,
}

/// The place, until this is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    of: Rc<Inner>,
    _permit: Permit,
}

impl Turnstile {
    pub(crate) fn new() -> Self {
        Self(Rc::new(Inner { place: Part::new(1), thread: RefCell::default() }))
    }

    /// Waits for the place, in the order of asking.
    pub(crate) async fn pass(&self) -> Pass {
        let permit = self.0.place.take(1).await;
        // Whoever had it may have gone before its thread was done.
        let thread = self.0.thread.borrow().clone();
        if let Some(thread) = thread {
            // Nothing is ever sent.
            let _ = thread.recv().await;
        }
        Pass { of: Rc::clone(&self.0), _permit: permit }
    }
}

impl Pass {
    /// Makes a reply on a thread of its own, since this one is a shard's. If nobody waits for it
    /// any more, the thread goes on, and nobody else has the place before it is done.
    pub(crate) async fn aside(
        &self,
        make: impl FnOnce() -> HttpReply + Send + 'static,
    ) -> HttpReply {
        let (done, wait) = async_channel::bounded(1);
        let (running, thread) = async_channel::bounded(1);
        self.of.thread.replace(Some(thread));
        let work = move || {
            let _running = running;
            // Whoever asked may be gone.
            let _ = done.try_send(make());
        };
        match thread::Builder::new().name("nsqd-http".into()).spawn(work) {
            // An error would mean that the thread panicked.
            Ok(_) => {
                wait.recv().await.unwrap_or_else(|_| HttpReply::message(500, "INTERNAL_ERROR"))
            }
            Err(_) => HttpReply::message(503, "NO_THREAD"),
        }
    }
}

#[cfg(test)]
mod tests {
    use core::pin::pin;
    use std::sync::mpsc;

    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn nobody_passes_before_a_thread_is_done_whose_asker_has_gone() {
        let turnstile = Turnstile::new();
        let (go, wait) = mpsc::channel::<()>();
        block_on(async {
            let pass = turnstile.pass().await;
            {
                let mut reply = pin!(pass.aside(move || {
                    let _ = wait.recv();
                    HttpReply::empty()
                }));
                assert!(poll_once(reply.as_mut()).await.is_none());
            }
            drop(pass);
            {
                let mut gives_up = pin!(turnstile.pass());
                assert!(poll_once(gives_up.as_mut()).await.is_none());
            }
            let mut next = pin!(turnstile.pass());
            assert!(poll_once(next.as_mut()).await.is_none());
            go.send(()).unwrap();
            let next = next.await;
            assert_eq!(next.aside(|| HttpReply::text("made")).await.body, "made");
            // Its thread is done, so that nobody waits.
            drop(next);
            turnstile.pass().await;
        });
    }
}
