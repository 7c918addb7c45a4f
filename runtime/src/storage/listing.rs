//! Which files the queues have: the folder is read once, at the start, and followed from then on.
//!
//! Nobody else changes the folder while it is locked. So a queue that has no files is opened
//! without a system call, and ten thousand of them cost nothing at the start.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use sansq_core::storage::{File, Store};

/// The files of the queues that are at home on one shard. A queue without files has no entry.
#[derive(Debug, Default)]
pub(super) struct Listing(BTreeMap<Store, Files>);

/// The files of one queue.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Files {
    pub(super) meta: bool,
    pub(super) deferred: bool,
    /// The numbers of the data files, in order.
    pub(super) data: Vec<u64>,
}

impl Files {
    fn insert(&mut self, file: File) {
        match file {
            File::Meta => self.meta = true,
            File::Deferred => self.deferred = true,
            File::Data(number) => {
                if let Err(at) = self.data.binary_search(&number) {
                    self.data.insert(at, number);
                }
            }
            // Nobody asks for these.
            File::Bad(_) | File::Metadata => {}
        }
    }
}

impl Listing {
    /// Reads a folder, once for all shards. What is no file of a queue is left out.
    ///
    /// # Errors
    /// If the folder can't be read.
    pub(super) fn read(folder: &Path, shards: u16) -> io::Result<Vec<Self>> {
        let mut names: Vec<_> = (0..shards).map(|_| Vec::new()).collect();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some((store, file)) = name.to_str().and_then(Store::parse) else { continue };
            // Somebody's folder may have such a name.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let Store::Queue(topic, _) = &store else { continue };
            if let Some(names) = names.get_mut(usize::from(topic.home(shards))) {
                names.push((store, file));
            }
        }
        Ok(names.into_iter().map(Self::of).collect())
    }

    /// Those that have these names. In order, building takes half the time.
    fn of(mut names: Vec<(Store, File)>) -> Self {
        names.sort_unstable();
        let mut listing: Vec<(Store, Files)> = Vec::with_capacity(names.len());
        for (store, file) in names {
            if listing.last().is_none_or(|(last, _)| *last != store) {
                listing.push((store, Files::default()));
            }
            if let Some((_, files)) = listing.last_mut() {
                files.insert(file);
            }
        }
        listing.retain(|(_, files)| *files != Files::default());
        Self(listing.into_iter().collect())
    }

    /// All queues that have files, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Store, &Files)> {
        self.0.iter()
    }

    /// The files of a queue.
    pub(super) fn get(&self, store: &Store) -> Option<&Files> {
        self.0.get(store)
    }

    /// There is such a file now.
    pub(super) fn insert(&mut self, store: &Store, file: File) {
        // Nobody asks for these.
        if matches!(file, File::Bad(_) | File::Metadata) {
            return;
        }
        self.0.entry(*store).or_default().insert(file);
    }

    /// There is no such file any more.
    pub(super) fn remove(&mut self, store: &Store, file: File) {
        let Some(files) = self.0.get_mut(store) else { return };
        match file {
            File::Meta => files.meta = false,
            File::Deferred => files.deferred = false,
            File::Data(number) => files.data.retain(|other| *other != number),
            File::Bad(_) | File::Metadata => {}
        }
        if *files == Files::default() {
            self.0.remove(store);
        }
    }
}

#[cfg(test)]
mod tests {
    use sansq_core::name::{ChannelName, TopicName};

    use super::*;

    #[test]
    fn a_folder_is_read_and_followed() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "nsqd.dat",
            "nsqd.log",
            "t.diskqueue.meta.dat",
            "t:c.diskqueue.000002.dat",
            "t:c.diskqueue.000010.dat",
            "t:c.diskqueue.000001.dat",
            "t:c.diskqueue.000000.dat.bad",
            "t:c.sansq-deferred",
            "t:c.diskqueue.meta.dat.123.tmp",
        ] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        std::fs::create_dir(folder.path().join("u.diskqueue.000000.dat")).unwrap();

        let (topic, channel) = (TopicName::new("t").unwrap(), ChannelName::new("c").unwrap());
        let home = usize::from(topic.home(4));
        let mut listings = Listing::read(folder.path(), 4).unwrap();
        for (shard, listing) in listings.iter().enumerate() {
            assert_eq!(listing.0.len(), if shard == home { 2 } else { 0 });
        }
        let listing = &mut listings[home];
        let queue = Store::Queue(topic, Some(channel));
        let files = Files { meta: false, deferred: true, data: vec![1, 2, 10] };
        assert_eq!(listing.get(&queue), Some(&files));

        listing.insert(&queue, File::Data(5));
        listing.insert(&queue, File::Data(5));
        listing.insert(&queue, File::Meta);
        listing.remove(&queue, File::Data(1));
        listing.remove(&queue, File::Deferred);
        let files = Files { meta: true, deferred: false, data: vec![2, 5, 10] };
        assert_eq!(listing.get(&queue), Some(&files));

        listing.remove(&Store::Queue(topic, None), File::Meta);
        assert_eq!(listing.0.len(), 1);
    }
}
