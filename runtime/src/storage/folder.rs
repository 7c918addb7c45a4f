//! The operations on a shard's files, one at a time.

use core::hash::{BuildHasher, Hasher};
use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sansq_core::nsqd::ShardId;
use sansq_core::storage::{Durability, Failure, FailureKind, File, Found, Op, Store, Success};

use super::failure::failure;
use super::in_place;
use super::inventory;
use super::listing::Listing;
use super::open_files::{OpenFile, OpenFiles};
use super::reserve::Reserve;

/// A data path, as one shard's storage thread works on it.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    listing: Listing,
    open: OpenFiles,
    /// A file was made whose name may not survive the loss of power.
    has_new_names: bool,
    chance: RandomState,
    /// How many names were made by chance.
    names: u64,
    reserve: Reserve,
}

/// A file that was written aside, and is to take the place of another.
#[derive(Debug)]
pub(super) struct Aside {
    store: Store,
    file: File,
    path: PathBuf,
    target: PathBuf,
    handle: Option<fs::File>,
    contents: Bytes,
}

impl Aside {
    /// Gives its descriptor back; it is opened again to be synced.
    pub(super) fn close(&mut self) {
        self.handle = None;
    }

    /// The second step of [`Op::Replace`]: synced, unless it is, and renamed.
    /// [`Folder::note_replaced`] is to be told of what it returns.
    pub(super) fn put_in_place(self, is_synced: bool) -> Result<(Store, File), Failure> {
        let Self { store, file, path, target, handle, contents } = self;
        let sync = || handle.map_or_else(|| fs::File::open(&path), Ok)?.sync_all();
        let synced = if is_synced { Ok(()) } else { sync() };
        let synced = synced.map_err(|error| failure("sync", &path, &error));
        let renamed = synced.and_then(|()| {
            fs::rename(&path, &target).map_err(|error| failure("rename", &path, &error))
        });
        if let Err(failure) = renamed {
            let _ = fs::remove_file(&path);
            in_place::without_room(file, &target, &contents, failure)?;
        }
        Ok((store, file))
    }
}

/// A data file that is to be synced.
#[derive(Debug)]
pub(super) enum DataHandle {
    Open(Arc<fs::File>),
    Closed(PathBuf),
}

impl DataHandle {
    /// Waits until the disk has what was written to it.
    pub(super) fn sync(self) -> io::Result<()> {
        match self {
            Self::Open(file) => file.sync_data(),
            Self::Closed(path) => fs::File::open(path)?.sync_data(),
        }
    }

    /// Looks whether it is still there, if the disk has what was written to it.
    pub(super) fn look(self) -> io::Result<()> {
        match self {
            Self::Open(_) => Ok(()),
            Self::Closed(path) => fs::metadata(path).map(drop),
        }
    }
}

impl Folder {
    /// The part of the folder `path` that a shard works on; not more than `limit` data files are
    /// kept open.
    pub(super) fn new(path: PathBuf, listing: Listing, limit: usize, shard: ShardId) -> Self {
        Self {
            reserve: Reserve::new(&path, shard.0),
            path,
            listing,
            open: OpenFiles::new(limit),
            has_new_names: false,
            chance: RandomState::new(),
            names: 0,
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Carries out an operation that does not wait for the disk; those with an fsync are taken in
    /// parts by who groups them, and here one by one.
    pub(super) fn carry_out(&mut self, store: &Store, op: Op) -> Result<Success, Failure> {
        match op {
            Op::Open => self.look(store).map(|found| Success::Opened(Box::new(found))),
            Op::Append { file, offset, data, sync } => {
                self.append(store, file, offset, &data)?;
                if sync {
                    return self.carry_out(store, Op::Sync { file });
                }
                Ok(Success::Stored(Durability::Written))
            }
            Op::Read { file, offset, len } => {
                self.read(store, file, offset, len).map(Success::Read)
            }
            Op::Remove { file } => self.remove(store, file).map(|()| Success::Removed),
            Op::RemoveAll => self.remove_all(store).map(|()| Success::Removed),
            Op::SetAside { file } => self.set_aside(store, file).map(|()| Success::Removed),
            Op::Sync { file } => {
                let result = self.handle(store, file, false)?.sync();
                self.note_synced(store, file, result)?;
                self.sync_names().map(|()| Success::Stored(Durability::Synced))
            }
            Op::Replace { file, contents } => {
                if let Some(aside) = self.write_aside(store, file, contents)? {
                    aside.put_in_place(false)?;
                    self.note_replaced(store, file);
                }
                self.sync_names().map(|()| Success::Stored(Durability::Synced))
            }
        }
    }

    fn look(&mut self, store: &Store) -> Result<Found, Failure> {
        let Some(files) = self.listing.get(store) else { return Ok(Found::default()) };
        let (found, missing) = inventory::find(&self.path, store, files)?;
        missing.into_iter().for_each(|file| self.listing.remove(store, file));
        Ok(found)
    }

    /// Writes at the end of a data file.
    pub(super) fn append(
        &mut self,
        store: &Store,
        number: u64,
        offset: u64,
        data: &[Bytes],
    ) -> Result<(), Failure> {
        let access = if offset == 0 { Access::Create } else { Access::Write };
        self.data_file(store, number, access, "write", |file| file.append(offset, data))
    }

    fn read(
        &mut self,
        store: &Store,
        number: u64,
        offset: u64,
        len: usize,
    ) -> Result<Bytes, Failure> {
        self.data_file(store, number, Access::Read, "read", |file| file.read(offset, len))
    }

    /// A data file that is to be synced, in whatever thread; not opened if it `may_be_closed`. What
    /// came of it goes to [`note_synced`](Self::note_synced).
    pub(super) fn handle(
        &mut self,
        store: &Store,
        number: u64,
        may_be_closed: bool,
    ) -> Result<DataHandle, Failure> {
        let is_there = || self.listing.get(store).is_some_and(|files| files.data.contains(&number));
        if may_be_closed && self.open.get(&(*store, number), false).is_none() && is_there() {
            return Ok(DataHandle::Closed(self.path_of(store, File::Data(number))));
        }
        let open = |file: &mut OpenFile| Ok(DataHandle::Open(file.handle()));
        self.data_file(store, number, Access::Read, "sync", open)
    }

    /// What was appended to a data file survives, or may not; if the file is new, its name does
    /// after [`sync_names`](Self::sync_names).
    pub(super) fn note_synced(
        &mut self,
        store: &Store,
        number: u64,
        result: io::Result<()>,
    ) -> Result<(), Failure> {
        result.map_err(|error| {
            self.open.close(&(*store, number));
            failure("sync", &self.path_of(store, File::Data(number)), &error)
        })
    }

    /// Does something with a data file, which is opened if it is not open; closed if that fails, so
    /// that the next one finds out what state it is in.
    fn data_file<R>(
        &mut self,
        store: &Store,
        number: u64,
        access: Access,
        verb: &str,
        act: impl FnOnce(&mut OpenFile) -> io::Result<R>,
    ) -> Result<R, Failure> {
        let key = (*store, number);
        let write = access != Access::Read;
        let open = match self.open.get(&key, write) {
            Some(open) => open,
            None => {
                let path = self.path.join(store.file(File::Data(number)).to_string());
                let options = options(write, access == Access::Create);
                let mut opened =
                    options.open(&path).map_err(|error| failure("open", &path, &error));
                if let Err(refused) = &opened
                    && refused.kind == FailureKind::TooManyOpen
                    && self.open.close_all()
                {
                    opened = options.open(&path).map_err(|error| failure("open", &path, &error));
                }
                let opened = opened.and_then(|file| {
                    let open = self.open.insert(key, file, write);
                    open.map_err(|error| failure("open", &path, &error))
                });
                let open = opened?;
                if access == Access::Create {
                    self.reserve.fill();
                    self.listing.insert(store, File::Data(number));
                    self.has_new_names = true;
                }
                open
            }
        };
        act(open).map_err(|error| {
            self.open.close(&key);
            failure(verb, &self.path_of(store, File::Data(number)), &error)
        })
    }

    fn remove(&mut self, store: &Store, file: File) -> Result<(), Failure> {
        if let File::Data(number) = file {
            self.open.close(&(*store, number));
        }
        let path = self.path_of(store, file);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(failure("remove", &path, &error))
            }
            _ => {
                self.listing.remove(store, file);
                Ok(())
            }
        }
    }

    fn remove_all(&mut self, store: &Store) -> Result<(), Failure> {
        let Some(files) = self.listing.get(store).cloned() else { return Ok(()) };
        for number in files.data {
            self.remove(store, File::Data(number))?;
        }
        if files.meta {
            self.remove(store, File::Meta)?;
        }
        if files.deferred {
            self.remove(store, File::Deferred)?;
        }
        Ok(())
    }

    fn set_aside(&mut self, store: &Store, number: u64) -> Result<(), Failure> {
        self.open.close(&(*store, number));
        let from = self.path_of(store, File::Data(number));
        let to = self.path_of(store, File::Bad(number));
        fs::rename(&from, to).map_err(|error| failure("rename", &from, &error))?;
        self.listing.remove(store, File::Data(number));
        Ok(())
    }

    /// The first step of [`Op::Replace`]: the contents are written to a file of their own, at last
    /// with room from the reserve. `None` if there was none, and the file has the contents already.
    pub(super) fn write_aside(
        &mut self,
        store: &Store,
        file: File,
        contents: Bytes,
    ) -> Result<Option<Aside>, Failure> {
        if file == File::Metadata {
            self.reserve.cover(contents.len());
        }
        let target = self.path_of(store, file);
        let mut tries = 0;
        loop {
            let refused = match self.try_aside(store, file, &contents) {
                Ok((path, handle)) => {
                    if tries == 0 {
                        self.reserve.fill();
                    }
                    let (store, handle) = (*store, Some(handle));
                    return Ok(Some(Aside { store, file, path, target, handle, contents }));
                }
                Err(refused) => refused,
            };
            let Err(refused) = in_place::without_room(file, &target, &contents, refused) else {
                return Ok(None);
            };
            tries += 1;
            let may_help = matches!(refused.kind, FailureKind::Full | FailureKind::Quota);
            if !may_help || tries > RESERVE_TRIES_MAX || !self.reserve.give_up(contents.len()) {
                return Err(refused);
            }
        }
    }

    fn try_aside(
        &mut self,
        store: &Store,
        file: File,
        contents: &[u8],
    ) -> Result<(PathBuf, fs::File), Failure> {
        let (path, mut handle) = self.make_aside(store, file)?;
        if let Err(error) = handle.write_all(contents) {
            let failure = failure("write", &path, &error);
            let _ = fs::remove_file(&path);
            return Err(failure);
        }
        Ok((path, handle))
    }

    /// Nothing more will be written: the reserve is not needed any more.
    pub(super) fn end(&mut self) {
        self.reserve.remove();
    }

    /// Makes `<file>.<number>.tmp`, as the reference calls it. One that was left by a crash may
    /// have that very number.
    fn make_aside(&mut self, store: &Store, file: File) -> Result<(PathBuf, fs::File), Failure> {
        let mut tries = 0;
        loop {
            self.names += 1;
            let mut hasher = self.chance.build_hasher();
            hasher.write_u64(self.names);
            let mut name = OsString::from(store.file(file).to_string());
            name.push(format!(".{}.tmp", hasher.finish()));
            let path = self.path.join(name);
            match options(true, false).create_new(true).open(&path) {
                Ok(handle) => return Ok((path, handle)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists && tries < TRIES_MAX => {
                    tries += 1;
                }
                Err(error) => return Err(failure("open", &path, &error)),
            }
        }
    }

    /// A file was put in its place. Its name survives after [`sync_names`](Self::sync_names).
    pub(super) fn note_replaced(&mut self, store: &Store, file: File) {
        self.listing.insert(store, file);
        self.has_new_names = true;
    }

    /// Makes the names of files survive the loss of power.
    pub(super) fn sync_names(&mut self) -> Result<(), Failure> {
        if self.has_new_names {
            sync_folder(&self.path).map_err(|error| failure("sync", &self.path, &error))?;
            self.has_new_names = false;
        }
        Ok(())
    }

    fn path_of(&self, store: &Store, file: File) -> PathBuf {
        self.path.join(store.file(file).to_string())
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// What a data file is opened for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Access {
    /// A read-only file system may still be read.
    Read,
    Write,
    /// Writing, and the file is made if there is none.
    Create,
}

/// How files are opened; new ones are their owner's alone, as the reference's are.
fn options(write: bool, create: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(write).create(create);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// How often a part of the reserve is given up for one file: others may take what was.
const RESERVE_TRIES_MAX: u32 = 4;

/// Names by chance that may be taken already.
const TRIES_MAX: u32 = 100;
