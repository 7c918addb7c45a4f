//! Clients that misbehave on the HTTP port, and the operators beside them.

use core::time::Duration;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use crate::server::{RUNTIMES, Server, frame, patient, until};

const MIB: usize = 1 << 20;

/// A limit on open files that leaves HTTP 128 places.
const LIMITS: &str = "ulimit -n 1024";

/// Many more than there are places, and fewer than the kernel's queue holds.
const COUNT: usize = 400;

/// `/ping` is answered while others hold on to their connections. Without a way to make room they
/// would for a minute, which is what this tells apart from a machine that is slow.
fn is_served(server: &Server) {
    let mut socket = patient(&server.http);
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket.write_all(b"GET /ping HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nOK"), "{answer}");
}

/// An nsqd and an nsqlookupd, each on each runtime.
fn servers(limits: &str) -> impl Iterator<Item = (String, Server)> {
    RUNTIMES.into_iter().flat_map(move |runtime| {
        [
            (format!("nsqd on {runtime}"), Server::nsqd_within(limits, runtime, &[])),
            (
                format!("nsqlookupd on {runtime}"),
                Server::nsqlookupd(runtime, &["--max-http-connections=128"]),
            ),
        ]
    })
}

/// `COUNT` connections that have sent `text`.
fn holding(server: &Server, text: &[u8]) -> Vec<TcpStream> {
    let connect = |_| {
        let mut socket = patient(&server.http);
        // Those who have been shown the door may not be able to write.
        let _ = socket.write_all(text);
        socket
    };
    (0..COUNT).map(connect).collect()
}

#[test]
fn connections_that_are_kept_idle_keep_nobody_out() {
    for (name, server) in servers(LIMITS) {
        let request = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut idle = holding(&server, b"");
        is_served(&server);
        let mut kept = 0;
        for socket in &mut idle {
            // Whoever had to go has been told so before it asks.
            if socket.write_all(request).is_ok() && socket.read(&mut [0; 512]).is_ok_and(|n| n > 0)
            {
                kept += 1;
            }
        }
        println!("{name}: {kept} of {COUNT} kept");
        assert!((100..=128).contains(&kept), "{name}: {kept}");
        is_served(&server);
        let page = server.ask("GET /metrics", b"");
        let line = page.lines().find(|line| line.contains("_http_evictions_total ")).unwrap();
        let count: usize = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!((COUNT - 128..COUNT).contains(&count), "{name}: {line}");
        until(|| {
            server.log().contains("to admit new ones: all --max-http-connections=128 were open")
        });
    }
}

/// Nobody can hold a place by being slow: not with half a head, half a body, or an answer that is
/// not read.
#[test]
fn slow_requests_keep_nobody_out() {
    let body = "POST /pub?topic=t HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf";
    for (name, server) in servers(LIMITS) {
        for text in ["G", "GET /ping HTTP/1.1\r\nHost: x\r\nX: ", body] {
            let mut slow = holding(&server, text.as_bytes());
            is_served(&server);
            // They trickle on.
            for socket in &mut slow {
                let _ = socket.write_all(b"x");
            }
            is_served(&server);
            println!("{name}: served beside {text:?}");
        }
    }
}

/// Memory of an nsqd that owes each of 16 connections an answer of some hundred kilobytes.
const DEAF_PEAK: usize = 128 * 1024 * 1024;

#[test]
fn answers_that_are_not_read_keep_nobody_out() {
    for runtime in RUNTIMES {
        let nsqd = Server::nsqd(runtime, &["--max-http-connections=16"]);
        // An answer that no socket takes whole.
        let name = "x".repeat(60);
        for n in 0..600 {
            assert!(nsqd.ask(&format!("POST /topic/create?topic={name}{n}"), b"").contains("200"));
        }
        let requests = b"GET /stats?format=json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200);
        let mut deaf = Vec::new();
        for _ in 0..64 {
            let mut socket = patient(&nsqd.http);
            let _ = socket.write_all(&requests);
            deaf.push(socket);
        }
        is_served(&nsqd);
        println!("{runtime}: {} bytes at most", nsqd.peak());
        assert!(nsqd.peak() <= DEAF_PEAK, "{runtime}: {}", nsqd.peak());
    }
}

/// Memory of an nsqlookupd with 100 connections, and less than they have sent.
const IGNORED_PEAK: usize = 64 * MIB;

/// No body means anything to nsqlookupd, so it keeps nothing of one.
#[test]
fn bodies_that_mean_nothing_take_no_memory() {
    for runtime in RUNTIMES {
        let nsqlookupd = Server::nsqlookupd(runtime, &["--max-http-connections=128"]);
        let head = format!(
            "POST /topic/create?topic=t HTTP/1.1\r\nHost: x\r\nContent-Length: {MIB}\r\n\r\n"
        );
        let request = [head.as_bytes(), &vec![b'x'; MIB - 1]].concat();
        let mut clients: Vec<_> = (0..100).map(|_| patient(&nsqlookupd.http)).collect();
        for client in &mut clients {
            client.write_all(&request).unwrap();
        }
        is_served(&nsqlookupd);
        for client in &mut clients {
            client.write_all(b"x").unwrap();
            let mut status = [0; 12];
            client.read_exact(&mut status).unwrap();
            assert_eq!(&status, b"HTTP/1.1 200");
        }
        println!("{runtime}: {} bytes at most", nsqlookupd.peak());
        assert!(nsqlookupd.peak() <= IGNORED_PEAK, "{runtime}: {}", nsqlookupd.peak());
    }
}

/// The least that a long answer has.
const LONG_LEN: usize = 7 * MIB;

/// So many ask for one and do not read it. Without a limit it would be half as much again as there
/// may be.
const UNREAD_COUNT: usize = 3 * (128 * MIB + 4 * LONG_LEN) / LONG_LEN / 2;

/// Long answers have room up to a limit, and whoever does not read its own has to go for those who
/// wait for it.
#[test]
fn long_answers_that_are_not_read_have_a_limit_in_bytes() {
    for runtime in RUNTIMES {
        let flags = ["--max-http-connections=128"];
        let nsqd = Server::nsqd(runtime, &flags);
        // Texts of which JSON makes six times as much. Nobody answers heartbeats, so they are rare.
        let text = "<".repeat(1024);
        let json = format!(
            "{{\"client_id\":\"{text}\",\"hostname\":\"{text}\",\"user_agent\":\"{text}\",\
              \"heartbeat_interval\":60000}}"
        );
        let commands =
            [b"IDENTIFY\n", &(json.len() as u32).to_be_bytes()[..], json.as_bytes(), b"SUB t c\n"];
        let mut clients = Vec::new();
        for _ in 0..400 {
            let mut client = nsqd.client();
            client.write_all(&commands.concat()).unwrap();
            assert_eq!((frame(&mut client).0, frame(&mut client).0), (0, 0));
            clients.push(client);
        }
        nobody_reads(runtime, &nsqd, "nsqd", "/stats?format=json");

        // What serves HTTP is the same, and this takes its time.
        if runtime != RUNTIMES[0] {
            continue;
        }
        let nsqlookupd = Server::nsqlookupd(runtime, &flags);
        let mut registrations = super::nsqlookupd::session(&nsqlookupd, 4150);
        let name = "n".repeat(50);
        assert_eq!(super::nsqlookupd::register(&mut registrations, &name, 12_000), 12_000);
        nobody_reads(runtime, &nsqlookupd, "nsqlookupd", "/debug");
    }
}

fn nobody_reads(runtime: &str, server: &Server, program: &str, target: &str) {
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut deaf = Vec::new();
    for n in 0..UNREAD_COUNT {
        let mut socket = patient(&server.http);
        // Some wait for room that they have themselves.
        socket.write_all(request.repeat(1 + usize::from(n % 4 == 0)).as_bytes()).unwrap();
        deaf.push(socket);
        is_served(server);
    }
    let answer = server.ask(&format!("GET {target}"), b"");
    assert!(answer.ends_with('}') && answer.len() >= LONG_LEN, "{runtime}: {}", answer.len());
    let metrics = server.ask("GET /metrics", b"");
    let figure = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(&format!("{program}_{name} ")));
        line.unwrap().rsplit(' ').next().unwrap().parse::<usize>().unwrap()
    };
    let (held, waits) = (figure("http_answer_bytes"), figure("http_answer_waits_total"));
    let gone = figure("http_evictions_total");
    // 64 MiB of answers, one in the making, and what there is without any.
    let (peak, most) = (server.peak(), 128 * MIB + 4 * answer.len());
    println!(
        "{runtime}: {program}: {held} bytes now, {waits} waits, {gone} gone, {peak} of {most}"
    );
    assert!(held <= 64 * MIB && waits > 0 && gone > 0);
    assert!(peak <= most, "{runtime}: {program}: {peak}");
    until(|| server.log().contains(" that did not read their answers while others waited"));
}

/// Answers that are long in the making are given up for those who come: publishers that wait for a
/// disk.
#[test]
fn publishers_that_wait_keep_nobody_out() {
    for runtime in RUNTIMES {
        // The queue's file can't be written, since it is a folder.
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("t.diskqueue.000000.dat")).unwrap();
        let data_path = format!("--data-path={}", folder.path().display());
        let flags = ["--max-http-connections=16", "--mem-queue-size=0", data_path.as_str()];
        let nsqd = Server::nsqd(runtime, &flags);
        let publish = |_| {
            let mut socket = patient(&nsqd.http);
            let head = "POST /pub?topic=t HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
            let request = format!("{head}Content-Length: 1\r\n\r\nx");
            socket.write_all(request.as_bytes()).unwrap();
            socket
        };
        let waiting: Vec<_> = (0..64).map(publish).collect();
        let start = Instant::now();
        assert!(nsqd.ask("GET /config/node_id", b"").starts_with("HTTP/1.1 "));
        println!("{runtime}: served after {:?}", start.elapsed());
        let mut given_up = 0;
        for mut socket in waiting {
            let mut answer = String::new();
            match socket.read_to_string(&mut answer) {
                // Its place was wanted before its request had come, or had been read.
                Ok(0) => {}
                Ok(_) => assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
            given_up += usize::from(answer.ends_with("{\"message\":\"TOO_MANY_CONNECTIONS\"}"));
        }
        println!("{runtime}: {given_up} were told that they have to go");
        assert!(given_up > 0);
    }
}

/// The places are those of both ports, and a handshake that does not go on holds none either.
#[test]
fn handshakes_that_do_not_go_on_keep_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    let own = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("cert"), own.cert.pem()).unwrap();
    fs::write(path("key"), own.signing_key.serialize_pem()).unwrap();
    for runtime in RUNTIMES {
        let cert = format!("--tls-cert={}", path("cert"));
        let key = format!("--tls-key={}", path("key"));
        let flags = ["--https-address=127.0.0.1:0", &cert, &key, "--max-http-connections=16"];
        let nsqd = Server::nsqd(runtime, &flags);
        let https = nsqd.https.as_deref().unwrap();
        let mut halves = Vec::new();
        for _ in 0..64 {
            let mut socket = patient(https);
            // The head of a ClientHello, and not all of it.
            let _ = socket.write_all(b"\x16\x03\x01\x02\0\x01\0");
            halves.push(socket);
        }
        is_served(&nsqd);
        // What is no TLS is told so, whatever comes behind it.
        let mut plain = patient(https);
        plain.write_all(b"GET /ping HTTP/1.1\r\n").unwrap();
        plain.peek(&mut [0]).unwrap();
        plain.write_all(&[b'x'; 10_000]).unwrap();
        plain.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        plain.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("Client sent an HTTP request to an HTTPS server.\n"), "{answer}");
    }
}

/// A client that speaks another protocol gets its 400, whatever it sends behind it.
#[test]
fn whoever_does_not_speak_http_can_read_that() {
    for (name, server) in servers("") {
        let mut socket = patient(&server.http);
        socket.write_all(b"  V2").unwrap();
        socket.peek(&mut [0]).unwrap();
        for _ in 0..8 {
            socket.write_all(b"IDENTIFY\n\0\0\0\x02{}").unwrap();
        }
        socket.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{name}: {answer}");
    }
}
