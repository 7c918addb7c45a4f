//! The built program as a process beside the test.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Lines, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal, kill_process};

/// The program that is tested: the built one, or the one that `SANSQ` names.
pub(crate) fn program() -> OsString {
    std::env::var_os("SANSQ").unwrap_or_else(|| env!("CARGO_BIN_EXE_sansq").into())
}

/// The program, to be started with arguments.
pub(crate) fn sansq() -> Command {
    Command::new(program())
}

/// The program, to be started by a shell that has run `limits`, such as `ulimit -n 256`.
pub(crate) fn sansq_within(limits: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{limits}\nexec \"$0\" \"$@\"")]).arg(program());
    shell
}

/// Runs a command to its end: status, output and log.
pub(crate) fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("it was built");
    let text = |bytes| String::from_utf8(bytes).expect("it prints text only");
    (status.code(), text(stdout), text(stderr))
}

/// As [`run`], for the program with these arguments.
pub(crate) fn said(args: &[&str]) -> (Option<i32>, String, String) {
    run(sansq().args(args))
}

/// Ends a process, or does something else to it.
pub(crate) fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("it runs");
}

/// A program of ours that runs beside the test. A test that fails leaves none behind.
pub(crate) struct Process {
    child: Child,
    /// Of its log, unless a thread reads it.
    lines: Option<Lines<BufReader<ChildStderr>>>,
    reader: Option<JoinHandle<()>>,
    log: Arc<Mutex<String>>,
}

impl Process {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::spawn(sansq().args(args))
    }

    /// With these variables in its environment.
    pub(crate) fn start_in(args: &[&str], variables: &[(&str, &Path)]) -> Self {
        Self::spawn(sansq().args(args).envs(variables.iter().copied()))
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it was built");
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        Self { child, lines: Some(lines), reader: None, log: Arc::default() }
    }

    /// The next line of its log with this text in it.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        for line in self.lines.as_mut().expect("no thread reads it").by_ref() {
            let line = line.expect("it prints text only");
            note(&self.log, &line);
            if line.contains(text) {
                return line;
            }
        }
        panic!("it ended without {text}:\n{}", self.log());
    }

    /// The address at the end of the next line of its log with this text in it.
    pub(crate) fn address(&mut self, text: &str) -> String {
        self.wait_for(text).rsplit(' ').next().expect("an address").to_owned()
    }

    /// From now on a thread reads its log, so that it is not held up by it. What clients cause by
    /// the thousand is not kept.
    pub(crate) fn drain(&mut self) {
        let lines = self.lines.take().expect("no thread reads it");
        let log = Arc::clone(&self.log);
        self.reader = Some(thread::spawn(move || {
            let lines = lines.map_while(Result::ok);
            lines.filter(|line| !line.contains(" INFO: ")).for_each(|line| note(&log, &line));
        }));
    }

    /// What it has logged, as far as that was read.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn send(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// Its status, `None` if a signal ended it, its output and its log.
    pub(crate) fn stop(self, signal: Signal) -> (Option<i32>, String, String) {
        self.send(signal);
        self.wait()
    }

    /// As [`stop`](Self::stop), when it ends by itself.
    pub(crate) fn wait(mut self) -> (Option<i32>, String, String) {
        for line in self.lines.take().into_iter().flatten() {
            note(&self.log, &line.expect("it prints text only"));
        }
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        let mut output = String::new();
        let mut stdout = self.child.stdout.take().expect("it is piped");
        stdout.read_to_string(&mut output).expect("it prints text only");
        (self.child.wait().expect("it ends").code(), output, self.log())
    }
}

fn note(log: &Mutex<String>, line: &str) {
    let mut log = log.lock().unwrap();
    log.push_str(line);
    log.push('\n');
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
