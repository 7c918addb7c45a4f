//! The built program as a server that is tried, and what its clients do.

use core::time::Duration;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::process::{Process, sansq_within};

/// How long something may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What drives the servers.
pub(crate) const RUNTIMES: [&str; 3] = ["tokio", "smol", "async-std"];

/// A running server on free ports, which is killed at the end.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) tcp: String,
    pub(crate) http: String,
    /// Of its HTTP API over TLS, if it was asked for one.
    pub(crate) https: Option<String>,
    /// Its data path, if it is an nsqd and has none that outlasts it.
    pub(crate) folder: TempDir,
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
    pub(crate) fn nsqd_on(path: &Path, runtime: &str, flags: &[&str]) -> Self {
        let data_path = format!("--data-path={}", path.display());
        Self::nsqd(runtime, &[&[data_path.as_str()], flags].concat())
    }

    pub(crate) fn nsqlookupd(runtime: &str, flags: &[&str]) -> Self {
        Self::start("", "nsqlookupd", runtime, flags, tempfile::tempdir().unwrap())
    }

    fn start(limits: &str, name: &str, runtime: &str, flags: &[&str], folder: TempDir) -> Self {
        let mut command = sansq_within(limits);
        command.args([name, "--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0"]);
        command.arg(format!("--runtime={runtime}"));
        let mut process = Process::spawn(command.args(flags));
        let tcp = process.address("TCP: listening on");
        let wants_https = flags.iter().any(|flag| flag.starts_with("--https-address"));
        let https = wants_https.then(|| process.address("HTTPS: listening on"));
        let http = process.address("HTTP: listening on");
        process.drain();
        Self { process, tcp, http, https, folder }
    }

    /// A connection that has said nothing.
    pub(crate) fn connect(&self) -> TcpStream {
        patient(&self.tcp)
    }

    /// A connection that has said the magic word.
    pub(crate) fn client(&self) -> TcpStream {
        let mut socket = self.connect();
        socket.set_nodelay(true).unwrap();
        socket.write_all(b"  V2").unwrap();
        socket
    }

    /// The whole answer to a request over HTTP, head and body. `method_and_target` is such as
    /// `GET /ping`.
    pub(crate) fn ask(&self, method_and_target: &str, body: &[u8]) -> String {
        let mut socket = patient(&self.http);
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

    /// Has something done that succeeds.
    pub(crate) fn post(&self, target: &str, body: &str) {
        let answer = self.ask(&format!("POST {target}"), body.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200 "), "{target}: {answer}");
    }

    /// `/stats` in JSON; `query` begins with `&`, unless it is empty.
    pub(crate) fn stats(&self, query: &str) -> Value {
        let answer = self.ask(&format!("GET /stats?format=json{query}"), b"");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str(body).expect("JSON")
    }

    /// What it has logged so far, without INFO lines behind its start.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Ends it by SIGKILL; what it had logged.
    pub(crate) fn kill(self) -> String {
        self.process.stop(Signal::KILL).2
    }

    /// Ends it by SIGTERM; its status, `None` if a signal ended it, and all that it has logged.
    pub(crate) fn end(self) -> (Option<i32>, String) {
        let (status, _, log) = self.process.stop(Signal::TERM);
        (status, log)
    }

    /// Ends it as an operator would, in good order.
    pub(crate) fn stop(self) {
        let (status, log) = self.end();
        assert_eq!(status, Some(0), "{log}");
    }
}

/// A connection on which nothing waits for ever.
pub(crate) fn patient(address: &str) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The next frame, its type and its payload, of a server that may die.
pub(crate) fn try_frame(socket: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 8];
    socket.read_exact(&mut head)?;
    let size = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let mut payload = vec![0; size - 4];
    socket.read_exact(&mut payload)?;
    Ok((head[7], payload))
}

/// The next frame: its type and its payload.
pub(crate) fn frame(socket: &mut TcpStream) -> (u8, Vec<u8>) {
    try_frame(socket).unwrap()
}

pub(crate) fn until(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "it does not come about");
        thread::yield_now();
    }
}
