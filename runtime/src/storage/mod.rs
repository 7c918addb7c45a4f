//! The storage of an nsqd, behind the core's requests and completions: the files of its data path
//! ([`Files`]), or whatever else implements [`Storage`].
//!
//! Each shard has a storage thread beside its own, on which an [`Engine`] runs. What the shard asks
//! for in a turn is handed over whole and carried out there; the completions come back with the
//! shard's mail. So a disk that is slow, or does not answer at all, never holds up a shard.

mod data_path;
mod disk;
mod engine;
mod executor;
mod failure;
mod folder;
mod in_place;
mod inventory;
mod listing;
mod metadata;
mod open_files;
mod reserve;
#[cfg(test)]
mod tests;
mod whole;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use sansq_core::nsqd::ShardId;
use sansq_core::storage::{Metadata, Store};

pub use self::data_path::{DataPath, DataPathError};
pub use self::disk::Desk;
pub(crate) use self::disk::{Disk, DiskThread};
pub use self::engine::{Engine, Storage};
use self::executor::{Executor, Rounds};
use self::folder::Folder;
pub use self::inventory::Inventory;
use self::inventory::Queues;
use self::listing::Listing;
pub use self::metadata::MetadataFileError;
use self::whole::WHOLE_FROM;

/// A data path whose files are known.
#[derive(Debug)]
pub struct Files {
    data_path: Arc<DataPath>,
    /// By shard.
    listings: Vec<Listing>,
    /// By shard.
    queues: Vec<Queues>,
    metadata: Arc<Metadata>,
    data_files: usize,
}

impl Files {
    /// Reads which files there are, for a node with `shards` shards, the metadata, and what the
    /// queues that it lists have on disk. A queue that can't be read is left alone until it asks.
    /// `data_files` is [`NsqdOptions::data_files`](crate::options::NsqdOptions::data_files).
    ///
    /// # Errors
    /// If the folder can't be read; the text names it. If the metadata can't be read or makes no
    /// sense: then the error is a [`MetadataFileError`].
    pub fn open(data_path: DataPath, shards: u16, data_files: usize) -> io::Result<Self> {
        let path = data_path.path();
        let list = || {
            Listing::read(path, shards).map_err(|error| {
                let failure = failure::failure("open", path, &error);
                io::Error::new(error.kind(), failure.to_string())
            })
        };
        // With many files and many names both take their time.
        let (listings, metadata) = thread::scope(|scope| {
            let listing = thread::Builder::new().spawn_scoped(scope, list);
            let metadata = metadata::read(path);
            let listings = match listing.map(thread::ScopedJoinHandle::join) {
                Ok(Ok(listings)) => listings,
                // There was no thread to be had, or it did not get through.
                Ok(Err(_)) | Err(_) => list(),
            };
            (listings, metadata)
        });
        let (listings, metadata) = (listings?, Arc::new(metadata?));
        let queues = inventory::read(path, &listings, &metadata);
        Ok(Self { data_path: Arc::new(data_path), listings, queues, metadata, data_files })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.data_path.path()
    }
}

impl Storage for Files {
    type Engine = FileEngine;

    fn list_path(&self) -> PathBuf {
        self.path().join(Store::Metadata.to_string())
    }

    fn inventory(&mut self, shard: ShardId) -> Inventory {
        let queues = self.queues.get_mut(usize::from(shard.0)).map(core::mem::take);
        Inventory::new(Arc::clone(&self.metadata), queues.unwrap_or_default())
    }

    fn engine(&mut self, shard: ShardId) -> FileEngine {
        let share = (self.data_files / self.listings.len().max(1)).max(1);
        let listing = self.listings.get_mut(usize::from(shard.0)).map(core::mem::take);
        let path = self.path().to_owned();
        let folder = Folder::new(path, listing.unwrap_or_default(), share, shard);
        FileEngine { folder, share, data_path: Arc::clone(&self.data_path) }
    }
}

/// Works on the files of a shard. The lock on the data path is held until the last of a node's has
/// ended.
#[derive(Debug)]
pub struct FileEngine {
    folder: Folder,
    /// How many data files may be open.
    share: usize,
    data_path: Arc<DataPath>,
}

impl Engine for FileEngine {
    fn run(self, desk: Desk) {
        let Self { folder, share, data_path } = self;
        let rounds = Rounds { asides_max: share, large_from: WHOLE_FROM };
        let mut executor = Executor::new(folder, desk, rounds);
        let mut batch = Vec::new();
        while executor.mailbox().wait(&mut batch) {
            executor.run(&mut batch);
        }
        executor.end();
        // Last: whoever locks the folder next finds everything finished.
        drop(executor);
        drop(data_path);
    }
}
