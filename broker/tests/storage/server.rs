//! The program as a server, and a client of it.

use core::fmt::Write as _;
use core::time::Duration;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running nsqd on free ports.
pub(crate) struct Nsqd {
    child: Child,
    pub(crate) tcp: String,
    http: String,
    log: Option<JoinHandle<String>>,
}

impl Nsqd {
    /// Starts the program, or the one that `SANSQ` names.
    pub(crate) fn start(data_path: &Path, flags: &[&str]) -> Self {
        let program = std::env::var_os("SANSQ");
        let mut child = Command::new(program.unwrap_or_else(|| env!("CARGO_BIN_EXE_sansq").into()))
            .args(["nsqd", "--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0"])
            .arg(format!("--data-path={}", data_path.display()))
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .expect("it was built");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let (mut log, mut tcp, mut http) = (String::new(), None, None);
        while tcp.is_none() || http.is_none() {
            let line = lines.next().unwrap_or_else(|| panic!("it ended early:\n{log}")).unwrap();
            let address = line.rsplit(' ').next().map(String::from);
            if line.contains("TCP: listening on") {
                tcp = address;
            } else if line.contains("HTTP: listening on") {
                http = address;
            }
            writeln!(log, "{line}").unwrap();
        }
        let log = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // Each client has lines of its own, of no interest.
                if !line.contains(" INFO: ") {
                    writeln!(log, "{line}").unwrap();
                }
            }
            log
        });
        Self { child, tcp: tcp.unwrap(), http: http.unwrap(), log: Some(log) }
    }

    pub(crate) fn get(&self, target: &str) -> String {
        let mut socket = TcpStream::connect(&self.http).unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    pub(crate) fn post(&self, target: &str) {
        let mut socket = TcpStream::connect(&self.http).unwrap();
        let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        socket.write_all(format!("{head}Content-Length: 0\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{target}: {answer}");
    }

    /// Ends it as an operator would.
    pub(crate) fn stop(self) {
        let (status, log) = self.end();
        assert_eq!(status, Some(0), "{log}");
    }

    /// Ends it, and returns its status and what it logged that is worth it.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        (status.code(), self.take_log())
    }

    fn take_log(&mut self) -> String {
        self.log.take().map_or_else(String::new, |log| log.join().unwrap())
    }

    /// Kills it without a word.
    pub(crate) fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.take_log()
    }
}

impl Drop for Nsqd {
    /// A test that fails leaves nothing behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that has said the magic word.
pub(crate) fn connect(address: &str) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(b"  V2")?;
    Ok(socket)
}

/// The next frame that is no heartbeat: its type and payload.
pub(crate) fn frame(socket: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    loop {
        let mut head = [0; 8];
        socket.read_exact(&mut head)?;
        let size = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let mut payload = vec![0; size - 4];
        socket.read_exact(&mut payload)?;
        if payload != b"_heartbeat_" {
            return Ok((head[7], payload));
        }
        socket.write_all(b"NOP\n")?;
    }
}
