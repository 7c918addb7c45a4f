//! One thing at a time: what is asked of the disk, in which order, and what is answered.

use sansq_core::message::MessageId;
use sansq_core::storage::memory::{Faults, MemoryFiles};
use sansq_core::storage::{
    CLOSE_PATIENCE, DiskEvent, DiskOptions, FailureKind, File, Op, PENDING_MAX, Popped,
};

use crate::rig::{OPTIONS, Rig, ids, message, meta, published, queue};

/// Pops one message and gives it as it came.
fn popped(rig: &mut Rig) -> Popped {
    rig.next().expect("there is one")
}

#[test]
fn one_append_at_a_time_and_the_rest_gathers() {
    let mut rig = Rig::new(OPTIONS);
    for id in 0..10 {
        rig.push(&message(id, b"body"), Some(published(id)));
    }
    let Some(Op::Append { file: 0, offset: 0, data, sync: false }) = rig.asked().next() else {
        panic!("{:?}", rig.out.asked);
    };
    assert_eq!((rig.out.asked.len(), data.concat().len()), (1, 34));
    assert!(rig.out.written.is_empty());
    assert_eq!((rig.queue.depth(), rig.queue.has_ready()), (10, false));
    rig.step();
    assert_eq!(rig.out.written.len(), 1);
    let Some(Op::Append { file: 0, offset: 34, data, .. }) = rig.asked().next() else {
        panic!("{:?}", rig.out.asked);
    };
    assert_eq!(data.concat().len(), 9 * 34);
    rig.step();
    assert_eq!(rig.out.written.len(), 10);
    assert!(rig.out.asked.is_empty());
    assert_eq!(ids(&rig.drain()), (0..10).collect::<Vec<_>>());
}

#[test]
fn who_waits_gets_a_record_without_reading() {
    let mut rig = Rig::new(OPTIONS);
    assert_eq!(rig.pop(), None);
    rig.put(1, b"one");
    assert!(rig.queue.has_ready());
    let one = popped(&mut rig);
    assert_eq!((&one.message.body[..], one.due), (&b"one"[..], None));
    // Nobody waits: it is not kept in memory, and read when somebody comes.
    let mut rig = Rig::new(OPTIONS);
    rig.put(1, b"one");
    assert!(!rig.queue.has_ready() && !rig.queue.is_empty());
    assert_eq!(rig.pop(), None);
    assert_eq!(rig.asked().next(), Some(&Op::Read { file: 0, offset: 0, len: 33 }));
    rig.step();
    assert!(rig.queue.has_ready());
    assert_eq!(ids(&rig.drain()), [1]);
    assert!(rig.queue.is_empty());
}

#[test]
fn an_idle_queue_has_no_deadline_and_writes_nothing() {
    let mut rig = Rig::new(OPTIONS);
    assert_eq!(rig.queue.poll_timeout(), None);
    rig.put(1, b"one");
    assert_eq!(rig.queue.poll_timeout(), Some(rig.now.after(OPTIONS.sync_timeout).instant));
    rig.wait();
    assert_eq!(rig.asked().next(), Some(&Op::Sync { file: 0 }));
    rig.settle();
    assert_eq!(rig.meta().as_deref(), Some("1 0,0 0,33"));
    assert_eq!(rig.queue.poll_timeout(), None);
    // A record that is popped is still needed; one that is finished is not.
    let one = popped(&mut rig);
    assert_eq!(rig.queue.poll_timeout(), None);
    rig.finish(one.message.record.expect("it was popped from disk"));
    rig.wait();
    // Nothing was written, so there is nothing to sync.
    assert!(matches!(rig.asked().next(), Some(Op::Replace { file: File::Meta, .. })));
    rig.settle();
    assert_eq!(rig.meta().as_deref(), Some("0 0,33 0,33"));
}

#[test]
fn a_sync_comes_after_so_many_records() {
    let mut rig = Rig::new(DiskOptions { sync_every: 3, ..OPTIONS });
    rig.put(1, b"x");
    rig.put(2, b"x");
    assert_eq!(rig.meta(), None);
    rig.put(3, b"x");
    assert_eq!(rig.meta().as_deref(), Some("3 0,0 0,93"));
}

#[test]
fn files_are_as_long_as_the_references() {
    // 50 records of 98 bytes, one of 1534 among them, in files of 1024 bytes.
    let mut rig = Rig::new(DiskOptions { max_bytes_per_file: 1024, ..OPTIONS });
    for id in 0..30 {
        rig.put(id, &[b'x'; 68]);
    }
    for id in 30..39 {
        rig.put(id, &[b'y'; 68]);
    }
    rig.put(39, &[b'B'; 1504]);
    for id in 40..50 {
        rig.put(id, &[b'z'; 68]);
    }
    let lens: Vec<_> = (0..6)
        .map(|number| rig.files.get(&format!("t:c.diskqueue.{number:06}.dat")).map(<[u8]>::len))
        .collect();
    assert_eq!(lens, [980, 980, 980, 882, 1534, 980].map(Some));
    // At each roll the data was synced, then the meta file replaced.
    assert_eq!(rig.meta().as_deref(), Some("40 0,0 5,0"));
    // A file goes as soon as all of it is finished and the meta file says so.
    for _ in 0..10 {
        let record = popped(&mut rig).message.record;
        rig.finish(record.expect("it was popped from disk"));
    }
    rig.settle();
    assert!(rig.files.get("t:c.diskqueue.000000.dat").is_none());
    assert_eq!(rig.meta().as_deref(), Some("40 1,0 5,980"));
    let files = rig.close(&[]);
    assert_eq!(meta(&files, &queue("t", Some("c"))).as_deref(), Some("40 1,0 5,980"));
}

#[test]
fn the_meta_file_begins_at_the_oldest_that_is_not_finished() {
    let mut rig = Rig::new(DiskOptions { max_bytes_per_file: 70, ..OPTIONS });
    for id in 0..6 {
        rig.put(id, b"12345");
    }
    let records: Vec<_> = (0..6).filter_map(|_| popped(&mut rig).message.record).collect();
    assert_eq!(records.len(), 6);
    rig.finish(records[1]);
    rig.finish(records[2]);
    rig.finish(records[4]);
    rig.rest();
    assert_eq!(rig.meta().as_deref(), Some("6 0,0 2,70"));
    rig.finish(records[0]);
    rig.rest();
    assert_eq!(rig.meta().as_deref(), Some("3 1,35 2,70"));
    rig.finish(records[3]);
    rig.rest();
    assert_eq!(rig.meta().as_deref(), Some("1 2,35 2,70"));
    let files = rig.files.clone();
    let mut rig = rig.reopen(files);
    assert_eq!(rig.queue.depth(), 1);
    assert_eq!(ids(&rig.drain()), [5]);
}

#[test]
fn an_unused_queue_is_closed_as_the_reference_closes_it() {
    let rig = Rig::new(OPTIONS);
    let files = rig.close(&[]);
    assert_eq!(files.names().collect::<Vec<_>>(), ["t:c.diskqueue.meta.dat"]);
    assert_eq!(files.get("t:c.diskqueue.meta.dat"), Some(&b"0\n0,0\n0,0\n"[..]));
}

#[test]
fn emptying_moves_on_to_the_next_file() {
    let mut rig = Rig::new(OPTIONS);
    rig.put(1, b"one");
    rig.put(2, b"two");
    let one = popped(&mut rig).message;
    rig.push(&message(3, b"three"), Some(published(3)));
    rig.queue.empty(rig.now, &mut rig.out);
    assert_eq!((rig.queue.depth(), rig.queue.is_empty()), (0, true));
    rig.settle();
    assert_eq!(rig.files.names().count(), 0);
    assert_eq!(rig.out.written.len(), 1);
    rig.finish(one.record.expect("it was popped from disk"));
    assert_eq!(rig.queue.poll_timeout(), None);
    rig.put(4, b"four");
    assert_eq!(rig.files.names().collect::<Vec<_>>(), ["t:c.diskqueue.000001.dat"]);
    assert_eq!(ids(&rig.drain()), [4]);
    rig.queue.empty(rig.now, &mut rig.out);
    rig.settle();
    let files = rig.close(&[]);
    assert_eq!(files.get("t:c.diskqueue.meta.dat"), Some(&b"0\n2,0\n2,0\n"[..]));
}

/// What failed is not wanted any more then, and must not keep the queue from getting something new.
#[test]
fn emptying_ends_the_trouble_of_a_queue() {
    type Break = fn(&mut Faults, Option<FailureKind>);
    let breaks: [Break; 3] = [
        |faults, kind| faults.append = kind,
        |faults, kind| faults.replace = kind,
        |faults, kind| faults.sync = kind,
    ];
    for (number, set) in breaks.into_iter().enumerate() {
        for removes in [true, false] {
            let mut rig = Rig::new(OPTIONS);
            set(&mut rig.files.faults, Some(FailureKind::Other));
            rig.push(&message(1, b"one"), None);
            rig.settle();
            rig.wait();
            rig.settle();
            assert!(rig.queue.failure().is_some(), "{number}");
            rig.files.faults = Faults::default();
            if !removes {
                rig.files.faults.remove = Some(FailureKind::Other);
            }
            rig.queue.empty(rig.now, &mut rig.out);
            rig.settle();
            rig.rest();
            assert!(rig.queue.failure().is_none(), "{number}, {removes}");
            assert!(rig.queue.room() > 0, "{number}, {removes}");
            rig.put(2, b"two");
            assert_eq!(ids(&rig.drain()), [2], "{number}, {removes}");
        }
    }
}

#[test]
fn a_queue_can_be_emptied_and_deleted_before_it_is_opened() {
    let mut rig = Rig::new(OPTIONS);
    rig.put(1, b"one");
    let files = rig.close(&[]);
    let store = queue("t", Some("c"));
    let mut rig = Rig::unopened(store, OPTIONS, files.clone());
    rig.queue.empty(rig.now, &mut rig.out);
    rig.push(&message(2, b"two"), None);
    rig.settle();
    assert_eq!(ids(&rig.drain()), [2]);
    assert_eq!(rig.files.names().collect::<Vec<_>>(), ["t:c.diskqueue.000001.dat"]);

    let mut rig = Rig::unopened(store, OPTIONS, files);
    rig.push(&message(2, b"two"), Some(published(2)));
    rig.queue.delete(&mut rig.out);
    rig.settle();
    assert_eq!((rig.files.names().count(), rig.out.written.len()), (0, 1));
}

#[test]
fn a_full_disk_refuses_who_waits_and_keeps_what_nobody_else_has() {
    let mut rig = Rig::new(OPTIONS);
    rig.put(1, b"one");
    rig.files.capacity = Some(40);
    rig.push(&message(2, b"two"), Some(published(2)));
    rig.push(&message(3, b"three"), None);
    rig.push(&message(4, b"four"), Some(published(4)));
    rig.settle();
    assert_eq!(rig.out.written, [(published(2), false), (published(4), false)]);
    assert_eq!((rig.queue.room(), rig.queue.depth()), (0, 2));
    assert!(
        matches!(rig.out.events[..], [DiskEvent::Failing(ref f)] if f.kind == FailureKind::Full)
    );
    assert_eq!(rig.queue.failure().map(|failure| failure.kind), Some(FailureKind::Full));
    // It is tried again, less and less often, and said once.
    let mut delays = Vec::new();
    for _ in 0..8 {
        let before = rig.now.instant;
        assert!(rig.wait());
        delays.push(rig.now.instant.saturating_since(before).as_millis());
        rig.settle();
    }
    delays.retain(|delay| *delay > 0);
    assert_eq!(delays[..5], [100, 200, 400, 800, 500]);
    assert_eq!(rig.out.events.len(), 1);
    // What can be read is read, and what was never promised to last can be taken as well.
    let one = popped(&mut rig).message;
    assert_eq!(one.id.0, 1);
    let three = popped(&mut rig).message;
    assert_eq!((three.id.0, three.record), (3, None));
    rig.push(&message(5, b"five"), None);
    rig.files.capacity = None;
    rig.rest();
    assert_eq!(rig.out.events.last(), Some(&DiskEvent::Recovered));
    assert_eq!((rig.queue.room(), rig.queue.failure()), (PENDING_MAX, None));
    assert_eq!(ids(&rig.drain()), [5]);
    // Nothing of the failed appends is left, and when everything is finished nothing at all.
    assert_eq!(rig.files.get("t:c.diskqueue.000000.dat").map(<[u8]>::len), Some(33 + 34));
    rig.finish(one.record.expect("it was popped from disk"));
    let files = rig.close(&[]);
    assert_eq!(files.get("t:c.diskqueue.000000.dat"), None);
}

#[test]
fn a_failed_append_leaves_no_bytes_behind_a_closed_queue() {
    let mut rig = Rig::new(OPTIONS);
    rig.put(1, b"one");
    rig.files.faults.append = Some(FailureKind::Other);
    rig.push(&message(2, b"two"), Some(published(2)));
    rig.settle();
    assert_eq!(rig.files.get("t:c.diskqueue.000000.dat").map(<[u8]>::len), Some(33 + 16));
    rig.files.faults.append = None;
    rig.wait();
    rig.queue.close(&[], rig.now.instant + CLOSE_PATIENCE, rig.now, &mut rig.out);
    rig.rest();
    assert!(rig.queue.is_closed());
    assert_eq!(rig.files.get("t:c.diskqueue.000000.dat").map(<[u8]>::len), Some(33));
    assert_eq!(rig.meta().as_deref(), Some("1 0,0 0,33"));
}

#[test]
fn after_a_failed_sync_only_later_data_proves_anything() {
    let mut rig = Rig::new(OPTIONS);
    rig.put(1, b"one");
    rig.files.faults.sync = Some(FailureKind::Other);
    rig.wait();
    rig.settle();
    assert!(rig.queue.failure().is_some());
    assert_eq!((rig.queue.room(), rig.meta()), (0, None));
    rig.files.faults.sync = None;
    rig.rest();
    // The repeated sync had nothing to do; new messages are welcome, but all is not well yet.
    assert_eq!(rig.meta().as_deref(), Some("1 0,0 1,0"));
    assert!(rig.queue.failure().is_some() && rig.queue.room() > 0);
    rig.put(2, b"two");
    assert!(rig.files.get("t:c.diskqueue.000001.dat").is_some());
    rig.rest();
    assert_eq!(rig.queue.failure(), None);
    assert_eq!(rig.meta().as_deref(), Some("2 0,0 1,33"));
}

#[test]
fn a_queue_that_can_not_be_opened_is_opened_later() {
    let mut files = MemoryFiles::new();
    files.faults.open = Some(FailureKind::Other);
    let mut rig = Rig::over(queue("t", None), OPTIONS, files);
    rig.push(&message(1, b"one"), Some(published(1)));
    assert_eq!((rig.queue.room(), rig.pop()), (0, None));
    rig.files.faults.open = None;
    rig.rest();
    assert_eq!(rig.out.written.len(), 1);
    assert_eq!(ids(&rig.drain()), [1]);
}

#[test]
fn an_unreadable_file_is_waited_for() {
    let mut rig = Rig::new(OPTIONS);
    rig.put(1, b"one");
    rig.files.faults.read = Some(FailureKind::Other);
    assert_eq!(rig.next(), None);
    assert!(rig.queue.failure().is_some());
    rig.wait();
    rig.settle();
    rig.files.faults.read = None;
    rig.rest();
    assert_eq!(ids(&rig.drain()), [1]);
    assert_eq!(rig.queue.failure(), None);
}

#[test]
fn a_file_that_disappears_costs_its_records_only() {
    let mut rig = Rig::new(DiskOptions { max_bytes_per_file: 70, ..OPTIONS });
    for id in 0..5 {
        rig.put(id, b"12345");
    }
    rig.files.remove("t:c.diskqueue.000001.dat");
    assert_eq!(ids(&rig.drain()), [0, 1, 4]);
    assert!(rig.queue.is_empty());
    assert_eq!(rig.queue.depth(), 0);
    // The file that is written to disappears: what comes goes to the next one.
    let mut rig = Rig::new(OPTIONS);
    rig.put(5, b"12345");
    rig.files.remove("t:c.diskqueue.000000.dat");
    assert_eq!(rig.next(), None);
    assert_eq!(rig.queue.depth(), 0);
    rig.put(6, b"12345");
    assert_eq!(ids(&rig.drain()), [6]);
    rig.files.remove("t:c.diskqueue.000001.dat");
    rig.push(&message(7, b"12345"), None);
    rig.rest();
    assert_eq!(ids(&rig.drain()), [7]);
}

#[test]
fn closing_a_queue_whose_disk_refuses_ends() {
    let mut rig = Rig::new(OPTIONS);
    rig.files.faults.append = Some(FailureKind::Other);
    rig.push(&message(1, b"one"), None);
    rig.queue.close(&[], rig.now.instant + CLOSE_PATIENCE, rig.now, &mut rig.out);
    rig.rest();
    assert!(rig.queue.is_closed());
    assert!(matches!(rig.out.events.last(), Some(DiskEvent::NotWritten { records: 1, .. })));
}

/// The simulator's seed 166735400847802: stopped for 18 s while it was closing, on a disk that was
/// well again.
#[test]
fn closing_ends_with_one_more_try() {
    let mut rig = Rig::new(OPTIONS);
    rig.files.faults.append = Some(FailureKind::Other);
    rig.push(&message(1, b"one"), None);
    rig.queue.close(&[], rig.now.instant + CLOSE_PATIENCE, rig.now, &mut rig.out);
    rig.settle();
    rig.files.faults.append = None;
    rig.now = rig.now.after(core::time::Duration::from_secs(18));
    rig.queue.handle_timeout(rig.now, &mut rig.out);
    rig.rest();
    assert!(rig.queue.is_closed());
    assert_eq!(rig.out.events.last(), Some(&DiskEvent::Recovered));
}

#[test]
fn deferrals_are_kept_unless_somebody_else_had_the_queue() {
    let mut rig = Rig::new(OPTIONS);
    rig.put(1, b"one");
    rig.put(2, b"two");
    let due = rig.now.after(OPTIONS.max_delay).instant;
    let files = rig.close(&[(MessageId(2), due)]);
    let store = queue("t", Some("c"));
    let mut rig = Rig::over(store, OPTIONS, files.clone());
    assert_eq!([popped(&mut rig).due, popped(&mut rig).due], [None, Some(due)]);
    // As soon as the meta file is another one, the side file is gone.
    rig.put(3, b"three");
    rig.rest();
    assert_eq!(rig.files.get("t:c.sansq-deferred"), None);

    // What nobody popped is due at its time after another stop as well.
    let files = Rig::over(store, OPTIONS, files).close(&[]);
    let mut rig = Rig::over(store, OPTIONS, files.clone());
    assert_eq!([popped(&mut rig).due, popped(&mut rig).due], [None, Some(due)]);

    let mut touched = files;
    touched.insert("t:c.diskqueue.meta.dat", b"1\n0,33\n0,66\n");
    let mut rig = Rig::over(store, OPTIONS, touched);
    assert_eq!(popped(&mut rig).due, None);
    let files = rig.close(&[]);
    assert_eq!(files.get("t:c.sansq-deferred"), None);
}

#[test]
fn a_record_larger_than_a_chunk_is_read() {
    let mut rig = Rig::new(OPTIONS);
    let body = vec![7; 700_000];
    for id in 0..3 {
        rig.put(id, &body);
        rig.put(10 + id, b"small");
    }
    let drained = rig.drain();
    assert_eq!(ids(&drained), [0, 10, 1, 11, 2, 12]);
    assert!(drained[0].body == body && &drained[5].body[..] == b"small");
}

/// The simulator's seed 183528374474123: a sync failed that was under way when the queue was
/// closed, and what was written meanwhile was not synced at all.
#[test]
fn a_sync_from_before_does_not_end_a_close() {
    let mut rig = Rig::new(OPTIONS);
    rig.put(1, b"one");
    rig.wait();
    assert_eq!(rig.asked().next(), Some(&Op::Sync { file: 0 }));
    rig.push(&message(2, b"two"), None);
    let until = rig.now.instant + CLOSE_PATIENCE;
    rig.queue.close(&[], until, rig.now, &mut rig.out);
    rig.files.faults.sync = Some(FailureKind::Other);
    rig.step();
    rig.files.faults.sync = None;
    rig.settle();
    assert!(rig.queue.is_closed());
    assert_eq!(rig.out.events.last(), Some(&DiskEvent::Recovered));
    // Nobody knows what the first file has on the disk.
    assert_eq!(rig.meta().as_deref(), Some("2 0,0 1,33"));
    // If it goes on refusing, that is the end, at once.
    let mut rig = Rig::new(OPTIONS);
    rig.put(1, b"one");
    rig.wait();
    rig.push(&message(2, b"two"), None);
    rig.queue.close(&[], until, rig.now, &mut rig.out);
    rig.files.faults.sync = Some(FailureKind::Other);
    rig.settle();
    assert!(rig.queue.is_closed());
    assert!(matches!(rig.out.events.last(), Some(DiskEvent::NotClosed(_))));
}

/// The simulator's seed 183528374479349: the meta file knew nothing of a file that was written
/// behind one that is gone.
#[test]
fn what_the_last_process_left_is_synced_although_nothing_is_amiss() {
    let mut rig = Rig::new(OPTIONS);
    rig.put(1, b"one");
    let one = popped(&mut rig).message;
    rig.finish(one.record.expect("it was popped from disk"));
    rig.rest();
    assert_eq!(rig.meta().as_deref(), Some("0 0,33 0,33"));
    let mut files = rig.files.clone();
    let contents = files.get("t:c.diskqueue.000000.dat").map(<[u8]>::to_vec).unwrap_or_default();
    files.remove("t:c.diskqueue.000000.dat");
    files.insert("t:c.diskqueue.000001.dat", &contents);
    let mut rig = rig.reopen(files);
    assert_eq!((rig.queue.depth(), rig.out.events.len()), (1, 0));
    rig.wait();
    assert!(rig.asked().any(|op| *op == Op::Sync { file: 1 }), "{:?}", rig.out.asked);
    rig.settle();
    assert_eq!(rig.meta().as_deref(), Some("1 1,0 2,0"));
}
