//! The built program as a server that is tried, and what its clients do.

use core::net::SocketAddr;
use core::time::Duration;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};

/// How long something may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What drives the servers.
pub(crate) const RUNTIMES: [&str; 3] = ["tokio", "smol", "async-std"];

/// A running server, which is killed at the end.
pub(crate) struct Server {
    process: Child,
    pub(crate) tcp: SocketAddr,
    pub(crate) http: SocketAddr,
    log: Arc<Mutex<String>>,
    /// Keeps `log` up.
    reader: Option<thread::JoinHandle<()>>,
    folder: tempfile::TempDir,
}

impl Server {
    /// An nsqd of two shards with a data path of its own.
    pub(crate) fn nsqd(runtime: &str, flags: &[&str]) -> Self {
        Self::nsqd_within("", runtime, flags)
    }

    /// An nsqd that a shell starts when it has run `limits`, such as `ulimit -n 256`.
    pub(crate) fn nsqd_within(limits: &str, runtime: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data_path = format!("--data-path={}", folder.path().display());
        let flags = [&["--shards=2", &data_path], flags].concat();
        Self::start(limits, "nsqd", runtime, &flags, folder)
    }

    /// An nsqd on a data path that outlasts it.
    pub(crate) fn nsqd_on(path: &Path, limits: &str, runtime: &str, flags: &[&str]) -> Self {
        let data_path = format!("--data-path={}", path.display());
        let flags = [&["--shards=2", &data_path], flags].concat();
        Self::start(limits, "nsqd", runtime, &flags, tempfile::tempdir().unwrap())
    }

    /// An nsqlookupd.
    pub(crate) fn nsqlookupd(runtime: &str, flags: &[&str]) -> Self {
        Self::start("", "nsqlookupd", runtime, flags, tempfile::tempdir().unwrap())
    }

    fn start(
        limits: &str,
        program: &str,
        runtime: &str,
        flags: &[&str],
        folder: tempfile::TempDir,
    ) -> Self {
        let mut process = Command::new("sh")
            .args(["-c", &format!("{limits}\nexec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_sansq")])
            .args([program, "--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0"])
            .arg(format!("--runtime={runtime}"))
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let (mut text, mut tcp, mut http) = (String::new(), None, None);
        while tcp.is_none() || http.is_none() {
            let line = lines.next().unwrap_or_else(|| panic!("it ended early:\n{text}")).unwrap();
            if let Some((_, address)) = line.split_once("TCP: listening on ") {
                tcp = address.parse().ok();
            } else if let Some((_, address)) = line.split_once("HTTP: listening on ") {
                http = address.parse().ok();
            }
            text.push_str(&line);
            text.push('\n');
        }
        // Whoever logs must not wait for whoever reads. What clients cause by the thousand is not
        // kept.
        let log = Arc::new(Mutex::new(text));
        let kept = Arc::clone(&log);
        let reader = thread::spawn(move || {
            for line in lines.map_while(Result::ok).filter(|line| !line.contains(" INFO: ")) {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        Self { process, tcp: tcp.unwrap(), http: http.unwrap(), log, reader: Some(reader), folder }
    }

    /// A connection that has said nothing.
    pub(crate) fn connect(&self) -> TcpStream {
        patient(self.tcp)
    }

    /// A connection that has said the magic word.
    pub(crate) fn client(&self) -> TcpStream {
        let mut socket = self.connect();
        socket.write_all(b"  V2").unwrap();
        socket
    }

    /// The whole answer to a request over HTTP, head and body. `method_and_target` is such as
    /// `GET /ping`.
    pub(crate) fn ask(&self, method_and_target: &str, body: &[u8]) -> String {
        let mut socket = patient(self.http);
        let length = body.len();
        let head = format!(
            "{method_and_target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).unwrap();
        socket.write_all(body).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// What it has logged so far, without INFO lines behind its start.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Bytes of memory that the process has in use.
    pub(crate) fn resident(&self) -> usize {
        let path = format!("/proc/{}/statm", self.process.id());
        let statm = fs::read_to_string(path).unwrap();
        let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * rustix::param::page_size()
    }

    /// The most bytes of memory that the process has had in use at a time.
    pub(crate) fn peak(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// How many files the process has open.
    pub(crate) fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    /// Ends it by SIGKILL.
    pub(crate) fn kill(self) {}
    /// Its data path, if it is an nsqd.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends it by SIGTERM, and returns its status and all that it has logged.
    pub(crate) fn end_and_log(mut self) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        let status = self.process.wait().unwrap().code();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        (status, self.log())
    }

    /// Has the process stand still, or go on.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Ends it by SIGTERM, and returns its status; `None` if a signal ended it.
    pub(crate) fn end(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        self.process.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A connection on which nothing waits for ever.
pub(crate) fn patient(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

pub(crate) fn frame(socket: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 8];
    socket.read_exact(&mut head).unwrap();
    let size = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize;
    let mut payload = vec![0; size - 4];
    socket.read_exact(&mut payload).unwrap();
    (head[7], payload)
}

pub(crate) fn publish(socket: &mut TcpStream, topic: &str, body: &[u8]) {
    let mut command = format!("PUB {topic}\n").into_bytes();
    command.extend_from_slice(&(body.len() as u32).to_be_bytes());
    command.extend_from_slice(body);
    socket.write_all(&command).unwrap();
    assert_eq!(frame(socket), (0, b"OK".to_vec()));
}

pub(crate) fn until(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "it does not come about");
        thread::yield_now();
    }
}

/// A consumer and a producer whose messages come one by one and in order.
pub(crate) fn work_goes_on(nsqd: &Server, count: u32) {
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
pub(crate) fn connections(wanted: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    wanted.min(usize::try_from(limit).unwrap_or(usize::MAX) / 2)
}
