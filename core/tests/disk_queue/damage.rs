//! Data files with bytes in them that are no record: what is before and behind comes, and nothing
//! that nobody published.

use sansq_core::storage::DiskEvent;
use sansq_core::storage::memory::MemoryFiles;

use crate::rig::{OPTIONS, Rig, queue};

const DATA: &str = "t:c.diskqueue.000000.dat";
const META: &str = "t:c.diskqueue.meta.dat";

/// The ids that come from this file and the next one, which is in order, with a meta file and
/// without one; and the bytes that were passed over.
fn read(data: &[u8]) -> (Vec<u64>, u64) {
    let [with, without] = [true, false].map(|has_meta| read_with(has_meta, data));
    assert_eq!(with, without);
    with
}

fn read_with(has_meta: bool, data: &[u8]) -> (Vec<u64>, u64) {
    let (mut files, next) = (MemoryFiles::new(), record(99, b"next"));
    files.insert(DATA, data);
    files.insert("t:c.diskqueue.000001.dat", &next);
    if has_meta {
        files.insert(META, format!("3\n0,0\n1,{}\n", next.len()).as_bytes());
    }
    let mut rig = Rig::over(queue("t", Some("c")), OPTIONS, files);
    let mut ids: Vec<_> = rig.drain().iter().map(|message| message.id.0).collect();
    assert_eq!(ids.pop(), Some(99), "the next file is read in any case");
    assert_eq!(rig.queue.depth(), 0);
    let passed = rig
        .out
        .events
        .iter()
        .map(|event| if let DiskEvent::Damaged { len, .. } = event { *len } else { 0 });
    (ids, passed.sum())
}

fn record(id: u64, body: &[u8]) -> Vec<u8> {
    let mut record = (26 + body.len() as u32).to_be_bytes().to_vec();
    record.extend(1_795_352_174_000_000_000_i64.to_be_bytes());
    record.extend([0, 0]);
    record.extend(format!("{id:016x}").as_bytes());
    record.extend(body);
    record
}

/// Bytes that are no record, each of another kind.
fn garbage() -> Vec<Vec<u8>> {
    let long = record(7, &[b'x'; 5000]);
    vec![
        vec![0, 0, 0, 1, b'x'],
        vec![0],
        vec![0xFF; 3],
        vec![0; 4096],
        b"0123456789abcdef0123456789abcdef".to_vec(),
        // Sizes that lead into the next records, and far beyond the file.
        vec![0, 0, 0, 40],
        vec![0, 0, 0, 200],
        vec![0x7F, 0xFF, 0xFF, 0xFF, 9],
        // More than is read at once.
        (0..300_000_u32).map(|at| (at % 251) as u8).collect(),
        long[1000..].to_vec(),
    ]
}

#[test]
fn what_is_between_two_records_costs_neither() {
    let [a, b, c] = [1, 2, 3].map(|id| record(id, b"body"));
    for garbage in garbage() {
        let len = garbage.len() as u64;
        let name = &garbage[..garbage.len().min(8)];
        let file = [&a[..], &garbage, &b].concat();
        assert_eq!(read(&file), (vec![1, 2], len), "{name:?}");
        let file = [&garbage[..], &a, &b].concat();
        assert_eq!(read(&file), (vec![1, 2], len), "{name:?}");
        let file = [&a[..], &garbage, &b, &garbage, &c].concat();
        assert_eq!(read(&file), (vec![1, 2, 3], 2 * len), "{name:?}");
        let large = record(4, &[b'l'; 200_000]);
        let file = [&a[..], &garbage, &large, &b, &garbage, &c, &large].concat();
        assert_eq!(read(&file), (vec![1, 4, 2, 3, 4], 2 * len), "{name:?}");
    }
}

#[test]
fn the_start_of_a_record_costs_no_other() {
    let [a, b, c] = [1, 2, 3].map(|id| record(id, b"body"));
    let start = &record(7, &[b'x'; 5000])[..1000];
    assert_eq!(read_with(true, &[&a[..], start, &b, &c].concat()), (vec![1, 2, 3], 1000));
    // One record alone may be a part of that body.
    let file = [&a[..], start, &b, &[0xFF; 50], &c].concat();
    assert_eq!(read_with(true, &file), (vec![1, 3], 1000 + 34 + 50));
}

#[test]
fn a_record_with_a_wrong_size_or_id_costs_itself() {
    for size in [0, 25, 29, 31, 500, 1 << 30, u32::MAX] {
        let mut bad = record(2, b"body");
        bad[..4].copy_from_slice(&size.to_be_bytes());
        bad[14] = b'G';
        let file = [record(1, b"one"), bad, record(3, b"three")].concat();
        assert_eq!(read(&file), (vec![1, 3], 34), "{size}");
    }
    for size in [0, 25, 1 << 30, u32::MAX] {
        let mut bad = record(2, b"body");
        bad[..4].copy_from_slice(&size.to_be_bytes());
        let file = [record(1, b"one"), bad, record(3, b"three")].concat();
        assert_eq!(read(&file), (vec![1, 3], 34), "{size}");
    }
}

/// A program ships pieces of data files in its messages.
#[test]
fn records_in_a_body_are_no_messages() {
    let body = [&record(21, b"inner")[..], b"and more", &record(22, b"inner"), b"."].concat();
    let (one, three) = (record(1, b"one"), record(3, b"three"));
    assert_eq!(read(&[&one[..], &record(2, &body), &three].concat()), (vec![1, 2, 3], 0));
    let mut bad = record(2, &body);
    bad[..4].copy_from_slice(&[0xFF; 4]);
    let len = bad.len() as u64;
    assert_eq!(read(&[&one[..], &bad, &three].concat()), (vec![1, 3], len));
    // Where an id is wrong, the size still says where its body ends.
    let mut bad = record(2, &body);
    bad[20] = 0;
    assert_eq!(read(&[&one[..], &bad, &three].concat()), (vec![1, 3], len));
}

/// The power goes, and sectors that were not synced come back as zeros: whatever comes is a message
/// that was there, or one with a hole in it.
#[test]
fn a_hole_makes_no_message_shorter() {
    const SECTOR: usize = 512;
    let bodies: Vec<Vec<u8>> = [300, 700, 40, 1200, 230, 5000, 900, 66_000, 10, 257]
        .into_iter()
        .enumerate()
        .map(|(id, len)| (0..len).map(|at| (id + at) as u8 | 1).collect())
        .collect();
    let mut cuts = 0;
    for start in 0..SECTOR {
        // So that sectors end at every place of every size.
        let first = vec![b'f'; 1 + start];
        let mut file = record(50, &first);
        for (id, body) in bodies.iter().enumerate() {
            file.extend(record(id as u64, body));
        }
        let mut at = 30 + first.len();
        for body in &bodies {
            let hole = (at + 3) / SECTOR * SECTOR;
            if (at..at + 4).contains(&hole) && hole > 0 {
                cuts += 1;
            }
            at += 30 + body.len();
        }
        for (kept, sector) in (0_usize..).zip(file.chunks_mut(SECTOR)) {
            if (kept * 7 + start) % 3 == 0 {
                sector.fill(0);
            }
        }
        let mut files = MemoryFiles::new();
        files.insert(DATA, &file);
        let mut rig = Rig::over(queue("t", Some("c")), OPTIONS, files);
        for message in rig.drain() {
            assert!(
                message.id.0 < 10 || message.id.0 == 50,
                "{start}: {} was never sent",
                message.id
            );
            let sent = if message.id.0 == 50 { &first } else { &bodies[message.id.0 as usize] };
            assert_eq!(message.body.len(), sent.len(), "{start}: {}", message.id);
            let is_same = |(found, sent): (&u8, &u8)| found == sent || *found == 0;
            assert!(message.body.iter().zip(sent).all(is_same), "{start}: {}", message.id);
        }
    }
    assert!(cuts > 10, "{cuts}");
}

/// What a process that was killed had acknowledged comes, whatever its last write left behind.
#[test]
fn the_last_record_before_a_torn_write_is_believed() {
    let (zero, last) = (record(1, b"a hole \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), record(2, b"last"));
    let torn = record(3, &[b'x'; 600]);
    let tails = [&torn[..3], &torn[..20], &torn[..40], &torn[..256], &[0; 4096], &[0; 256]];
    for tail in tails {
        let mut files = MemoryFiles::new();
        files.insert(DATA, &[&zero[..], &last, tail].concat());
        let mut rig = Rig::over(queue("t", Some("c")), OPTIONS, files);
        let ids: Vec<_> = rig.drain().iter().map(|message| message.id.0).collect();
        assert_eq!(ids, [1, 2], "{:?}", &tail[..3]);
    }
}

/// Simulator seed 107851371515189: what a write to a full disk left behind was passed over, and
/// the file stayed until somebody published, for which the disk had no room.
#[test]
fn a_file_of_nothing_but_damage_goes_aside_by_itself() {
    let store = queue("t", None);
    for meta in [None, Some("1\n0,0\n1,0\n")] {
        let mut files = MemoryFiles::new();
        files.insert("t.diskqueue.000000.dat", &[0; 2048]);
        if let Some(meta) = meta {
            files.insert("t.diskqueue.meta.dat", meta.as_bytes());
        }
        let mut rig = Rig::over(store, OPTIONS, files);
        assert!(rig.queue.pop(rig.now, &mut rig.out).is_none());
        rig.rest();
        let names: Vec<_> = rig.files.names().collect();
        let expected = ["t.diskqueue.000000.dat.bad", "t.diskqueue.meta.dat"];
        assert_eq!(names, expected, "{meta:?}");
    }
}
