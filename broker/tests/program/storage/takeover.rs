//! Folders that the reference left behind are taken over: depths, flags, messages
//! (storage-formats.md section 11).

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use super::next_frame;
use crate::server::{PATIENCE, Server};

/// A queue to drain: topic, channel, and what is to come, in order.
struct Expected {
    topic: String,
    channel: String,
    messages: Vec<Value>,
}

#[test]
fn every_folder_of_the_reference_is_taken_over() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/data/nsqd-data");
    let mut cases = 0;
    for entry in fs::read_dir(fixtures).unwrap() {
        take_over(&entry.unwrap().path());
        cases += 1;
    }
    assert_eq!(cases, 14);
}

fn take_over(case: &Path) {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(case).unwrap() {
        let path = entry.unwrap().path();
        // Not every file system takes a colon.
        let name = path.file_name().unwrap().to_str().unwrap().replace(';', ":");
        fs::copy(&path, folder.path().join(name)).unwrap();
    }
    let text = fs::read(folder.path().join("EXPECT.json")).unwrap();
    let case: Value = serde_json::from_slice(&text).unwrap();
    let nsqd = Server::nsqd_on(folder.path(), "tokio", &["--mem-queue-size=2"]);
    let queues = look(&nsqd, &case);
    let consumers: Vec<_> = queues.iter().map(|expected| drain(&nsqd, expected, &case)).collect();
    until(&nsqd, |stats| {
        let mut channels = lists(stats, "topics").flat_map(|topic| lists(topic, "channels"));
        channels.all(|channel| channel["depth"] == 0 && channel["in_flight_count"] == 0)
            && lists(stats, "topics").all(|topic| topic["depth"] == 0)
    });
    drop(consumers);
    nsqd.stop();

    // What is handed back is empty and says so.
    let nsqd = Server::nsqd_on(folder.path(), "tokio", &[]);
    let stats = nsqd.stats("");
    let channels = lists(&stats, "topics").flat_map(|topic| lists(topic, "channels"));
    assert!(channels.chain(lists(&stats, "topics")).all(|queue| queue["depth"] == 0), "{stats}");
    nsqd.stop();
}

/// Checks what is shown, lets everything flow, and says what has to come out.
fn look(nsqd: &Server, case: &Value) -> Vec<Expected> {
    let stats = nsqd.stats("");
    let shown = |list: &Value, key: &str, name: &str| {
        list.as_array().and_then(|all| all.iter().find(|one| one[key] == *name)).cloned()
    };
    let mut queues = Vec::new();
    for topic in lists(case, "topics") {
        let name = text(topic, "name");
        let shown_topic = shown(&stats["topics"], "topic_name", &name).expect(&name);
        assert_eq!(shown_topic["paused"], topic["paused"], "{case}");
        let channels: Vec<_> = lists(topic, "channels").collect();
        if channels.is_empty() {
            let messages = messages(topic);
            queues.push(Expected { topic: name.clone(), channel: "drain".into(), messages });
        }
        for channel in channels {
            let channel_name = text(channel, "name");
            let found = shown(&shown_topic["channels"], "channel_name", &channel_name);
            assert_eq!(found.expect(&channel_name)["paused"], channel["paused"], "{case}");
            nsqd.post(&format!("/channel/unpause?topic={name}&channel={channel_name}"), "");
            // What was in the topic comes behind what was in the channel.
            let messages = messages(channel).into_iter().chain(messages(topic)).collect();
            queues.push(Expected { topic: name.clone(), channel: channel_name, messages });
        }
        nsqd.post(&format!("/topic/unpause?topic={name}"), "");
    }
    for orphan in lists(case, "queues_not_in_nsqd_dat") {
        let queue = text(orphan, "queue");
        let (topic, channel) = queue.split_once(':').unwrap();
        let (topic, channel) = (topic.into(), channel.into());
        queues.push(Expected { topic, channel, messages: messages(orphan) });
    }
    queues
}

/// The messages of a queue, those among them that the reference can't read.
fn messages(queue: &Value) -> Vec<Value> {
    match queue["unreachable_for_reference"].as_array() {
        Some(bodies) => bodies.iter().map(|body| serde_json::json!({ "body": body })).collect(),
        None => {
            let mut messages: Vec<_> = lists(queue, "messages").cloned().collect();
            let before = messages.iter().position(|message| message["body"] == BEFORE_DAMAGE);
            if let Some(at) = before {
                let behind = BEHIND_DAMAGE.map(|body| serde_json::json!({ "body": body }));
                messages.splice(at + 1..at + 1, behind);
            }
            messages
        }
    }
}

/// What lies behind a damage in its file, where the reference gives the rest of the file up, and the
/// record before it.
const BEFORE_DAMAGE: &str = "corrupt-record-07";
const BEHIND_DAMAGE: [&str; 3] = ["corrupt-record-09", "corrupt-record-10", "corrupt-record-11"];

/// Takes and finishes what is to come; the connection may be closed when that is seen.
fn drain(nsqd: &Server, expected: &Expected, case: &Value) -> TcpStream {
    let Expected { topic, channel, messages } = expected;
    let mut socket = nsqd.client();
    socket.write_all(format!("SUB {topic} {channel}\nRDY 3\n").as_bytes()).unwrap();
    assert_eq!(next_frame(&mut socket).unwrap(), (0, b"OK".to_vec()));
    for message in messages {
        let (kind, payload) = next_frame(&mut socket).unwrap();
        assert_eq!(kind, 2, "{topic}:{channel} of {case}");
        let id = String::from_utf8(payload[10..26].to_vec()).unwrap();
        if let Some(body) = message["body"].as_str() {
            assert_eq!(payload[26..], *body.as_bytes(), "{topic}:{channel} of {case}");
        }
        if let Some(expected) = message["id"].as_str() {
            assert_eq!(id, expected, "{topic}:{channel} of {case}");
            let attempts = u16::from_be_bytes([payload[8], payload[9]]);
            assert_eq!(Some(u64::from(attempts) - 1), message["attempts"].as_u64());
            let timestamp = i64::from_be_bytes(payload[..8].try_into().unwrap());
            assert_eq!(Some(timestamp), message["ts"].as_i64());
        }
        socket.write_all(format!("FIN {id}\n").as_bytes()).unwrap();
    }
    socket
}

fn until(nsqd: &Server, mut is_so: impl FnMut(&Value) -> bool) {
    let start = Instant::now();
    loop {
        let stats = nsqd.stats("");
        if is_so(&stats) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "it does not come about: {stats}");
    }
}

fn lists<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value[key].as_array().into_iter().flatten()
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap().to_owned()
}
