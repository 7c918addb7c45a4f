//! Files, as requests and completions (storage-formats.md).
//!
//! A machine never waits for a disk. It asks for an [`Op`] in a [`Request`], and goes on; whoever
//! drives it carries the request out, on a thread of its own, and hands the [`Done`] back in a
//! later turn. The contract:
//!
//! - requests of one [`Store`] are carried out in the order in which they were made, one at a time;
//! - each gets exactly one completion, also if it fails;
//! - requests of different stores may be carried out side by side and in any order;
//! - what an operation promises about a crash is said at [`Op`].
//!
//! The simulator answers with torn writes, lost syncs and full disks; the runtimes with files.

mod disk_queue;
mod file;
pub mod memory;
mod metadata;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

pub use self::disk_queue::{
    CLOSE_PATIENCE, Damage, DiskEvent, DiskHeld, DiskOptions, DiskOutput, DiskQueue,
    PENDING_LEN_MAX, PENDING_MAX, Popped, STAGED_LEN_MAX, Ticket,
};
pub use self::file::{File, FileName, Store};
pub use self::metadata::{
    ChannelRecord, Metadata, MetadataError, MetadataText, ParsedMetadata, SkippedName, TopicRecord,
};
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

/// Something that is to be done on the disk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
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
    /// Look at what there is; answered by [`Answer::Opened`]. Changes nothing.
    Open,
    /// Write `data` at `offset`, which is the end of what is known to be good: whatever the file
    /// holds behind it is cut off before. The file is made if there is none (then `offset` is 0).
    /// Survives the end of the process; survives the loss of power, all or in parts, only after
    /// [`Op::Sync`]. If there is no room for all of it, nothing is left of it: on a full disk
    /// others may need what it took.
    Append {
        /// The data file's number.
        file: u64,
        /// Where to write.
        offset: u64,
        /// What to write, in order: one buffer would cost a copy of each large body.
        data: Vec<Bytes>,
    },
    /// Read up to `len` bytes from `offset`; answered by [`Answer::Read`]. Fewer come at the end of
    /// the file only.
    Read {
        /// The data file's number.
        file: u64,
        /// Where to read.
        offset: u64,
        /// How much, in bytes.
        len: usize,
    },
    /// Make sure that what was appended to this data file survives the loss of power. If it fails,
    /// what was appended since the last success has to be taken for lost: a repeated sync that
    /// succeeds proves nothing.
    Sync {
        /// The data file's number.
        file: u64,
    },
    /// Put `contents` in the place of a file: it is written aside, synced, renamed, and the folder
    /// is synced. After a crash there is the old file or the new one, whole. One fsync of the
    /// folder may serve several requests.
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

/// The outcome of a [`Request`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Done {
    /// Who asked.
    pub owner: Owner,
    /// What became of it.
    pub result: Result<Answer, Failure>,
}

/// What a successful operation brought.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// Of [`Op::Append`].
    Appended,
    /// Of [`Op::Open`].
    Opened(Box<Found>),
    /// Of [`Op::Read`].
    Read(Bytes),
    /// Of [`Op::Remove`] and [`Op::RemoveAll`].
    Removed,
    /// Of [`Op::Replace`].
    Replaced,
    /// Of [`Op::SetAside`].
    SetAside,
    /// Of [`Op::Sync`].
    Synced,
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
