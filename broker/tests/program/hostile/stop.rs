//! A stop that the disk is in the way of.

use core::time::Duration;
use std::fs;
use std::io::Write;
use std::thread;
use std::time::Instant;

use super::publish;
use crate::server::{RUNTIMES, Server, frame};

/// What a queue that has something to lose tries for, and well beyond what everything else takes.
const TRIES_FOR: Duration = Duration::from_secs(10);

/// A queue whose data file can't be opened, and that has nothing: who publishes hears why, nothing
/// counts, and the stop waits for nothing.
#[test]
fn a_queue_that_can_not_be_opened_does_not_hold_up_a_stop() {
    for runtime in RUNTIMES {
        let nsqd = Server::nsqd(runtime, &["--mem-queue-size=0"]);
        let file = nsqd.folder.path().join("t.diskqueue.000000.dat");
        fs::create_dir(&file).unwrap();
        let mut client = nsqd.client();
        client.write_all(b"PUB t\n\0\0\0\x01x").unwrap();
        let (kind, text) = frame(&mut client);
        let text = String::from_utf8(text).unwrap();
        let words = format!("open {}: ", file.display());
        assert!(
            kind == 1 && text.starts_with(&format!("E_PUB_FAILED PUB failed {words}")),
            "{text}"
        );
        let answer = nsqd.ask("POST /pub?topic=t", b"x");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains(&words), "{answer}");
        let stats = nsqd.ask("GET /stats?format=json", b"");
        assert!(stats.contains("\"message_count\":0,\"message_bytes\":0"), "{stats}");
        let start = Instant::now();
        let (status, log) = nsqd.end();
        assert_eq!(status, Some(0), "{log}");
        assert!(start.elapsed() < TRIES_FOR, "{log}");
        // The trouble is told, and with nothing to lose there is no more to say.
        assert!(log.contains("DISKQUEUE(t) open ") && !log.contains("lost"), "{log}");
    }
}

/// The same with a message in memory that it does not take.
#[test]
fn a_stop_says_what_is_lost() {
    thread::scope(|scope| {
        for runtime in RUNTIMES {
            scope.spawn(move || {
                let nsqd = Server::nsqd(runtime, &["--mem-queue-size=10"]);
                fs::create_dir(nsqd.folder.path().join("t.diskqueue.000000.dat")).unwrap();
                let mut client = nsqd.client();
                publish(&mut client, "t", b"1");
                publish(&mut client, "t", b"2");
                publish(&mut client, "other", b"3");
                let start = Instant::now();
                let (status, log) = nsqd.end();
                assert_eq!(status, Some(1), "{log}");
                // Half as much again: other tests run beside.
                let elapsed = start.elapsed();
                assert!((TRIES_FOR..TRIES_FOR * 5 / 2).contains(&elapsed), "{elapsed:?}: {log}");
                assert!(log.contains("DISKQUEUE(t) gave up writing and lost 2 messages"), "{log}");
                assert!(log.contains("lost 2 messages of 1 queue"), "{log}");
            });
        }
    });
}
