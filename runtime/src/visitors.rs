//! The connections to a server's HTTP API: how many there may be, and who goes when there are more.
//!
//! Operators and probes come over HTTP, so nobody may keep them out. A newcomer never waits for
//! others to go by themselves: if all places are taken, somebody has to go for it, whoever has
//! moved nothing for the longest time. A connection that is idle between two requests is such a
//! one, and so is one with half a head, half a body, or an answer that it does not take.

use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::{Future, poll_fn};
use core::task::{Poll, Waker};
use core::time::Duration;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use futures_lite::future;
use sansq_core::log::Level;
use sansq_core::time::Instant;

use crate::clock::Clock;
use crate::log::Program;
use crate::meter::Meter;
use crate::places::Refusals;
use crate::signal::Signal;

/// Who is connected to the HTTP API of one server, by all its listeners. It belongs to one thread.
pub struct Visitors {
    clock: Clock,
    max: usize,
    meter: Arc<Meter>,
    open: RefCell<BTreeMap<u64, Rc<Visit>>>,
    last: Cell<u64>,
    departures: Departures,
    /// Since when newcomers have had to wait although nobody was idle, and when one had to last.
    held_up: Cell<Option<(Instant, Instant)>>,
    evictions: RefCell<Refusals>,
}

/// A visitor's place, which is free when this is dropped.
pub struct Visitor {
    id: u64,
    visit: Rc<Visit>,
    of: Rc<Visitors>,
}

/// What a connection is doing, for those who decide whether it may stay.
#[derive(Debug)]
pub struct Visit {
    clock: Clock,
    stage: Cell<Stage>,
    /// When a byte went to or fro, or the stage changed.
    moved: Cell<Instant>,
    hurry: Signal,
    is_hurried: Cell<bool>,
    end: Signal,
    is_ending: Cell<bool>,
}

/// What is under way on a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Nothing: it is new, between two requests, or done.
    Idle,
    /// A head or a body comes.
    Asking,
    /// A request is here and its answer is being made.
    Working,
    /// The answer goes.
    Answering,
}

impl Visitors {
    /// At most `max` visitors, at least one. `meter` counts.
    pub fn new(clock: Clock, max: usize, meter: Arc<Meter>) -> Rc<Self> {
        Rc::new(Self {
            clock,
            max: max.max(1),
            meter,
            open: RefCell::default(),
            last: Cell::new(0),
            departures: Departures::default(),
            held_up: Cell::new(None),
            evictions: RefCell::default(),
        })
    }

    /// Lets somebody in, for whom another one may have to go. `sleep` is the runtime's.
    pub async fn enter<S: Future<Output = ()>>(
        self: &Rc<Self>,
        program: Program,
        sleep: impl Fn(Duration) -> S,
    ) -> Visitor {
        loop {
            if let Some(visitor) = self.admit() {
                return visitor;
            }
            let departures = self.departures.count.get();
            self.make_room(program, self.clock.instant());
            future::or(self.departures.wait(departures), sleep(LOOK_TIME)).await;
        }
    }

    fn admit(self: &Rc<Self>) -> Option<Visitor> {
        let mut open = self.open.borrow_mut();
        if open.len() >= self.max {
            return None;
        }
        let id = self.last.get() + 1;
        self.last.set(id);
        let visit = Rc::new(Visit::new(self.clock));
        open.insert(id, Rc::clone(&visit));
        self.meter.note_visitors(open.len());
        Some(Visitor { id, visit, of: Rc::clone(self) })
    }

    /// Has one visitor leave, if there is one that should.
    fn make_room(&self, program: Program, now: Instant) {
        let open = self.open.borrow();
        let staying = || open.values().filter(|visit| !visit.is_ending.get());
        let stale = staying()
            .filter(|visit| visit.stage.get() != Stage::Working && visit.age(now) >= FRESH_TIME)
            .max_by_key(|visit| visit.staleness(now));
        let victim = stale.or_else(|| {
            // All have just come, or wait for their answers: most likely some are done in a moment.
            let can_leave = |visit: &&Rc<Visit>| {
                visit.age(now) >= HEARD_TIME
                    && (visit.stage.get() != Stage::Working || !visit.is_hurried.get())
            };
            let any = || staying().filter(can_leave).max_by_key(|visit| visit.age(now));
            self.is_held_up(now).then(any).flatten()
        });
        if let Some(victim) = victim {
            victim.leave();
            self.note_eviction(program, now);
        }
    }

    /// Whether newcomers have waited for long enough, those before included.
    fn is_held_up(&self, now: Instant) -> bool {
        let since = match self.held_up.get() {
            Some((since, last)) if now.saturating_since(last) < CALM_TIME => since,
            _ => now,
        };
        self.held_up.set(Some((since, now)));
        now.saturating_since(since) >= WAIT_TIME
    }

    fn note_eviction(&self, program: Program, now: Instant) {
        self.meter.note_eviction();
        if let Some(evicted) = self.evictions.borrow_mut().note(now, self.max) {
            let (count, max) = (evicted.count, evicted.max);
            let line = format_args!(
                "HTTP: closed {count} connections for new ones, \
                 all of --max-http-connections={max} were open"
            );
            program.log(Level::Warn, line);
        }
    }
}

impl fmt::Debug for Visitors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Visitors").field("max", &self.max).finish_non_exhaustive()
    }
}

impl Visitor {
    /// What others are told of it.
    pub fn visit(&self) -> Rc<Visit> {
        Rc::clone(&self.visit)
    }

    /// Serves it to its end, or until it has to go.
    pub async fn stay(self, conversation: impl Future<Output = ()>) {
        future::or(conversation, self.visit.end.wait()).await;
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        let mut open = self.of.open.borrow_mut();
        open.remove(&self.id);
        self.of.meter.note_visitors(open.len());
        drop(open);
        self.of.departures.note();
    }
}

impl fmt::Debug for Visitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Visitor").field("visit", &self.visit).finish_non_exhaustive()
    }
}

impl Visit {
    /// One that has just begun.
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            stage: Cell::new(Stage::Idle),
            moved: Cell::new(clock.instant()),
            hurry: Signal::default(),
            is_hurried: Cell::new(false),
            end: Signal::default(),
            is_ending: Cell::new(false),
        }
    }

    /// Something went on: from now on this is under way.
    pub fn note(&self, stage: Stage) {
        self.stage.set(stage);
        self.moved.set(self.clock.instant());
    }

    /// Bytes have come.
    pub(crate) fn note_read(&self) {
        self.note(if self.is_idle() { Stage::Asking } else { self.stage.get() });
    }

    /// Bytes have gone.
    pub(crate) fn note_written(&self) {
        self.note(if self.is_idle() { Stage::Answering } else { self.stage.get() });
    }

    /// Nothing is left to be written.
    pub(crate) fn note_flushed(&self) {
        if self.stage.get() == Stage::Answering {
            self.note(Stage::Idle);
        }
    }

    /// Waits until the answer that is being made has to be given up for others.
    pub(crate) async fn hurried(&self) {
        self.hurry.wait().await;
    }

    /// Whether its place is wanted.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_hurried.get() || self.is_ending.get()
    }

    /// Has it leave: with an answer if one is being made, at once otherwise.
    fn leave(&self) {
        if self.stage.get() == Stage::Working {
            self.is_hurried.set(true);
            self.hurry.ring();
        } else {
            self.is_ending.set(true);
            self.end.ring();
        }
    }

    /// How long nothing has moved.
    fn age(&self, now: Instant) -> Duration {
        now.saturating_since(self.moved.get())
    }

    /// The same, but more for what is idle: somebody may be in the middle of something for a while.
    fn staleness(&self, now: Instant) -> Duration {
        self.age(now) + if self.is_idle() { IDLE_MALUS } else { Duration::ZERO }
    }

    fn is_idle(&self) -> bool {
        self.stage.get() == Stage::Idle
    }
}

/// Tells those who wait that a place is free.
#[derive(Default)]
struct Departures {
    count: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Departures {
    fn note(&self) {
        self.count.set(self.count.get().wrapping_add(1));
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Waits until somebody has left since there were `count` departures.
    async fn wait(&self, count: u64) {
        poll_fn(|context| {
            if self.count.get() != count {
                return Poll::Ready(());
            }
            // One for each listener, and each is emptied by the next departure.
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

/// How long newcomers wait while nobody has been idle for [`FRESH_TIME`]. Then whoever has moved
/// nothing for the longest goes, also if it waits for its answer: a publisher may wait for five
/// seconds, for a full topic or a slow disk.
const WAIT_TIME: Duration = Duration::from_millis(250);

/// How long no newcomer has had to wait before the next one waits for [`WAIT_TIME`] again.
const CALM_TIME: Duration = Duration::from_secs(1);

/// How long it may take from a connection to its first byte, or from one to the next.
const FRESH_TIME: Duration = Duration::from_millis(100);

/// How much longer than an idle one a connection may move nothing when a request or an answer is
/// under way.
const IDLE_MALUS: Duration = Duration::from_secs(5);

/// How long a newcomer waits for somebody to go, before it looks again.
const LOOK_TIME: Duration = HEARD_TIME;

/// How long everybody has in any case. A runtime looks at its sockets now and then only, so that a
/// request that came with its connection may not have been seen yet.
const HEARD_TIME: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use core::pin::pin;
    use core::task::Context;

    use super::*;

    fn visitors(max: usize) -> Rc<Visitors> {
        Visitors::new(Clock::start(), max, Arc::default())
    }

    fn enter(visitors: &Rc<Visitors>) -> Option<Visitor> {
        visitors.admit()
    }

    fn make_room(visitors: &Visitors, millis: u64) {
        visitors.make_room(Program::Nsqd, Instant::from_millis(millis));
    }

    /// Who was told to end or to hurry.
    fn told(visitors: &[Visitor]) -> Vec<(bool, bool)> {
        visitors.iter().map(|it| (it.visit.is_ending.get(), it.visit.is_hurried.get())).collect()
    }

    #[test]
    fn places_come_back_and_are_counted() {
        let visitors = visitors(2);
        let (first, second) = (enter(&visitors).unwrap(), enter(&visitors).unwrap());
        assert!(enter(&visitors).is_none());
        drop(first);
        let third = enter(&visitors).unwrap();
        assert_eq!((visitors.open.borrow().len(), visitors.meter.visitors()), (2, (2, 0)));
        drop((second, third));
        assert_eq!(visitors.meter.visitors(), (0, 0));
        assert!(enter(&self::visitors(0)).is_some());
    }

    #[test]
    fn whoever_has_moved_nothing_for_the_longest_goes_first() {
        let visitors = visitors(4);
        let all: Vec<_> = (0..4).map(|_| enter(&visitors).unwrap()).collect();
        let stages = [
            // Half a body, for twenty seconds; half a head, for a second; idle for two; at work.
            (Stage::Asking, 10_000),
            (Stage::Asking, 29_000),
            (Stage::Idle, 28_000),
            (Stage::Working, 1_000),
        ];
        for (visitor, (stage, moved)) in all.iter().zip(stages) {
            visitor.visit.stage.set(stage);
            visitor.visit.moved.set(Instant::from_millis(moved));
        }
        let (no, end) = ((false, false), (true, false));
        make_room(&visitors, 30_000);
        assert_eq!(told(&all), [end, no, no, no]);
        make_room(&visitors, 30_000);
        assert_eq!(told(&all), [end, no, end, no]);
        make_room(&visitors, 30_000);
        assert_eq!(told(&all), [end, end, end, no]);
        assert_eq!(visitors.meter.visitors(), (4, 3));
    }

    #[test]
    fn whoever_has_just_come_or_waits_for_an_answer_has_a_moment() {
        let visitors = visitors(3);
        let all = [0; 3].map(|_| enter(&visitors).unwrap());
        let stages = [(Stage::Working, 9_000), (Stage::Working, 8_000), (Stage::Idle, 9_999)];
        for (visitor, (stage, moved)) in all.iter().zip(stages) {
            visitor.visit.stage.set(stage);
            visitor.visit.moved.set(Instant::from_millis(moved));
        }
        let (no, hurry, end) = ((false, false), (false, true), (true, false));
        for millis in [10_000, 10_050] {
            make_room(&visitors, millis);
            assert_eq!(told(&all), [no, no, no]);
        }
        all[2].visit.moved.set(Instant::from_millis(10_240));
        make_room(&visitors, 10_250);
        assert_eq!(told(&all), [no, hurry, no]);
        // Those who come next do not wait for as long again.
        make_room(&visitors, 10_251);
        assert_eq!(told(&all), [hurry, hurry, no]);
        all[2].visit.moved.set(Instant::from_millis(10_248));
        make_room(&visitors, 10_252);
        assert_eq!(told(&all), [hurry, hurry, no]);
        make_room(&visitors, 10_253);
        assert_eq!(told(&all), [hurry, hurry, end]);
        // It has been told, and does not take the answer.
        all[1].visit.stage.set(Stage::Answering);
        make_room(&visitors, 10_254);
        assert_eq!(told(&all), [hurry, (true, true), end]);
    }

    #[test]
    fn patience_comes_back_when_nobody_has_waited_for_a_while() {
        let visitors = visitors(1);
        let only = enter(&visitors).unwrap();
        only.visit.stage.set(Stage::Working);
        let is_hurried = |millis| {
            make_room(&visitors, millis);
            only.visit.is_hurried.get()
        };
        assert!(![0, 200, 1_200, 1_449].into_iter().any(is_hurried));
        assert!(is_hurried(1_450));
    }

    #[test]
    fn a_newcomer_waits_until_somebody_has_left() {
        let visitors = visitors(1);
        let first = enter(&visitors).unwrap();
        let mut second = pin!(visitors.enter(Program::Nsqd, |_| core::future::pending::<()>()));
        let context = &mut Context::from_waker(Waker::noop());
        assert!(second.as_mut().poll(context).is_pending());
        make_room(&visitors, 1_000);
        let mut stay = pin!(first.stay(core::future::pending()));
        assert!(stay.as_mut().poll(context).is_ready());
        assert!(second.as_mut().poll(context).is_ready());
    }
}
