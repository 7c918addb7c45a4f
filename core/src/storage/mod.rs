//! Files, as requests and completions (storage-formats.md).
//!
//! A machine never waits for a disk. It asks for an [`Op`] in a [`Request`], and goes on; whoever
//! drives it carries the request out, on a thread of its own, and hands the [`Completion`] back in
//! a later turn. The contract:
//!
//! - Each request gets exactly one completion, also if it fails. The completion has the request's
//!   id; a machine knows by that what was completed, and by nothing else.
//! - Requests of one [`Store`] that are about the same file take effect and are completed in the
//!   order in which they were made ([`Op::depends_on`]).
//! - All others, of different stores or about different files of one, may be carried out side by
//!   side and completed in any order. A machine that needs one before the other asks for the second
//!   when the first is completed.
//! - What an operation promises about a crash is said at [`Op`], and what was promised by its
//!   [`Success`].
//!
//! The simulator answers with torn writes, lost syncs and full disks; the runtimes with files.

mod disk_queue;
mod file;
pub mod memory;
mod metadata;
mod ticket;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

pub use self::disk_queue::{
    CLOSE_PATIENCE, Damage, DiskEvent, DiskHeld, DiskOptions, DiskOutput, DiskQueue,
    PENDING_LEN_MAX, PENDING_MAX, Popped, STAGED_LEN_MAX,
};
pub use self::file::{File, FileName, Store};
pub use self::metadata::{
    ChannelRecord, Metadata, MetadataError, MetadataText, ParsedMetadata, SkippedName, TopicRecord,
};
pub use self::ticket::{Durability, Keeper, Ticket};
use crate::arena::{ChannelId, TopicId};

/// Whose request it is: the completion goes back there, and is ignored if that is gone.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Owner {
    /// The queue of a channel.
    Channel(ChannelId),
    /// The list of topics and channels.
    Metadata,
    /// The queue of a topic.
    Topic(TopicId),
}

/// Names a request among those of one shard, for as long as the process lives.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RequestId(pub u64);

/// Numbers the requests of one shard, in the order of asking.
#[derive(Debug, Default)]
pub struct RequestIds {
    last: u64,
}

impl RequestIds {
    /// The next one, larger than all before.
    pub const fn next_id(&mut self) -> RequestId {
        self.last += 1;
        RequestId(self.last)
    }
}

/// Something that is to be done on the disk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// Its name, for the completion.
    pub id: RequestId,
    /// Who asks.
    pub owner: Owner,
    /// Whose files it is about.
    pub store: Store,
    /// What is to be done.
    pub op: Op,
}

/// An operation on the files of one [`Store`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Op {
    /// Look at what there is. Changes nothing.
    Open,
    /// Write `data` at `offset`, which is the end of what is known to be good: whatever the file
    /// holds behind it is cut off before. The file is made if there is none (then `offset` is 0).
    /// It is [`Written`](Durability::Written) then; it survives the loss of power, all or in parts,
    /// only after [`Op::Sync`]. If there is no room for all of it, nothing is left of it: on a full
    /// disk others may need what it took.
    ///
    /// With `sync` that is part of it, and it is [`Synced`](Durability::Synced) in the end. If it
    /// fails, so did the sync, whichever of the two it was.
    Append {
        /// The data file's number.
        file: u64,
        /// Where to write.
        offset: u64,
        /// What to write, in order: one buffer would cost a copy of each large body.
        data: Vec<Bytes>,
        /// Whether to sync the file behind it.
        sync: bool,
    },
    /// Read up to `len` bytes from `offset`. Fewer come at the end of the file only.
    Read {
        /// The data file's number.
        file: u64,
        /// Where to read.
        offset: u64,
        /// How much, in bytes.
        len: usize,
    },
    /// Make sure that what was appended to this data file is [`Synced`](Durability::Synced). If it
    /// fails, what was appended since the last success has to be taken for lost: a repeated sync
    /// that succeeds proves nothing.
    Sync {
        /// The data file's number.
        file: u64,
    },
    /// Put `contents` in the place of a file: it is written aside, synced, renamed, and the folder
    /// is synced. It is [`Synced`](Durability::Synced) then; after a crash there is the old file or
    /// the new one, whole. One fsync of the folder may serve several requests.
    Replace {
        /// Which file; [`File::Meta`], [`File::Metadata`] or [`File::Deferred`].
        file: File,
        /// What it is to hold.
        contents: Bytes,
    },
    /// Remove a file; that it is not there is no failure.
    Remove {
        /// Which file.
        file: File,
    },
    /// Remove the data files, by number, then [`File::Meta`] and [`File::Deferred`]; not those that
    /// were set aside. For a queue that is emptied or deleted, also before it was opened.
    RemoveAll,
    /// Rename a data file to its name with `.bad` behind it, over an older one.
    SetAside {
        /// The data file's number.
        file: u64,
    },
}

impl Op {
    /// Whether this operation may not take effect, nor be completed, before `earlier`, which was
    /// asked for before it on the same store: both are about one file.
    pub fn depends_on(&self, earlier: &Self) -> bool {
        match (self.file(), earlier.file()) {
            (Some(file), Some(earlier)) => file == earlier,
            (None, _) | (_, None) => true,
        }
    }

    /// The one file that it is about; `None` if it is about all of the store.
    const fn file(&self) -> Option<File> {
        match *self {
            Self::Append { file, .. }
            | Self::Read { file, .. }
            | Self::Sync { file }
            | Self::SetAside { file } => Some(File::Data(file)),
            Self::Replace { file, .. } | Self::Remove { file } => Some(file),
            Self::Open | Self::RemoveAll => None,
        }
    }
}

/// What became of a [`Request`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Completion {
    /// The request's.
    pub id: RequestId,
    /// Who asked.
    pub owner: Owner,
    /// What came of it.
    pub result: Result<Success, Failure>,
}

/// What a successful operation has done, or brought.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Success {
    /// Of [`Op::Open`]: what there is.
    Opened(Box<Found>),
    /// Of [`Op::Read`]: what was read.
    Read(Bytes),
    /// Of [`Op::Remove`], [`Op::RemoveAll`] and [`Op::SetAside`]: nothing has these names any more.
    Removed,
    /// Of [`Op::Append`], [`Op::Sync`] and [`Op::Replace`]: what it is about is as safe as that.
    Stored(Durability),
}

/// The files of a [`Store`] that is a queue, as they were found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// What [`File::Meta`] holds, if there is one.
    pub meta: Option<Bytes>,
    /// What [`File::Deferred`] holds, if there is one.
    pub deferred: Option<Bytes>,
    /// The numbers of the data files and their lengths in bytes, by number.
    pub files: Vec<(u64, u64)>,
}

impl Found {
    /// Whether there is nothing.
    pub const fn is_empty(&self) -> bool {
        self.meta.is_none() && self.deferred.is_none() && self.files.is_empty()
    }
}

/// An operation failed; the disk is as it was, or has a part of an append behind its offset.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// What kind of trouble it is.
    pub kind: FailureKind,
    /// The operating system's words, with the file's name in front.
    pub text: Box<str>,
}

/// The kinds of trouble with disks that call for different words; all may pass.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FailureKind {
    /// There is no room left.
    Full,
    /// The file or its folder is not there, or the file ends before the place that it is about.
    Missing,
    /// Anything else, a broken disk among it.
    Other,
    /// The file or its folder is not this process's to write, or to read.
    Permission,
    /// The user's share of the disk is used up.
    Quota,
    /// The file system is read-only.
    ReadOnly,
    /// The file may not become so large: for this process, or on this file system.
    TooLarge,
    /// No more files may be open.
    TooManyOpen,
}

impl FailureKind {
    /// Whether fewer or smaller files would help.
    pub const fn is_want_of_room(self) -> bool {
        matches!(self, Self::Full | Self::Quota | Self::TooLarge)
    }
}

impl Failure {
    /// The trouble as an operator or a publisher should read it: what it is, and where.
    pub fn in_words(&self) -> Box<str> {
        let what = match self.kind {
            FailureKind::Full => "disk full",
            FailureKind::Permission => "no permission",
            FailureKind::Quota => "disk quota used up",
            FailureKind::ReadOnly => "disk read-only",
            FailureKind::TooLarge => "file size limit reached",
            FailureKind::TooManyOpen => "limit on open files reached",
            FailureKind::Missing | FailureKind::Other => return self.text.clone(),
        };
        alloc::format!("{what} - {self}").into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl core::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_one_file_keeps_its_order() {
        let append = |file| Op::Append { file, offset: 0, data: Vec::new(), sync: false };
        let remove = |file| Op::Remove { file };
        for (later, earlier, is_dependent) in [
            (Op::Sync { file: 1 }, append(1), true),
            (Op::Sync { file: 2 }, append(1), false),
            (Op::Read { file: 1, offset: 0, len: 1 }, Op::SetAside { file: 1 }, true),
            (remove(File::Data(1)), append(1), true),
            (remove(File::Bad(1)), append(1), false),
            (
                remove(File::Deferred),
                Op::Replace { file: File::Meta, contents: Bytes::new() },
                false,
            ),
            (remove(File::Meta), Op::Replace { file: File::Meta, contents: Bytes::new() }, true),
            (append(1), Op::RemoveAll, true),
            (Op::RemoveAll, Op::Open, true),
            (Op::Open, append(1), true),
        ] {
            assert_eq!(later.depends_on(&earlier), is_dependent, "{later:?} behind {earlier:?}");
        }
    }
}
