//! The way to a storage thread and back, under every interleaving: run by `.ci/run interleavings`.

use sansq_core::storage::{Durability, Op, Owner, RequestId, Success};

use super::*;
use crate::interleavings::{explore, start};
use crate::lanes::Mail;

const SHARD: ShardId = ShardId(0);

/// A shard asks twice and drops its end. The thread does all of it, in order, reports each, and
/// ends.
#[test]
fn what_is_submitted_is_done_in_order_before_the_thread_ends() {
    explore(|| {
        let (disk, desk) = ends();
        let thread = loom::thread::spawn(move || work(&desk, |_| {}));
        disk.submit(&mut vec![request(1), request(2)]);
        disk.submit(&mut vec![request(3)]);
        drop(disk);
        assert_eq!(thread.join().unwrap(), [1, 2, 3]);
    });
}

/// It looks into its mailbox while it is at work, too, and then sleeps without having been told of
/// what it found.
#[test]
fn what_arrives_while_the_thread_works_is_done_once() {
    explore(|| {
        let (disk, desk) = ends();
        let thread = loom::thread::spawn(move || {
            let fetching = |files: &mut Vec<u64>| {
                let mut more = Vec::new();
                desk.fetch(&mut more);
                files.extend(more.iter().map(file));
            };
            work(&desk, fetching)
        });
        for number in 1..=3 {
            disk.submit(&mut vec![request(number)]);
        }
        drop(disk);
        assert_eq!(thread.join().unwrap(), [1, 2, 3]);
    });
}

/// A shard sleeps until the completion of what it asked for is in its mail, and then asks again.
#[test]
fn each_completion_wakes_the_shard() {
    explore(|| {
        let (disk, desk) = ends();
        let lanes = Arc::clone(&desk.lanes);
        let thread = loom::thread::spawn(move || work(&desk, |_| {}));
        let shard = start(async move {
            let mut mail = Mail::default();
            for number in 1..=2 {
                disk.submit(&mut vec![request(number)]);
                while mail.completions.is_empty() {
                    lanes.wait(SHARD).await;
                    lanes.collect(SHARD, &mut mail);
                }
                assert_eq!(mail.completions.drain(..).count(), 1);
            }
            lanes.requests().next()
        });
        assert_eq!(thread.join().unwrap(), [1, 2]);
        assert_eq!(shard.join().unwrap(), Some((2, 0)));
    });
}

/// The two ends, as [`Disk::new`] makes them, without files.
fn ends() -> (Disk, Desk) {
    let (inbox, lanes) = (Arc::new(Inbox::default()), Arc::new(Lanes::new(1)));
    let meter = lanes.meter(SHARD);
    let disk =
        Disk { inbox: Arc::clone(&inbox), meter: Arc::clone(&meter), list_path: PathBuf::new() };
    (disk, Desk { inbox, meter, lanes, shard: SHARD })
}

/// What an [`Engine`](crate::storage::Engine) does with its desk. Returns what it was asked for.
fn work(desk: &Desk, meanwhile: impl Fn(&mut Vec<u64>)) -> Vec<u64> {
    let (mut batch, mut files) = (Vec::new(), Vec::new());
    while desk.wait(&mut batch) {
        for request in batch.drain(..) {
            files.push(file(&request));
            let Request { id, owner, .. } = request;
            desk.report(&mut vec![Completion {
                id,
                owner,
                result: Ok(Success::Stored(Durability::Synced)),
            }]);
        }
        meanwhile(&mut files);
    }
    files
}

fn request(file: u64) -> Request {
    let (id, owner, store) = (RequestId(file), Owner::Metadata, Store::Metadata);
    Request { id, owner, store, op: Op::Sync { file } }
}

fn file(request: &Request) -> u64 {
    let Op::Sync { file } = request.op else { panic!("nobody asked for {request:?}") };
    file
}
