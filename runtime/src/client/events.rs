//! What happens to a client, for those who want to know.

use core::future::poll_fn;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use futures_lite::Stream;

use super::wakers::{Offer, Wakers};
use crate::sync::{Mutex, MutexGuard};

/// What happens to a client from now on, as a stream that ends with the client.
///
/// It holds [`EVENTS_MAX`] events that nobody has taken yet; of more, the oldest are lost.
#[derive(Debug)]
pub struct Events<E>(Arc<Mutex<Untaken<E>>>);

/// What one of those who listen has not heard yet.
#[derive(Debug)]
struct Untaken<E> {
    events: VecDeque<E>,
    is_over: bool,
    waker: Option<Waker>,
}

impl<E> Events<E> {
    /// The next event; `None` when the client has stopped.
    pub async fn next(&mut self) -> Option<E> {
        let listener = Forgetful(self);
        poll_fn(|context| listener.0.poll_event(context)).await
    }

    fn poll_event(&self, context: &Context<'_>) -> Poll<Option<E>> {
        let mut offer = Offer::of(context);
        let mut untaken = lock(&self.0);
        if let Some(event) = untaken.events.pop_front() {
            return Poll::Ready(Some(event));
        }
        if untaken.is_over {
            return Poll::Ready(None);
        }
        offer.put(&mut untaken.waker);
        Poll::Pending
    }

    fn forget_waker(&self) {
        let waker = lock(&self.0).waker.take();
        drop(waker);
    }
}

/// A future of the next event: when it is dropped, it takes its waker along.
struct Forgetful<'a, E>(&'a Events<E>);

impl<E> Drop for Forgetful<'_, E> {
    fn drop(&mut self) {
        self.0.forget_waker();
    }
}

impl<E> Stream for Events<E> {
    type Item = E;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<E>> {
        self.poll_event(context)
    }
}

impl<E> Drop for Events<E> {
    fn drop(&mut self) {
        self.forget_waker();
    }
}

/// The streams that were asked for.
#[derive(Debug)]
pub(super) struct Listeners<E>(Vec<Arc<Mutex<Untaken<E>>>>);

impl<E> Default for Listeners<E> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<E: Clone> Listeners<E> {
    pub(super) fn listen(&mut self) -> Events<E> {
        let untaken = Untaken { events: VecDeque::new(), is_over: false, waker: None };
        let untaken = Arc::new(Mutex::new(untaken));
        self.0.retain(is_heard);
        self.0.push(Arc::clone(&untaken));
        Events(untaken)
    }

    pub(super) fn tell(&mut self, event: &E, wakers: &mut Wakers) {
        self.0.retain(is_heard);
        for listener in &self.0 {
            let mut untaken = lock(listener);
            if untaken.events.len() == EVENTS_MAX {
                untaken.events.pop_front();
            }
            untaken.events.push_back(event.clone());
            wakers.add(untaken.waker.take());
        }
    }

    /// Nothing more will happen.
    pub(super) fn end(&mut self, wakers: &mut Wakers) {
        for listener in self.0.drain(..) {
            let mut untaken = lock(&listener);
            untaken.is_over = true;
            wakers.add(untaken.waker.take());
        }
    }
}

/// Whether the stream is still there.
fn is_heard<E>(listener: &Arc<Mutex<Untaken<E>>>) -> bool {
    Arc::strong_count(listener) > 1
}

/// A panic with the lock held is a mistake of ours; those of other tasks should not hide it.
fn lock<E>(untaken: &Mutex<Untaken<E>>) -> MutexGuard<'_, Untaken<E>> {
    untaken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The most events that a stream holds: more than an hour of redials to a server that is down.
pub const EVENTS_MAX: usize = 256;
