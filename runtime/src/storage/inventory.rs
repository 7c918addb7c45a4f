//! What an earlier nsqd has left, read before a server listens: whoever asks how much there is gets
//! the right answer from the first moment on, as with the reference.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use sansq_core::storage::{Failure, File, Found, Metadata, Store};

use super::failure::failure;
use super::listing::{Files, Listing};

/// The list of topics and channels, and what the queues of one shard have on disk.
#[derive(Debug)]
pub struct Inventory {
    metadata: Arc<Metadata>,
    queues: Queues,
}

/// The queues that have files and are at home on one shard; `None` for one that could not be read.
pub(super) type Queues = Vec<(Store, Option<Found>)>;

impl Inventory {
    /// The list of topics and channels, of whatever shard, and what the queues have that are at
    /// home on this one; `None` for one that has to ask, and one that is left out has nothing.
    pub fn new(metadata: Arc<Metadata>, mut queues: Vec<(Store, Option<Found>)>) -> Self {
        queues.sort_unstable_by_key(|(store, _)| *store);
        Self { metadata, queues }
    }

    /// The topics and channels, of whatever shard.
    pub fn metadata(&self) -> Arc<Metadata> {
        Arc::clone(&self.metadata)
    }

    /// Takes out what a queue has, nothing if it has no files. `None` if that could not be read:
    /// the queue is to ask, which is tried again for as long as it takes.
    pub fn take(&mut self, store: &Store) -> Option<Found> {
        match self.queues.binary_search_by_key(&store, |(store, _)| store) {
            Ok(at) => self.queues.get_mut(at).and_then(|(_, found)| found.take()),
            Err(_) => Some(Found::default()),
        }
    }
}

/// Reads the queues of all shards that `metadata` lists, in several threads if they are many.
/// Others have to wait until somebody makes them again.
pub(super) fn read(folder: &Path, listings: &[Listing], metadata: &Metadata) -> Vec<Queues> {
    let is_listed = |store: &Store| match store {
        Store::Queue(topic, _) => {
            metadata.topics.binary_search_by_key(topic, |record| record.name).is_ok()
        }
        Store::Metadata => false,
    };
    let read_one = |(store, files): &(&Store, &Files)| {
        let found = find(folder, store, files);
        // One that was there a moment ago: it is looked for again.
        (**store, found.ok().filter(|(_, missing)| missing.is_empty()).map(|(found, _)| found))
    };
    let cores = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let of_shard = |listing: &Listing| -> Queues {
        let listed: Vec<_> = listing.iter().filter(|(store, _)| is_listed(store)).collect();
        let share = listed.len().div_ceil(cores).max(SHARE_MIN);
        thread::scope(|scope| {
            let mut shares = listed.chunks(share);
            let own = shares.next().unwrap_or_default();
            let others: Vec<_> = shares
                .map(|share| {
                    let read = || share.iter().map(read_one).collect::<Queues>();
                    (share, thread::Builder::new().spawn_scoped(scope, read))
                })
                .collect();
            let mut queues = Vec::with_capacity(listed.len());
            queues.extend(own.iter().map(read_one));
            for (share, thread) in others {
                match thread.map(thread::ScopedJoinHandle::join) {
                    Ok(Ok(read)) => queues.extend(read),
                    // There was no thread to be had, or it did not get through.
                    Ok(Err(_)) | Err(_) => queues.extend(share.iter().map(read_one)),
                }
            }
            queues
        })
    };
    listings.iter().map(of_shard).collect()
}

/// Reads what a queue has of the files that it should have; also tells which of them are not there.
pub(super) fn find(
    folder: &Path,
    store: &Store,
    files: &Files,
) -> Result<(Found, Vec<File>), Failure> {
    let (mut found, mut missing) = (Found::default(), Vec::new());
    let mut small = |file, limit| {
        let path = folder.join(store.file(file).to_string());
        match contents(&path, limit) {
            Ok(contents) => Ok(Some(Bytes::from(contents))),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                missing.push(file);
                Ok(None)
            }
            Err(error) => Err(failure("open", &path, &error)),
        }
    };
    if files.meta {
        found.meta = small(File::Meta, META_LEN_MAX)?;
    }
    if files.deferred {
        found.deferred = small(File::Deferred, u64::MAX)?;
    }
    found.files.reserve_exact(files.data.len());
    for number in &files.data {
        let file = File::Data(*number);
        let path = folder.join(store.file(file).to_string());
        match fs::metadata(&path) {
            Ok(about) => found.files.push((*number, about.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => missing.push(file),
            Err(error) => return Err(failure("stat", &path, &error)),
        }
    }
    Ok((found, missing))
}

/// What a file holds, up to `limit` bytes. Nobody is asked how long it is, since most are short.
fn contents(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?.take(limit);
    let mut first = [0; FIRST_LEN];
    let mut contents = Vec::new();
    loop {
        match file.read(&mut first) {
            Ok(0) => return Ok(contents),
            Ok(count) => contents.extend_from_slice(first.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if contents.len() >= FIRST_LEN {
            file.read_to_end(&mut contents)?;
            return Ok(contents);
        }
    }
}

/// Three numbers and what people may add to them.
const META_LEN_MAX: u64 = 64 * 1024;

/// Few meta files are longer.
const FIRST_LEN: usize = 128;

/// Threads that read: beyond that the folder's lock in the kernel is what they wait for.
const THREADS_MAX: usize = 8;

/// Queues that are worth a thread: a few milliseconds' work.
const SHARE_MIN: usize = 500;

#[cfg(test)]
mod tests {
    use sansq_core::name::{ChannelName, TopicName};

    use super::*;

    #[test]
    fn what_is_listed_is_read_whatever_the_number() {
        let folder = tempfile::tempdir().unwrap();
        let topic = |n: usize| TopicName::new(format!("t{n:04}")).unwrap();
        let channel = ChannelName::new("c").unwrap();
        let mut text = String::from("{\"topics\":[{\"name\":\"none\"}");
        for n in 0..1200 {
            let queue = Store::Queue(topic(n), Some(channel));
            let meta = folder.path().join(queue.file(File::Meta).to_string());
            fs::write(meta, format!("{n}\n0,0\n0,{n}\n")).unwrap();
            if n < 1100 {
                text.push_str(&format!(",{{\"name\":\"{}\"}}", topic(n)));
            }
        }
        let long = Store::Queue(topic(3), None);
        let path = |file| folder.path().join(long.file(file).to_string());
        fs::write(path(File::Deferred), "x".repeat(1000)).unwrap();
        fs::write(path(File::Data(2)), "seven b").unwrap();
        // Not to be read, and so to be asked for.
        let odd = Store::Queue(topic(5), None);
        fs::create_dir(folder.path().join("odd")).unwrap();
        let link = folder.path().join(odd.file(File::Meta).to_string());
        std::os::unix::fs::symlink("odd", link).unwrap();

        text.push_str("]}");
        let metadata = Metadata::parse(text.as_bytes()).unwrap().metadata;
        for shards in [1, 3] {
            let listings = Listing::read(folder.path(), shards).unwrap();
            let queues = read(folder.path(), &listings, &metadata);
            assert_eq!(queues.iter().map(Vec::len).sum::<usize>(), 1100 + 1 + 1);
            let metadata = Arc::new(metadata.clone());
            let mut all: Vec<_> = queues
                .into_iter()
                .map(|queues| Inventory::new(Arc::clone(&metadata), queues))
                .collect();
            let mut take = |store: &Store| {
                let Store::Queue(topic, _) = store else { return None };
                all[usize::from(topic.home(shards))].take(store)
            };
            for n in 0..1100 {
                let found = take(&Store::Queue(topic(n), Some(channel))).unwrap();
                assert_eq!(found.meta.unwrap(), format!("{n}\n0,0\n0,{n}\n"));
            }
            let found = take(&long).unwrap();
            assert_eq!((found.deferred.unwrap().len(), found.files), (1000, vec![(2, 7)]));
            assert_eq!(take(&Store::Queue(topic(1), None)), Some(Found::default()));
            assert_eq!(take(&odd), None);
        }
    }
}
