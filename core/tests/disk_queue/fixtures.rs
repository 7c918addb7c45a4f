//! Folders that the reference left behind (storage-formats.md section 11), with what it said of
//! them.
//!
//! In the names of the files `;` stands for `:`, which not every file system takes. Where sansq
//! does better than the reference, the constants here say so.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use sansq_core::storage::memory::MemoryFiles;
use sansq_core::storage::{Metadata, Store};
use serde_json::Value;

use crate::rig::{OPTIONS, Rig, meta, queue};

/// Depths that are other than the reference's. It believes the meta file; sansq counts where that
/// is not in step with the data files.
const DEPTHS: [(&str, u64); 3] = [
    // The meta file knows 6, the data file has 12.
    ("kill9-stale-meta", 12),
    // There is no meta file; the reference would write over the records.
    ("kill9-no-meta", 5),
    // The meta file knows 8, the last one is cut short.
    ("truncated-tail", 7),
];

/// Records behind a damage in their file, and the one before it. The reference gives up the rest of
/// the file; sansq looks for the next record.
const BEHIND_DAMAGE: [(&str, &str, &[&str]); 1] = [(
    "corrupt-middle",
    "corrupt-record-07",
    &["corrupt-record-09", "corrupt-record-10", "corrupt-record-11"],
)];

/// Data files that are set aside because of what is in them.
const SET_ASIDE: [(&str, &str); 2] = [
    ("corrupt-middle", "corrupt.diskqueue.000001.dat.bad"),
    ("truncated-tail", "trunc.diskqueue.000000.dat.bad"),
];

#[test]
fn every_queue_has_what_the_reference_left_in_it() {
    let (mut cases, mut queues) = (0, 0);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/nsqd-data");
    for entry in fs::read_dir(folder).expect("the fixtures are part of the source") {
        let path = entry.expect("the folder can be read").path();
        let (expected, files) = load(&path);
        let topics = expected["topics"].as_array().expect("a list");
        let orphans = expected["queues_not_in_nsqd_dat"].as_array();
        let (case, mut files) = (expected["case"].as_str().expect("a name"), files);
        check_metadata(case, topics, &files);
        for topic in topics {
            let name = topic["name"].as_str().expect("a name");
            files = check_queue(case, queue(name, None), topic, files);
            queues += 1;
            for channel in topic["channels"].as_array().expect("a list") {
                let channel_name = channel["name"].as_str().expect("a name");
                files = check_queue(case, queue(name, Some(channel_name)), channel, files);
                queues += 1;
            }
        }
        for orphan in orphans.into_iter().flatten() {
            let name = orphan["queue"].as_str().expect("a name");
            let (topic, channel) = name.split_once(':').expect("orphans are channels");
            files = check_queue(case, queue(topic, Some(channel)), orphan, files);
            queues += 1;
        }
        cases += 1;
    }
    assert_eq!((cases, queues), (14, 61));
}

/// The files of a case, and what it says of them.
fn load(path: &Path) -> (Value, MemoryFiles) {
    let (mut expected, mut files) = (Value::Null, MemoryFiles::new());
    for entry in fs::read_dir(path).expect("a case is a folder") {
        let path = entry.expect("the folder can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let contents = fs::read(&path).expect("a fixture can be read");
        if name == "EXPECT.json" {
            expected = serde_json::from_slice(&contents).expect("it is JSON");
        } else {
            files.insert(&name.replace(';', ":"), &contents);
        }
    }
    (expected, files)
}

fn check_metadata(case: &str, topics: &[Value], files: &MemoryFiles) {
    let contents = files.get("nsqd.dat").expect("it is in every case");
    let parsed = Metadata::parse(contents).expect("the reference wrote it");
    assert!(parsed.skipped.is_empty(), "{case}");
    let names: BTreeSet<_> = parsed
        .metadata
        .topics
        .iter()
        .flat_map(|topic| {
            let channels = topic.channels.iter().map(|channel| {
                (topic.name.to_string(), Some(channel.name.to_string()), channel.paused)
            });
            channels.chain([(topic.name.to_string(), None, topic.paused)])
        })
        .collect();
    let text = |value: &Value| value["name"].as_str().expect("a name").to_string();
    let paused = |value: &Value| value["paused"].as_bool().expect("a flag");
    let expected: BTreeSet<_> = topics
        .iter()
        .flat_map(|topic| {
            let channels = topic["channels"].as_array().expect("a list").iter();
            let channels = channels.map(|c| (text(topic), Some(text(c)), paused(c)));
            channels.chain([(text(topic), None, paused(topic))])
        })
        .collect();
    assert_eq!(names, expected, "{case}");
}

/// Opens a queue, drains and closes it.
fn check_queue(case: &str, store: Store, expected: &Value, files: MemoryFiles) -> MemoryFiles {
    let bad_before = bad(&files, &store);
    let others = others(&files, &store);
    let mut rig = Rig::over(store, OPTIONS, files);
    let better = |(name, depth): &(&str, u64)| (*name == case).then_some(*depth);
    let depth = DEPTHS.iter().find_map(better).or_else(|| expected["depth"].as_u64());
    assert_eq!(Some(rig.queue.depth()), depth, "{case} {store}");

    let mut drained = rig.drain();
    for (_, before, behind) in BEHIND_DAMAGE.iter().filter(|(name, ..)| *name == case) {
        let at = drained.iter().position(|message| message.body == before.as_bytes());
        let at = at.expect("what is before the damage comes") + 1;
        let found: Vec<_> = drained.drain(at..at + behind.len()).map(|found| found.body).collect();
        assert_eq!(found, behind.iter().map(|body| body.as_bytes()).collect::<Vec<_>>());
    }
    let salvaged = expected["unreachable_for_reference"].as_array();
    if let Some(bodies) = salvaged {
        let drained: Vec<_> = drained.iter().map(|message| message.body.to_vec()).collect();
        let bodies: Vec<_> = bodies.iter().filter_map(Value::as_str).map(str::as_bytes).collect();
        assert_eq!(drained, bodies, "{case} {store}");
    } else {
        let messages = expected["messages"].as_array().expect("a list");
        assert_eq!(drained.len(), messages.len(), "{case} {store}");
        for (message, expected) in drained.iter().zip(messages) {
            assert_eq!(Some(message.id.to_string().as_str()), expected["id"].as_str());
            assert_eq!(Some(message.timestamp.0), expected["ts"].as_i64());
            assert_eq!(Some(u64::from(message.attempts)), expected["attempts"].as_u64());
            assert_eq!(message.body, body(expected), "{case} {store}");
        }
    }
    assert!(rig.queue.is_empty(), "{case} {store}");
    let files = rig.close(&[]);

    let meta = meta(&files, &store).expect("a closed queue has one");
    let positions = meta.strip_prefix("0 ").and_then(|meta| meta.split_once(' '));
    assert!(positions.is_some_and(|(read, write)| read == write), "{case} {store}: {meta}");
    let set_aside = SET_ASIDE.iter().filter(|(name, _)| *name == case);
    let set_aside = set_aside.map(|(_, file)| (*file).to_string());
    let bad_after: BTreeSet<_> = bad_before.into_iter().chain(set_aside).collect();
    assert_eq!(bad(&files, &store), bad_after, "{case} {store}");
    assert_eq!(self::others(&files, &store), others, "{case} {store}");
    files
}

/// The files of a queue that were set aside.
fn bad(files: &MemoryFiles, store: &Store) -> BTreeSet<String> {
    let is_bad = |name: &&str| {
        name.ends_with(".bad") && Store::parse(name).is_some_and(|(of, _)| of == *store)
    };
    files.names().filter(is_bad).map(str::to_string).collect()
}

/// The files that are not of a queue.
fn others(files: &MemoryFiles, store: &Store) -> Vec<(String, Vec<u8>)> {
    files
        .names()
        .filter(|name| Store::parse(name).is_none_or(|(of, _)| of != *store))
        .map(|name| (name.to_string(), files.get(name).unwrap_or_default().to_vec()))
        .collect()
}

fn body(message: &Value) -> Vec<u8> {
    match (message["body"].as_str(), message["body_b64"].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(base64)) => decode(base64),
        (None, None) => panic!("a message without a body"),
    }
}

fn decode(base64: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = base64.bytes().filter(|byte| *byte != b'=');
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for digit in digits {
        let value = DIGITS.iter().position(|of| *of == digit).expect("a digit");
        (bits, count) = (bits << 6 | value as u32, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}
