//! A client's machine behind a lock, and how those who share it wake each other.
//!
//! ```text
//!   handles ──┐                        ┌── the driver: dials, calls, the one timer
//!             ├─► lock, clock, machine ┤
//!   messages ─┘     (one turn)         └── one task per connection: reads and writes
//! ```
//!
//! Everybody calls the machine in the same way: lock, read the clock once, call, hand out what the
//! call asks for, unlock, and only then wake those whom it concerns. Nobody waits while holding the
//! lock, and nothing of the program's runs: see [`waiters`](super::waiters).

use core::future::poll_fn;
use core::mem;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};

use sansq_core::client::{ClientMachine, Dial, DialId, LookupCallId};
use sansq_core::http::call::Call;
use sansq_core::time::{Instant, Now};

use super::machine::{Actions, Client, Task};
use super::wakers::{Offer, Wakers};
use crate::clock::Clock;
use crate::sync::{Mutex, MutexGuard};

/// A client that its handles, its driver and its connections share.
#[derive(Debug)]
pub(super) struct Shared<C: Client> {
    clock: Clock,
    state: Mutex<State<C>>,
}

#[derive(Debug)]
struct State<C: Client> {
    client: C,
    actions: Actions<C>,
    /// Dials and connections that the machine has not closed.
    links: BTreeMap<DialId, Link>,
    /// The last bytes of connections whose task has not seen yet that they are closed.
    farewells: BTreeMap<DialId, Vec<u8>>,
    work: VecDeque<Work>,
    driver: Option<Waker>,
    /// What the driver's timer is set to.
    armed: Option<Instant>,
    is_over: bool,
}

#[derive(Debug, Default)]
struct Link {
    wants_write: bool,
    waker: Option<Waker>,
    /// It is to be read from before it is judged.
    is_asked: bool,
}

/// Something for the driver to start.
#[derive(Debug)]
pub(super) enum Work {
    Dial(Dial),
    Call(LookupCallId, Call),
}

/// What a connection is to do next.
pub(super) enum Order {
    /// Close it, after these bytes if the socket takes them at once.
    Close(Vec<u8>),
    /// Write, if there is something to write, and read. `is_asked`: somebody waits to hear that
    /// there is nothing more to read, [`has_read`](Shared::has_read).
    GoOn { is_asked: bool },
}

impl<C: Client> Shared<C> {
    pub(super) fn new(client: C) -> Arc<Self> {
        let state = State {
            client,
            actions: Actions::<C>::default(),
            links: BTreeMap::new(),
            farewells: BTreeMap::new(),
            work: VecDeque::new(),
            driver: None,
            armed: None,
            is_over: false,
        };
        Arc::new(Self { clock: Clock::start(), state: Mutex::new(state) })
    }

    pub(super) const fn clock(&self) -> Clock {
        self.clock
    }

    /// Calls the machine and sees to what it asks for.
    pub(super) fn turn<R>(&self, act: impl FnOnce(&mut C, Now, &mut Actions<C>) -> R) -> R {
        let mut wakers = Wakers::default();
        let mut state = self.lock();
        // Behind the lock, so that time never goes backwards from turn to turn.
        let now = self.clock.now();
        let State { client, actions, .. } = &mut *state;
        let result = act(client, now, actions);
        state.settle(now, &mut wakers);
        drop(state);
        wakers.wake();
        result
    }

    /// Looks at the client, or changes what the machine does not see.
    pub(super) fn look<R>(&self, look: impl FnOnce(&mut C) -> R) -> R {
        look(&mut self.lock().client)
    }

    /// A panic within a turn is a mistake of ours; those of other tasks should not hide it.
    fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For the driver.
impl<C: Client> Shared<C> {
    pub(super) fn take_work(&self) -> Option<Work> {
        self.lock().work.pop_front()
    }

    pub(super) fn next_task(self: &Arc<Self>) -> Option<Task> {
        C::next_task(self)
    }

    /// Says for when the timer is to be set. It has to be set before [`rung`](Self::rung) is
    /// awaited.
    pub(super) fn arm(&self) -> Option<Instant> {
        let mut state = self.lock();
        state.armed = state.client.poll_timeout();
        state.armed
    }

    /// Waits until there is work, or an earlier deadline, or the end.
    pub(super) async fn rung(&self) {
        poll_fn(|context| {
            let mut offer = Offer::of(context);
            let mut state = self.lock();
            if state.needs_driver() {
                return Poll::Ready(());
            }
            offer.put(&mut state.driver);
            Poll::Pending
        })
        .await;
    }

    /// Has those connections read that the machine is about to judge by what has not come from
    /// them. False if there are none.
    pub(super) fn ask_to_read(&self) -> bool {
        let mut wakers = Wakers::default();
        let mut ids = Vec::new();
        let mut state = self.lock();
        state.client.machine().overdue(self.clock.now(), &mut ids);
        for id in &ids {
            if let Some(link) = state.links.get_mut(id) {
                link.is_asked = true;
                wakers.add(link.waker.take());
            }
        }
        drop(state);
        wakers.wake();
        !ids.is_empty()
    }

    /// Waits until they have.
    pub(super) async fn all_read(&self) {
        poll_fn(|context| {
            let mut offer = Offer::of(context);
            let mut state = self.lock();
            if !state.is_anybody_asked() {
                return Poll::Ready(());
            }
            offer.put(&mut state.driver);
            Poll::Pending
        })
        .await;
    }

    /// Those that have not read by now are not judged for `time`.
    pub(super) fn postpone(&self, time: Duration) {
        let mut state = self.lock();
        let until = self.clock.instant() + time;
        let State { client, links, .. } = &mut *state;
        for (id, _) in links.iter().filter(|(_, link)| link.is_asked) {
            client.machine_mut().postpone(*id, until);
        }
    }

    /// Whether the machine asks for nothing any more, and everything that it asked for is begun.
    pub(super) fn is_done(&self) -> bool {
        let state = self.lock();
        state.client.machine().is_stopped() && state.work.is_empty() && !state.client.has_task()
    }

    /// Nothing drives it any more.
    pub(super) fn end(&self) {
        let mut wakers = Wakers::default();
        let mut state = self.lock();
        state.is_over = true;
        state.work.clear();
        state.close_all(&mut wakers);
        // So that nobody is told that an answer is on its way, or that there is a connection.
        state.client.machine_mut().abort();
        state.client.end(&mut wakers);
        drop(state);
        wakers.wake();
    }
}

/// For connections.
impl<C: Client> Shared<C> {
    /// Waits until the machine wants this dial or connection no more.
    pub(super) async fn gone(&self, id: DialId) {
        poll_fn(|context| {
            let mut offer = Offer::of(context);
            let mut state = self.lock();
            let Some(link) = state.links.get_mut(&id) else { return Poll::Ready(()) };
            offer.put(&mut link.waker);
            Poll::Pending
        })
        .await;
    }

    /// What to do, and in `spare`, if that is empty, the bytes to write. The task is woken if there
    /// is more.
    pub(super) fn poll_order(
        &self,
        id: DialId,
        spare: &mut Vec<u8>,
        context: &Context<'_>,
    ) -> Order {
        let mut offer = Offer::of(context);
        let mut state = self.lock();
        let State { client, links, farewells, .. } = &mut *state;
        let Some(link) = links.get_mut(&id) else {
            return Order::Close(farewells.remove(&id).unwrap_or_default());
        };
        offer.put(&mut link.waker);
        let is_asked = link.is_asked;
        if spare.is_empty() && link.wants_write {
            client.machine_mut().swap_transmit(id, self.clock.now(), spare);
            link.wants_write = !spare.is_empty();
            // A connection that closes may have waited for its last bytes to go.
            if state.needs_driver() {
                let driver = state.driver.take();
                drop(state);
                driver.into_iter().for_each(Waker::wake);
            }
        }
        Order::GoOn { is_asked }
    }

    /// There is nothing more to read for the moment.
    pub(super) fn has_read(&self, id: DialId) {
        let mut state = self.lock();
        let Some(link) = state.links.get_mut(&id).filter(|link| link.is_asked) else { return };
        link.is_asked = false;
        let driver = if state.is_anybody_asked() { None } else { state.driver.take() };
        drop(state);
        driver.into_iter().for_each(Waker::wake);
    }

    /// The socket is gone.
    pub(super) fn forget(&self, id: DialId) {
        self.has_read(id);
        let mut state = self.lock();
        let link = state.links.remove(&id);
        state.farewells.remove(&id);
        drop(state);
        drop(link);
    }
}

impl<C: Client> State<C> {
    fn settle(&mut self, now: Now, wakers: &mut Wakers) {
        self.client.settle(now, &mut self.actions, wakers);
        let Self { links, farewells, work, driver, .. } = self;
        let net = C::Machine::net(&mut self.actions);
        farewells.extend(net.farewells.drain(..).filter(|(id, _)| links.contains_key(id)));
        for id in net.close.drain(..) {
            if let Some(link) = links.remove(&id) {
                wakers.add(link.waker);
                if link.is_asked {
                    wakers.add(driver.take());
                }
            }
        }
        for dial in net.dial.drain(..) {
            links.insert(dial.id, Link::default());
            work.push_back(Work::Dial(dial));
        }
        for id in net.transmit.drain(..) {
            // One that is dialled has no task that writes; when it is connected, it is asked first.
            if let Some(link) = links.get_mut(&id) {
                link.wants_write = true;
                wakers.add(link.waker.take());
            }
        }
        work.extend(net.calls.drain(..).map(|(id, call)| Work::Call(id, call)));
        if self.is_over {
            self.work.clear();
            self.close_all(wakers);
            self.client.end(wakers);
        } else if self.needs_driver() {
            wakers.add(self.driver.take());
        }
    }

    fn needs_driver(&self) -> bool {
        let is_earlier = match (self.client.poll_timeout(), self.armed) {
            (Some(next), Some(armed)) => next < armed,
            (next, None) => next.is_some(),
            (None, Some(_)) => false,
        };
        is_earlier
            || !self.work.is_empty()
            || self.client.has_task()
            || self.client.machine().is_stopped()
    }

    fn is_anybody_asked(&self) -> bool {
        self.links.values().any(|link| link.is_asked)
    }

    fn close_all(&mut self, wakers: &mut Wakers) {
        for link in mem::take(&mut self.links).into_values() {
            wakers.add(link.waker);
        }
    }
}
