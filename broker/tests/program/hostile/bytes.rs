//! What clients have sent and have no answer to yet, and what they say of themselves, has a limit
//! in bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use super::{publish, work_goes_on};
use crate::server::{RUNTIMES, Server, frame, patient};

/// An MPUB of 4 MiB.
fn mpub(topic: &str) -> Vec<u8> {
    let message = [&(64_u32 * 1024).to_be_bytes()[..], &[b'x'; 64 * 1024]].concat();
    let body = [&64_u32.to_be_bytes()[..], &message.repeat(64)].concat();
    let line = format!("MPUB {topic}\n");
    [line.as_bytes(), &(body.len() as u32).to_be_bytes(), &body].concat()
}

/// The default of `--max-unanswered-bytes`, and what else an nsqd has in use in a debug build.
const PEAK_MAX: usize = (64 + 64) << 20;

#[test]
fn pipelined_bodies_cost_a_bounded_amount() {
    const COUNT: usize = 20;
    for runtime in RUNTIMES {
        let nsqd = Server::nsqd(runtime, &["--mem-queue-size=0"]);
        thread::scope(|scope| {
            for n in 0..3 {
                let nsqd = &nsqd;
                scope.spawn(move || {
                    let (mut client, body) = (nsqd.client(), mpub(&format!("t{n}")));
                    (0..COUNT).for_each(|_| client.write_all(&body).unwrap());
                    (0..COUNT).for_each(|_| assert_eq!(frame(&mut client), (0, b"OK".into())));
                });
            }
        });
        let peak = nsqd.peak() >> 20;
        println!("{runtime}: {peak} MiB at most for {} MiB pipelined", 3 * COUNT * 4);
        assert!(nsqd.peak() <= PEAK_MAX, "{runtime}: {peak} MiB");
    }
}

/// Writes as much as is taken at once. One that was given up takes nothing.
fn write_some(socket: &mut TcpStream, mut bytes: &[u8]) {
    socket.set_nonblocking(true).unwrap();
    while let Ok(count) = socket.write(bytes)
        && count > 0
    {
        bytes = &bytes[count..];
    }
    socket.set_nonblocking(false).unwrap();
}

#[test]
fn half_bodies_cost_a_bounded_amount_and_stop_nobody() {
    const COUNT: usize = 16;
    for runtime in RUNTIMES {
        let nsqd = Server::nsqd(runtime, &[]);
        let body = mpub("t");
        let head = format!(
            "POST /mpub?topic=t HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            4 << 20
        );
        let mut slow: Vec<_> = (0..COUNT).map(|_| (nsqd.client(), patient(&nsqd.http))).collect();
        for (_, http) in &mut slow {
            http.write_all(head.as_bytes()).unwrap();
        }
        for _ in 0..16 {
            for (client, http) in &mut slow {
                write_some(client, &body[..body.len() / 20]);
                write_some(http, &body[..body.len() / 20]);
            }
            work_goes_on(&nsqd, 5);
        }
        assert!(nsqd.ask("POST /pub?topic=u", b"small").ends_with("OK"));
        // Large ones have their turn as well.
        let mut large = nsqd.client();
        publish(&mut large, "u", &[b'x'; 1 << 20]);
        let peak = nsqd.peak() >> 20;
        println!("{runtime}: {peak} MiB at most for {COUNT} half bodies each on TCP and HTTP");
        assert!(nsqd.peak() <= PEAK_MAX, "{runtime}: {peak} MiB");
    }
}

#[test]
fn texts_of_clients_are_cut() {
    const COUNT: usize = 20;
    for runtime in RUNTIMES {
        let nsqd = Server::nsqd(runtime, &[]);
        let json = format!("{{\"client_id\":\"{}\"}}", "i".repeat(2_000_000));
        let command =
            [b"IDENTIFY\n", &(json.len() as u32).to_be_bytes()[..], json.as_bytes()].concat();
        let clients: Vec<_> = (0..COUNT)
            .map(|_| {
                let mut client = nsqd.client();
                client.write_all(&command).unwrap();
                assert_eq!(frame(&mut client), (0, b"OK".into()));
                publish(&mut client, "t", b"x");
                client
            })
            .collect();
        let mut askers: Vec<_> = (0..4).map(|_| patient(&nsqd.http)).collect();
        for asker in &mut askers {
            asker
                .write_all(
                    b"GET /stats?format=json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                )
                .unwrap();
        }
        work_goes_on(&nsqd, 10);
        for mut asker in askers {
            let mut answer = Vec::new();
            asker.read_to_end(&mut answer).unwrap();
            assert!(answer.len() < COUNT * 4 * 1024, "{}", answer.len());
        }
        let peak = nsqd.peak() >> 20;
        println!("{runtime}: {peak} MiB at most for {COUNT} client_ids of 2 MB");
        assert!(nsqd.peak() <= PEAK_MAX, "{runtime}: {peak} MiB");
        clients.iter().for_each(|client| client.shutdown(Shutdown::Both).unwrap());
    }
}
