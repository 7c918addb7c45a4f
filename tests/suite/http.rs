//! The HTTP interfaces, as far as the adapters have a part in them.

use core::net::SocketAddr;
use std::io::{Read, Write};
use std::net::TcpStream;

use super::client::PATIENCE;
use super::{Client, start, start_lookupd};

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
    assert!(
        answer.starts_with("HTTP/1.1 413 Request Entity Too Large\r\n"),
        "{}",
        &answer[..200.min(answer.len())]
    );
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

#[test]
fn metrics_of_both_servers() {
    let nsqd = start(2);
    let http = nsqd.http_addr().unwrap();
    for topic in ["a", "b%23ephemeral"] {
        for call in ["topic/create?topic=", "channel/create?channel=c&topic=", "pub?topic="] {
            let answer = post(http, &format!("/{call}{topic}"), "hello");
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        }
    }
    let mut consumer = Client::new(nsqd.tcp_addr());
    consumer.subscribe("a", "c", 0);

    let page = get(http, "/metrics");
    let head = "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
    assert!(page.contains(head) && page.ends_with("\n# EOF\n"), "{page}");
    let has_line =
        |page: &str, line: &str| assert!(page.lines().any(|l| l == line), "{line}: {page}");
    for line in [
        "nsqd_healthy 1",
        "nsqd_topics 2",
        "nsqd_channels 2",
        "nsqd_topic_messages_total{topic=\"b#ephemeral\"} 1",
        "nsqd_topic_message_bytes_total{topic=\"a\"} 5",
        "nsqd_channel_depth{topic=\"a\",channel=\"c\"} 1",
        "nsqd_channel_consumers{topic=\"a\",channel=\"c\"} 1",
        "nsqd_channel_idle_consumers{topic=\"a\",channel=\"c\"} 1",
        "nsqd_channel_ready_consumers{topic=\"a\",channel=\"c\"} 0",
        "nsqd_channel_starved{topic=\"a\",channel=\"c\"} 1",
        "nsqd_lane_length{shard=\"1\"} 0",
    ] {
        has_line(&page, line);
    }
    for shard in ["0", "1"] {
        let turns = format!("nsqd_turn_seconds_bucket{{le=\"+Inf\",shard=\"{shard}\"}} ");
        assert!(page.contains(&turns), "{page}");
    }
    let page = get(http, "/metrics?aggregate=true");
    for line in ["nsqd_topic_messages_total 2", "nsqd_channel_starved 2", "nsqd_topics 2"] {
        has_line(&page, line);
    }
    assert!(!page.contains("topic=\""), "{page}");
    nsqd.stop();

    let lookupd = start_lookupd();
    let http = lookupd.http_addr().unwrap();
    post(http, "/channel/create?topic=t&channel=c", "");
    get(http, "/lookup?topic=t");
    let page = get(http, "/metrics");
    assert!(page.contains(head) && page.ends_with("\n# EOF\n"), "{page}");
    for line in [
        "nsqlookupd_topics 1",
        "nsqlookupd_channels 1",
        "nsqlookupd_producers 0",
        "nsqlookupd_commands_total{command=\"PING\"} 0",
        "nsqlookupd_http_requests_total{request=\"lookup\"} 1",
    ] {
        has_line(&page, line);
    }
    assert!(post(http, "/metrics", "").starts_with("HTTP/1.1 405 "));
    lookupd.stop();
}
