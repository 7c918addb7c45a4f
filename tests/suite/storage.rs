//! What outlasts a server, in real files.

use core::net::SocketAddr;
use core::time::Duration;
use std::path::Path;

use super::client::{Frame, publish, with_body};
use super::http::{get, post};
use super::life::until;
use super::{Client, options};
use crate::harness::Server;
use sansq_runtime::options::NsqdOptions;

/// Options with room for so many messages in memory.
fn with_memory(shards: u16, mem_queue_size: usize) -> NsqdOptions {
    let mut options = options(shards);
    options.config.mem_queue_size = mem_queue_size;
    options
}

fn command(http: SocketAddr, target: &str) {
    let answer = post(http, target, "");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{target}: {answer}");
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn mpub(topic: &str, bodies: impl ExactSizeIterator<Item = String>) -> Vec<u8> {
    let mut body = u32::try_from(bodies.len()).unwrap().to_be_bytes().to_vec();
    for text in bodies {
        body.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        body.extend_from_slice(text.as_bytes());
    }
    with_body(&format!("MPUB {topic}"), &body)
}

#[test]
fn messages_and_pauses_outlast_a_stop() {
    for (shards, mem_queue_size) in [(1, 10_000), (2, 3), (3, 0)] {
        let folder = tempfile::tempdir().unwrap();
        let nsqd = Server::nsqd_in(with_memory(shards, mem_queue_size), folder.path()).unwrap();
        let http = nsqd.http_addr().unwrap();
        for target in [
            "/topic/create?topic=t",
            "/channel/create?topic=t&channel=c",
            "/topic/create?topic=idle",
            "/channel/create?topic=idle&channel=paused",
            "/channel/pause?topic=idle&channel=paused",
            "/topic/create?topic=gone%23ephemeral",
        ] {
            command(http, target);
        }
        let mut client = Client::new(nsqd.tcp_addr());
        for n in 0..10 {
            client.publish("t", n.to_string().as_bytes());
        }
        client.publish("alone", b"in the topic");
        let mut consumer = Client::new(nsqd.tcp_addr());
        consumer.subscribe("t", "c", 2);
        let taken = [consumer.message(), consumer.message()];
        consumer.finish(&taken[1]);
        // So that the one that is not finished is in flight at the stop.
        until(|| get(http, "/stats?format=json&topic=t").contains("\"in_flight_count\":2"));
        nsqd.stop();

        let nsqd = Server::nsqd_in(with_memory(2, 0), folder.path()).unwrap();
        let http = nsqd.http_addr().unwrap();
        let idle = get(http, "/stats?format=json&topic=idle&channel=paused");
        assert!(idle.contains("\"clients\":[],\"paused\":true,"), "{idle}");
        assert!(!get(http, "/stats?format=json").contains("gone"));
        let mut consumer = Client::new(nsqd.tcp_addr());
        consumer.subscribe("t", "c", 100);
        let mut bodies = Vec::new();
        for _ in 0..9 {
            let message = consumer.message();
            let text = String::from_utf8(message.body.clone()).unwrap();
            let is_taken = message.id == taken[0].id;
            assert!(!is_taken || message.attempts == 2, "{shards} shards: {message:?}");
            bodies.push(text.parse::<u32>().unwrap());
            consumer.finish(&message);
        }
        bodies.sort_unstable();
        assert_eq!(bodies, [0, 2, 3, 4, 5, 6, 7, 8, 9], "{shards} shards");
        let mut consumer = Client::new(nsqd.tcp_addr());
        consumer.subscribe("alone", "late", 1);
        assert_eq!(consumer.message().body, b"in the topic");
        nsqd.stop();
    }
}

#[test]
fn what_memory_cannot_hold_goes_through_files_in_order() {
    const COUNT: usize = 5000;
    for mem_queue_size in [0, 10] {
        let folder = tempfile::tempdir().unwrap();
        let mut options = with_memory(2, mem_queue_size);
        options.config.max_bytes_per_file = 10_000;
        options.config.sync_every = 100;
        let nsqd = Server::nsqd_in(options, folder.path()).unwrap();
        let http = nsqd.http_addr().unwrap();
        for target in ["/topic/create?topic=t", "/channel/create?topic=t&channel=c"] {
            command(http, target);
        }
        let mut client = Client::new(nsqd.tcp_addr());
        for part in 0..COUNT / 500 {
            client.send(mpub("t", (part * 500..part * 500 + 500).map(|n| n.to_string())));
            client.expect_ok();
        }
        let stats = get(http, "/stats?format=json&topic=t");
        assert!(stats.contains(&format!("\"depth\":{COUNT},")), "{stats}");
        assert!(files(folder.path()).len() > 10, "{:?}", files(folder.path()));

        let mut consumer = Client::new(nsqd.tcp_addr());
        consumer.subscribe("t", "c", 100);
        for n in 0..COUNT {
            let message = consumer.message();
            assert_eq!(message.body, n.to_string().as_bytes(), "mem-queue-size {mem_queue_size}");
            consumer.finish(&message);
        }
        // What is read and finished does not stay: the file being written to and the positions do.
        until(|| files(folder.path()).iter().filter(|name| name.ends_with("0.dat")).count() <= 1);
        nsqd.stop();
    }
}

#[test]
fn a_deleted_topic_leaves_no_files_and_comes_back_empty() {
    let folder = tempfile::tempdir().unwrap();
    let nsqd = Server::nsqd_in(with_memory(2, 0), folder.path()).unwrap();
    let http = nsqd.http_addr().unwrap();
    let mut client = Client::new(nsqd.tcp_addr());
    for round in 0..3 {
        command(http, "/topic/create?topic=t");
        command(http, "/channel/create?topic=t&channel=c");
        client.publish("t", format!("round {round}").as_bytes());
        if round < 2 {
            command(http, "/topic/delete?topic=t");
        }
    }
    let mut consumer = Client::new(nsqd.tcp_addr());
    consumer.subscribe("t", "c", 10);
    let message = consumer.message();
    assert_eq!(message.body, b"round 2");
    consumer.finish(&message);
    command(http, "/topic/delete?topic=t");
    nsqd.stop();
    assert_eq!(files(folder.path()), ["nsqd.dat"]);
    let metadata = std::fs::read_to_string(folder.path().join("nsqd.dat")).unwrap();
    assert_eq!(metadata, "{\"topics\":null,\"version\":\"1.3.0\"}");
}

#[test]
fn one_server_at_a_time_uses_a_data_path() {
    let folder = tempfile::tempdir().unwrap();
    let nsqd = Server::nsqd_in(options(2), folder.path()).unwrap();
    let refused = Server::nsqd_in(options(1), folder.path()).err().unwrap().to_string();
    assert!(refused.contains("possibly in use by another instance of nsqd"), "{refused}");
    nsqd.stop();
    Server::nsqd_in(options(1), folder.path()).unwrap().stop();
}

#[test]
fn metadata_that_makes_no_sense_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nsqd.dat");
    std::fs::write(&path, "{\"topics\":[{\"name\":\"t\"").unwrap();
    let refused = Server::nsqd_in(options(1), folder.path()).err().unwrap().to_string();
    let text = format!("failed to load metadata - failed to parse metadata in {}", path.display());
    assert!(refused.starts_with(&text), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), b"{\"topics\":[{\"name\":\"t\"");
    // Refused, it holds nothing.
    std::fs::write(&path, "{\"topics\":[{\"name\":\"t\",\"paused\":true}]}").unwrap();
    let nsqd = Server::nsqd_in(options(1), folder.path()).unwrap();
    let stats = get(nsqd.http_addr().unwrap(), "/stats?format=json");
    assert!(stats.contains("\"topic_name\":\"t\""), "{stats}");
    nsqd.stop();
}

/// A full disk that needs no privileges: the data file is a link to `/dev/full`.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_to_publishers_and_forgotten_when_it_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = with_memory(2, 0);
    options.config.publish_wait = Duration::from_millis(100);
    let nsqd = Server::nsqd_in(options, folder.path()).unwrap();
    let http = nsqd.http_addr().unwrap();
    command(http, "/topic/create?topic=t");
    command(http, "/channel/create?topic=t&channel=c");
    // The topic keeps what its channel can't take.
    let data = ["t:c.diskqueue.000000.dat", "t.diskqueue.000000.dat"];
    let data = data.map(|name| folder.path().join(name));
    for file in &data {
        std::os::unix::fs::symlink("/dev/full", file).unwrap();
    }

    let try_to_publish = |body: &[u8]| {
        // A client that is refused is also cut off.
        let mut client = Client::new(nsqd.tcp_addr());
        client.send(publish("t", body));
        client.frame()
    };
    for _ in 0..3 {
        let text = match try_to_publish(b"refused") {
            Frame::Error(text) => text,
            frame @ (Frame::Response(_) | Frame::Message(_)) => panic!("accepted: {frame:?}"),
        };
        assert!(text.starts_with("E_PUB_FAILED "), "{text}");
    }
    let ping = get(http, "/ping");
    assert!(ping.starts_with("HTTP/1.1 500 ") && ping.contains("NOK - disk full"), "{ping}");
    assert!(ping.contains("no space left on device"), "{ping}");

    for file in &data {
        std::fs::remove_file(file).unwrap();
    }
    until(|| try_to_publish(b"accepted") == Frame::Response(b"OK".to_vec()));
    until(|| get(http, "/ping").ends_with("OK"));
    let mut consumer = Client::new(nsqd.tcp_addr());
    consumer.subscribe("t", "c", 1);
    assert_eq!(consumer.message().body, b"accepted", "what was refused is not delivered");
    nsqd.stop();
}
