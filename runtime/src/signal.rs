//! A bell between tasks of one thread.

use core::cell::Cell;
use core::future::poll_fn;
use core::task::{Poll, Waker};

/// Rings of it before it is answered are one. One task waits for it.
#[derive(Default)]
pub struct Signal {
    is_rung: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Signal {
    /// Rings.
    pub fn ring(&self) {
        self.is_rung.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Waits until it rings, or has rung since it was last answered.
    pub async fn wait(&self) {
        poll_fn(|context| {
            if self.is_rung.take() {
                return Poll::Ready(());
            }
            self.waker.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

impl core::fmt::Debug for Signal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Signal").field("is_rung", &self.is_rung).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future;

    use super::*;

    #[test]
    fn rings_are_kept_and_counted_once() {
        let signal = Signal::default();
        signal.ring();
        signal.ring();
        future::block_on(signal.wait());
        assert_eq!(future::block_on(future::poll_once(signal.wait())), None);
        future::block_on(future::zip(signal.wait(), async { signal.ring() }));
    }
}
