//! nsqds that register without end, at an nsqlookupd.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::server::{RUNTIMES, Server};

/// An nsqd's session that has said who it is.
pub(crate) fn session(server: &Server, port: u16) -> TcpStream {
    let mut socket = server.connect();
    let json = format!(
        "{{\"broadcast_address\":\"127.0.0.1\",\"hostname\":\"h\",\"http_port\":{port},\
         \"tcp_port\":{port},\"version\":\"1.3.0\"}}"
    );
    socket.write_all(b"  V1IDENTIFY\n").unwrap();
    socket.write_all(&(json.len() as u32).to_be_bytes()).unwrap();
    socket.write_all(json.as_bytes()).unwrap();
    assert!(answer(&mut socket).starts_with('{'));
    socket
}

fn answer(socket: &mut TcpStream) -> String {
    let mut len = [0; 4];
    socket.read_exact(&mut len).unwrap();
    let mut text = vec![0; u32::from_be_bytes(len) as usize];
    socket.read_exact(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn say(socket: &mut TcpStream, command: &str) -> String {
    socket.write_all(format!("{command}\n").as_bytes()).unwrap();
    answer(socket)
}

/// Registers so many topics with a channel each. Returns how many were taken.
pub(crate) fn register(socket: &mut TcpStream, name: &str, count: usize) -> usize {
    let mut taken = 0;
    // A hundred at a time: it answers no more while nobody reads.
    for from in (0..count).step_by(100) {
        let commands: String =
            (from..from + 100).map(|n| format!("REGISTER {name}{n} c\n")).collect();
        socket.write_all(commands.as_bytes()).unwrap();
        taken += (0..100).filter(|_| answer(socket) == "OK").count();
    }
    taken
}

const FLAGS: [&str; 3] =
    ["--max-names=20000", "--max-registrations=20000", "--max-registrations-per-nsqd=8000"];
const NO_ROOM: &str = "E_INVALID REGISTER too many registrations";

#[test]
fn whoever_registers_without_end_takes_nothing_from_others() {
    for runtime in RUNTIMES {
        let server = Server::nsqlookupd(runtime, &FLAGS);
        let is_found = |topic: &str, port: u16| {
            let answer = server.ask(&format!("GET /lookup?topic={topic}"), b"");
            answer.contains(&format!("\"tcp_port\":{port}"))
        };
        let mut honest = session(&server, 4150);
        assert_eq!(say(&mut honest, "REGISTER old c"), "OK");
        // Each has its share and no more, and being refused ends nothing.
        let mut greedy = session(&server, 1);
        assert_eq!(register(&mut greedy, "a", 10_000), 4000, "{runtime}");
        assert_eq!(say(&mut greedy, "REGISTER more c"), NO_ROOM);
        assert_eq!(say(&mut greedy, "PING"), "OK");
        // Several of them fill it. Whoever has little finds room all the same.
        let mut others: Vec<_> = (2..5).map(|port| session(&server, port)).collect();
        for (n, other) in others.iter_mut().enumerate() {
            register(other, &format!("b{n}x"), 10_000);
        }
        assert_eq!(say(&mut honest, "REGISTER new c"), "OK");
        assert!(is_found("old", 4150) && is_found("new", 4150), "{runtime}");
        // They leave, and their names stay as long as nobody wants the room.
        drop((greedy, others));
        assert_eq!(register(&mut honest, "mine", 3000), 3000, "{runtime}");
        assert!(is_found("old", 4150) && is_found("mine2999", 4150), "{runtime}");
        let peak = server.peak() >> 20;
        println!("{runtime}: {peak} MiB at most");
        assert!(peak <= 96, "{runtime}: {peak} MiB");
    }
}

/// A second session with the address of an nsqd hides it nowhere, in whichever order they come.
#[test]
fn an_impostor_hides_nobody() {
    for runtime in RUNTIMES {
        let server = Server::nsqlookupd(runtime, &[]);
        let shown = || {
            let nodes = server.ask("GET /nodes", b"");
            let lookup = server.ask("GET /lookup?topic=t", b"");
            (nodes.contains("\"topics\":[\"t\"]"), lookup.contains("\"tcp_port\":4150"))
        };
        let mut victim = session(&server, 4150);
        assert_eq!(say(&mut victim, "REGISTER t c"), "OK");
        let impostor = session(&server, 4150);
        assert_eq!(shown(), (true, true), "{runtime}");
        drop(impostor);
        assert_eq!(say(&mut victim, "PING"), "OK");
        assert_eq!(shown(), (true, true), "{runtime}");
    }
}
