//! The HTTP interfaces, as far as the adapters have a part in them.

use core::net::SocketAddr;
use std::io::{Read, Write};
use std::net::TcpStream;

use super::client::PATIENCE;
use super::{Client, start};

/// Sends `request` as it is and returns the whole answer, head and body.
pub(super) fn exchange(address: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

pub(super) fn get(address: SocketAddr, target: &str) -> String {
    exchange(address, &format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
}

pub(super) fn put(address: SocketAddr, target: &str, body: &str) -> String {
    let len = body.len();
    let head = format!("PUT {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    exchange(address, &format!("{head}Content-Length: {len}\r\n\r\n{body}"))
}

pub(super) fn post(address: SocketAddr, target: &str, body: &str) -> String {
    let len = body.len();
    let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    exchange(address, &format!("{head}Content-Length: {len}\r\n\r\n{body}"))
}

#[test]
fn ping_and_info_and_stats() {
    let nsqd = start(2);
    let http = nsqd.http_addr().unwrap();
    let answer = get(http, "/ping");
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nOK"),
        "{answer}"
    );
    let answer = get(http, "/info");
    assert!(answer.contains(&format!("\"tcp_port\":{}", nsqd.tcp_addr().port())), "{answer}");
    assert!(answer.contains("\r\nX-Nsq-Content-Type: nsq; version=1.0\r\n"), "{answer}");
    let answer = get(http, "/stats?format=json");
    assert!(answer.contains("\"topics\":[]"), "{answer}");
    for hosts in ["", "Host: a\r\nHost: b\r\n"] {
        let answer = exchange(http, &format!("GET /ping HTTP/1.1\r\n{hosts}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    }
    let answer = get(http, "/nothing");
    assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    assert!(answer.ends_with("{\"message\":\"NOT_FOUND\"}"), "{answer}");
    nsqd.stop();
}

#[test]
fn messages_published_over_http_reach_consumers_of_any_shard() {
    let nsqd = start(4);
    let http = nsqd.http_addr().unwrap();
    for n in 0..8 {
        let answer = post(http, &format!("/pub?topic=t{n}"), &format!("body {n}"));
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("OK"), "{answer}");
        let mut consumer = Client::new(nsqd.tcp_addr());
        consumer.subscribe(&format!("t{n}"), "c", 1);
        assert_eq!(consumer.message().body, format!("body {n}").into_bytes());
    }
    let answer = get(http, "/stats?format=json");
    assert!((0..8).all(|n| answer.contains(&format!("\"topic_name\":\"t{n}\""))), "{answer}");
    nsqd.stop();
}

#[test]
fn a_body_beyond_the_limit_is_refused() {
    let nsqd = start(1);
    let answer = post(nsqd.http_addr().unwrap(), "/pub?topic=t", &"x".repeat(1024 * 1024 + 1));
    assert!(answer.starts_with("HTTP/1.1 413 "), "{}", &answer[..200.min(answer.len())]);
    assert!(answer.ends_with("{\"message\":\"MSG_TOO_BIG\"}"));
    nsqd.stop();
}

#[test]
fn requests_follow_each_other_on_one_connection() {
    let nsqd = start(2);
    let request = "GET /ping HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20)
        + "GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = exchange(nsqd.http_addr().unwrap(), &request);
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 21);
    nsqd.stop();
}
