//! What a thread of a server waits with, on runtimes that have one reactor for the whole process:
//! its own connections, the next deadline, and wakes by other threads.
//!
//! With a thread per shard, whichever thread holds the process's reactor hears of the sockets of
//! all, and has to wake the others for theirs; and each wait for a socket is registered anew. So
//! the sockets of clients, which is where a broker's time goes, are registered here, once, with a
//! reactor per thread. Everything else (accepting, nsqlookupds) stays with the runtime's, whose
//! thread wakes this one.

mod socket;

pub use socket::Socket;

use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::sync::atomic::{AtomicU8, Ordering};
use core::task::{Context, Poll, Waker};
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Wake;
use std::time::Instant;

use mio::event::{Event, Source};
use mio::{Events, Interest, Registry, Token};
use sansq_core::input::READ_LEN_MAX;

/// The sockets and the alarm of one thread.
pub struct Reactor {
    poll: RefCell<mio::Poll>,
    registry: Registry,
    events: RefCell<Events>,
    sockets: RefCell<Sockets>,
    alarm: RefCell<Option<(Instant, Waker)>>,
    /// What is read into, before it is copied to where it belongs.
    scratch: RefCell<Box<[u8]>>,
    sleeper: Arc<Sleeper>,
}

/// By token. Tokens of sockets that are gone are given away again.
#[derive(Debug, Default)]
struct Sockets {
    entries: Vec<Option<Rc<Readiness>>>,
    free: Vec<usize>,
}

/// What is known of a socket without asking the system.
#[derive(Default)]
pub(crate) struct Readiness {
    reading: Direction,
    writing: Direction,
}

#[derive(Default)]
struct Direction {
    is_ready: Cell<bool>,
    /// The peer's end of it has been seen: there is something to learn even when all bytes have
    /// been read.
    is_closed: Cell<bool>,
    waiter: Cell<Option<Waker>>,
}

impl Reactor {
    /// One without sockets.
    ///
    /// # Errors
    /// If the operating system has no room for it.
    pub fn new() -> io::Result<Rc<Self>> {
        let poll = mio::Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let bell = mio::Waker::new(&registry, BELL)?;
        Ok(Rc::new(Self {
            poll: RefCell::new(poll),
            registry,
            events: RefCell::new(Events::with_capacity(EVENTS_MAX)),
            sockets: RefCell::default(),
            alarm: RefCell::default(),
            scratch: RefCell::new(vec![0; READ_LEN_MAX].into()),
            sleeper: Arc::new(Sleeper { state: AtomicU8::new(AWAKE), bell }),
        }))
    }

    /// Runs `task` on this thread, which waits here while there is nothing to do.
    ///
    /// # Errors
    /// If the operating system refuses to wait.
    pub fn block_on<T>(&self, task: impl Future<Output = T>) -> io::Result<T> {
        let waker = Waker::from(Arc::clone(&self.sleeper));
        let mut context = Context::from_waker(&waker);
        let mut task = pin!(task);
        loop {
            self.sleeper.get_up();
            if let Poll::Ready(result) = task.as_mut().poll(&mut context) {
                return Ok(result);
            }
            self.look()?;
        }
    }

    /// Looks what has happened, and waits for it if nobody has woken this thread since it got up.
    fn look(&self) -> io::Result<()> {
        let timeout = if self.sleeper.lie_down() {
            let alarm = self.alarm.borrow();
            alarm.as_ref().map(|(time, _)| time.saturating_duration_since(Instant::now()))
        } else {
            Some(core::time::Duration::ZERO)
        };
        let mut events = self.events.borrow_mut();
        match self.poll.borrow_mut().poll(&mut events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        // Whoever wakes this thread from now on need not ring.
        self.sleeper.get_up();
        let sockets = self.sockets.borrow();
        for event in &*events {
            if let Some(Some(readiness)) = sockets.entries.get(event.token().0) {
                readiness.note(event);
            }
        }
        drop(sockets);
        let is_due = |(time, _): &mut (Instant, Waker)| *time <= Instant::now();
        if let Some((_, waiter)) = self.alarm.borrow_mut().take_if(is_due) {
            waiter.wake();
        }
        Ok(())
    }

    /// Has something read into room of up to `len` bytes.
    pub(crate) fn with_scratch<R>(&self, len: usize, read: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut scratch = self.scratch.borrow_mut();
        let len = len.min(scratch.len());
        read(&mut scratch[..len])
    }

    /// Waits until `time`, exact to a millisecond. For one task at a time: of two, only the later
    /// one is woken.
    pub async fn sleep_until(&self, time: Instant) {
        poll_fn(|context| {
            if time <= Instant::now() {
                return Poll::Ready(());
            }
            *self.alarm.borrow_mut() = Some((time, context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Has a socket waited for. It counts as ready until it has been found not to be.
    ///
    /// # Errors
    /// If the operating system has no room for it.
    pub(crate) fn register(&self, source: &mut impl Source) -> io::Result<(Token, Rc<Readiness>)> {
        let mut sockets = self.sockets.borrow_mut();
        let index = sockets.free.pop().unwrap_or(sockets.entries.len());
        if let Err(error) = self.registry.register(source, Token(index), BOTH) {
            sockets.free.push(index);
            return Err(error);
        }
        if index >= sockets.entries.len() {
            sockets.entries.resize_with(index + 1, || None);
        }
        let readiness = Rc::new(Readiness::default());
        readiness.reading.is_ready.set(true);
        readiness.writing.is_ready.set(true);
        sockets.entries[index] = Some(Rc::clone(&readiness));
        Ok((Token(index), readiness))
    }

    /// The opposite.
    pub(crate) fn deregister(&self, source: &mut impl Source, token: Token) {
        // It fails only for what is not registered.
        let _ = self.registry.deregister(source);
        let mut sockets = self.sockets.borrow_mut();
        if sockets.entries.get_mut(token.0).and_then(Option::take).is_some() {
            sockets.free.push(token.0);
        }
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").field("sockets", &self.sockets).finish_non_exhaustive()
    }
}

impl Readiness {
    /// Waits until there may be something to read, or nothing ever more. For one task.
    pub(crate) fn poll_readable(&self, context: &Context<'_>) -> Poll<()> {
        self.reading.poll(context)
    }

    /// Waits until there may be room to write, or none ever more. For one task.
    pub(crate) fn poll_writable(&self, context: &Context<'_>) -> Poll<()> {
        self.writing.poll(context)
    }

    /// All there was has been read. The end of the peer's stream, if that has been seen, is still
    /// to be read.
    pub(crate) fn note_drained(&self) {
        self.reading.is_ready.set(false);
    }

    /// The system says that there is nothing to read, and so will say when there is.
    pub(crate) fn note_empty(&self) {
        self.reading.note_blocked();
    }

    /// The system says that there is no room, and so will say when there is.
    pub(crate) fn note_full(&self) {
        self.writing.note_blocked();
    }

    fn note(&self, event: &Event) {
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.reading.note(event.is_read_closed());
        }
        if event.is_writable() || event.is_write_closed() || event.is_error() {
            self.writing.note(event.is_write_closed());
        }
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").finish_non_exhaustive()
    }
}

impl Direction {
    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        if self.is_ready.get() || self.is_closed.get() {
            return Poll::Ready(());
        }
        self.waiter.set(Some(context.waker().clone()));
        Poll::Pending
    }

    fn note_blocked(&self) {
        self.is_ready.set(false);
        self.is_closed.set(false);
    }

    fn note(&self, is_closed: bool) {
        self.is_ready.set(true);
        if is_closed {
            self.is_closed.set(true);
        }
        if let Some(waiter) = self.waiter.take() {
            waiter.wake();
        }
    }
}

/// Wakes the thread. That costs a system call only if the thread lies down, and only the first
/// time.
#[derive(Debug)]
struct Sleeper {
    state: AtomicU8,
    bell: mio::Waker,
}

impl Sleeper {
    /// The thread is about to work: what it was woken for until now it will see.
    fn get_up(&self) {
        self.state.swap(AWAKE, Ordering::AcqRel);
    }

    /// The thread is about to wait. Whether it may: not if it has been woken since it got up.
    fn lie_down(&self) -> bool {
        self.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::AcqRel) == ASLEEP {
            // Only a full counter is refused, and that has been rung.
            let _ = self.bell.wake();
        }
    }
}

/// The thread works, and has not been woken since it began to.
const AWAKE: u8 = 0;
/// The thread works, or is about to; it has been woken meanwhile.
const WOKEN: u8 = 1;
/// The thread waits for its sockets, or is about to.
const ASLEEP: u8 = 2;

/// The token of the bell.
const BELL: Token = Token(usize::MAX);
const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);
/// Sockets that are heard of at a time; the others follow at the next look.
const EVENTS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::io::{IoSlice, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use bytes::BytesMut;
    use smol::future;

    use super::*;
    use crate::runtime::Socket as _;
    use crate::socket::Stream;

    async fn readable(socket: &Socket) {
        poll_fn(|context| socket.poll_readable(context)).await.unwrap();
    }

    fn pair(reactor: &Rc<Reactor>) -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        (Socket::new(Stream::Tcp(stream), reactor).unwrap(), peer)
    }

    #[test]
    fn the_end_of_a_stream_is_heard_of_though_the_bytes_before_it_were_a_short_read() {
        let reactor = Reactor::new().unwrap();
        let (socket, mut peer) = pair(&reactor);
        let read = async {
            let mut room = BytesMut::with_capacity(100);
            // Nothing is there yet: from here on only the reactor knows.
            assert!(socket.try_read(&mut room).is_err());
            peer.write_all(b"all").unwrap();
            drop(peer);
            readable(&socket).await;
            // Both have come, so that one event tells of both.
            assert_eq!(socket.try_read(&mut room).unwrap().0, 3);
            readable(&socket).await;
            assert_eq!(socket.try_read(&mut room).unwrap(), (0, false));
        };
        reactor.block_on(read).unwrap();
    }

    #[test]
    fn a_socket_that_takes_no_more_is_waited_for() {
        let reactor = Reactor::new().unwrap();
        let (socket, mut peer) = pair(&reactor);
        let reader = thread::spawn(move || io::copy(&mut peer, &mut io::sink()).unwrap());
        let bytes = vec![7; 32 << 20];
        let write = async {
            let mut left = &bytes[..];
            while !left.is_empty() {
                match socket.try_write(&[IoSlice::new(left)]) {
                    Ok(count) => left = &left[count..],
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        poll_fn(|context| socket.poll_writable(context)).await.unwrap();
                    }
                }
            }
            socket.shut_down_writing().unwrap();
            let end = loop {
                readable(&socket).await;
                // It counts as ready until it has been found not to be.
                if let Ok((count, _)) = socket.try_read(&mut BytesMut::with_capacity(1)) {
                    break count;
                }
            };
            assert_eq!(end, 0);
        };
        reactor.block_on(write).unwrap();
        assert_eq!(reader.join().unwrap(), 32 << 20);
    }

    #[test]
    fn other_threads_wake_a_thread_that_has_no_sockets() {
        let reactor = Reactor::new().unwrap();
        let (sender, receiver) = smol::channel::bounded(1);
        let (back, answers) = smol::channel::bounded(1);
        let other = thread::spawn(move || {
            for number in 0..10_000 {
                sender.send_blocking(number).unwrap();
                assert_eq!(answers.recv_blocking().unwrap(), number);
            }
        });
        let echo = async {
            while let Ok(number) = receiver.recv().await {
                back.send(number).await.unwrap();
            }
        };
        reactor.block_on(echo).unwrap();
        other.join().unwrap();
    }

    #[test]
    fn the_alarm_wakes_and_not_before_its_time() {
        let reactor = Reactor::new().unwrap();
        let due = Instant::now() + Duration::from_millis(3);
        reactor.block_on(reactor.sleep_until(due)).unwrap();
        assert!(Instant::now() >= due);
        // What does not wait any more harms nobody.
        let past = Instant::now();
        let given_up = future::poll_once(reactor.sleep_until(past + Duration::from_secs(3600)));
        assert_eq!(reactor.block_on(given_up).unwrap(), None);
        reactor.block_on(reactor.sleep_until(past)).unwrap();
    }

    #[test]
    fn sockets_that_are_gone_leave_nothing() {
        let reactor = Reactor::new().unwrap();
        for _ in 0..3 {
            let (first, _peer) = pair(&reactor);
            let (second, _peer) = pair(&reactor);
            assert!(matches!(first.into_std(), Ok(Stream::Tcp(_))));
            drop(second);
        }
        let sockets = reactor.sockets.borrow();
        assert_eq!(sockets.entries.len(), 2);
        assert!(sockets.entries.iter().all(Option::is_none));
        assert_eq!(sockets.free.len(), 2);
    }
}
