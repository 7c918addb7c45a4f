//! Unix sockets in place of ports.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::client::{PATIENCE, publish};
use super::options;
use crate::harness::Server;

fn connect(path: &Path) -> UnixStream {
    let socket = UnixStream::connect(path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends a request and returns the whole answer.
fn exchange(path: &Path, request: &str) -> String {
    let mut socket = connect(path);
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

/// The type and the payload of the next frame.
fn frame(socket: &mut UnixStream) -> (u8, Vec<u8>) {
    let mut head = [0; 8];
    socket.read_exact(&mut head).unwrap();
    let size = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize;
    let mut payload = vec![0; size - 4];
    socket.read_exact(&mut payload).unwrap();
    (head[7], payload)
}

#[test]
fn everything_goes_over_unix_sockets_too() {
    let folder = tempfile::tempdir().unwrap();
    let (tcp, http) = (folder.path().join("tcp.sock"), folder.path().join("http.sock"));
    let mut options = options(4);
    options.tcp_address = tcp.to_str().unwrap().to_owned();
    options.http_address = Some(http.to_str().unwrap().to_owned());
    let nsqd = Server::nsqd(options).unwrap();
    let get = |target: &str| {
        exchange(&http, &format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    };
    // Consumers of eight topics, who move to as many homes as there are.
    for n in 0..8 {
        let mut consumer = connect(&tcp);
        let mut commands = b"  V2".to_vec();
        commands.extend(publish(&format!("t{n}"), &n.to_string().into_bytes()));
        commands.extend_from_slice(format!("SUB t{n} c\nRDY 1\n").as_bytes());
        consumer.write_all(&commands).unwrap();
        assert_eq!(frame(&mut consumer), (0, b"OK".to_vec()));
        assert_eq!(frame(&mut consumer), (0, b"OK".to_vec()));
        let (kind, message) = frame(&mut consumer);
        assert_eq!((kind, &message[26..]), (2, n.to_string().as_bytes()));
        let stats = get(&format!("/stats?format=json&topic=t{n}"));
        assert!(stats.contains("\"remote_address\":\"@\""), "{stats}");
    }
    let info = get("/info");
    assert!(info.contains("\"http_port\":-1,\"tcp_port\":-1,"), "{info}");
    nsqd.stop();
    assert!(!tcp.exists() && !http.exists());
}
