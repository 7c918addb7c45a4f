use super::*;
use clap::Parser as _;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
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
    per_topic: BTreeMap<String, u64>,
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
                    *state.per_topic.entry(words.next()?.into()).or_default() += 1;
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
                "NOP" => {}
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
            let mut message = vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
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
    let flags =
        ["sansq bench", "--nsqd-tcp-address", address, "--warm-up", "0s", "--duration", "24h"];
    BenchOptions::try_parse_from(flags.into_iter().chain(more)).unwrap()
}

fn refusal(flags: &str) -> String {
    options("127.0.0.1:1", flags).check().unwrap_err()
}

#[test]
fn publishes_and_consumes_all_of_it() {
    for (flags, per_command, total) in [
        ("--batch 1 --size 16 --window 7 --messages 100", 1, 100),
        ("--batch 3 --rdy 5 --messages 100", 3, 102),
        (
            "--batch 20 --connections 1 --consumers 3 --size 5000 --threads 2 --messages 200",
            20,
            200,
        ),
        ("--batch 1 --rate 100000 --messages 50", 1, 50),
    ] {
        let (fake, address) = Fake::default().serve();
        let report = measure(&options(&address, flags)).unwrap();
        assert_eq!((report.published.total, report.published.messages), (total, total), "{flags}");
        assert_eq!((report.received.total, report.received.messages), (total, total), "{flags}");
        assert_eq!(report.received.bytes, report.published.bytes);
        assert_eq!(report.published.latency.len(), total / per_command);
        assert_eq!(report.received.latency.len(), total);
        assert!(report.published.nanos > 0 && report.received.nanos > 0);
        assert_eq!((report.undelivered, report.shortfall()), (0, None));
        let lags = if flags.contains("--rate") { total } else { 0 };
        assert_eq!(report.published.lag.len(), lags);

        // The consumers read on until the server confirmed CLS, so all FINs before it have arrived.
        let state = fake.state.lock().unwrap();
        assert_eq!((state.finished, state.in_flight), (total, 0));
        let publish = if per_command == 1 { "PUB" } else { "MPUB" };
        let published = state.commands.iter().filter(|c| *c == publish).count() as u64;
        assert_eq!(published * per_command, total);
    }
}

#[test]
fn the_echo_hands_on_all_that_is_published() {
    for flags in [
        "--batch 1 --messages 500 --connections 3 --consumers 1",
        "--batch 10 --messages 500 --consumers 3",
        "--batch 1 --rate 100000 --messages 500 --rdy 1",
    ] {
        let report = measure(&options("echo", flags)).unwrap();
        assert_eq!((report.published.total, report.received.total), (500, 500), "{flags}");
        assert_eq!(report.received.latency.len(), 500);
        assert_eq!(report.received.bytes, report.published.bytes);
        assert_eq!((report.received.redelivered, report.undelivered), (0, 0));
        // Its time is this program's own.
        assert_eq!((report.server.pid, report.server.cpu), (None, None));
    }
    let error = measure(&options("echo", "--client-opt snappy")).unwrap_err();
    assert!(matches!(error, BenchError::NotGranted("snappy")));
    let text = "echo keeps nothing and has one channel";
    for flags in ["--mode sub", "--mode pub --drain", "--channels 2 --consumers 2"] {
        assert_eq!(options("echo", flags).check().unwrap_err(), text);
    }
    let flags = ["sansq bench", "--compare", "127.0.0.1:1,echo", "--mode", "sub"];
    assert_eq!(BenchOptions::try_parse_from(flags).unwrap().check().unwrap_err(), text);
}

#[test]
fn the_warm_up_is_not_counted() {
    let (_, address) = Fake::default().serve();
    let report = measure(&options(&address, "--messages 400 --warm-up 24h")).unwrap();
    assert_eq!((report.published.total, report.received.total), (400, 400));
    assert_eq!((report.published.messages, report.received.messages), (0, 0));
    assert!(report.published.latency.is_empty() && report.received.latency.is_empty());
    let why = report.shortfall().unwrap();
    assert!(why.starts_with("all 400 messages came within the --warm-up of 86400s"), "{why}");
}

#[test]
fn drains_what_others_have_left() {
    // With one message, two of the consumers have nothing to do and must end all the same.
    for (messages, bytes) in [(1_000, 499_500), (1, 0)] {
        let (fake, address) = Fake::default().serve();
        fake.state.lock().unwrap().bodies.extend((0..messages).map(|n| vec![b'm'; n]));
        let flags = "--mode sub --topic t --consumers 3";
        let report = measure(&options(&address, flags)).unwrap();
        assert!(report.received.latency.is_empty() && report.received.nanos > 0);
        assert_eq!(report.received.messages, messages as u64);
        assert_eq!(report.received.bytes, bytes);
        assert_eq!(fake.state.lock().unwrap().finished, messages as u64);
        assert_eq!(report.topics, ["t"]);
    }
}

#[test]
fn prefilled_messages_are_consumed_and_then_it_is_over() {
    let (fake, address) = Fake::default().serve();
    let flags = "--mode sub --prefill 1000 --batch 10 --connections 3";
    let report = measure(&options(&address, flags)).unwrap();
    assert_eq!((report.received.total, report.received.messages), (1_000, 1_000));
    assert_eq!(fake.state.lock().unwrap().finished, 1_000);
    assert!(report.to_json().get("publish").is_none());
}

#[test]
fn publishes_only() {
    let (fake, address) = Fake::default().serve();
    let flags = "--mode pub --batch 2 --size 3 --body random --messages 30";
    let report = measure(&options(&address, flags)).unwrap();
    assert_eq!((report.published.messages, report.published.latency.len()), (30, 15));
    let bodies = &fake.state.lock().unwrap().bodies;
    assert_eq!(bodies.len(), 30);
    assert!(bodies.iter().all(|body| body.len() == 3));
}

#[test]
fn what_it_published_is_drained_uncounted() {
    let (fake, address) = Fake::default().serve();
    let flags = "--mode pub --drain --messages 1000 --batch 10 --consumers 3";
    let report = measure(&options(&address, flags)).unwrap();
    assert_eq!((report.published.messages, report.received.total), (1_000, 0));
    assert_eq!((report.undelivered, report.shortfall()), (0, None));
    assert!(report.to_json().get("deliver").is_none());
    assert_eq!(fake.state.lock().unwrap().finished, 1_000);
}

#[test]
fn topics_take_turns() {
    for connections in [1, 2, 3, 8] {
        let (fake, address) = Fake::default().serve();
        let flags = "--mode pub --batch 1 --topic t#ephemeral --topics 3 --messages 240";
        let flags = format!("{flags} --connections {connections}");
        measure(&options(&address, &flags)).unwrap();
        let per_topic = &fake.state.lock().unwrap().per_topic;
        let topics: Vec<&str> = per_topic.keys().map(String::as_str).collect();
        assert_eq!(topics, ["t_0#ephemeral", "t_1#ephemeral", "t_2#ephemeral"]);
        assert!(per_topic.values().all(|count| *count == 80), "{per_topic:?}");
    }
}

#[test]
fn a_server_that_loses_messages_is_found_out() {
    let (_, address) = Fake::default().serve();
    let options = options(&address, "--mode pub --messages 200");
    let report = measure(&options).unwrap();
    let report = Report { undelivered: 7, ..report };
    assert_eq!(report.shortfall().unwrap(), "7 messages were not delivered");
    let published = Flow { unsent: 9, ..report.published.clone() };
    let report = Report { undelivered: 0, published, ..report };
    assert!(report.shortfall().unwrap().contains("--rate: 9 messages"));
}

#[test]
fn a_refusal_ends_the_run() {
    let (_, address) = Fake { refusal: Some("E_BAD_TOPIC no"), ..Fake::default() }.serve();
    let error = measure(&options(&address, "")).unwrap_err();
    assert_eq!(error.to_string(), "the server answered E_BAD_TOPIC no");
}

#[test]
fn what_is_not_granted_is_not_measured() {
    let (_, address) = Fake::default().serve();
    for option in ["snappy", "deflate"] {
        let error = measure(&options(&address, &format!("--client-opt {option}"))).unwrap_err();
        let text = format!("the server does not grant {option}, which --client-opt asks for");
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn flags_that_do_not_go_together_are_named() {
    for (flags, text) in [
        ("--size 100000 --batch 100000", "--size times --batch"),
        ("--topics 3 --consumers 2", "--consumers 2: 3 channels need a consumer each"),
        ("--topics 3 --channels 2 --consumers 5", "6 channels"),
        ("--prefill 10", "--prefill is for --mode sub"),
        ("--drain", "--drain is for --mode pub"),
        ("--mode pub --drain --channels 2", "goes to one channel"),
        ("--mode pub --drain --topics 3 --consumers 2", "3 channels need a consumer each"),
        ("--mode sub --rate 10", "--rate is for publishing"),
        ("--duration 0s", "--duration must not be zero"),
        ("--duration 2000000h", "more than 100 years"),
        ("--pid 1,2", "--pid: 1 wanted"),
        (
            "--client-opt max_in_fligth,7",
            "--client-opt: unknown option max_in_fligth; did you mean",
        ),
        ("--client-opt snappy --client-opt deflate", "snappy"),
    ] {
        assert!(refusal(flags).contains(text), "{flags}: {}", refusal(flags));
    }
    for bad in ["--compare a:1", "--compare a:1,b:1,c:1", "--rate 0", "--batch 0", "--rounds 0"] {
        let words = ["bench"].into_iter().chain(bad.split(' '));
        assert!(BenchOptions::try_parse_from(words).is_err(), "{bad}");
    }
}

#[test]
fn defaults_follow_from_other_flags() {
    let of = |flags| {
        let options = options("127.0.0.1:1", flags);
        assert_eq!(options.check(), Ok(()));
        (options.window(), options.consumers())
    };
    assert_eq!(of(""), (4, 2));
    assert_eq!(of("--rate 100 --topics 4 --channels 2"), (250, 8));
    // A window of large commands is not built in advance.
    assert_eq!(of("--rate 100 --size 1000000 --batch 10"), (13, 2));
    assert_eq!(of("--rate 100 --size 1000000 --batch 200"), (1, 2));
    assert_eq!(of("--rate 100 --window 7 --consumers 3"), (7, 3));
}

#[test]
fn two_servers_take_turns() {
    let (_, first) = Fake::default().serve();
    let (_, second) = Fake::default().serve();
    let mut options = options("unused", "--mode pub --messages 100 --rounds 3 --batch 1");
    let pair = Pair { first: first.clone(), second: second.clone() };
    options.compare = Some(pair.clone());
    let mut order = Vec::new();
    let note = |report: &Report| order.push(report.to_json()["nsqd_tcp_address"].clone());
    let comparison = compare(&options, &pair, note).unwrap();
    assert_eq!(
        order,
        [&first, &second, &second, &first, &first, &second].map(|it| Value::from(it.as_str()))
    );
    assert_eq!((comparison.rounds.len(), comparison.shortfall()), (3, None));

    let json = comparison.to_json();
    let ratios = json["ratios"].as_array().unwrap();
    for ratio in ratios {
        // Each is where it says in each report.
        let path = ratio["figure"].as_str().unwrap().split_once('.').unwrap();
        let value = &json["rounds"][2]["second"][path.0];
        let value = match path.1.split_once('.') {
            Some((object, name)) => &value[object][name],
            None => &value[path.1],
        };
        assert!(value.is_number(), "{path:?}");
        let [least, median, greatest] =
            ["ratio_min", "ratio", "ratio_max"].map(|key| ratio[key].as_f64().unwrap());
        assert!(least <= median && median <= greatest);
    }
    assert!(ratios.iter().any(|ratio| ratio["figure"] == "publish.latency_us.p99.9"));
    let table = comparison.to_string();
    assert!(
        table.contains("published, msg/s") && table.contains(&format!("A: {first}\nB: ")),
        "{table}"
    );

    let pair = Pair { second: "127.0.0.1:0".into(), ..pair };
    let (address, _) = compare(&options, &pair, |_| {}).unwrap_err();
    assert_eq!(address, "127.0.0.1:0");
}

#[test]
fn the_table_and_the_json_agree() {
    let mut published = Flow {
        messages: 4_000,
        bytes: 800_000,
        nanos: 2_000_000_000,
        cpu: 2_000_000,
        ..Flow::default()
    };
    published.record(1_000_000, 10);
    let options = options("127.0.0.1:1", "--client-opt auth_secret,hunter2");
    let server = Server {
        version: "1.3.0".into(),
        pid: Some(42),
        cpu: Some(Duration::from_millis(8)),
        watched: Duration::from_secs(2),
        memory: Some(5_000_000),
    };
    let report = Report::new(&options, vec!["t".into()], server, (published, Flow::default()), 0);
    assert_eq!(
        report.to_string(),
        "\
127.0.0.1:1 (nsqd 1.3.0), topic t
both, 200 bytes, 2 publishing, batch 200, window 4, 2 consuming, RDY 2500, closed loop, auth_secret,...

             messages   seconds        msg/s      MB/s  client us/msg
publish          4000      2.00         2000       0.4          0.500
deliver             0      0.00            0       0.0              -

latency in us          p50       p90       p99     p99.9       max
PUB to OK             1000      1000      1000      1000      1000
PUB to delivery          -         -         -         -         -

server, pid 42: CPU 2.000 us/msg, 0 % of a core; memory 5.0 MB"
    );
    let json = report.to_json();
    assert_eq!(json["publish"]["messages_per_second"], 2000.0);
    assert_eq!(json["publish"]["megabytes_per_second"], 0.4);
    assert_eq!(json["publish"]["client_cpu_us_per_message"], 0.5);
    assert_eq!(json["publish"]["latency_us"]["samples"], 10);
    assert!(json["publish"]["latency_us"]["p99.9"].as_f64().unwrap() >= 1000.0);
    assert_eq!(json["deliver"]["latency_us"]["p50"], Value::Null);
    assert_eq!(json["server"]["cpu_us_per_message"], 2.0);
    assert!(!json.to_string().contains("hunter2") && !report.to_string().contains("hunter2"));
}
