//! The connections to a server's HTTP API: how many there may be, and who goes when there are more,
//! or when there is no room for their answers.
//!
//! Operators and probes come over HTTP, so nobody may keep them out. A newcomer never waits for
//! others to go by themselves: if all places are taken, somebody has to go for it, whoever has
//! moved nothing for the longest time. A connection that is idle between two requests is such a
//! one, and so is one with half a head, half a body, or an answer that it does not take.
//!
//! Who waits for room for an answer does not wait either for others to take theirs: whoever takes
//! none of it for a second, or takes it too slowly, has to go.

use core::cell::{Cell, RefCell};
use core::cmp::Reverse;
use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::{Poll, Waker};
use core::time::Duration;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use futures_lite::future;
use sansq_core::log::{Count, Level};
use sansq_core::time::Instant;

use crate::clock::Clock;
use crate::connection_limit::RefusedConnections;
use crate::log::Program;
use crate::meter::Meter;
use crate::reply_room::ReplyRoom;
use crate::room::Permit;
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
    evictions: RefCell<RefusedConnections>,
    /// Those who had to go for their answers' room.
    unread: RefCell<RefusedConnections>,
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
    /// Whether it has had an answer.
    is_served: Cell<bool>,
    /// The room that its answers take, in bytes.
    owed: Cell<usize>,
    /// When it last took some of an answer, and when it began with this one.
    took: Cell<Instant>,
    began: Cell<Instant>,
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
            unread: RefCell::default(),
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

    /// Has some visitors leave, if there are any that should: where one comes there are often more.
    fn make_room(&self, program: Program, now: Instant) {
        let open = self.open.borrow();
        let staying = || open.values().filter(|visit| !visit.is_ending.get());
        let mut stale: Vec<_> = staying().filter(|visit| visit.is_stale(now)).collect();
        stale.sort_by_key(|visit| Reverse(visit.staleness(now)));
        stale.truncate((self.max / BATCH_SHARE).max(1));
        if stale.is_empty() && self.is_held_up(now) {
            // All have just come, or wait for their answers: most likely some are done in a moment.
            let can_leave = |visit: &&Rc<Visit>| {
                visit.age(now) >= HEARD_TIME
                    && (visit.stage.get() != Stage::Working || !visit.is_hurried.get())
            };
            stale.extend(staying().filter(can_leave).max_by_key(|visit| visit.age(now)));
        }
        for victim in stale {
            victim.leave();
            self.note_eviction(program, now);
        }
    }

    /// Waits for room for an answer of `len` bytes, for which others may have to go.
    pub(crate) async fn room<S: Future<Output = ()>>(
        &self,
        program: Program,
        answers: &ReplyRoom,
        len: usize,
        sleep: impl Fn(Duration) -> S,
    ) -> Option<Permit> {
        let mut take = pin!(answers.take(len));
        loop {
            let taken = async { Some(take.as_mut().await) };
            let look = async {
                sleep(ROOM_LOOK_TIME).await;
                None
            };
            if let Some(permit) = future::or(taken, look).await {
                return permit;
            }
            self.give_up(program, answers.missing(len), self.clock.instant());
        }
    }

    /// Has those leave who do not take their answers, until `missing` bytes of room come back.
    fn give_up(&self, program: Program, missing: usize, now: Instant) {
        let open = self.open.borrow();
        let (ending, staying): (Vec<_>, Vec<_>) =
            open.values().partition(|visit| visit.is_ending.get());
        let coming: usize = ending.iter().map(|visit| visit.owed.get()).sum();
        let mut missing = missing.saturating_sub(coming);
        let mut late: Vec<_> = staying.into_iter().filter(|visit| visit.is_late(now)).collect();
        late.sort_by_key(|visit| visit.took.get());
        for visit in late {
            if missing == 0 {
                break;
            }
            missing = missing.saturating_sub(visit.owed.get());
            visit.end();
            self.meter.note_eviction();
            if let Some(gone) = self.unread.borrow_mut().note(now, self.max) {
                let closed = Count(gone.count, "connection");
                program.log(
                    Level::Warn,
                    format_args!(
                        "HTTP: closed {closed} that did not read their answers while others waited \
                         for room"
                    ),
                );
            }
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
            let (closed, max) = (Count(evicted.count, "connection"), evicted.max);
            program.log(
                Level::Warn,
                format_args!(
                    "HTTP: closed {closed} to admit new ones: all --max-http-connections={max} were \
                     open"
                ),
            );
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
            is_served: Cell::new(false),
            owed: Cell::new(0),
            took: Cell::new(clock.instant()),
            began: Cell::new(clock.instant()),
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
        self.took.set(self.clock.instant());
        self.note(if self.is_idle() { Stage::Answering } else { self.stage.get() });
    }

    /// Nothing is left to be written.
    pub(crate) fn note_flushed(&self) {
        if self.stage.get() == Stage::Answering {
            self.is_served.set(true);
            self.note(Stage::Idle);
        }
    }

    /// An answer that takes so much room is to be written.
    pub(crate) fn owe(&self, len: usize) {
        let now = self.clock.instant();
        if self.owed.get() == 0 {
            self.took.set(now);
            self.began.set(now);
        }
        self.owed.set(self.owed.get() + len);
    }

    /// One is written.
    pub(crate) fn owe_less(&self, len: usize) {
        self.owed.set(self.owed.get().saturating_sub(len));
        self.began.set(self.clock.instant());
    }

    /// Whether it has to take its answer faster, if others wait for the room.
    fn is_late(&self, now: Instant) -> bool {
        let owed = self.owed.get();
        let patience =
            ANSWER_PATIENCE + ANSWER_PACE * u32::try_from(owed >> 20).unwrap_or(u32::MAX);
        owed > 0
            && (now.saturating_since(self.took.get()) >= STALL_TIME
                || now.saturating_since(self.began.get()) >= patience)
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
            self.end();
        }
    }

    /// Has it leave at once.
    fn end(&self) {
        self.is_ending.set(true);
        self.end.ring();
    }

    /// Whether it may have to go for a newcomer.
    fn is_stale(&self, now: Instant) -> bool {
        let patience =
            if self.is_served.get() && self.is_idle() { SERVED_TIME } else { FRESH_TIME };
        self.stage.get() != Stage::Working && self.age(now) >= patience
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

/// How long a connection may be idle that has had an answer.
const SERVED_TIME: Duration = Duration::from_millis(25);

/// The part of all places that becomes free at a time.
const BATCH_SHARE: usize = 16;

/// How much longer than an idle one a connection may move nothing when a request or an answer is
/// under way.
const IDLE_MALUS: Duration = Duration::from_secs(5);

/// How long a newcomer waits for somebody to go, before it looks again.
const LOOK_TIME: Duration = HEARD_TIME;

/// How long a client may take nothing of an answer for whose room somebody waits: some round trips,
/// and the time in which the kernel's buffer gets room at two megabytes per second.
const STALL_TIME: Duration = Duration::from_secs(1);

/// How long the answer may take as a whole then: so long, and for each MiB of it so much more. Who
/// takes one byte now and then must not hold the room, and who is on a slow line must get an answer
/// although others ask all the time.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_PACE: Duration = Duration::from_millis(125);

/// How long somebody waits for room before it looks who should go.
const ROOM_LOOK_TIME: Duration = Duration::from_millis(50);

/// How long everybody has in any case. A runtime looks at its sockets now and then only, so that a
/// request that came with its connection may not have been seen yet.
const HEARD_TIME: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests;
