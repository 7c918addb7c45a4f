//! A disk that stays full to the end: the program says what is lost, and does not end as if all
//! were well.
#![cfg(target_os = "linux")]

use std::io::Write;

use crate::server::{Server, frame};

#[test]
fn a_stop_on_a_full_disk_says_what_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let nsqd = Server::nsqd_on(folder.path(), "tokio", &[]);
    nsqd.post("/topic/create?topic=t", "");
    nsqd.post("/channel/create?topic=t&channel=c", "");
    let mut socket = nsqd.client();
    for _ in 0..3 {
        socket.write_all(b"PUB t\n\0\0\0\x01x").unwrap();
        assert_eq!(frame(&mut socket), (0, b"OK".to_vec()));
    }
    // In memory so far. That a link to this device is full needs no privileges.
    let data = folder.path().join("t:c.diskqueue.000000.dat");
    std::os::unix::fs::symlink("/dev/full", data).unwrap();
    let (status, log) = nsqd.end();
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("ERROR: DISKQUEUE(t:c) gave up writing and lost 3 messages"), "{log}");
    assert!(log.contains("FATAL: nsqd-"), "{log}");
    assert!(log.contains(" failed - the disk refuses: lost 3 messages of 1 queue"), "{log}");
}
