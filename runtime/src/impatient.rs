//! A connection whose peer has to take what it is sent, and whose end is heard.

use core::future::Future;
use core::mem::MaybeUninit;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};

use crate::http::ANSWER_TIME;
use crate::visitors::{Stage, Visit};

/// A connection that fails when its peer has taken nothing for [`ANSWER_TIME`]. `sleep` is the
/// runtime's.
///
/// hyper has a limit to how long a request's head may take, and none to an answer. Without one,
/// clients that ask and do not read would hold their places for as long as nobody else wants them.
///
/// When it is shut down it says so, and drops for a moment what the peer still sends: closing a
/// socket with unread input makes the kernel send a reset, which can overtake the last answer.
#[derive(Debug)]
pub struct Impatient<T, F, S> {
    inner: T,
    visit: Rc<Visit>,
    sleep: F,
    /// Runs while the peer takes nothing; after the shutdown, while it may go on sending.
    waiting: Option<Pin<Box<S>>>,
    /// Bytes that are still read and dropped, once nothing more is written.
    to_drop: Option<usize>,
}

impl<T, F, S> Impatient<T, F, S>
where
    F: FnMut(Duration) -> S,
    S: Future<Output = ()>,
{
    /// The connection `inner` with a limit. `visit` is told what goes on.
    pub const fn new(inner: T, visit: Rc<Visit>, sleep: F) -> Self {
        Self { inner, visit, sleep, waiting: None, to_drop: None }
    }

    /// Attempts to write, unless the peer has had its time.
    fn limit<R>(
        &mut self,
        context: &mut Context<'_>,
        attempt: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>>
    where
        T: Unpin,
    {
        // Before the attempt, since the kernel may have room for some bytes more although the peer
        // has taken none: a late peer would win minute after minute.
        if self.waiting.is_some() && self.is_late(context) {
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        let outcome = attempt(Pin::new(&mut self.inner), context);
        if outcome.is_ready() {
            self.waiting = None;
        } else if self.waiting.is_none() && self.is_late(context) {
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        outcome
    }

    /// Whether the time is over, which begins now if it has not begun.
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        self.is_over(ANSWER_TIME, context)
    }

    fn is_over(&mut self, time: Duration, context: &mut Context<'_>) -> bool {
        let sleep = &mut self.sleep;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(time)));
        let is_late = waiting.as_mut().poll(context).is_ready();
        if is_late {
            self.waiting = None;
        }
        is_late
    }
}

impl<T: Read + Write + Unpin, F, S> Impatient<T, F, S>
where
    F: FnMut(Duration) -> S,
    S: Future<Output = ()>,
{
    /// Reads and drops what still comes, until the peer ends too, for a moment.
    fn poll_drain(&mut self, mut left: usize, context: &mut Context<'_>) -> Poll<()> {
        let mut room = [MaybeUninit::uninit(); 4096];
        while left > 0 && !self.visit.is_wanted() {
            let mut buffer = ReadBuf::uninit(&mut room);
            match Pin::new(&mut self.inner).poll_read(context, buffer.unfilled()) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    left = left.saturating_sub(buffer.filled().len());
                    self.to_drop = Some(left);
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending if self.is_over(LINGER_TIME, context) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}

impl<T: Read + Unpin, F: Unpin, S> Read for Impatient<T, F, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_read(context, buffer);
        if outcome.is_ready() {
            self.visit.note_read();
        }
        outcome
    }
}

impl<T, F, S> Write for Impatient<T, F, S>
where
    T: Read + Write + Unpin,
    F: FnMut(Duration) -> S + Unpin,
    S: Future<Output = ()>,
{
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = self.limit(context, |inner, context| inner.poll_write(context, bytes));
        if outcome.is_ready() {
            self.visit.note_written();
        }
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = self.limit(context, |inner, context| inner.poll_flush(context));
        if outcome.is_ready() {
            self.visit.note_flushed();
        }
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.to_drop.is_none() {
            ready!(self.limit(context, |inner, context| inner.poll_shutdown(context)))?;
            self.to_drop = Some(LINGER_LEN_MAX);
            self.visit.note(Stage::Idle);
        }
        let left = self.to_drop.unwrap_or_default();
        self.poll_drain(left, context).map(Ok)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome =
            self.limit(context, |inner, context| inner.poll_write_vectored(context, slices));
        if outcome.is_ready() {
            self.visit.note_written();
        }
        outcome
    }
}

/// How long a connection that is closing goes on reading, and how many bytes of that it drops:
/// enough for what a client sends before it looks at the answer.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_LEN_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use core::cell::Cell;
    use core::future::poll_fn;
    use core::task::Waker;

    use super::*;
    use crate::clock::Clock;

    /// Takes as many writes as `room` says, and sends as many bytes as `sends` says.
    struct Peer<'a> {
        room: &'a Cell<usize>,
        sends: &'a Cell<usize>,
        is_ended: bool,
    }

    impl Read for Peer<'_> {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            mut buffer: ReadBufCursor<'_>,
        ) -> Poll<io::Result<()>> {
            let count = self.sends.get().min(buffer.remaining());
            if count == 0 && !self.is_ended {
                return Poll::Pending;
            }
            self.sends.set(self.sends.get() - count);
            buffer.put_slice(&vec![b'x'; count]);
            Poll::Ready(Ok(()))
        }
    }

    impl Write for Peer<'_> {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let Some(room) = self.room.get().checked_sub(1) else { return Poll::Pending };
            self.room.set(room);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn visit() -> Rc<Visit> {
        Rc::new(Visit::new(Clock::start()))
    }

    #[test]
    fn a_peer_that_takes_nothing_is_given_up_and_one_that_takes_some_is_not() {
        let (room, sends) = (Cell::new(1), Cell::new(0));
        let (time, timers) = (Cell::new(0), Cell::new(0));
        let sleep = |length| {
            assert_eq!(length, ANSWER_TIME);
            timers.set(timers.get() + 1);
            let end = time.get() + 2;
            let time = &time;
            poll_fn(move |_| if time.get() < end { Poll::Pending } else { Poll::Ready(()) })
        };
        let peer = Peer { room: &room, sends: &sends, is_ended: false };
        let mut io = Impatient::new(peer, visit(), sleep);
        let context = &mut Context::from_waker(Waker::noop());
        let mut write = || Pin::new(&mut io).poll_write(context, b"abc").map_err(|e| e.kind());
        assert_eq!(write(), Poll::Ready(Ok(3)));
        assert_eq!((write(), write(), timers.get()), (Poll::Pending, Poll::Pending, 1));
        time.set(1);
        room.set(1);
        assert_eq!((write(), write()), (Poll::Ready(Ok(3)), Poll::Pending));
        // From here the first timer would be over.
        time.set(2);
        assert_eq!((write(), timers.get()), (Poll::Pending, 2));
        time.set(3);
        room.set(1);
        assert_eq!(write(), Poll::Ready(Err(ErrorKind::TimedOut)));
    }

    #[test]
    fn what_comes_behind_the_end_is_dropped_until_the_peer_ends_too() {
        let (room, sends, is_late) = (Cell::new(0), Cell::new(10_000), Cell::new(false));
        let open = |is_ended| {
            let is_late = &is_late;
            let sleep = move |length| {
                assert_eq!(length, LINGER_TIME);
                poll_fn(move |_| if is_late.get() { Poll::Ready(()) } else { Poll::Pending })
            };
            Impatient::new(Peer { room: &room, sends: &sends, is_ended }, visit(), sleep)
        };
        let context = &mut Context::from_waker(Waker::noop());
        // The peer ends.
        let mut io = open(true);
        assert!(Pin::new(&mut io).poll_shutdown(context).is_ready());
        assert_eq!(sends.get(), 0);
        // It does not.
        let mut io = open(false);
        assert!(Pin::new(&mut io).poll_shutdown(context).is_pending());
        sends.set(10_000);
        assert!(Pin::new(&mut io).poll_shutdown(context).is_pending());
        assert_eq!(sends.get(), 0);
        is_late.set(true);
        assert!(Pin::new(&mut io).poll_shutdown(context).is_ready());
        // It sends for ever.
        is_late.set(false);
        sends.set(usize::MAX);
        let mut io = open(false);
        assert!(Pin::new(&mut io).poll_shutdown(context).is_ready());
        assert!(usize::MAX - sends.get() < LINGER_LEN_MAX + 4096);
    }
}
