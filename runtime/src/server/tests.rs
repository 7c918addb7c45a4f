//! A runtime in a page, and what can be seen of a server only from within.

use core::future::Future;
use core::net::IpAddr;
use core::task::{Context, Poll};
use core::time::Duration;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::BytesMut;
use sansq_core::nsqd::{Config, Peer, ShardId};
use sansq_core::storage::memory::MemoryFiles;
use sansq_core::storage::{Metadata, Store};
use smol::{Async, LocalExecutor, Timer, future};

use super::handle::ServerHandle;
use super::{Lookupd, Nsqd, life};
use crate::lanes::Lanes;
use crate::log::Program;
use crate::options::{LookupdOptions, NsqdOptions};
use crate::runtime::{self, Runtime, ServerRuntime, Task, Thread};
use crate::socket::{ListenSocket, Stream};
use crate::storage::{Desk, Engine, Inventory, Storage};

#[derive(Clone, Debug, Default)]
struct Plain;

#[derive(Debug)]
struct PlainThread(Plain, Weak<LocalExecutor<'static>>);

#[derive(Debug)]
struct PlainTask(smol::Task<()>);

#[derive(Debug)]
struct Socket(Async<Stream>);

struct Listener(Async<ListenSocket>);

impl Runtime for Plain {
    type Socket = Socket;

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        smol::spawn(task).detach();
    }

    async fn sleep(time: Duration) {
        Timer::after(time).await;
    }

    async fn connect(&self, address: &str, _: Option<IpAddr>) -> io::Result<Socket> {
        let stream = TcpStream::connect(address)?;
        Async::new(Stream::Tcp(stream)).map(Socket)
    }
}

impl ServerRuntime for Plain {
    type Thread = PlainThread;

    fn run<T>(&self, life: impl AsyncFnOnce(Rc<PlainThread>) -> io::Result<T>) -> io::Result<T> {
        let executor = Rc::new(LocalExecutor::new());
        let thread = Rc::new(PlainThread(self.clone(), Rc::downgrade(&executor)));
        smol::block_on(executor.run(life(thread)))
    }
}

impl Thread for PlainThread {
    type Runtime = Plain;
    type Socket = Socket;
    type Listener = Listener;
    type Task = PlainTask;

    fn runtime(&self) -> &Plain {
        &self.0
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) -> PlainTask {
        PlainTask(self.1.upgrade().unwrap().spawn(task))
    }

    async fn yield_now() {
        future::yield_now().await;
    }

    async fn sleep_until(&self, time: Instant) {
        Timer::at(time).await;
    }

    fn adopt(&self, stream: Stream) -> io::Result<Socket> {
        Async::new(stream).map(Socket)
    }

    fn release(socket: Socket) -> io::Result<Stream> {
        socket.0.into_inner()
    }

    fn listen(&self, socket: ListenSocket) -> io::Result<Listener> {
        Async::new(socket).map(Listener)
    }
}

impl Task for PlainTask {
    fn cancel(self) {
        drop(self.0);
    }

    fn detach(self) {
        self.0.detach();
    }
}

impl runtime::Listener for Listener {
    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        self.0.read_with(ListenSocket::accept).await
    }
}

impl runtime::Socket for Socket {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_readable(context)
    }

    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_writable(context)
    }

    fn try_read(&self, input: &mut BytesMut) -> io::Result<(usize, bool)> {
        let mut part = vec![0; input.capacity() - input.len()];
        let count = self.0.get_ref().read(&mut part)?;
        input.extend_from_slice(&part[..count]);
        Ok((count, false))
    }

    fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.get_ref().write_vectored(parts)
    }

    fn shut_down_writing(&self) -> io::Result<()> {
        self.0.get_ref().shutdown(Shutdown::Write)
    }
}

fn lookupd() -> Lookupd<Plain> {
    let options = LookupdOptions {
        tcp_address: String::from("127.0.0.1:0"),
        http_address: String::from("127.0.0.1:0"),
        ..LookupdOptions::default()
    };
    Lookupd::bind(options).unwrap()
}

/// What a runtime has to bring is on this page: with it a server serves, and ends.
#[test]
fn another_runtime_is_a_page() {
    let handle = lookupd().spawn().unwrap();
    let mut client = TcpStream::connect(handle.tcp_addr().to_string()).unwrap();
    client.write_all(b"  V1PING\n").unwrap();
    let mut answer = [0; 6];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"\0\0\0\x02OK");
    let answer = get(&handle, "/ping");
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("OK"), "{answer}");
    handle.shut_down();
    handle.join().unwrap();
}

fn get(server: &ServerHandle, path: &str) -> String {
    let mut client = TcpStream::connect(server.http_addr().unwrap().to_string()).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

/// The storage of one nsqd after the other, in memory.
#[derive(Clone, Debug, Default)]
struct Shelf(Arc<Mutex<MemoryFiles>>);

impl Storage for Shelf {
    type Engine = Self;

    fn list_path(&self) -> PathBuf {
        PathBuf::from("nowhere")
    }

    fn inventory(&mut self, _: ShardId) -> Inventory {
        let files = self.0.lock().unwrap();
        let list = files.get("nsqd.dat").map(|list| Metadata::parse(list).unwrap().metadata);
        let metadata = list.unwrap_or_default();
        // What the queues have they are to ask.
        let topics = metadata.topics.iter();
        let queues = topics.map(|topic| (Store::Queue(topic.name, None), None)).collect();
        Inventory::new(Arc::new(metadata), queues)
    }

    fn engine(&mut self, _: ShardId) -> Self {
        self.clone()
    }
}

impl Engine for Shelf {
    /// Carries them out in order, and reports each from another thread.
    fn run(self, desk: Desk) {
        let mut batch = Vec::new();
        while desk.wait(&mut batch) {
            for request in batch.drain(..) {
                let mut completions = vec![self.0.lock().unwrap().carry_out(&request)];
                let desk = desk.clone();
                std::thread::spawn(move || desk.report(&mut completions)).join().unwrap();
            }
        }
    }
}

#[test]
fn another_storage_keeps_what_is_published() {
    let shelf = Shelf::default();
    let start = || {
        let options = NsqdOptions {
            tcp_address: String::from("127.0.0.1:0"),
            http_address: Some(String::from("127.0.0.1:0")),
            shards: 2,
            config: Config { mem_queue_size: 0, ..Config::default() },
            ..NsqdOptions::default()
        };
        Nsqd::<Plain, _>::bind_over(options, shelf.clone()).unwrap().spawn().unwrap()
    };
    let nsqd = start();
    let mut client = TcpStream::connect(nsqd.tcp_addr().to_string()).unwrap();
    client.write_all(b"  V2PUB orders\n\0\0\0\x06apples").unwrap();
    let mut answer = [0; 10];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer[8..], b"OK");
    nsqd.shut_down();
    nsqd.join().unwrap();

    let nsqd = start();
    // How much there is, is known when the queue is open.
    let began = Instant::now();
    loop {
        let stats = get(&nsqd, "/stats?format=json");
        assert!(stats.contains(r#""topic_name":"orders""#), "{stats}");
        if stats.contains(r#""depth":1"#) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{stats}");
    }
    nsqd.shut_down();
    nsqd.join().unwrap();
}

#[test]
fn a_task_that_panics_ends_its_server() {
    let lookupd = lookupd();
    let lanes = Arc::new(Lanes::new(2));
    let mut handle =
        ServerHandle::new(Program::Nsqlookupd, lookupd.listener(), None, Arc::clone(&lanes));
    handle
        .start(String::from("first"), move || {
            life::run(&Plain, ShardId(0), Arc::clone(&lanes), |thread| {
                let (driver, doors) = lookupd.open(thread, lanes)?;
                driver.spawn(async { panic!("on purpose") }).detach();
                Ok((driver, doors))
            })
        })
        .unwrap();
    let error = handle.join().unwrap_err();
    assert_eq!(error.to_string(), "first failed - a task panicked");
}

/// When a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);
