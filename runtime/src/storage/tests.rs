//! The executor against a model, and what it does when files can't be had.

use core::cell::RefCell;
use core::mem;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::nsqd::ShardId;
use sansq_core::storage::{
    Completion, Durability, Failure, FailureKind, File, Found, Op, Owner, Request, RequestId,
    RequestIds, Store, Success,
};

use super::disk::Disk;
use super::executor::{Executor, Mailbox, Rounds};
use super::folder::Folder;
use super::listing::Listing;
use super::whole::WHOLE_FROM;
use super::{DataPath, Files, Storage as _};
use crate::lanes::{Lanes, Mail};

const ROUNDS: Rounds = Rounds { asides_max: 8, large_from: WHOLE_FROM };
const WRITTEN: Success = Success::Stored(Durability::Written);
const SYNCED: Success = Success::Stored(Durability::Synced);

fn queue(name: &str) -> Store {
    Store::Queue(TopicName::new(name).unwrap(), Some(ChannelName::new("c").unwrap()))
}

fn request(store: Store, op: Op) -> Request {
    Request { id: RequestId(1), owner: Owner::Metadata, store, op }
}

fn append(file: u64, offset: u64, data: &'static str) -> Op {
    Op::Append { file, offset, data: vec![Bytes::from_static(data.as_bytes())], sync: false }
}

fn replace(file: File, contents: &'static str) -> Op {
    Op::Replace { file, contents: Bytes::from_static(contents.as_bytes()) }
}

fn open(folder: &Path) -> Folder {
    let listing = Listing::read(folder, 1).unwrap().remove(0);
    Folder::new(folder.to_owned(), listing, 2, ShardId(0))
}

/// The names of the files, but of the reserve.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with("sansq-reserve."));
    names.sort();
    names
}

/// Mail that is there from the start, and comes one by one whenever the mailbox is looked at.
#[derive(Default)]
struct Script {
    mail: RefCell<VecDeque<Request>>,
    completions: RefCell<Vec<Completion>>,
}

impl Mailbox for &Script {
    fn fetch(&self, requests: &mut Vec<Request>) {
        requests.extend(self.mail.borrow_mut().pop_front());
    }

    fn report(&self, completions: &mut Vec<Completion>) {
        self.completions.borrow_mut().append(completions);
    }
}

/// What the files of some queues should hold.
#[derive(Default)]
struct Model(BTreeMap<String, Vec<u8>>);

impl Model {
    fn carry_out(&mut self, store: &Store, op: Op) -> Result<Success, FailureKind> {
        let name = |file| store.file(file).to_string();
        match op {
            Op::Open => {
                let mut found = Found::default();
                for (name, contents) in &self.0 {
                    let Some((owner, file)) = Store::parse(name) else { continue };
                    let bytes = Some(Bytes::copy_from_slice(contents));
                    match file {
                        _ if owner != *store => {}
                        File::Meta => found.meta = bytes,
                        File::Deferred => found.deferred = bytes,
                        File::Data(number) => found.files.push((number, contents.len() as u64)),
                        File::Bad(_) | File::Metadata => {}
                    }
                }
                Ok(Success::Opened(Box::new(found)))
            }
            Op::Append { file, offset, data, sync } => {
                let name = name(File::Data(file));
                let offset = offset as usize;
                if offset > 0 && !self.0.contains_key(&name) {
                    return Err(FailureKind::Missing);
                }
                let contents = self.0.entry(name).or_default();
                if contents.len() < offset {
                    return Err(FailureKind::Missing);
                }
                contents.truncate(offset);
                contents.extend_from_slice(&data.concat());
                Ok(if sync { SYNCED } else { WRITTEN })
            }
            Op::Read { file, offset, len } => {
                let contents = self.0.get(&name(File::Data(file))).ok_or(FailureKind::Missing)?;
                let from = contents.len().min(offset as usize);
                let to = contents.len().min(from + len);
                Ok(Success::Read(Bytes::copy_from_slice(&contents[from..to])))
            }
            Op::Sync { file } => {
                self.0.get(&name(File::Data(file))).ok_or(FailureKind::Missing)?;
                Ok(SYNCED)
            }
            Op::Replace { file, contents } => {
                self.0.insert(name(file), contents.to_vec());
                Ok(SYNCED)
            }
            Op::Remove { file } => {
                self.0.remove(&name(file));
                Ok(Success::Removed)
            }
            Op::RemoveAll => {
                self.0.retain(|name, _| {
                    Store::parse(name).is_some_and(|(owner, file)| {
                        owner != *store || matches!(file, File::Bad(_))
                    })
                });
                Ok(Success::Removed)
            }
            Op::SetAside { file } => {
                let contents = self.0.remove(&name(File::Data(file)));
                let contents = contents.ok_or(FailureKind::Missing)?;
                self.0.insert(name(File::Bad(file)), contents);
                Ok(Success::Removed)
            }
        }
    }
}

fn any_op() -> impl Strategy<Value = Op> {
    let number = 0_u64..3;
    let data = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..5);
    let data = data.prop_map(|parts| parts.into_iter().map(Bytes::from).collect::<Vec<_>>());
    let contents = prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
    let small = prop_oneof![Just(File::Meta), Just(File::Deferred)];
    let file = prop_oneof![Just(File::Meta), Just(File::Deferred), (0_u64..3).prop_map(File::Data)];
    prop_oneof![
        Just(Op::Open),
        (number.clone(), prop_oneof![Just(0), 0_u64..100], data, any::<bool>())
            .prop_map(|(file, offset, data, sync)| Op::Append { file, offset, data, sync }),
        (number.clone(), 0_u64..100, 0_usize..100).prop_map(|(file, offset, len)| Op::Read {
            file,
            offset,
            len
        }),
        number.clone().prop_map(|file| Op::Sync { file }),
        (small, contents).prop_map(|(file, contents)| Op::Replace { file, contents }),
        file.prop_map(|file| Op::Remove { file }),
        Just(Op::RemoveAll),
        number.prop_map(|file| Op::SetAside { file }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever is gathered, put off and mixed with what comes meanwhile: each queue's requests
    /// have the outcome that they have one after the other, each gets one completion, and the files
    /// are right.
    #[test]
    fn each_queue_sees_its_requests_in_order(
        requests in prop::collection::vec((0..3_usize, any_op()), 1..40),
        at_once in 0..40_usize,
        asides_max in 1..3_usize,
        large_from in 1..4_usize,
    ) {
        let rounds = Rounds { asides_max, large_from };
        let folder = tempfile::tempdir().unwrap();
        let queues = ["a", "b", "c"].map(queue);
        let (mut model, mut ids) = (Model::default(), RequestIds::default());
        let mut expected = [const { Vec::new() }; 3];
        let mut batch = Vec::new();
        for (index, op) in requests {
            let request = Request { id: ids.next_id(), ..request(queues[index], op) };
            let result = model.carry_out(&request.store, request.op.clone());
            expected[index].push((request.id, result));
            batch.push(request);
        }

        let script = Script::default();
        script.mail.borrow_mut().extend(batch.split_off(at_once.min(batch.len())));
        let mut executor = Executor::new(open(folder.path()), &script, rounds);
        loop {
            executor.run(&mut batch);
            executor.mailbox().fetch(&mut batch);
            if batch.is_empty() {
                break;
            }
        }

        let mut results = [const { Vec::new() }; 3];
        for Completion { id, result, .. } in script.completions.take() {
            let is_its = |expected: &Vec<_>| expected.iter().any(|(of, _)| *of == id);
            let index = expected.iter().position(is_its).unwrap();
            results[index].push((id, result.map_err(|failure| failure.kind)));
        }
        prop_assert_eq!(results, expected);
        let mut contents = BTreeMap::new();
        for name in names(folder.path()) {
            let bytes = std::fs::read(folder.path().join(&name)).unwrap();
            contents.insert(name, bytes);
        }
        prop_assert_eq!(&contents, &model.0);
        // A second start finds the same as the first one kept in mind.
        let mut again = open(folder.path());
        for queue in &queues {
            let found = again.carry_out(queue, Op::Open).map_err(|failure| failure.kind);
            prop_assert_eq!(found, Model(contents.clone()).carry_out(queue, Op::Open));
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn however_many_queues_are_synced_few_files_are_open() {
    struct Watched<'a>(&'a Path, RefCell<usize>, RefCell<usize>);
    impl Mailbox for &Watched<'_> {
        fn fetch(&self, _: &mut Vec<Request>) {
            let open = std::fs::read_dir("/proc/self/fd").unwrap();
            let links = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
            let count = links.filter(|path| path.starts_with(self.0)).count();
            self.1.replace_with(|most| count.max(*most));
        }

        fn report(&self, completions: &mut Vec<Completion>) {
            let good = completions.drain(..).filter(|completion| completion.result.is_ok());
            *self.2.borrow_mut() += good.count();
        }
    }

    for count in [100, 2500] {
        let folder = tempfile::tempdir().unwrap();
        let watched = Watched(folder.path(), RefCell::default(), RefCell::default());
        let mut executor = Executor::new(open(folder.path()), &watched, ROUNDS);
        let queues: Vec<_> = (0..count).map(|n| queue(&format!("q{n}"))).collect();
        let ask = |queue: &Store| {
            [append(0, 0, "x"), Op::Sync { file: 0 }, replace(File::Meta, "1")]
                .map(|op| request(*queue, op))
        };
        executor.run(&mut queues.iter().flat_map(ask).collect());
        // Two that are kept open and eight in the round, or one in each of sixteen threads that
        // sync; and the folder.
        assert!((1..=19).contains(&*watched.1.borrow()), "{} files", watched.1.borrow());
        assert_eq!(*watched.2.borrow(), 3 * count);
        for queue in &queues {
            let meta = folder.path().join(queue.file(File::Meta).to_string());
            assert_eq!(std::fs::read(meta).unwrap(), b"1");
        }
        assert_eq!(names(folder.path()).len(), 2 * count, "nothing else is left");
    }
}

#[test]
fn what_needs_no_fsync_does_not_wait_for_anothers() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b, c) = (queue("a"), queue("b"), queue("c"));
    let script = Script::default();
    let numbered = |id, store, op| Request { id: RequestId(id), ..request(store, op) };
    let mail = [numbered(6, b, append(0, 0, "b")), numbered(7, a, Op::Open)];
    script.mail.borrow_mut().extend(mail);
    let mut executor = Executor::new(open(folder.path()), &script, ROUNDS);
    executor.run(&mut vec![
        numbered(1, a, append(0, 0, "a")),
        numbered(2, a, Op::Sync { file: 0 }),
        numbered(3, a, replace(File::Meta, "1")),
        numbered(4, c, replace(File::Meta, "2")),
        numbered(5, c, Op::Remove { file: File::Data(0) }),
    ]);
    let mut order: Vec<_> = script
        .completions
        .take()
        .into_iter()
        .map(|completion| (completion.id.0, completion.result.unwrap()))
        .collect();
    // These are done side by side.
    order[2..4].sort_by_key(|(id, _)| *id);
    let found = Found { meta: Some(Bytes::from_static(b"1")), files: vec![(0, 1)], deferred: None };
    assert_eq!(
        order,
        [
            (1, WRITTEN),
            // `b` came when the first fsyncs were under way, and went before they were over.
            (6, WRITTEN),
            (2, SYNCED),
            (4, SYNCED),
            (5, Success::Removed),
            // `a` was put off until its meta file was in place.
            (3, SYNCED),
            (7, Success::Opened(Box::new(found))),
        ]
    );
}

#[test]
fn files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    // A `%` is a character like any other (storage-formats.md section 1).
    let folder = tempfile::Builder::new().prefix("%d").tempdir().unwrap();
    let mut files = open(folder.path());
    let queue = queue("t");
    for op in [append(0, 0, "x"), replace(File::Meta, "1"), replace(File::Deferred, "2")] {
        files.carry_out(&queue, op).unwrap();
    }
    files.carry_out(&Store::Metadata, replace(File::Metadata, "{}")).unwrap();
    let expected =
        ["nsqd.dat", "t:c.diskqueue.000000.dat", "t:c.diskqueue.meta.dat", "t:c.sansq-deferred"];
    assert_eq!(names(folder.path()), expected);
    for name in expected {
        let about = std::fs::metadata(folder.path().join(name)).unwrap();
        assert_eq!(about.permissions().mode() & 0o777, 0o600 & about.permissions().mode());
    }
}

#[test]
fn a_failure_names_the_file_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = open(folder.path());
    let queue = queue("t");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let failed = |result: Result<Success, Failure>| result.unwrap_err();

    let missing = failed(files.carry_out(&queue, append(3, 7, "x")));
    let text = format!("open {}: no such file or directory", path("t:c.diskqueue.000003.dat"));
    assert_eq!((missing.kind, &*missing.text), (FailureKind::Missing, text.as_str()));

    files.carry_out(&queue, append(0, 0, "abc")).unwrap();
    let short = failed(files.carry_out(&queue, append(0, 4, "x")));
    let text =
        format!("write {}: the file ends at 3 and not at 4", path("t:c.diskqueue.000000.dat"));
    assert_eq!((short.kind, &*short.text), (FailureKind::Missing, text.as_str()));

    // Something that can't be replaced: the new contents are not left lying about.
    std::fs::create_dir(folder.path().join("t:c.diskqueue.meta.dat")).unwrap();
    failed(files.carry_out(&queue, replace(File::Meta, "1")));
    assert_eq!(
        names(folder.path()),
        ["t:c.diskqueue.000000.dat", "t:c.diskqueue.meta.dat"],
        "no other file"
    );

    // The folder is gone: everything fails, and works again when it is back.
    let aside = folder.path().with_extension("aside");
    std::fs::rename(folder.path(), &aside).unwrap();
    assert_eq!(failed(files.carry_out(&queue, append(1, 0, "x"))).kind, FailureKind::Missing);
    let replaced = files.carry_out(&queue, replace(File::Deferred, "x"));
    assert_eq!(failed(replaced).kind, FailureKind::Missing);
    std::fs::rename(&aside, folder.path()).unwrap();
    files.carry_out(&queue, append(1, 0, "x")).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = open(folder.path());
    let queue = queue("t");
    let data = folder.path().join("t:c.diskqueue.000000.dat");
    std::os::unix::fs::symlink("/dev/full", &data).unwrap();
    for _ in 0..2 {
        let full = files.carry_out(&queue, append(0, 0, "abc")).unwrap_err();
        let text = format!("write {}: no space left on device", data.display());
        assert_eq!((full.kind, &*full.text), (FailureKind::Full, text.as_str()));
    }
    std::fs::remove_file(&data).unwrap();
    files.carry_out(&queue, append(0, 0, "abc")).unwrap();
    files.carry_out(&queue, append(0, 3, "def")).unwrap();
    assert_eq!(std::fs::read(&data).unwrap(), b"abcdef");
}

#[test]
fn a_storage_thread_does_all_that_it_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let lanes = Arc::new(Lanes::new(2));
    let data_path = DataPath::open(folder.path(), false).unwrap();
    let mut storage = Files::open(data_path, 2, 16).unwrap();
    let mut mail = [Mail::default(), Mail::default()];
    let (disks, threads): (Vec<_>, Vec<_>) = [0, 1]
        .map(|shard| {
            let (shard, path) = (ShardId(shard), storage.list_path());
            let (disk, thread) = Disk::new(storage.engine(shard), path, shard, Arc::clone(&lanes));
            (disk, std::thread::spawn(|| thread.run()))
        })
        .into_iter()
        .unzip();
    drop(storage);

    // One completion is waited for as a shard does.
    disks[0].submit(&mut vec![request(queue("a"), append(0, 0, "x"))]);
    while mail[0].completions.is_empty() {
        futures_lite::future::block_on(lanes.wait(ShardId(0)));
        lanes.collect(ShardId(0), &mut mail[0]);
    }
    let completions = mem::take(&mut mail[0].completions);
    let (id, owner) = (RequestId(1), Owner::Metadata);
    assert_eq!(completions, [Completion { id, owner, result: Ok(WRITTEN) }]);

    for (disk, name) in disks.iter().zip(["a", "b"]) {
        for _ in 0..100 {
            disk.submit(&mut vec![
                request(queue(name), append(1, 0, "x")),
                request(queue(name), Op::Sync { file: 1 }),
                request(queue(name), replace(File::Meta, "1")),
            ]);
        }
    }
    assert!(DataPath::open(folder.path(), false).is_err(), "the threads hold the lock");
    drop(disks);
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(!folder.path().join("sansq-reserve.0").exists(), "it is of use while it runs");
    for (shard, mail) in (0..).map(ShardId).zip(&mut mail) {
        lanes.collect(shard, mail);
        assert_eq!(mail.completions.len(), 300);
        assert!(mail.completions.iter().all(|completion| completion.result.is_ok()));
    }
    assert_eq!(
        names(folder.path()),
        [
            "a:c.diskqueue.000000.dat",
            "a:c.diskqueue.000001.dat",
            "a:c.diskqueue.meta.dat",
            "b:c.diskqueue.000001.dat",
            "b:c.diskqueue.meta.dat",
        ]
    );
    DataPath::open(folder.path(), false).unwrap();
}
