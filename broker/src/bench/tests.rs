use super::*;
use crate::bench::report::Flow;
use clap::Parser as _;
use serde_json::Value;
use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// A broker of one channel: bodies in, bodies out while RDY and FIN allow.
#[derive(Default)]
struct Fake {
    state: Mutex<State>,
    changed: Condvar,
    /// Answers publish commands with this instead of OK.
    refusal: Option<&'static str>,
}

#[derive(Default)]
struct State {
    bodies: VecDeque<Vec<u8>>,
    commands: Vec<String>,
    finished: u64,
    in_flight: u64,
}

impl Fake {
    fn serve(self) -> (Arc<Self>, String) {
        let fake = Arc::new(self);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accepting = Arc::clone(&fake);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let fake = Arc::clone(&accepting);
                thread::spawn(move || fake.connection(stream));
            }
        });
        (fake, address)
    }

    fn connection(self: Arc<Self>, mut stream: TcpStream) -> Option<()> {
        let mut input = BufReader::new(stream.try_clone().ok()?);
        input.read_exact(&mut [0; 4]).ok()?;
        let mut line = String::new();
        loop {
            line.clear();
            if input.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let mut words = line.split_ascii_whitespace();
            let command = words.next()?;
            self.state.lock().unwrap().commands.push(command.into());
            match command {
                "IDENTIFY" => {
                    sized(&mut input)?;
                    send(&mut stream, 0, b"OK")?;
                }
                "PUB" | "MPUB" => {
                    let body = sized(&mut input)?;
                    if let Some(refusal) = self.refusal {
                        send(&mut stream, 1, refusal.as_bytes())?;
                        continue;
                    }
                    let mut state = self.state.lock().unwrap();
                    if command == "PUB" {
                        state.bodies.push_back(body);
                    } else {
                        let mut rest = &body[4..];
                        while !rest.is_empty() {
                            state.bodies.push_back(sized(&mut rest)?);
                        }
                    }
                    drop(state);
                    self.changed.notify_all();
                    send(&mut stream, 0, b"OK")?;
                }
                "SUB" => send(&mut stream, 0, b"OK")?,
                "RDY" => {
                    let ready = words.next()?.parse().unwrap();
                    if ready > 0 {
                        let (fake, stream) = (Arc::clone(&self), stream.try_clone().ok()?);
                        thread::spawn(move || fake.deliver(stream, ready));
                    }
                }
                "FIN" => {
                    let mut state = self.state.lock().unwrap();
                    state.finished += 1;
                    state.in_flight -= 1;
                    drop(state);
                    self.changed.notify_all();
                }
                "CLS" => send(&mut stream, 0, b"CLOSE_WAIT")?,
                other => panic!("{other}"),
            }
        }
    }

    fn deliver(&self, mut stream: TcpStream, ready: u64) -> Option<()> {
        loop {
            let state = self.state.lock().unwrap();
            let idle = |s: &mut State| s.bodies.is_empty() || s.in_flight >= ready;
            let mut state = self.changed.wait_while(state, idle).unwrap();
            state.in_flight += 1;
            let mut message = vec![0; 10];
            message.extend(b"0123456789abcdef");
            message.extend(state.bodies.pop_front()?);
            drop(state);
            send(&mut stream, 2, &message)?;
        }
    }
}

fn sized(input: &mut impl io::Read) -> Option<Vec<u8>> {
    let mut len = [0; 4];
    input.read_exact(&mut len).ok()?;
    let mut body = vec![0; u32::from_be_bytes(len) as usize];
    input.read_exact(&mut body).ok()?;
    Some(body)
}

fn send(stream: &mut TcpStream, kind: u32, payload: &[u8]) -> Option<()> {
    let mut frame = (payload.len() as u32 + 4).to_be_bytes().to_vec();
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    stream.write_all(&frame).ok()
}

fn options(address: &str, more: &str) -> BenchOptions {
    let more = more.split_ascii_whitespace();
    let flags = ["sansq bench", "--nsqd-tcp-address", address, "--duration", "30ms"];
    BenchOptions::try_parse_from(flags.into_iter().chain(more)).unwrap()
}

fn assert_measured(flow: &Flow, latencies: u64) {
    assert!(flow.messages > 0 && flow.nanos > 0);
    assert_eq!(flow.latency.len(), latencies);
}

#[test]
fn publishes_and_consumes_all_of_it() {
    for (flags, per_command) in [
        ("--batch 1 --size 16 --window 7", 1),
        ("--batch 3 --rdy 5", 3),
        ("--batch 20 --connections 1 --consumers 3 --size 5000", 20),
    ] {
        let (fake, address) = Fake::default().serve();
        let report = run(&options(&address, flags)).unwrap();
        assert_measured(&report.published, report.published.messages / per_command);
        assert_measured(&report.received, report.published.messages);
        assert_eq!(report.received.messages, report.published.messages);
        assert_eq!(report.received.bytes, report.published.bytes);

        // The consumers read on until the server confirmed CLS, so all FINs before it have arrived.
        let state = fake.state.lock().unwrap();
        assert_eq!((state.finished, state.in_flight), (report.received.messages, 0));
        let publish = if per_command == 1 { "PUB" } else { "MPUB" };
        let published = state.commands.iter().filter(|c| *c == publish).count() as u64;
        assert_eq!(published * per_command, report.published.messages);
    }
}

#[test]
fn drains_what_others_have_left() {
    // With one message, two of the consumers have nothing to do and must end all the same.
    for (messages, bytes) in [(1_000, 499_500), (1, 0)] {
        let (fake, address) = Fake::default().serve();
        fake.state.lock().unwrap().bodies.extend((0..messages).map(|n| vec![b'm'; n]));
        let flags = "--mode sub --topic t --duration 24h --consumers 3";
        let report = run(&options(&address, flags)).unwrap();
        assert_measured(&report.received, 0);
        assert_eq!(report.received.messages, messages as u64);
        assert_eq!(report.received.bytes, bytes);
        assert_eq!(fake.state.lock().unwrap().finished, messages as u64);
        assert_eq!(report.topic.as_str(), "t");
    }
}

#[test]
fn publishes_only() {
    let (fake, address) = Fake::default().serve();
    let report = run(&options(&address, "--mode pub --batch 2 --size 3")).unwrap();
    assert_measured(&report.published, report.published.messages / 2);
    let bodies = &fake.state.lock().unwrap().bodies;
    assert_eq!(bodies.len() as u64, report.published.messages);
    assert!(bodies.iter().all(|body| body == b"xxx"));
}

#[test]
fn a_refusal_ends_the_run() {
    let (_, address) = Fake { refusal: Some("E_BAD_TOPIC no"), ..Fake::default() }.serve();
    let error = run(&options(&address, "--duration 60s")).unwrap_err();
    assert_eq!(error.to_string(), "the server answered E_BAD_TOPIC no");
}

#[test]
fn what_does_not_fit_is_refused() {
    let (_, address) = Fake::default().serve();
    let error = run(&options(&address, "--size 100000 --batch 100000")).unwrap_err();
    assert!(matches!(error, BenchError::CommandsTooLarge), "{error}");
}

#[test]
fn the_table_and_the_json_agree() {
    let mut published = Flow::default();
    published.add(4_000, 800_000, 2_000_000_000);
    published.record(1_000_000, 10);
    let options = options("127.0.0.1:1", "");
    let topic = TopicName::new("t").unwrap();
    let report = Report::new(&options, topic, published, Flow::default());
    assert_eq!(
        report.to_string(),
        "\
t: 200 bytes, batch 200, window 4

             messages   seconds        msg/s      MB/s
publish          4000      2.00         2000       0.4
deliver             0      0.00            0       0.0

latency in us          p50       p90       p99     p99.9       max
PUB to OK             1000      1000      1000      1000      1000
PUB to delivery          -         -         -         -         -"
    );
    let json = report.to_json();
    assert_eq!(json["publish"]["messages_per_second"], 2000.0);
    assert_eq!(json["publish"]["megabytes_per_second"], 0.4);
    assert!(json["publish"]["latency_us"]["p99.9"].as_f64().unwrap() >= 1000.0);
    assert_eq!(json["deliver"]["latency_us"]["p50"], Value::Null);
}
