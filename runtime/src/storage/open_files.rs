//! Data files that are open: a bounded number, the least recently used is closed first.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use bytes::Bytes;
use sansq_core::storage::Store;

/// The open data files of one shard, by queue and number.
///
/// Closing a file loses nothing that was written to it; that it was written and not yet synced is
/// known to the kernel, and a sync through a new descriptor writes it out.
#[derive(Debug)]
pub(super) struct OpenFiles {
    files: BTreeMap<(Store, u64), OpenFile>,
    /// How many may be open, at least 1.
    limit: usize,
    /// Counts uses.
    clock: u64,
}

/// An open data file. Its length is known, as nobody else changes it.
#[derive(Debug)]
pub(super) struct OpenFile {
    /// Shared with a thread that syncs it.
    file: Arc<File>,
    writable: bool,
    len: u64,
    /// Where the descriptor stands.
    position: u64,
    last_use: u64,
}

impl OpenFiles {
    pub(super) const fn new(limit: usize) -> Self {
        Self { files: BTreeMap::new(), limit, clock: 0 }
    }

    /// The file, if it is open, and open for writing if `write` asks for that.
    pub(super) fn get(&mut self, key: &(Store, u64), write: bool) -> Option<&mut OpenFile> {
        self.clock += 1;
        let file = self.files.get_mut(key)?;
        file.last_use = self.clock;
        (file.writable || !write).then_some(file)
    }

    /// Keeps a file that was just opened, in the place of the one that was not used for longest.
    ///
    /// # Errors
    /// If its length can't be had.
    pub(super) fn insert(
        &mut self,
        key: (Store, u64),
        file: File,
        writable: bool,
    ) -> io::Result<&mut OpenFile> {
        let len = file.metadata()?.len();
        self.files.remove(&key);
        while self.files.len() >= self.limit {
            let oldest = self.files.iter().min_by_key(|(_, file)| file.last_use);
            let Some((oldest, _)) = oldest else { break };
            let oldest = *oldest;
            self.files.remove(&oldest);
        }
        self.clock += 1;
        let file =
            OpenFile { file: Arc::new(file), writable, len, position: 0, last_use: self.clock };
        Ok(self.files.entry(key).or_insert(file))
    }

    /// Closes all; `false` if none was open.
    pub(super) fn close_all(&mut self) -> bool {
        !core::mem::take(&mut self.files).is_empty()
    }

    /// Closes a file, if it is open.
    pub(super) fn close(&mut self, key: &(Store, u64)) {
        self.files.remove(key);
    }
}

impl OpenFile {
    /// Writes `data` at `offset`, after cutting off what lies behind it.
    ///
    /// # Errors
    /// The operating system's, or that the file is shorter than `offset`: zeros would fill the gap.
    /// Afterwards the file is in no known state and is to be closed.
    pub(super) fn append(&mut self, offset: u64, data: &[Bytes]) -> io::Result<()> {
        if self.len < offset {
            let text = format!("the file ends at {} and not at {offset}", self.len);
            // As if the file were missing: what was at its end is, and another one has to be begun.
            return Err(io::Error::new(ErrorKind::NotFound, text));
        }
        if self.len > offset {
            self.file.set_len(offset)?;
            self.len = offset;
        }
        let written = self.write_at(offset, data);
        if written.is_err() {
            // A part of it is of no use, and on a full disk takes the room that others could use.
            let _ = self.file.set_len(offset);
        }
        written
    }

    fn write_at(&mut self, offset: u64, data: &[Bytes]) -> io::Result<()> {
        self.seek(offset)?;
        for part in data.chunks(PARTS_MAX) {
            let mut slices = [IoSlice::new(&[]); PARTS_MAX];
            for (slice, bytes) in slices.iter_mut().zip(part) {
                *slice = IoSlice::new(bytes);
            }
            self.write_all(slices.get_mut(..part.len()).unwrap_or_default())?;
        }
        Ok(())
    }

    fn write_all(&mut self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        // Empty slices in front would make a write of nothing look like an end.
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match (&*self.file).write_vectored(slices) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.position += count as u64;
                    self.len = self.len.max(self.position);
                    IoSlice::advance_slices(&mut slices, count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads `len` bytes from `offset`, fewer at the end of the file.
    ///
    /// # Errors
    /// The operating system's. Afterwards the file is to be closed.
    pub(super) fn read(&mut self, offset: u64, len: usize) -> io::Result<Bytes> {
        let there = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = len.min(there);
        let mut data = Vec::with_capacity(len);
        if len > 0 {
            self.seek(offset)?;
            let count = (&*self.file).take(len as u64).read_to_end(&mut data)?;
            self.position += count as u64;
        }
        Ok(data.into())
    }

    /// The file, to be synced while others are.
    pub(super) fn handle(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    fn seek(&mut self, offset: u64) -> io::Result<()> {
        if self.position != offset {
            self.position = (&*self.file).seek(SeekFrom::Start(offset))?;
        }
        Ok(())
    }
}

/// Parts of an append that go into one system call. Most kernels take up to 1024.
const PARTS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use sansq_core::name::TopicName;

    use super::*;

    fn key(number: u64) -> (Store, u64) {
        (Store::Queue(TopicName::new("t").unwrap(), None), number)
    }

    #[test]
    fn the_least_recently_used_file_is_closed() {
        let mut open = OpenFiles::new(2);
        for number in [1, 2] {
            open.insert(key(number), tempfile::tempfile().unwrap(), false).unwrap();
        }
        assert!(open.get(&key(1), false).is_some());
        open.insert(key(3), tempfile::tempfile().unwrap(), true).unwrap();
        assert!(open.get(&key(2), false).is_none());
        assert!(open.get(&key(1), false).is_some());
        assert!(open.get(&key(1), true).is_none());
        assert!(open.get(&key(3), true).is_some());
        // Opened again for writing: one file, not two.
        open.insert(key(1), tempfile::tempfile().unwrap(), true).unwrap();
        assert!(open.get(&key(1), true).is_some());
        assert!(open.get(&key(3), true).is_some());
        open.close(&key(1));
        assert!(open.get(&key(1), false).is_none());
    }

    #[test]
    fn parts_are_written_in_order_and_read_back() {
        let mut open = OpenFiles::new(1);
        let file = open.insert(key(0), tempfile::tempfile().unwrap(), true).unwrap();
        let parts: Vec<_> = (0..300_u16)
            .map(|part| Bytes::copy_from_slice(&part.to_be_bytes()[usize::from(part % 3)..]))
            .collect();
        let whole = parts.concat();
        file.append(0, &parts).unwrap();
        assert_eq!(file.read(0, whole.len() + 1).unwrap(), whole);
        assert_eq!(file.read(100, 3).unwrap(), whole[100..103]);
        assert_eq!(file.read(whole.len() as u64, 3).unwrap(), b""[..]);
        assert_eq!(file.read(u64::MAX, 3).unwrap(), b""[..]);

        // What lies behind the offset goes.
        file.append(2, &[Bytes::from_static(b"ab"), Bytes::new()]).unwrap();
        assert_eq!(file.read(0, 100).unwrap(), [&whole[..2], b"ab"].concat());
        assert_eq!(file.file.metadata().unwrap().len(), 4);
        file.append(1, &[]).unwrap();
        assert_eq!(file.file.metadata().unwrap().len(), 1);
        let error = file.append(2, &[Bytes::from_static(b"x")]).unwrap_err();
        assert_eq!(error.to_string(), "the file ends at 1 and not at 2");
    }
}
