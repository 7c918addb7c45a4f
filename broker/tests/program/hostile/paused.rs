//! A server that is paused as a whole: a virtual machine that moves, a laptop that sleeps, a
//! debugger.

use core::time::Duration;
use std::io::Write;
use std::net::TcpStream;
use std::thread;

use rustix::process::Signal;

use crate::server::{RUNTIMES, Server, frame};

/// Clients that have said something in time are there when the server goes on, although none of it
/// could be read in time.
#[test]
fn a_server_that_was_paused_reads_before_it_judges_its_clients() {
    let servers = RUNTIMES.map(|runtime| Server::nsqd(runtime, &[]));
    let mut clients: Vec<TcpStream> = servers.iter().flat_map(restless).collect();
    for server in &servers {
        server.process.send(Signal::STOP);
    }
    // Silence ends a connection after two heartbeats' time.
    for _ in 0..6 {
        thread::sleep(HEARTBEAT / 2);
        for client in &mut clients {
            client.write_all(b"NOP\n").unwrap();
        }
    }
    for server in &servers {
        server.process.send(Signal::CONT);
    }
    for client in &mut clients {
        client.write_all(b"PUB topic\n\0\0\0\x01x").unwrap();
    }
    for client in &mut clients {
        let mut answers = core::iter::repeat_with(|| frame(client).1);
        assert_eq!(answers.find(|text| text != b"_heartbeat_").unwrap(), b"OK");
    }
    for server in servers {
        assert!(!server.log().contains("FATAL"));
        server.stop();
    }
}

/// Connections with the shortest heartbeats.
fn restless(server: &Server) -> Vec<TcpStream> {
    let body = format!(r#"{{"heartbeat_interval":{}}}"#, HEARTBEAT.as_millis());
    let client = || {
        let mut client = server.client();
        client.write_all(b"IDENTIFY\n").unwrap();
        client.write_all(&(body.len() as u32).to_be_bytes()).unwrap();
        client.write_all(body.as_bytes()).unwrap();
        assert_eq!(frame(&mut client), (0, b"OK".to_vec()));
        client
    };
    (0..CLIENTS).map(|_| client()).collect()
}

const CLIENTS: usize = 30;
const HEARTBEAT: Duration = Duration::from_secs(1);
