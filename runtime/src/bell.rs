//! A bell between threads.

use core::future::poll_fn;
use core::task::{Context, Poll, Waker};
use std::sync::PoisonError;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Any thread rings it; rings before it is answered are one. One task at a time waits for it, on
/// whatever executor: of two, only the later one would hear it.
///
/// Whoever answers a ring sees all that any of the ringers did before it rang.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    is_rung: AtomicBool,
    waiter: Mutex<Option<Waker>>,
}

impl Bell {
    /// Rings.
    pub(crate) fn ring(&self) {
        // Also when it has been rung already this is a write, so that its answer sees what was done
        // before this ring too.
        if !self.is_rung.swap(true, Ordering::AcqRel)
            && let Some(waiter) = self.exchange(None)
        {
            waiter.wake();
        }
    }

    /// Waits until it rings, or has rung since it was last answered. If this is dropped before it
    /// is over, no ring is lost.
    pub(crate) async fn wait(&self) {
        poll_fn(|context| self.poll_wait(context)).await;
    }

    fn poll_wait(&self, context: &Context<'_>) -> Poll<()> {
        if self.answer() {
            return Poll::Ready(());
        }
        drop(self.exchange(Some(context.waker().clone())));
        // A ring in between found nobody to wake.
        if self.answer() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn answer(&self) -> bool {
        self.is_rung.swap(false, Ordering::AcqRel)
    }

    /// The waiter there was. It is woken or dropped without the lock.
    fn exchange(&self, waiter: Option<Waker>) -> Option<Waker> {
        core::mem::replace(&mut self.waiter.lock().unwrap_or_else(PoisonError::into_inner), waiter)
    }
}

#[cfg(all(test, not(sansq_loom)))]
mod tests {
    use futures_lite::future;

    use super::*;

    #[test]
    fn rings_are_kept_and_counted_once() {
        let bell = Bell::default();
        bell.ring();
        bell.ring();
        future::block_on(bell.wait());
        assert_eq!(future::block_on(future::poll_once(bell.wait())), None);
        future::block_on(future::zip(bell.wait(), async { bell.ring() }));
    }

    #[test]
    fn a_wait_that_is_given_up_loses_no_ring() {
        let bell = Bell::default();
        assert_eq!(future::block_on(future::poll_once(bell.wait())), None);
        bell.ring();
        future::block_on(bell.wait());
    }
}
