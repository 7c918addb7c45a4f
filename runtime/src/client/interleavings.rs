//! Those who share a client, under every interleaving: run by `.ci/run interleavings`. The driver
//! and the connections are the real ones; the machine, the runtime and the sockets are as small as
//! can be.

use core::future::{pending, ready};
use core::net::IpAddr;
use core::task::{Context, Poll};
use core::time::Duration;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Buf, BufMut, BytesMut};
use sansq_core::client::{
    ClientMachine, Dial, DialId, LookupCallId, NetActions, PoolOptions, ProducerPool,
};
use sansq_core::http::call::CallResult;
use sansq_core::time::{Instant, Now};

use super::drive::drive;
use super::machine::Client;
use super::setup::NetConfig;
use super::shared::Shared;
use super::waiters::{Wait, Waiters};
use super::wakers::Wakers;
use crate::interleavings::{explore, start};
use crate::runtime::{Runtime, Socket};
use crate::sync::Mutex;

/// One handle has the client connect while another has something to say; everything that is said is
/// written, and the server's end of the connection ends the client and its driver.
#[test]
fn what_several_say_is_written() {
    explore(|| {
        let (shared, program) = client();
        let handles = [1, 2].map(|byte| {
            let shared = Arc::clone(&shared);
            move || {
                shared.turn(|fake, _, out| {
                    if byte == 1 {
                        out.dial.push(Dial { id: fake.dial, address: String::new() });
                    }
                    fake.output.push(byte);
                    out.transmit.push(fake.dial);
                });
            }
        });
        let [first, second] = handles;
        let driver = start(drive(program.clone(), NetConfig::default(), Arc::clone(&shared)));
        let first = loom::thread::spawn(first);
        second();
        first.join().unwrap();
        driver.join().unwrap();
        let mut written = program.written.lock().unwrap().clone();
        written.sort_unstable();
        assert_eq!(written, [1, 2]);
    });
}

/// The driver sleeps until a deadline that is far away when an earlier one comes up.
#[test]
fn an_earlier_deadline_wakes_the_driver() {
    explore(|| {
        let (shared, program) = client();
        shared.turn(|fake, now, _| fake.due = Some(now.instant + Duration::from_secs(3_600)));
        let driver = start(drive(program, NetConfig::default(), Arc::clone(&shared)));
        shared.turn(|fake, now, _| fake.due = Some(now.instant));
        driver.join().unwrap();
        assert!(shared.look(|fake| fake.is_stopped));
    });
}

/// A handle waits for the end. The machine stops because another handle wants it to.
#[test]
fn a_stop_wakes_the_driver_and_whoever_waits_for_it() {
    explore(|| {
        let (shared, program) = client();
        let driver = start(drive(program, NetConfig::default(), Arc::clone(&shared)));
        let waiter = start(ended(Arc::clone(&shared)));
        shared.turn(|fake, _, _| fake.is_stopped = true);
        waiter.join().unwrap();
        driver.join().unwrap();
    });
}

/// The runtime drops the driver, begun or not, while handles still ask for things and wait.
#[test]
fn nobody_waits_for_a_client_whose_driver_was_dropped() {
    explore(|| {
        let (shared, program) = client();
        let mut driver = Box::pin(drive(program, NetConfig::default(), Arc::clone(&shared)));
        let runtime = start(async move {
            assert_eq!(futures_lite::future::poll_once(&mut driver).await, None);
            drop(driver);
        });
        // If the driver sees to this, there is a connection, whose task has to end too.
        shared.turn(|fake, _, out| out.dial.push(Dial { id: fake.dial, address: String::new() }));
        loom::future::block_on(ended(Arc::clone(&shared)));
        runtime.join().unwrap();
    });
}

/// What is asked for behind the end has an end of its own.
#[test]
fn nobody_waits_for_a_dial_that_is_asked_for_at_the_end() {
    explore(|| {
        let (shared, program) = client();
        let driver = drive(program, NetConfig::default(), Arc::clone(&shared));
        let runtime = loom::thread::spawn(move || drop(driver));
        let id = shared.turn(|fake, _, out| {
            out.dial.push(Dial { id: fake.dial, address: String::new() });
            fake.dial
        });
        loom::future::block_on(shared.gone(id));
        runtime.join().unwrap();
    });
}

/// Waits until nothing drives the client any more.
async fn ended(shared: Arc<Shared<Fake>>) {
    let mut wait = Wait::new(&shared, |fake| &mut fake.waiters);
    core::future::poll_fn(|context| {
        wait.poll(context, |fake| if fake.is_over { Poll::Ready(()) } else { Poll::Pending })
    })
    .await;
}

fn client() -> (Arc<Shared<Fake>>, Program) {
    let mut pool = ProducerPool::new(PoolOptions::default(), 0).expect("the defaults are in range");
    let mut out = sansq_core::client::ProducerActions::default();
    pool.add_nsqd("nsqd:4150", Now::from_millis(0), &mut out);
    let fake = Fake {
        dial: out.net.dial[0].id,
        is_connected: false,
        output: Vec::new(),
        due: None,
        is_stopped: false,
        is_over: false,
        waiters: Waiters::default(),
    };
    (Shared::new(fake), Program { written: Arc::default() })
}

/// A machine with one connection, one deadline and an end.
#[derive(Debug)]
struct Fake {
    dial: DialId,
    is_connected: bool,
    output: Vec<u8>,
    due: Option<Instant>,
    is_stopped: bool,
    is_over: bool,
    waiters: Waiters,
}

impl ClientMachine for Fake {
    type Actions = NetActions;

    fn net(actions: &mut NetActions) -> &mut NetActions {
        actions
    }

    fn handle_connected(&mut self, id: DialId, _: Now, out: &mut NetActions) {
        self.is_connected = true;
        out.transmit.push(id);
    }

    fn handle_connect_failed(&mut self, _: DialId, error: &str, _: Now, _: &mut NetActions) {
        panic!("{error}");
    }

    fn handle_input(&mut self, _: DialId, input: &mut BytesMut, _: Now, _: &mut NetActions) {
        input.advance(input.len());
    }

    fn handle_closed(&mut self, _: DialId, error: Option<&str>, _: Now, _: &mut NetActions) {
        assert_eq!(error, None);
        self.is_stopped = true;
    }

    fn handle_called(&mut self, _: LookupCallId, _: CallResult, _: Now, _: &mut NetActions) {
        panic!("nothing was asked");
    }

    fn handle_timeout(&mut self, now: Now, _: &mut NetActions) {
        if self.due.is_some_and(|due| due <= now.instant) {
            self.due = None;
            self.is_stopped = true;
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    fn overdue(&self, _: Now, _: &mut Vec<DialId>) {}

    fn postpone(&mut self, _: DialId, _: Instant) {}

    fn swap_transmit(&mut self, _: DialId, _: Now, spare: &mut Vec<u8>) {
        if self.is_connected {
            core::mem::swap(&mut self.output, spare);
        }
    }

    fn abort(&mut self) {
        self.is_stopped = true;
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped
    }
}

impl Client for Fake {
    type Machine = Self;

    fn machine(&self) -> &Self {
        self
    }

    fn machine_mut(&mut self) -> &mut Self {
        self
    }

    fn settle(&mut self, _: Now, _: &mut NetActions, wakers: &mut Wakers) {
        if self.is_stopped {
            self.end(wakers);
        }
    }

    fn end(&mut self, wakers: &mut Wakers) {
        self.is_over = true;
        self.waiters.wake_all(wakers);
    }
}

/// A runtime of one thread per task, without time, which connects to a server that takes two bytes.
#[derive(Clone)]
struct Program {
    written: Arc<Mutex<Vec<u8>>>,
}

impl Runtime for Program {
    type Socket = Line;

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(start(task));
    }

    async fn sleep(time: Duration) {
        if !time.is_zero() {
            pending::<()>().await;
        }
    }

    fn connect(&self, _: &str, _: Option<IpAddr>) -> impl Future<Output = io::Result<Line>> + Send {
        ready(Ok(Line(Arc::clone(&self.written))))
    }
}

struct Line(Arc<Mutex<Vec<u8>>>);

impl Socket for Line {
    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.lock().expect("nobody panics").len() == 2 {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn try_read(&self, _: &mut BytesMut) -> io::Result<(usize, bool)> {
        Ok((0, true))
    }

    fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut written = self.0.lock().expect("nobody panics");
        parts.iter().for_each(|part| written.put(&**part));
        Ok(parts.iter().map(|part| part.len()).sum())
    }

    fn shut_down_writing(&self) -> io::Result<()> {
        Ok(())
    }
}
