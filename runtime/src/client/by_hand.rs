//! A runtime that a test drives by hand, and a server that says what the test says.

use core::cell::Cell;
use core::future::{Future, pending, poll_fn};
use core::mem;
use core::net::IpAddr;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::BytesMut;
use sansq_core::client::{ConsumerOptions, PoolOptions};

use super::setup::{ConsumerConfig, ProducerConfig};
use super::{Consumer, Producer};
use crate::runtime::{Runtime, Socket};

/// Polls a future once.
pub(super) fn poll<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}

#[derive(Clone, Default)]
pub(super) struct ManualRuntime(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    tasks: Vec<Task>,
    /// What all servers together have said and nobody has read.
    said: Vec<u8>,
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

impl ManualRuntime {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// With room for one publish.
    pub(super) fn producer(&self) -> Producer {
        let mut options = PoolOptions::default();
        options.producer.max_outstanding = 1;
        Producer::start(self.clone(), ProducerConfig::new().nsqd("a:1").options(options)).unwrap()
    }

    pub(super) fn consumer(&self) -> Consumer {
        self.consumer_with(ConsumerOptions::default())
    }

    pub(super) fn consumer_with(&self, options: ConsumerOptions) -> Consumer {
        let config = ConsumerConfig::new("topic", "channel").unwrap().nsqd("a:1");
        Consumer::start(self.clone(), config.options(options)).unwrap()
    }

    /// Polls each task once, in the order of their start.
    pub(super) fn poll_all(&self, waker: impl Fn() -> Waker) {
        let count = self.inner().tasks.len();
        (0..count).for_each(|at| self.poll_at(at, &waker()));
    }

    /// Polls the task that was started as the `at`-th.
    pub(super) fn poll_at(&self, at: usize, waker: &Waker) {
        let over = || -> Task { Box::pin(pending()) };
        let mut task = mem::replace(&mut self.inner().tasks[at], over());
        if poll(task.as_mut(), waker).is_pending() {
            self.inner().tasks[at] = task;
        }
    }

    /// A server says a frame.
    pub(super) fn say(&self, kind: u8, payload: &[u8]) {
        let said = &mut self.inner().said;
        said.extend((payload.len() as u32 + 4).to_be_bytes());
        said.extend([0, 0, 0, kind]);
        said.extend(payload);
    }

    pub(super) fn let_time_be_up() {
        IS_TIME_UP.set(true);
    }

    /// How many sleeps were begun.
    pub(super) fn sleeps() -> u32 {
        SLEEPS.get()
    }

    /// Nothing is driven any more.
    pub(super) fn end(&self) {
        let tasks = mem::take(&mut self.inner().tasks);
        drop(tasks);
    }
}

impl Runtime for ManualRuntime {
    type Socket = Self;

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.inner().tasks.push(Box::pin(task));
    }

    async fn sleep(time: Duration) {
        SLEEPS.set(SLEEPS.get() + 1);
        let start = Instant::now();
        let is_over = || IS_TIME_UP.get() || start.elapsed() >= time;
        poll_fn(|_| if is_over() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    async fn connect(&self, _: &str, _: Option<IpAddr>) -> io::Result<Self> {
        Ok(self.clone())
    }
}

impl Socket for ManualRuntime {
    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.inner().said.is_empty() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn try_read(&self, input: &mut BytesMut) -> io::Result<(usize, bool)> {
        let said = mem::take(&mut self.inner().said);
        input.extend_from_slice(&said);
        if said.is_empty() { Err(ErrorKind::WouldBlock.into()) } else { Ok((said.len(), true)) }
    }

    fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(parts.iter().map(|part| part.len()).sum())
    }

    fn shut_down_writing(&self) -> io::Result<()> {
        Ok(())
    }
}

// A runtime's sleep belongs to no runtime in particular; each test has a thread of its own.
thread_local! {
    /// Every sleep is over.
    static IS_TIME_UP: Cell<bool> = const { Cell::new(false) };
    static SLEEPS: Cell<u32> = const { Cell::new(0) };
}
