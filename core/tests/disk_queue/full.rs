//! A full disk: nothing on the way to freeing room needs any, and nothing is lost on the way.

use std::collections::BTreeSet;

use sansq_core::log::Level;
use sansq_core::storage::memory::{Faults, MemoryFiles};
use sansq_core::storage::{CLOSE_PATIENCE, DiskEvent, DiskOptions, FailureKind};

use super::rig::{OPTIONS, Rig, ids, kept, message, published, queue};

/// Four records to a file.
const SMALL: DiskOptions = DiskOptions { max_bytes_per_file: 4 * RECORD, ..OPTIONS };

const RECORD: u64 = 30 + 70;

const BODY: [u8; 70] = [b'x'; 70];

/// A queue on a disk that has no room for anything else, not even a meta file: its messages have
/// the ids from 0 to the number that is returned.
fn filled(options: DiskOptions, capacity: u64) -> (Rig, u64) {
    let mut files = MemoryFiles::new();
    files.capacity = Some(capacity);
    files.faults.replace = Some(FailureKind::Full);
    let mut rig = Rig::over(queue("t", Some("c")), options, files);
    let mut accepted = 0;
    loop {
        rig.push(&message(accepted, &BODY), Some(published(accepted)));
        rig.settle();
        match rig.out.written.pop() {
            Some((_, true)) => accepted += 1,
            told => {
                assert_eq!(told, Some((published(accepted), false)));
                // What is left of the refused one takes the last room.
                rig.files.capacity = Some(rig.files.used());
                rig.files.faults.replace = None;
                assert_eq!((rig.queue.room(), rig.meta()), (0, None));
                return (rig, accepted);
            }
        }
    }
}

/// Time passes, but nobody publishes or consumes.
fn wait_until_well(rig: &mut Rig) {
    for _ in 0..20 {
        if rig.queue.failure().is_none() {
            assert!(rig.queue.room() > 0);
            return;
        }
        assert!(rig.wait());
        rig.settle();
    }
    panic!("it does not get well: {:?}", rig.queue);
}

/// A copy that works.
fn mended(files: &MemoryFiles) -> MemoryFiles {
    let mut files = files.clone();
    (files.faults, files.capacity) = (Faults::default(), None);
    files
}

fn data_files(files: &MemoryFiles) -> Vec<String> {
    let data = files.names().filter(|name| name.contains(".diskqueue.0"));
    data.map(str::to_owned).collect()
}

#[test]
fn what_is_finished_makes_room_without_any() {
    for (options, capacity) in [(SMALL, 2050), (SMALL, 810), (SMALL, 400), (OPTIONS, 2050)] {
        let (mut rig, accepted) = filled(options, capacity);
        let mut used: u64 = rig.files.capacity.unwrap();
        // Probes are refused as well, however long it takes.
        for _ in 0..10 {
            rig.wait();
            rig.settle();
        }
        assert!(rig.queue.failure().is_some_and(|failure| failure.kind == FailureKind::Full));
        assert_eq!(ids(&rig.drain()), (0..accepted).collect::<Vec<_>>());
        assert!(data_files(&rig.files).len() <= 1, "{:?}", data_files(&rig.files));
        // A disk that has no room for a block is a full one.
        used += 5000;
        rig.files.capacity = Some(used);
        wait_until_well(&mut rig);
        rig.push(&message(1000, &BODY), Some(published(1000)));
        rig.settle();
        assert_eq!(rig.out.written.pop(), Some((published(1000), true)));
        // Nothing that was finished comes again, and nobody calls it damage.
        rig.rest();
        let events = rig.out.events.len();
        let files = rig.files.clone();
        let mut rig = rig.reopen(files);
        assert_eq!(ids(&rig.drain()), [1000]);
        assert_eq!(rig.out.events, [], "{events}");
    }
}

#[test]
fn a_crash_before_the_meta_file_is_written_loses_nothing() {
    for finished in 0..20 {
        let (mut rig, accepted) = filled(SMALL, 2050);
        assert_eq!(accepted, 20);
        for id in 0..finished {
            let popped = rig.next().unwrap();
            assert_eq!(popped.message.id.0, id);
            rig.finish(popped.message.record.unwrap());
            rig.settle();
            rig.wait();
            rig.settle();
        }
        // Each file goes as soon as its last record is finished; there is no room for a meta file …
        rig.files.faults.replace = Some(FailureKind::Full);
        let files = mended(&rig.files);
        let left = ids(&rig.reopen(files).drain());
        // … or there is: then some more is known to be finished.
        let first = left[0];
        assert!(first <= finished && first >= finished / 4 * 4, "{finished}: {left:?}");
        assert_eq!(left, (first..20).collect::<Vec<_>>());
    }
}

#[test]
fn one_message_that_is_not_finished_holds_up_its_file_alone() {
    for kept in 0..20 {
        let (mut rig, _) = filled(SMALL, 2050);
        rig.files.faults.replace = Some(FailureKind::Full);
        let mut record = None;
        while let Some(popped) = rig.next() {
            if popped.message.id.0 == kept {
                record = popped.message.record;
            } else {
                rig.finish(popped.message.record.unwrap());
            }
        }
        rig.settle();
        for _ in 0..10 {
            rig.wait();
            rig.settle();
        }
        let written_to = 4;
        let needed = BTreeSet::from([kept / 4, written_to]);
        let names = needed.iter().map(|number| format!("t:c.diskqueue.{number:06}.dat"));
        let left: Vec<_> = data_files(&rig.files);
        let extra: Vec<_> =
            left.iter().filter(|name| !names.clone().any(|it| it == **name)).collect();
        // The next one, which is tried.
        assert!(extra.iter().all(|name| name.ends_with("000005.dat")), "{kept}: {left:?}");
        // A crash now: it comes again, with what was finished in its file and in the last one.
        let files = mended(&rig.files);
        let store = rig.store;
        let mut again = Rig::over(store, SMALL, files);
        let found = ids(&again.drain());
        assert!(found.contains(&kept), "{kept}: {found:?}");
        assert!(found.iter().all(|id| needed.contains(&(id / 4))), "{kept}: {found:?}");
        // What is left of a probe is none either, but that can't be told from other zeros.
        let is_damage = |event: &DiskEvent| {
            let is_probe = matches!(event, DiskEvent::Damaged { file: 5, offset: 0, .. });
            event.level() == Level::Error && !is_probe
        };
        assert!(!again.out.events.iter().any(is_damage), "{:?}", again.out.events);
        // No crash: all is well when it is finished.
        rig.files.faults = Default::default();
        rig.finish(record.unwrap());
        rig.settle();
        rig.files.capacity = Some(6000);
        wait_until_well(&mut rig);
        rig.rest();
        let files = rig.files.clone();
        assert_eq!(ids(&rig.reopen(files).drain()), [0; 0]);
    }
}

#[test]
fn a_meta_file_that_knows_only_files_that_are_gone_is_no_damage() {
    let store = queue("t", Some("c"));
    for (meta, files, next) in [
        ("30\n0,0\n4,300\n", &[][..], 5),
        ("0\n4,300\n4,300\n", &[], 5),
        ("9\n0,200\n2,300\n", &[], 3),
        ("30\n0,0\n2,100\n", &[7, 8], 9),
    ] {
        let mut disk = MemoryFiles::new();
        disk.insert("t:c.diskqueue.meta.dat", meta.as_bytes());
        for number in files {
            let mut rig = Rig::new(SMALL);
            rig.put(*number, &BODY);
            let data = rig.files.get("t:c.diskqueue.000000.dat").unwrap();
            disk.insert(&format!("t:c.diskqueue.{number:06}.dat"), data);
        }
        let mut rig = Rig::over(store, SMALL, disk);
        assert_eq!(ids(&rig.drain()), files, "{meta:?}");
        assert!(
            rig.out.events.iter().all(|it| matches!(it, DiskEvent::Missing { .. })),
            "{meta:?}"
        );
        rig.put(99, &BODY);
        assert!(rig.files.get(&format!("t:c.diskqueue.{next:06}.dat")).is_some(), "{meta:?}");
        rig.rest();
        assert_eq!(rig.queue.failure(), None);
    }
}

/// What is in flight at a stop is written anew, with its attempts; on a full disk it stays where it
/// is.
#[test]
fn a_stop_on_a_full_disk_keeps_what_is_in_flight() {
    for with_meta in [true, false] {
        let (mut rig, accepted) = filled(SMALL, 2050);
        rig.files.faults.append = Some(FailureKind::Full);
        rig.files.faults.replace = (!with_meta).then_some(FailureKind::Full);
        let popped: Vec<_> = (0..6).map(|_| rig.next().unwrap().message).collect();
        for message in &popped[..5] {
            rig.finish(message.record.unwrap());
        }
        rig.settle();
        rig.queue.push_again(&popped[5], rig.now, &mut rig.out);
        let began = rig.now.instant;
        rig.queue.close(&[], rig.now.instant + CLOSE_PATIENCE, rig.now, &mut rig.out);
        rig.rest();
        assert!(rig.queue.is_closed());
        let lost = |event: &DiskEvent| matches!(event, DiskEvent::NotWritten { .. });
        assert!(!rig.out.events.iter().any(lost), "{:?}", rig.out.events);
        let files = mended(&rig.files);
        let first = if with_meta { 5 } else { 4 };
        if with_meta {
            // Nothing is waited for that was not to be had.
            let took = rig.now.instant.saturating_since(began);
            assert!(took < core::time::Duration::from_secs(1), "{took:?}");
        }
        assert_eq!(ids(&rig.reopen(files).drain()), (first..accepted).collect::<Vec<_>>());
    }
}

#[test]
fn a_stop_writes_positions_although_messages_are_lost() {
    let (mut rig, accepted) = filled(SMALL, 2050);
    assert_eq!(ids(&rig.drain()).len() as u64, accepted);
    let mut rig = Rig::new(SMALL);
    for id in 0..8 {
        rig.put(id, &BODY);
    }
    rig.rest();
    rig.files.faults.append = Some(FailureKind::Full);
    let first = rig.next().unwrap();
    rig.finish(first.message.record.unwrap());
    rig.push(&message(9, &BODY), None);
    rig.queue.close(&[], rig.now.instant + CLOSE_PATIENCE, rig.now, &mut rig.out);
    rig.rest();
    assert!(rig.queue.is_closed());
    assert!(matches!(rig.out.events.last(), Some(DiskEvent::NotWritten { records: 1, .. })));
    let files = mended(&rig.files);
    assert_eq!(ids(&rig.reopen(files).drain()), (1..8).collect::<Vec<_>>());
}

/// What somebody else keeps is handed out although the disk does not take it, and he is told when
/// it is finished and not before.
#[test]
fn what_is_kept_elsewhere_is_lent() {
    let mut rig = Rig::new(SMALL);
    rig.files.faults.append = Some(FailureKind::Full);
    for id in 0..4 {
        rig.push(&message(id, &BODY), Some(kept(id)));
    }
    rig.settle();
    assert_eq!((rig.queue.room(), rig.queue.room_for_kept()), (0, 4096 - 4));
    let lent: Vec<_> = (0..3).map(|_| rig.pop().unwrap().message).collect();
    assert_eq!(ids(&lent), [0, 1, 2]);
    assert!(!rig.queue.is_unused() && rig.out.written.is_empty());
    rig.finish(lent[1].record.unwrap());
    rig.finish(lent[1].record.unwrap());
    assert_eq!(rig.out.written, [(kept(1), true)]);
    // One is written after all, at the stop; the other one was dropped with the queue's messages
    // before.
    rig.queue.push_again(&lent[0], rig.now, &mut rig.out);
    rig.files.faults.append = None;
    rig.rest();
    let told = |n: u64| (kept(n), true);
    assert_eq!(rig.out.written, [told(1), told(3), told(0)]);
    assert_eq!(ids(&rig.drain()), [3, 0]);
    rig.queue.empty(rig.now, &mut rig.out);
    rig.settle();
    assert_eq!(rig.out.written.last(), Some(&told(2)));
    rig.finish(lent[2].record.unwrap());
    assert_eq!(rig.out.written.len(), 4);
}

/// A channel that is closed on a full disk leaves to its topic what it never wrote.
#[test]
fn what_is_kept_elsewhere_is_not_lost_at_a_stop() {
    let mut rig = Rig::new(SMALL);
    rig.files.faults.append = Some(FailureKind::Full);
    rig.push(&message(1, &BODY), Some(kept(0)));
    rig.push(&message(2, &BODY), Some(kept(2)));
    rig.settle();
    let lent = rig.pop().unwrap().message;
    rig.queue.push_again(&lent, rig.now, &mut rig.out);
    rig.queue.close(&[], rig.now.instant + CLOSE_PATIENCE, rig.now, &mut rig.out);
    rig.rest();
    assert!(rig.queue.is_closed());
    let mut told = rig.out.written.clone();
    told.sort_unstable();
    assert_eq!(told, [(kept(0), false), (kept(2), false)]);
    let lost = |event: &DiskEvent| matches!(event, DiskEvent::NotWritten { .. });
    assert!(!rig.out.events.iter().any(lost), "{:?}", rig.out.events);
}

/// What is finished in one queue may be the room that another one wants, which does not know.
#[test]
fn a_queue_leaves_little_lying_about() {
    let mut rig = Rig::new(OPTIONS);
    for id in 0..700 {
        rig.put(id, &BODY);
    }
    assert_eq!(rig.drain().len(), 700);
    rig.rest();
    assert_eq!((rig.meta().as_deref(), data_files(&rig.files).len()), (Some("0 1,0 1,0"), 0));
    // A short file is written on.
    rig.put(700, &BODY);
    assert_eq!(ids(&rig.drain()), [700]);
    rig.rest();
    assert_eq!(rig.meta().as_deref(), Some("0 1,100 1,100"));
    let files = rig.files.clone();
    assert_eq!(ids(&rig.reopen(files).drain()), [0; 0]);
}

/// A disk that has no room for a long message and some for a block is full all the same.
#[test]
fn room_for_a_block_is_not_room_for_all() {
    let mut rig = Rig::new(OPTIONS);
    rig.files.capacity = Some(20_000);
    let long = [b'x'; 10_000];
    rig.push(&message(1, &long), Some(published(1)));
    rig.push(&message(2, &long), Some(published(2)));
    rig.settle();
    rig.push(&message(3, &long), Some(published(3)));
    rig.settle();
    wait_until_well(&mut rig);
    let told = |n: u64, is_ok| (published(n), is_ok);
    let mut written = core::mem::take(&mut rig.out.written);
    written.sort_unstable();
    assert_eq!(written, [told(1, true), told(2, false), told(3, false)]);
    assert_eq!(ids(&rig.drain()), [1]);
    assert_eq!(data_files(&rig.files), [""; 0]);
    rig.push(&message(4, &long), Some(published(4)));
    rig.settle();
    assert_eq!(rig.out.written, [told(4, true)]);
}
