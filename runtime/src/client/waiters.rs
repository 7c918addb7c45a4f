//! Those who wait for a client: the wakers of the program's futures.
//!
//! What a waker does when it is cloned, woken or dropped is not ours to know; it may well call the
//! client that keeps it. So nothing of that happens while the client's lock is held: a future's
//! waker is cloned before ([`Offer`]), what it replaces is dropped after, and wakers that are due
//! leave with [`Wakers`]. A future that is dropped takes its waker along.

use core::task::{Context, Poll, Waker};

use super::machine::Client;
use super::shared::Shared;
use super::wakers::{Offer, Wakers};

/// Any number of futures that wait for the same thing.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    places: Vec<Option<WaitingTask>>,
    free: Vec<usize>,
    count: u64,
}

#[derive(Debug)]
struct WaitingTask {
    /// Nobody else has it: a future that was woken and then dropped takes nobody's waker along.
    ticket: u64,
    waker: Option<Waker>,
}

/// Where a future's waker is among [`Waiters`], if it waits.
#[derive(Debug, Default)]
pub(super) struct Spot(Option<(usize, u64)>);

impl Waiters {
    /// Keeps a future's waker, in place of the one before.
    fn keep(&mut self, spot: &mut Spot, offer: &mut Offer) {
        if let Some(place) = self.place(spot) {
            offer.put(&mut place.waker);
            return;
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.count += 1;
        spot.0 = Some((at, self.count));
        if let Some(free) = self.places.get_mut(at) {
            let mut task = WaitingTask { ticket: self.count, waker: None };
            offer.put(&mut task.waker);
            *free = Some(task);
        }
    }

    /// Gives a future's waker back, to be dropped while the lock is free.
    fn leave(&mut self, spot: &mut Spot) -> Option<Waker> {
        let waker = self.place(spot)?.waker.take();
        let (at, _) = spot.0.take()?;
        *self.places.get_mut(at)? = None;
        self.free.push(at);
        if self.free.len() == self.places.len() {
            self.clear();
        }
        waker
    }

    /// Has all of them woken; those that still wait come back.
    pub(super) fn wake_all(&mut self, wakers: &mut Wakers) {
        for place in self.places.drain(..).flatten() {
            wakers.add(place.waker);
        }
        self.clear();
    }

    fn place(&mut self, spot: &Spot) -> Option<&mut WaitingTask> {
        let (at, ticket) = spot.0?;
        self.places.get_mut(at)?.as_mut().filter(|place| place.ticket == ticket)
    }

    /// Nobody is left. Gives memory back that only many need.
    fn clear(&mut self) {
        self.places.clear();
        self.free.clear();
        self.places.shrink_to(KEPT_MAX);
        self.free.shrink_to(KEPT_MAX);
    }
}

/// Which of a client's waiters.
pub(super) type Among<C> = fn(&mut C) -> &mut Waiters;

/// A future's wait for a client.
pub(super) struct Wait<'a, C: Client> {
    shared: &'a Shared<C>,
    among: Among<C>,
    spot: Spot,
}

impl<'a, C: Client> Wait<'a, C> {
    pub(super) fn new(shared: &'a Shared<C>, among: Among<C>) -> Self {
        Self { shared, among, spot: Spot::default() }
    }

    /// Looks at the client; is woken when that may be worth it again.
    pub(super) fn poll<R>(
        &mut self,
        context: &Context<'_>,
        look: impl FnOnce(&mut C) -> Poll<R>,
    ) -> Poll<R> {
        self.shared.wait(&mut self.spot, self.among, context, look)
    }
}

impl<C: Client> Drop for Wait<'_, C> {
    fn drop(&mut self) {
        self.shared.leave(&mut self.spot, self.among);
    }
}

impl<C: Client> Shared<C> {
    /// Looks at the client for a future whose waker is kept at `spot` if it is to look again.
    pub(super) fn wait<R>(
        &self,
        spot: &mut Spot,
        among: Among<C>,
        context: &Context<'_>,
        look: impl FnOnce(&mut C) -> Poll<R>,
    ) -> Poll<R> {
        let mut offer = Offer::of(context);
        self.look(|client| {
            let outcome = look(client);
            if outcome.is_pending() {
                among(client).keep(spot, &mut offer);
            }
            outcome
        })
    }

    /// The future is over or dropped: takes its waker along.
    pub(super) fn leave(&self, spot: &mut Spot, among: Among<C>) {
        if spot.0.is_some() {
            let waker = self.look(|client| among(client).leave(spot));
            drop(waker);
        }
    }
}

/// Places that are kept for the next who wait.
const KEPT_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(waiters: &mut Waiters, spot: &mut Spot) {
        waiters.keep(spot, &mut Offer::of(&Context::from_waker(Waker::noop())));
    }

    #[test]
    fn whoever_leaves_leaves_nothing_behind() {
        let mut waiters = Waiters::default();
        for _ in 0..3 {
            let mut spots: Vec<Spot> = (0..1000).map(|_| Spot::default()).collect();
            for spot in &mut spots {
                keep(&mut waiters, spot);
                keep(&mut waiters, spot);
            }
            assert_eq!(waiters.places.len(), 1000);
            for spot in &mut spots {
                assert!(waiters.leave(spot).is_some() && waiters.leave(spot).is_none());
            }
            assert!(waiters.places.is_empty() && waiters.places.capacity() <= KEPT_MAX);
            assert!(waiters.free.is_empty() && waiters.free.capacity() <= KEPT_MAX);
        }
    }

    #[test]
    fn whoever_was_woken_takes_nobody_along() {
        let (mut waiters, mut wakers) = (Waiters::default(), Wakers::default());
        let [mut woken, mut next] = [Spot::default(), Spot::default()];
        keep(&mut waiters, &mut woken);
        waiters.wake_all(&mut wakers);
        keep(&mut waiters, &mut next);
        assert!(waiters.leave(&mut woken).is_none());
        assert!(waiters.leave(&mut next).is_some());
    }
}
