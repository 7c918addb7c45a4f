//! What clients that misbehave cost the built program: its memory, and the work of others.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use core::net::SocketAddr;
use core::time::Duration;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Resource, getrlimit, setrlimit};

/// How long something may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running nsqd, which is killed at the end.
struct Nsqd {
    process: Child,
    tcp: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Nsqd {
    fn start(runtime: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_sansq"))
            .args(["nsqd", "--tcp-address=127.0.0.1:0", "--http-address=", "--shards=2"])
            .args([
                format!("--runtime={runtime}"),
                format!("--data-path={}", folder.path().display()),
            ])
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let tcp = loop {
            let line = log.next().expect("it starts").unwrap();
            if let Some((_, address)) = line.split_once("TCP: listening on ") {
                break address.parse().unwrap();
            }
        };
        // Whoever logs must not wait for whoever reads.
        std::thread::spawn(move || log.for_each(drop));
        Self { process, tcp, _folder: folder }
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.tcp).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn client(&self) -> TcpStream {
        let mut socket = self.connect();
        socket.write_all(b"  V2").unwrap();
        socket
    }

    /// Bytes of memory that the process has in use.
    fn resident(&self) -> usize {
        let path = format!("/proc/{}/statm", self.process.id());
        let statm = fs::read_to_string(path).unwrap();
        let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * rustix::param::page_size()
    }

    /// How many files the process has open.
    fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }
}

impl Drop for Nsqd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn frame(socket: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 8];
    socket.read_exact(&mut head).unwrap();
    let size = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize;
    let mut payload = vec![0; size - 4];
    socket.read_exact(&mut payload).unwrap();
    (head[7], payload)
}

fn publish(socket: &mut TcpStream, topic: &str, body: &[u8]) {
    let mut command = format!("PUB {topic}\n").into_bytes();
    command.extend_from_slice(&(body.len() as u32).to_be_bytes());
    command.extend_from_slice(body);
    socket.write_all(&command).unwrap();
    assert_eq!(frame(socket), (0, b"OK".to_vec()));
}

fn until(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "it does not come about");
        std::thread::yield_now();
    }
}

/// A consumer and a producer whose messages come one by one and in order.
fn work_goes_on(nsqd: &Nsqd, count: u32) {
    let (mut consumer, mut producer) = (nsqd.client(), nsqd.client());
    consumer.write_all(b"SUB work c\nRDY 1\n").unwrap();
    assert_eq!(frame(&mut consumer).0, 0);
    for n in 0..count {
        publish(&mut producer, "work", &n.to_be_bytes());
        let (kind, message) = frame(&mut consumer);
        assert_eq!((kind, &message[26..]), (2, &n.to_be_bytes()[..]));
        consumer.write_all(&[b"FIN ", &message[10..26], b"\n"].concat()).unwrap();
    }
}

/// As many as the limits on open files of both processes allow, up to `wanted`.
fn connections(wanted: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    wanted.min(usize::try_from(limit).unwrap_or(usize::MAX) / 2)
}

const RUNTIMES: [&str; 3] = ["tokio", "smol", "async-std"];

/// Memory of a connection that has said nothing, or only the magic, everything included: the machine's
/// part, the task, the runtime's. A release build needs about half.
const IDLE_MAX: usize = 8 * 1024;

#[test]
fn connections_that_say_nothing_cost_little_each() {
    let count = connections(10_000);
    for runtime in RUNTIMES {
        let nsqd = Nsqd::start(runtime, &[]);
        let files = nsqd.files();
        work_goes_on(&nsqd, 10);
        let memory = nsqd.resident();
        let idle: Vec<_> =
            (0..count).map(|n| if n % 2 == 0 { nsqd.connect() } else { nsqd.client() }).collect();
        // Files of its own come and go.
        until(|| nsqd.files() + 8 >= files + count);
        work_goes_on(&nsqd, 100);
        let each = nsqd.resident().saturating_sub(memory) / count;
        println!("{runtime}: {each} bytes for each of {count} idle connections");
        assert!(each <= IDLE_MAX, "{runtime}: {each}");
        drop(idle);
        until(|| nsqd.files() < files + count / 100);
    }
}

/// Memory of a connection that announces two gigabytes and sends few.
const ANNOUNCED_MAX: usize = 128 * 1024;

#[test]
fn a_length_of_two_gigabytes_is_not_believed() {
    const COUNT: usize = 100;
    let huge = i32::MAX.to_be_bytes();
    for runtime in RUNTIMES {
        // Beyond the limits it is refused at once …
        let nsqd = Nsqd::start(runtime, &[]);
        for (command, error) in [
            ("PUB t\n", "E_BAD_MESSAGE PUB message too big 2147483647 > 1048576"),
            ("DPUB t 1\n", "E_BAD_MESSAGE DPUB message too big 2147483647 > 1048576"),
            ("MPUB t\n", "E_BAD_BODY MPUB body too big 2147483647 > 5242880"),
            ("IDENTIFY\n", "E_BAD_BODY IDENTIFY body too big 2147483647 > 5242880"),
        ] {
            let mut client = nsqd.client();
            client.write_all(&[command.as_bytes(), &huge].concat()).unwrap();
            assert_eq!(frame(&mut client), (1, error.into()));
        }
        // … and within them memory is used for what arrives.
        let huge_limits = ["--max-msg-size=2147483647", "--max-body-size=2147483647"];
        let nsqd = Nsqd::start(runtime, &huge_limits);
        work_goes_on(&nsqd, 10);
        let memory = nsqd.resident();
        let mut slow: Vec<_> = (0..COUNT).map(|_| nsqd.client()).collect();
        for (n, client) in slow.iter_mut().enumerate() {
            let command = ["PUB t\n", "DPUB t 1\n", "MPUB t\n", "IDENTIFY\n"][n % 4];
            client.write_all(&[command.as_bytes(), &huge].concat()).unwrap();
        }
        for _ in 0..20 {
            for client in &mut slow {
                client.write_all(b"x").unwrap();
            }
            work_goes_on(&nsqd, 10);
        }
        let each = nsqd.resident().saturating_sub(memory) / COUNT;
        println!("{runtime}: {each} bytes for each of {COUNT} that announce 2 GiB");
        assert!(each <= ANNOUNCED_MAX, "{runtime}: {each}");
    }
}

/// Memory of a consumer that takes nothing. Of the messages it has no copy: that would be 16 MiB.
const UNREAD_MAX: usize = 256 * 1024;

#[test]
fn consumers_that_do_not_read_cost_a_bounded_amount() {
    const COUNT: usize = 40;
    const MESSAGES: usize = 250;
    const LEN: usize = 64 * 1024;
    for runtime in RUNTIMES {
        let nsqd = Nsqd::start(runtime, &[]);
        work_goes_on(&nsqd, 10);
        let memory = nsqd.resident();
        let mut deaf: Vec<_> = (0..COUNT).map(|_| nsqd.client()).collect();
        for (n, client) in deaf.iter_mut().enumerate() {
            client.write_all(format!("SUB t c{n}\nRDY 2500\n").as_bytes()).unwrap();
            client.peek(&mut [0]).unwrap();
        }
        let mut producer = nsqd.client();
        // More than the kernel keeps for a reader.
        for _ in 0..MESSAGES {
            publish(&mut producer, "t", &[b'x'; LEN]);
        }
        work_goes_on(&nsqd, 100);
        let bodies = MESSAGES * LEN;
        let each = nsqd.resident().saturating_sub(memory + bodies) / COUNT;
        println!("{runtime}: {each} bytes for each of {COUNT} that do not read");
        assert!(each <= UNREAD_MAX, "{runtime}: {each}");
    }
}

/// Answers that nobody reads, commands byte by byte, sockets that vanish: others notice nothing.
#[test]
fn work_goes_on_beside_everything() {
    for runtime in RUNTIMES {
        let nsqd = Nsqd::start(runtime, &[]);
        // As much as they take of commands that each have an answer, and where they are in it.
        let commands = b"FIN 0123456789abcdef\n".repeat(1000);
        let mut floods: Vec<_> = (0..8).map(|_| (nsqd.client(), 0)).collect();
        for (flood, _) in &mut floods {
            flood.write_all(b"SUB flood c\n").unwrap();
            assert_eq!(frame(flood).0, 0);
            flood.set_nonblocking(true).unwrap();
        }
        let mut slow = nsqd.connect();
        let mut bytes = b"  V2PUB slow\n\0\0\0\x04slow".iter();
        for round in 0..24 {
            for (flood, at) in &mut floods {
                match flood.write(&commands[*at..]) {
                    Ok(count) => *at = (*at + count) % commands.len(),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            if let Some(byte) = bytes.next() {
                slow.write_all(&[*byte]).unwrap();
            }
            if round % 4 == 0 {
                work_goes_on(&nsqd, 5);
            }
        }
        assert_eq!(frame(&mut slow), (0, b"OK".to_vec()));
    }
}
