//! Waiting for sockets and for a time, exact to a few microseconds where the system can.

use core::time::Duration;
use std::io;

use mio::{Events, Poll, Registry};

/// What one thread waits with.
#[derive(Debug)]
pub(super) struct Waiter {
    poll: Poll,
    events: Events,
    #[cfg(target_os = "linux")]
    timer: timer::Timer,
}

impl Waiter {
    pub(super) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        Ok(Self {
            #[cfg(target_os = "linux")]
            timer: timer::Timer::new(poll.registry())?,
            poll,
            events: Events::with_capacity(EVENTS),
        })
    }

    pub(super) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Waits for sockets, for at most `left` nanoseconds, and never long.
    ///
    /// # Errors
    /// If the system refuses to wait.
    pub(super) fn wait(&mut self, left: u64) -> io::Result<&Events> {
        let timeout = self.timeout(Duration::from_nanos(left).min(TICK))?;
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(&self.events),
        }
    }

    /// A poll's own timeout is in whole milliseconds, so a timer wakes it before.
    #[cfg(target_os = "linux")]
    fn timeout(&self, left: Duration) -> io::Result<Duration> {
        if left.is_zero() || left == TICK {
            return Ok(left);
        }
        self.timer.set(left)?;
        Ok(TICK)
    }

    /// A poll's own timeout is in whole milliseconds: the rest is looked at again and again.
    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "elsewhere it needs both")]
    fn timeout(&self, left: Duration) -> io::Result<Duration> {
        let whole = Duration::from_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        if whole.is_zero() {
            std::thread::yield_now();
        }
        Ok(whole)
    }
}

#[cfg(target_os = "linux")]
mod timer {
    use core::time::Duration;
    use std::io;
    use std::os::fd::{AsRawFd as _, OwnedFd};

    use mio::unix::SourceFd;
    use mio::{Interest, Registry};
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };

    use super::TIMER;

    /// Makes a poll return. It is never read: each time it runs out is an edge of its own.
    #[derive(Debug)]
    pub(super) struct Timer(OwnedFd);

    impl Timer {
        pub(super) fn new(registry: &Registry) -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            registry.register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
            Ok(Self(timer))
        }

        pub(super) fn set(&self, left: Duration) -> io::Result<()> {
            let once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let value = Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let spec = Itimerspec { it_interval: once, it_value: value };
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &spec)?;
            Ok(())
        }
    }
}

/// The token of what is no socket.
pub(super) const TIMER: mio::Token = mio::Token(usize::MAX);
/// How long a thread waits before it looks around.
pub(super) const TICK: Duration = Duration::from_millis(50);
/// Sockets that are heard of at a time; the others follow at the next.
const EVENTS: usize = 1024;
