//! The storage of an nsqd: the files of its data path, behind the core's requests and completions.
//!
//! Each shard has a storage thread beside its own. What the shard asks for in a turn is handed over
//! whole and carried out there; the completions come back with the shard's mail ([`Lanes`]). So a
//! disk that is slow, or does not answer at all, never holds up a shard.

mod data_path;
mod disk;
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

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use sansq_core::nsqd::ShardId;
use sansq_core::storage::Metadata;

pub use self::data_path::{DataPath, DataPathError};
pub use self::disk::{Disk, DiskThread};
use self::folder::Folder;
pub use self::inventory::Inventory;
use self::inventory::Queues;
use self::listing::Listing;
pub use self::metadata::MetadataError;
use crate::lanes::Lanes;

/// A data path whose files are known; each shard of the node takes its part.
#[derive(Debug)]
pub struct Storage {
    data_path: Arc<DataPath>,
    /// By shard.
    listings: Vec<Listing>,
    /// By shard.
    queues: Vec<Queues>,
    metadata: Arc<Metadata>,
    data_files: usize,
}

impl Storage {
    /// Reads which files there are, for a node with `shards` shards, the metadata, and what the
    /// queues that it lists have on disk. A queue that can't be read is left alone until it asks.
    /// `data_files` is [`NsqdOptions::data_files`](sansq_core::options::NsqdOptions::data_files).
    ///
    /// # Errors
    /// If the folder can't be read; the text names it. If the metadata can't be read or makes no
    /// sense: then the error is a [`MetadataError`].
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

    /// What a shard begins with, to be called once for each.
    pub fn inventory(&mut self, shard: ShardId) -> Inventory {
        let queues = self.queues.get_mut(usize::from(shard.0)).map(core::mem::take);
        Inventory::new(Arc::clone(&self.metadata), queues.unwrap_or_default())
    }

    /// The disk of a shard and its thread, to be called once for each. The lock on the data path is
    /// held until the last of the threads has ended.
    pub fn disk(&mut self, shard: ShardId, lanes: &Arc<Lanes>) -> (Disk, DiskThread) {
        let listing = self.listings.get_mut(usize::from(shard.0)).map(core::mem::take);
        let share = (self.data_files / usize::from(lanes.shards().max(1))).max(1);
        let path = self.data_path.path().to_owned();
        let folder = Folder::new(path, listing.unwrap_or_default(), share, shard);
        Disk::new(folder, share, Arc::clone(&self.data_path), shard, Arc::clone(lanes))
    }
}
