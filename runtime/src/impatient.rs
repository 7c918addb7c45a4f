//! A connection whose peer has to take what it is sent.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::io::{self, ErrorKind, IoSlice};

use hyper::rt::{Read, ReadBufCursor, Write};

/// A connection that fails when its peer has taken nothing for as long as the future lasts that
/// `timer` makes.
///
/// hyper has a limit to how long a request's head may take, and none to an answer. Without one, clients
/// that ask and do not read would hold their places for ever, and there are not many
/// ([`HTTP_CONNECTIONS_MAX`](sansq_core::options::HTTP_CONNECTIONS_MAX)).
#[derive(Debug)]
pub struct Impatient<T, F, S> {
    inner: T,
    timer: F,
    /// Runs while the peer takes nothing.
    waiting: Option<Pin<Box<S>>>,
}

impl<T, F, S> Impatient<T, F, S>
where
    F: FnMut() -> S,
    S: Future<Output = ()>,
{
    /// The connection `inner` with a limit.
    pub const fn new(inner: T, timer: F) -> Self {
        Self { inner, timer, waiting: None }
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
        // Before the attempt, since the kernel may have room for some bytes more although the peer has
        // taken none: a late peer would win minute after minute.
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
        let timer = &mut self.timer;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(timer()));
        let is_late = waiting.as_mut().poll(context).is_ready();
        if is_late {
            self.waiting = None;
        }
        is_late
    }
}

impl<T: Read + Unpin, F: Unpin, S> Read for Impatient<T, F, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<T, F, S> Write for Impatient<T, F, S>
where
    T: Write + Unpin,
    F: FnMut() -> S + Unpin,
    S: Future<Output = ()>,
{
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.limit(context, |inner, context| inner.poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.limit(context, |inner, context| inner.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.limit(context, |inner, context| inner.poll_shutdown(context))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.limit(context, |inner, context| inner.poll_write_vectored(context, slices))
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;
    use core::future::poll_fn;
    use core::task::Waker;

    use super::*;

    /// Takes as many writes as `room` says.
    struct Peer<'a> {
        room: &'a Cell<usize>,
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

    #[test]
    fn a_peer_that_takes_nothing_is_given_up_and_one_that_takes_some_is_not() {
        let (room, time, timers) = (Cell::new(1), Cell::new(0), Cell::new(0));
        let timer = || {
            timers.set(timers.get() + 1);
            let end = time.get() + 2;
            let time = &time;
            poll_fn(move |_| if time.get() < end { Poll::Pending } else { Poll::Ready(()) })
        };
        let mut io = Impatient::new(Peer { room: &room }, timer);
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
}
