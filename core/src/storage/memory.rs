//! Files in memory that keep what a disk promises and break everything else: for tests, fuzzers and
//! simulators, and for a broker that is to keep nothing.
//!
//! What an operation promises is said at [`Op`]. Everything that it doesn't promise is lost by
//! [`lose_power`](MemoryFiles::lose_power) whenever chance wants so: data that was appended and not
//! synced may be there, be cut anywhere, or have holes of zeros. A sync that failed loses for good
//! what it was about, although it can be read until the power goes. Removing and renaming is taken
//! to last at once.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;

use super::{
    Completion, Durability, Failure, FailureKind, File, Found, Op, Request, Store, Success,
};
use crate::rng::Rng;

/// How much of a file is kept or lost together, in bytes.
const SECTOR_LEN: usize = 512;

/// What operations of one kind come to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Faults {
    /// Appends fail in this way, after a part of them was written.
    pub append: Option<FailureKind>,
    /// Looking at what there is fails in this way.
    pub open: Option<FailureKind>,
    /// Reads fail in this way.
    pub read: Option<FailureKind>,
    /// Removing and setting aside fail in this way.
    pub remove: Option<FailureKind>,
    /// Replacing fails in this way.
    pub replace: Option<FailureKind>,
    /// Syncs fail in this way.
    pub sync: Option<FailureKind>,
}

/// A file: what can be read, and what of it lasts.
#[derive(Clone, Debug, Default)]
struct Content {
    data: Vec<u8>,
    /// `None` if not even the file would be there.
    durable: Option<Vec<u8>>,
    /// Ranges that no later sync brings back.
    lost: Vec<(usize, usize)>,
}

/// A folder in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles {
    files: BTreeMap<String, Content>,
    /// What fails at present.
    pub faults: Faults,
    /// Appends and replacements beyond so many bytes in all fail with [`FailureKind::Full`].
    pub capacity: Option<u64>,
    /// So many bytes more may be used by replacements.
    pub reserve: u64,
}

impl MemoryFiles {
    /// An empty folder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a file there, as if it had been there always.
    pub fn insert(&mut self, name: &str, contents: &[u8]) {
        let (data, durable) = (contents.to_vec(), Some(contents.to_vec()));
        self.files.insert(name.to_string(), Content { data, durable, lost: Vec::new() });
    }

    /// What a file holds.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(|file| &file.data[..])
    }

    /// Takes a file away.
    pub fn remove(&mut self, name: &str) {
        self.files.remove(name);
    }

    /// The names of the files, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Carries a request out.
    pub fn carry_out(&mut self, request: &Request) -> Completion {
        let Request { id, owner, store, op } = request;
        Completion { id: *id, owner: *owner, result: self.execute(store, op) }
    }

    /// Carries an operation out.
    ///
    /// # Errors
    /// As [`faults`](Self::faults) and [`capacity`](Self::capacity) have it, or if it is about a
    /// file that is not there or is too short.
    pub fn execute(&mut self, store: &Store, op: &Op) -> Result<Success, Failure> {
        match op {
            Op::Open => {
                check(self.faults.open, store)?;
                Ok(Success::Opened(Box::new(self.found(store))))
            }
            Op::Append { file, offset, data, sync } => {
                self.append(store, *file, *offset, data)?;
                if *sync {
                    return self.sync(store, *file);
                }
                Ok(Success::Stored(Durability::Written))
            }
            Op::Read { file, offset, len } => {
                check(self.faults.read, store)?;
                let name = store.file(File::Data(*file)).to_string();
                let data = &self.files.get(&name).ok_or_else(|| missing(&name))?.data;
                let from = usize::try_from(*offset).unwrap_or(usize::MAX).min(data.len());
                let to = from.saturating_add(*len).min(data.len());
                Ok(Success::Read(Bytes::copy_from_slice(&data[from..to])))
            }
            Op::Sync { file } => self.sync(store, *file),
            Op::Replace { file, contents } => {
                check(self.faults.replace, store)?;
                let name = store.file(*file).to_string();
                self.fits(&name, contents.len(), self.reserve)?;
                self.insert(&name, contents);
                Ok(Success::Stored(Durability::Synced))
            }
            Op::Remove { file } => {
                check(self.faults.remove, store)?;
                self.files.remove(&store.file(*file).to_string());
                Ok(Success::Removed)
            }
            Op::RemoveAll => {
                check(self.faults.remove, store)?;
                for (number, _) in self.found(store).files {
                    self.files.remove(&store.file(File::Data(number)).to_string());
                }
                self.files.remove(&store.file(File::Meta).to_string());
                self.files.remove(&store.file(File::Deferred).to_string());
                Ok(Success::Removed)
            }
            Op::SetAside { file } => {
                check(self.faults.remove, store)?;
                let name = store.file(File::Data(*file)).to_string();
                let content = self.files.remove(&name).ok_or_else(|| missing(&name))?;
                self.files.insert(store.file(File::Bad(*file)).to_string(), content);
                Ok(Success::Removed)
            }
        }
    }

    /// Carries a part of an operation out, as if the process died within it. Only an append has
    /// parts.
    pub fn tear(&mut self, store: &Store, op: &Op, rng: &mut Rng) {
        if let Op::Append { file, offset, data, .. } = op {
            let mut data = data.concat();
            data.truncate(rng.below(data.len() as u64 + 1) as usize);
            // It dies whether that works or not.
            let _ = self.append(store, *file, *offset, &[Bytes::from(data)]);
        }
    }

    /// The power goes and comes back: what was not promised to last is cut, has holes, or is there.
    pub fn lose_power(&mut self, rng: &mut Rng) {
        for content in self.files.values_mut() {
            for &(from, to) in &content.lost {
                let to = to.min(content.data.len());
                content.data[from.min(to)..to].fill(0);
            }
            content.lost.clear();
            let durable = content.durable.take();
            let synced = durable.as_ref().map_or(0, Vec::len);
            let is_append =
                durable.as_ref().is_none_or(|durable| content.data.starts_with(durable));
            match (rng.below(4), durable) {
                (0, Some(durable)) => content.data = durable,
                (_, Some(durable)) if !is_append => content.data = durable,
                (0, None) => content.data.clear(),
                (1, _) => {
                    let unsynced = (content.data.len() - synced) as u64;
                    content.data.truncate(synced + rng.below(unsynced + 1) as usize);
                }
                (2, _) => {
                    for sector in content.data[synced..].chunks_mut(SECTOR_LEN) {
                        if rng.below(2) == 0 {
                            sector.fill(0);
                        }
                    }
                }
                _ => {}
            }
            content.durable = Some(content.data.clone());
        }
    }

    fn append(
        &mut self,
        store: &Store,
        file: u64,
        offset: u64,
        data: &[Bytes],
    ) -> Result<(), Failure> {
        let name = store.file(File::Data(file)).to_string();
        let mut data = data.concat();
        let mut result = check(self.faults.append, store);
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let len = self.files.get(&name).map_or(0, |content| content.data.len());
        if offset > len {
            return Err(missing(&name));
        }
        if result.is_err() {
            data.truncate(data.len() / 2);
        } else if let Err(full) = self.fits(&name, offset + data.len(), 0) {
            // What was written of it is cut off again, as it is of no use and others may use the
            // room.
            data.clear();
            result = Err(full);
        }
        let content = self.files.entry(name).or_default();
        content.data.truncate(offset);
        content.data.extend_from_slice(&data);
        result
    }

    fn sync(&mut self, store: &Store, file: u64) -> Result<Success, Failure> {
        let name = store.file(File::Data(file)).to_string();
        let content = self.files.get_mut(&name).ok_or_else(|| missing(&name))?;
        if let Err(failure) = check(self.faults.sync, store) {
            let from = content.durable.as_ref().map_or(0, Vec::len);
            content.lost.push((from, content.data.len()));
            return Err(failure);
        }
        let mut durable = content.data.clone();
        for &(from, to) in &content.lost {
            let to = to.min(durable.len());
            durable[from.min(to)..to].fill(0);
        }
        content.durable = Some(durable);
        Ok(Success::Stored(Durability::Synced))
    }

    fn found(&self, store: &Store) -> Found {
        let mut found = Found::default();
        for (name, content) in &self.files {
            let bytes = || Some(Bytes::copy_from_slice(&content.data));
            match Store::parse(name).filter(|(of, _)| of == store) {
                Some((_, File::Data(number))) => {
                    found.files.push((number, content.data.len() as u64));
                }
                Some((_, File::Meta)) => found.meta = bytes(),
                Some((_, File::Deferred)) => found.deferred = bytes(),
                Some((_, File::Bad(_) | File::Metadata)) | None => {}
            }
        }
        // Names have more digits from a million on.
        found.files.sort_unstable();
        found
    }

    /// Whether the file may become so long, with a reserve. It may always become shorter.
    fn fits(&self, name: &str, len: usize, reserve: u64) -> Result<(), Failure> {
        if self.files.get(name).is_some_and(|content| len <= content.data.len()) {
            return Ok(());
        }
        let others = self.files.iter().filter(|(other, _)| *other != name);
        let others: usize = others.map(|(_, content)| content.data.len()).sum();
        let capacity = self.capacity.unwrap_or(u64::MAX).saturating_add(reserve);
        if (others + len) as u64 <= capacity {
            return Ok(());
        }
        let text = alloc::format!("{name}: no space left on device");
        Err(Failure { kind: FailureKind::Full, text: text.into() })
    }

    /// The bytes of all files.
    pub fn used(&self) -> u64 {
        self.files.values().map(|content| content.data.len() as u64).sum()
    }
}

fn check(fault: Option<FailureKind>, store: &Store) -> Result<(), Failure> {
    let Some(kind) = fault else { return Ok(()) };
    Err(Failure { kind, text: alloc::format!("{store}: input/output error").into() })
}

fn missing(name: &str) -> Failure {
    let text = alloc::format!("{name}: no such file or directory").into();
    Failure { kind: FailureKind::Missing, text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::TopicName;

    fn append(offset: u64, data: &'static [u8]) -> Op {
        Op::Append { file: 0, offset, data: alloc::vec![Bytes::from_static(data)], sync: false }
    }

    #[test]
    fn what_is_synced_lasts_and_nothing_else_need() {
        let store = Store::Queue(TopicName::new("t").unwrap(), None);
        let name = "t.diskqueue.000000.dat";
        let (mut lost, mut kept) = (0, 0);
        for seed in 0..64 {
            let (mut files, mut rng) = (MemoryFiles::new(), Rng::new(seed));
            files.execute(&store, &append(0, b"one")).unwrap();
            files.execute(&store, &Op::Sync { file: 0 }).unwrap();
            files.execute(&store, &append(3, b"two")).unwrap();
            assert_eq!(files.get(name), Some(&b"onetwo"[..]));
            files.lose_power(&mut rng);
            let data = files.get(name).unwrap();
            assert!(data.starts_with(b"one"));
            lost += usize::from(data == b"one");
            kept += usize::from(data == b"onetwo");
        }
        assert!(lost > 0 && kept > 0 && lost + kept < 64);
    }

    #[test]
    fn an_append_with_a_sync_is_both() {
        let store = Store::Queue(TopicName::new("t").unwrap(), None);
        let with_sync = |offset, data| {
            let Op::Append { file, offset, data, .. } = append(offset, data) else { panic!() };
            Op::Append { file, offset, data, sync: true }
        };
        let mut files = MemoryFiles::new();
        files.execute(&store, &append(0, b"one")).unwrap();
        let stored = files.execute(&store, &with_sync(3, b"two"));
        assert_eq!(stored, Ok(Success::Stored(Durability::Synced)));
        for (seed, fault) in (0..).zip([Some(FailureKind::Other), None]) {
            let mut files = files.clone();
            files.faults.sync = fault;
            assert_eq!(files.execute(&store, &with_sync(6, b"three")).is_ok(), fault.is_none());
            files.faults.append = Some(FailureKind::Full);
            let full = files.execute(&store, &with_sync(11, b"four")).unwrap_err();
            assert_eq!(full.kind, FailureKind::Full);
            files.lose_power(&mut Rng::new(seed));
            let lasts = if fault.is_none() { &b"onetwothree"[..] } else { b"onetwo" };
            assert!(files.get("t.diskqueue.000000.dat").unwrap().starts_with(lasts));
        }
    }

    #[test]
    fn a_failed_sync_is_not_made_good_by_a_later_one() {
        let store = Store::Queue(TopicName::new("t").unwrap(), None);
        let mut files = MemoryFiles::new();
        files.execute(&store, &append(0, b"one")).unwrap();
        files.faults.sync = Some(FailureKind::Other);
        files.execute(&store, &Op::Sync { file: 0 }).unwrap_err();
        files.faults.sync = None;
        files.execute(&store, &append(3, b"two")).unwrap();
        files.execute(&store, &Op::Sync { file: 0 }).unwrap();
        files.lose_power(&mut Rng::new(1));
        assert_eq!(files.get("t.diskqueue.000000.dat"), Some(&b"\0\0\0two"[..]));
    }

    #[test]
    fn a_full_disk_takes_nothing() {
        let store = Store::Queue(TopicName::new("t").unwrap(), None);
        let mut files = MemoryFiles { capacity: Some(5), ..MemoryFiles::new() };
        files.execute(&store, &append(0, b"one")).unwrap();
        let full = files.execute(&store, &append(3, b"more")).unwrap_err();
        assert_eq!(full.kind, FailureKind::Full);
        assert_eq!(files.get("t.diskqueue.000000.dat"), Some(&b"one"[..]));
        files.execute(&store, &append(3, b"ab")).unwrap();
        assert_eq!(files.get("t.diskqueue.000000.dat"), Some(&b"oneab"[..]));
    }
}
