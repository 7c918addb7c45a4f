//! The turn: one synchronous visit to a machine, with everything that follows from it.

use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::Future;
use core::mem;
use core::time::Duration;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use futures_lite::future;

use sansq_core::input::Inputs;
use sansq_core::machine::{Machine, MachineActions};
use sansq_core::nsqd::ShardId;
use sansq_core::time::{Instant, Now};
use sansq_core::transmit::Transmit;

use super::connection::Sockets;
use crate::clock::{CATCH_UP, CATCH_UPS_MAX, Clock};
use crate::lanes::{Lanes, Mail};
use crate::log::Program;
use crate::meter::Meter;
use crate::runtime::{Task, Thread};
use crate::signal::Signal;
use crate::socket::{ListenSocket, Stream};

/// A machine with what its actions mean. What has a default is for machines that keep something,
/// or talk to others.
pub(crate) trait Driven: Machine + Sized + 'static {
    /// What its driver holds besides sockets.
    type Resources<T: Thread>;

    /// Whose log its lines are in.
    const PROGRAM: Program;
    /// How long a closing connection may take to accept what is owed to it, if the machine itself
    /// does not look after that.
    const CLOSE_TIME: Option<Duration> = None;

    /// Carries out `actions` and empties them. What follows goes into [`Turn::out`].
    fn carry_out<T: Thread>(
        driver: &Rc<Driver<Self, T>>,
        turn: &mut Turn<Self, T>,
        actions: &mut Self::Actions,
    );
    /// Everything is carried out.
    fn end_turn<T: Thread>(_turn: &mut Turn<Self, T>) {}
    /// Takes in what has arrived from other threads, and empties it.
    fn receive<T: Thread>(_driver: &Rc<Driver<Self, T>>, _mail: &mut Mail) {}
    /// There are no connections any more: has the machine write down what is to outlast it.
    fn flush<T: Thread>(_turn: &mut Turn<Self, T>) {}
    /// Whether everything is on the disk that was only in memory when it was flushed, or was given
    /// up.
    fn is_flushed(&self) -> bool {
        true
    }
    /// What was given up, in words.
    fn flush_failure(&self) -> Option<String> {
        None
    }
}

/// A machine and what drives it, on one thread.
pub(crate) struct Driver<M: Driven, T: Thread> {
    pub(crate) clock: Clock,
    thread: Rc<T>,
    state: RefCell<State<M, T>>,
    timer: Timer,
    /// Rung when a task panicked.
    pub(crate) failed: Signal,
}

struct State<M: Driven, T: Thread> {
    turn: Turn<M, T>,
    /// The actions being carried out, while the machine fills the turn's.
    doing: M::Actions,
}

/// What a turn works on.
pub(crate) struct Turn<M: Driven, T: Thread> {
    id: ShardId,
    pub(crate) machine: M,
    /// What the machine asks for.
    pub(crate) out: M::Actions,
    pub(crate) now: Now,
    pub(crate) sockets: Sockets<T>,
    pub(crate) inputs: Inputs,
    /// An empty output buffer with capacity, see [`Sockets`].
    pub(crate) spare: Transmit,
    pub(crate) resources: M::Resources<T>,
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) meter: Arc<Meter>,
    stop: Stop,
    /// How often this turn has carried out actions.
    pub(crate) round: u32,
}

/// How far a machine's end has got.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stop {
    /// Not begun.
    No,
    /// Connections close.
    Closing,
    /// There are none any more.
    Empty,
    /// The disk takes what is only in memory.
    Flushing,
    /// It has, or was given up.
    Flushed,
}

impl<M: Driven, T: Thread> fmt::Debug for Driver<M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("thread", &self.thread).finish_non_exhaustive()
    }
}

impl<M: Driven, T: Thread> Driver<M, T> {
    /// A driver for `machine`, the shard `id` of `lanes`.
    pub(crate) fn new(
        thread: Rc<T>,
        clock: Clock,
        id: ShardId,
        machine: M,
        resources: M::Resources<T>,
        lanes: Arc<Lanes>,
    ) -> Rc<Self> {
        let turn = Turn {
            id,
            machine,
            out: M::Actions::default(),
            now: clock.now(),
            sockets: Sockets::default(),
            inputs: Inputs::new(),
            spare: Transmit::new(),
            resources,
            meter: lanes.meter(id),
            lanes,
            stop: Stop::No,
            round: 0,
        };
        let state = RefCell::new(State { turn, doing: M::Actions::default() });
        let (timer, failed) = (Timer::default(), Signal::default());
        let driver = Rc::new(Self { clock, thread, state, timer, failed });
        driver.spawn(keep_time(Rc::clone(&driver))).detach();
        driver
    }

    /// One turn around one call into the machine.
    pub(crate) fn turn<R>(
        self: &Rc<Self>,
        call: impl FnOnce(&mut M, Now, &mut M::Actions) -> R,
    ) -> R {
        self.turn_with(|turn| call(&mut turn.machine, turn.now, &mut turn.out))
    }

    /// One turn: reads the clocks, calls, and carries out what the machine asks for until it asks
    /// for nothing more. The only place, with [`look`](Self::look), that borrows the machine.
    pub(crate) fn turn_with<R>(self: &Rc<Self>, call: impl FnOnce(&mut Turn<M, T>) -> R) -> R {
        let mut state = self.state.borrow_mut();
        let State { turn, doing } = &mut *state;
        turn.now = self.clock.now();
        turn.round = 0;
        let result = call(turn);
        while !turn.out.is_empty() {
            mem::swap(&mut turn.out, doing);
            M::carry_out(self, turn, doing);
            debug_assert!(doing.is_empty(), "an action was left undone");
            turn.round += 1;
        }
        M::end_turn(turn);
        if turn.stop == Stop::Closing && turn.sockets.len() == 0 {
            turn.stop = Stop::Empty;
            turn.lanes.note_empty();
        }
        if turn.stop == Stop::Flushing && turn.machine.is_flushed() {
            turn.stop = Stop::Flushed;
            turn.lanes.ring(turn.id);
        }
        self.timer.arm(turn.machine.poll_timeout());
        turn.meter.note(self.clock.instant().saturating_since(turn.now.instant));
        result
    }

    /// Closes everything; [`Lanes::note_empty`] follows when that is done.
    pub(crate) fn shut_down(self: &Rc<Self>) {
        self.turn_with(|turn| {
            turn.stop = Stop::Closing;
            turn.machine.shut_down(turn.now, &mut turn.out);
        });
    }

    /// Has the machine write down what is to outlast it. The doorbell rings when it is done,
    /// whatever was the last that it waited for.
    pub(crate) fn flush(self: &Rc<Self>) {
        self.turn_with(|turn| {
            turn.stop = Stop::Flushing;
            M::flush(turn);
        });
    }

    /// Looks at what a turn works on without calling the machine.
    pub(crate) fn look<R>(&self, call: impl FnOnce(&mut Turn<M, T>) -> R) -> R {
        call(&mut self.state.borrow_mut().turn)
    }

    /// What its thread is one of.
    pub(crate) fn runtime(&self) -> &T::Runtime {
        self.thread.runtime()
    }

    /// Has a socket waited for on this thread.
    pub(crate) fn adopt(&self, stream: Stream) -> io::Result<T::Socket> {
        self.thread.adopt(stream)
    }

    /// Has a listening socket waited for on this thread.
    pub(crate) fn listen(&self, socket: ListenSocket) -> io::Result<T::Listener> {
        self.thread.listen(socket)
    }

    /// Starts a task on this thread. If it panics, [`failed`](Self::failed) rings: a broker must
    /// not live on half-dead.
    pub(crate) fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) -> T::Task {
        let alarm = Alarm(Rc::clone(self));
        self.thread.spawn(async move {
            let _alarm = alarm;
            task.await;
        })
    }
}

/// Rings if it is dropped by a panic.
struct Alarm<M: Driven, T: Thread>(Rc<Driver<M, T>>);

impl<M: Driven, T: Thread> Drop for Alarm<M, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.ring();
        }
    }
}

/// The one timer of a machine.
#[derive(Debug, Default)]
struct Timer {
    /// When the task wakes. A deadline that moved to later is found out about then.
    armed: Cell<Option<Instant>>,
    earlier: Signal,
}

impl Timer {
    fn arm(&self, due: Option<Instant>) {
        if let Some(due) = due
            && self.armed.get().is_none_or(|armed| due < armed)
        {
            self.armed.set(Some(due));
            self.earlier.ring();
        }
    }
}

async fn keep_time<M: Driven, T: Thread>(driver: Rc<Driver<M, T>>) {
    loop {
        let earlier = driver.timer.earlier.wait();
        let Some(armed) = driver.timer.armed.get() else {
            earlier.await;
            continue;
        };
        let moved = async {
            earlier.await;
            false
        };
        let late = async {
            driver.thread.sleep_until(driver.clock.at(armed)).await;
            true
        };
        if future::or(moved, late).await {
            catch_up(&driver, armed).await;
            driver.timer.armed.set(None);
            driver.turn(|machine, now, out| machine.handle_timeout(now, out));
        }
    }
}

/// Lets a server that is late read first, for a deadline is judged by what it has read.
async fn catch_up<M: Driven, T: Thread>(driver: &Driver<M, T>, mut due: Instant) {
    for _ in 0..CATCH_UPS_MAX {
        if !driver.clock.is_late(due) {
            return;
        }
        due = driver.clock.instant() + CATCH_UP;
        driver.thread.sleep_until(driver.clock.at(due)).await;
    }
}
