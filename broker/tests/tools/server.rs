//! An nsqd to work with, and tools that run beside the test.

use core::time::Duration;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

pub(crate) const SANSQ: &str = env!("CARGO_BIN_EXE_sansq");

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running nsqd on free ports, with a data path of its own.
pub(crate) struct Nsqd {
    running: Tool,
    _data_path: tempfile::TempDir,
    pub(crate) tcp: String,
    pub(crate) http: String,
    /// Of its HTTP API over TLS, if it was asked for one.
    pub(crate) https: Option<String>,
}

impl Nsqd {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(flags: &[&str]) -> Self {
        let data_path = tempfile::tempdir().unwrap();
        let folder = format!("--data-path={}", data_path.path().display());
        let ports = ["--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0"];
        let args = ["nsqd", ports[0], ports[1], &folder, "--shards=1"];
        let mut running = Tool::start(&[&args[..], flags].concat());
        let tcp = running.address("TCP: listening on");
        let wants_https = flags.iter().any(|flag| flag.starts_with("--https-address"));
        let https = wants_https.then(|| running.address("HTTPS: listening on"));
        let http = running.address("HTTP: listening on");
        running.drain();
        Self { running, _data_path: data_path, tcp, http, https }
    }

    /// Publishes each of the messages.
    pub(crate) fn publish(&self, topic: &str, messages: &[&str]) {
        for message in messages {
            self.post(&format!("/pub?topic={topic}"), message);
        }
    }

    pub(crate) fn post(&self, target: &str, body: &str) {
        let answer = self.ask("POST", target, body);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{target}: {answer}");
    }

    fn ask(&self, method: &str, target: &str, body: &str) -> String {
        let mut socket = TcpStream::connect(&self.http).unwrap();
        let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        let length = body.len();
        write!(socket, "{head}Content-Length: {length}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    fn stats(&self, query: &str) -> Value {
        let answer = self.ask("GET", &format!("/stats?format=json{query}"), "");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str(body).expect("JSON")
    }

    /// A figure of a channel; `None` while there is no such channel.
    fn figure(&self, topic: &str, channel: &str, key: &str) -> Option<i64> {
        let stats = self.stats(&format!("&topic={topic}&channel={channel}"));
        stats["topics"][0]["channels"][0][key].as_i64()
    }

    /// The topics that it has, by name.
    pub(crate) fn topics(&self) -> Vec<String> {
        let stats = self.stats("");
        let topics = stats["topics"].as_array().into_iter().flatten();
        topics.filter_map(|topic| topic["topic_name"].as_str().map(Into::into)).collect()
    }

    /// How many messages a topic has had.
    pub(crate) fn topic_count(&self, topic: &str) -> i64 {
        self.stats(&format!("&topic={topic}"))["topics"][0]["message_count"].as_i64().unwrap_or(0)
    }

    /// Bytes of memory that the process has; 0 where the system does not tell.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    pub(crate) fn memory(&self) -> u64 {
        self.stats("")["memory"]["heap_in_use_bytes"].as_u64().unwrap()
    }

    /// How many messages of a channel are to be had, now or later.
    pub(crate) fn waiting(&self, topic: &str, channel: &str) -> i64 {
        let figure = |key| self.figure(topic, channel, key).unwrap_or(0);
        figure("depth") + figure("deferred_count")
    }

    /// Waits until the figures of a channel are these.
    pub(crate) fn wait(&self, topic: &str, channel: &str, figures: &[(&str, i64)]) {
        let began = Instant::now();
        let is_so = |(key, value): &(&str, i64)| self.figure(topic, channel, key) == Some(*value);
        while !figures.iter().all(is_so) {
            assert!(began.elapsed() < PATIENCE, "{topic}/{channel}: {figures:?}");
        }
    }

    /// Waits until so many messages came to a channel and all of them are finished.
    pub(crate) fn wait_until_done(&self, topic: &str, channel: &str, count: i64) {
        let figures =
            [("message_count", count), ("depth", 0), ("in_flight_count", 0), ("deferred_count", 0)];
        self.wait(topic, channel, &figures);
    }

    pub(crate) fn stop(self) {
        assert_eq!(self.running.stop(Signal::TERM).0, Some(0));
    }
}

/// A running nsqlookupd on free ports.
pub(crate) struct Nsqlookupd {
    _running: Tool,
    pub(crate) tcp: String,
    pub(crate) http: String,
}

impl Nsqlookupd {
    pub(crate) fn start() -> Self {
        let ports = ["--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0"];
        let mut running = Tool::start(&["nsqlookupd", ports[0], ports[1]]);
        let tcp = running.address("TCP: listening on");
        let http = running.address("HTTP: listening on");
        running.drain();
        Self { _running: running, tcp, http }
    }
}

/// Runs a tool to its end: status, output and log.
pub(crate) fn sansq(args: &[&str]) -> (Option<i32>, String, String) {
    Tool::start(args).wait()
}

/// A program of ours that runs beside the test.
pub(crate) struct Tool {
    child: Child,
    lines: Option<Lines<BufReader<ChildStderr>>>,
    log: String,
}

impl Tool {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_in(args, &[])
    }

    /// With these variables in its environment.
    pub(crate) fn start_in(args: &[&str], variables: &[(&str, &Path)]) -> Self {
        let mut child = Command::new(SANSQ)
            .args(args)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it was built");
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        Self { child, lines: Some(lines), log: String::new() }
    }

    /// The next line of its log with this text in it.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        for line in self.lines.as_mut().expect("it is not drained").by_ref() {
            let line = line.expect("it prints text only");
            self.log.push_str(&line);
            self.log.push('\n');
            if line.contains(text) {
                return line;
            }
        }
        panic!("it ended without {text}:\n{}", self.log);
    }

    /// The address at the end of the next line with this text in it.
    fn address(&mut self, text: &str) -> String {
        self.wait_for(text).rsplit(' ').next().expect("an address").to_owned()
    }

    /// Has its log read by a thread, so that it is not held up by it.
    fn drain(&mut self) {
        let lines = self.lines.take().expect("it is drained once");
        std::thread::spawn(move || lines.for_each(drop));
    }

    pub(crate) fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Its status, its output and its log.
    pub(crate) fn stop(self, signal: Signal) -> (Option<i32>, String, String) {
        self.send(signal);
        self.wait()
    }

    /// As [`stop`](Self::stop), when it ends by itself.
    pub(crate) fn wait(mut self) -> (Option<i32>, String, String) {
        for line in self.lines.take().into_iter().flatten() {
            self.log.push_str(&line.expect("it prints text only"));
            self.log.push('\n');
        }
        let mut output = String::new();
        let stdout = self.child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_to_string(&mut output).expect("it prints text only");
        (self.child.wait().expect("it ends").code(), output, core::mem::take(&mut self.log))
    }
}

impl Drop for Tool {
    /// A test that fails leaves nothing behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
