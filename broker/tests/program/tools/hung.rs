//! Tools beside servers that take connections and never answer.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rustix::process::Signal;

use super::{nsqd, nsqd_with};
use crate::process::{Process, sansq, send};
use crate::server::{PATIENCE, Server};

/// A server that hears what it is asked and keeps it to itself, as long as this is there.
struct Hung {
    address: String,
    asked: Receiver<TcpStream>,
}

impl Hung {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, asked) = channel();
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let mut first = [0];
                if (&socket).read_exact(&mut first).is_ok() && sender.send(socket).is_err() {
                    return;
                }
            }
        });
        Self { address, asked }
    }

    /// Waits until somebody waits for an answer.
    fn is_asked(&self) -> TcpStream {
        self.asked.recv_timeout(PATIENCE).expect("nobody asks")
    }
}

/// Every tool that asks nsqlookupds ends in good order while it waits for one.
#[test]
fn signals_are_heard_from_the_first_moment() {
    let folder = tempfile::tempdir().unwrap();
    let output = format!("--output-dir={}", folder.path().display());
    let tools: [&[&str]; 7] = [
        &["tail", "--topic=t"],
        &["to-file", "--topic=t", "--channel=c", &output],
        &["to-file", "--channel=c", &output],
        &["to-http", "--topic=t", "--channel=c", "--post=http://127.0.0.1:1/"],
        &["to-nsq", "--topic=t", "--channel=c", "--destination-nsqd-tcp-address=127.0.0.1:1"],
        &["stat", "--topic=t", "--channel=c"],
        &["pub", "--topic=t", "message"],
    ];
    for args in tools {
        let hung = Hung::start();
        let lookupd = format!("--lookupd-http-address={}", hung.address);
        let tool = Process::start(&[args, &[&lookupd]].concat());
        let _waiting = hung.is_asked();
        let (status, _, log) = tool.stop(Signal::TERM);
        assert_eq!(status, Some(0), "{args:?}: {log}");
    }
}

/// One nsqlookupd that answers is enough, wherever it stands in the list.
#[test]
fn one_that_answers_is_enough() {
    let (lookupd, hung) = (Server::nsqlookupd("tokio", &[]), Hung::start());
    let nsqd = nsqd_with(&[
        "--broadcast-address=127.0.0.1",
        &format!("--lookupd-tcp-address={}", lookupd.tcp),
    ]);
    nsqd.publish("t", &["one"]);
    nsqd.post("/channel/create?topic=t&channel=c", "");
    let addresses = [&hung.address, &lookupd.http].map(|it| format!("--lookupd-http-address={it}"));
    let [first, second] = addresses.each_ref().map(String::as_str);
    let mut tail = sansq()
        .args(["tail", "--topic=t", "--channel=c", first, second])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it was built");
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    drop(hung.is_asked());
    send(&tail, Signal::TERM);
    assert_eq!(tail.wait().unwrap().code(), Some(0));
    let (status, _, log) = Process::start(&["pub", "--topic=u", first, second, "two"]).wait();
    assert_eq!((status, nsqd.topic_count("u")), (Some(0), 1), "{log}");
}

/// An nsqd that hangs is left out of a line, and named; here it would take an hour to give it up.
#[test]
fn an_nsqd_that_hangs_holds_no_figures_up() {
    let (nsqd, hung) = (nsqd(), Hung::start());
    nsqd.post("/topic/create?topic=t", "");
    nsqd.post("/channel/create?topic=t&channel=c", "");
    let addresses = [&hung.address, &nsqd.http].map(|it| format!("--nsqd-http-address={it}"));
    let [first, second] = addresses.each_ref().map(String::as_str);
    let stat = ["stat", "--topic=t", "--channel=c", "--count=1", "--interval=10ms"];
    let patience = ["--http-client-request-timeout=1h"];
    let (status, output, log) =
        Process::start(&[&stat[..], &patience, &[first, second]].concat()).wait();
    assert_eq!((status, output.lines().count()), (Some(0), 3), "{output}{log}");
    assert!(log.contains(&format!("nsqd at {}: no answer yet", hung.address)), "{log}");
    let top = ["top", "--once", "--view=channels"];
    let (status, output, log) = Process::start(&[&top[..], &[first, second]].concat()).wait();
    assert!(status == Some(0) && output.contains("\nc "), "{output}{log}");
}
