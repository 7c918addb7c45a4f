//! Transcripts: what clients send to a server, and what comes back. Each file below `nsqd/` and
//! `nsqlookupd/` is one; docs/TESTING.md says how to add another.
//!
//! Each is played on one shard and on several, in one piece and byte by byte, and it has to come
//! to the same. With `UPDATE_TRANSCRIPTS=1` what comes back is written into the files.
#![cfg(test)]

mod bytes;
mod diff;
mod lookupd;
mod nsqd;
mod player;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use player::{Way, play};

#[test]
fn transcripts() {
    let is_update = env::var("UPDATE_TRANSCRIPTS").is_ok_and(|value| value == "1");
    let mut failures = Vec::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let files = ["nsqd", "nsqlookupd"].map(|server| files(&folder.join(server))).concat();
    assert!(!files.is_empty(), "there are no transcripts in {}", folder.display());
    for path in files {
        let mut text = fs::read_to_string(&path).unwrap();
        if let Ok(played) = play(&text, WAYS[0])
            && is_update
        {
            fs::write(&path, &played).unwrap();
            text = played;
        }
        let name = path.strip_prefix(&folder).unwrap_or(&path).display();
        failures.extend(check(&text).err().map(|why| format!("{name}, {why}")));
    }
    assert!(
        failures.is_empty(),
        "{}\nUPDATE_TRANSCRIPTS=1 takes what came for what should come",
        failures.join("\n")
    );
}

/// Plays a transcript in each way; what is wrong first.
fn check(text: &str) -> Result<(), String> {
    for way in WAYS {
        let played = play(text, way)?;
        if played != text {
            return Err(format!("{way}:\n{}", diff::show(text, &played)));
        }
    }
    Ok(())
}

/// The transcripts in a folder, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn what_comes_is_put_behind_what_causes_it() {
    let text = "# A comment.\nnsqd\n\n> a: SUB t c\n> a: RDY 1\n@ +30s\n< a: stale\n> a: BAD\n";
    let expected = "# A comment.\nnsqd\n\n> a: SUB t c\n< a: OK\n> a: RDY 1\n@ +30s\n\
                    < a: _heartbeat_\n> a: BAD\n< a: error E_INVALID invalid command BAD\n\
                    < a: closed\n";
    assert_eq!(play(text, WAYS[0]).unwrap(), expected);
    assert_eq!(check(expected), Ok(()));
    let why = check(text).unwrap_err();
    assert!(why.starts_with("shards: 1, in one piece:\n"), "{why}");
    assert!(why.contains("\n+ < a: OK\n") && why.contains("\n- < a: stale\n"), "{why}");
}

#[test]
fn what_is_not_understood_is_named() {
    for (text, why) in [
        ("> a: NOP\n", "line 1: a transcript begins with nsqd or nsqlookupd"),
        ("nsqd\nsqueeze a\n", "line 2: what is \"squeeze a\"?"),
        ("nsqd\n> NOP\n", "line 2: what is \"> NOP\"?"),
        ("nsqd --mem-queue-size=x\n", "line 1: what is \"--mem-queue-size=x\"?"),
        ("nsqd\n\n> a: FIN $3\n", "line 3: no message $3 has come"),
        ("nsqd\n@ +5 minutes\n", "line 2: what is \"+5 minutes\"?"),
        ("nsqd\n> a: \"open\n", "line 2: what is \"\\\"open\"?"),
        ("nsqd\n> a: PUB t | a | b\n", "line 2: PUB has one body"),
        ("nsqlookupd\nclose a\n", "line 2: a is not connected"),
    ] {
        assert_eq!(play(text, WAYS[0]), Err(why.into()));
    }
}

/// How transcripts are played; the first is what they are updated from.
const WAYS: [Way; 5] = [
    Way { shards: 1, piece: usize::MAX },
    Way { shards: 3, piece: usize::MAX },
    Way { shards: 3, piece: 1000 },
    Way { shards: 2, piece: 7 },
    Way { shards: 1, piece: 1 },
];
