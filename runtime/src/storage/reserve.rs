//! Room that is kept for what has to be written on a full disk: positions, due times, `nsqd.dat`.
//!
//! These are files that take the place of others, and most of them need a block until the other one
//! is gone. The reserve is a file of zeros. When there is no room it becomes shorter by as much as
//! is needed, and it is filled up again when there is room. Publishers never get any of it but by
//! chance: nothing is written between the two steps by this thread.
//!
//! Each shard has its own, since nothing is shared between their threads.

use std::fs::{self, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// The reserve of a shard.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    /// How long it is; `None` if nobody has looked yet.
    len: Option<u64>,
    /// How long it should be.
    target: u64,
}

impl Reserve {
    /// That of a shard, in `folder`. There is none before [`fill`](Self::fill).
    pub(super) fn new(folder: &Path, shard: u16) -> Self {
        let path = folder.join(format!("sansq-reserve.{shard}"));
        Self { path, len: None, target: RESERVE_LEN }
    }

    /// Something of this length is replaced now and then: there should be room for it and a bit
    /// more.
    pub(super) fn cover(&mut self, len: usize) {
        self.target = self.target.max(RESERVE_LEN + blocks(len));
    }

    /// Makes it as long as it should be, if there is room. Without it everything works but on a
    /// full disk.
    pub(super) fn fill(&mut self) {
        if self.len != Some(self.target) {
            let _ = self.try_fill();
        }
    }

    fn try_fill(&mut self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&self.path)?;
        let mut len = file.seek(SeekFrom::End(0))?;
        while len < self.target {
            let zeros = &ZEROS[..usize::try_from(self.target - len).unwrap_or(BLOCK).min(BLOCK)];
            if let Err(error) = file.write_all(zeros) {
                // A part of a block is as much as none.
                let _ = file.set_len(len);
                self.len = Some(len);
                return Err(error);
            }
            len += zeros.len() as u64;
        }
        self.len = Some(len);
        Ok(())
    }

    /// Gives up as much as something of this length needs; `false` if nothing is left to give up.
    pub(super) fn give_up(&mut self, len: usize) -> bool {
        let Ok(file) = OpenOptions::new().write(true).open(&self.path) else { return false };
        let Ok(about) = file.metadata() else { return false };
        let left = about.len().saturating_sub(blocks(len));
        if about.len() == 0 || file.set_len(left).is_err() {
            return false;
        }
        // What is given up is there as soon as the system knows it.
        let _ = file.sync_all();
        self.len = Some(left);
        true
    }

    /// Gives all of it up: the last file of a folder that is to be empty.
    pub(super) fn remove(&mut self) {
        if fs::remove_file(&self.path).is_ok() {
            self.len = None;
        }
    }
}

/// How much room something of this length takes.
const fn blocks(len: usize) -> u64 {
    (len.div_ceil(BLOCK).saturating_mul(BLOCK)) as u64
}

/// How long the reserve of a shard is, in bytes, beside what `nsqd.dat` needs: room for the
/// positions of eight queues that have none on disk yet.
pub(super) const RESERVE_LEN: u64 = 8 * BLOCK as u64;

/// What most file systems give out at a time, in bytes.
const BLOCK: usize = 4096;

static ZEROS: [u8; BLOCK] = [0; BLOCK];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_given_up_block_by_block_and_filled_up_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::new(folder.path(), 3);
        let path = folder.path().join("sansq-reserve.3");
        let len = || fs::metadata(&path).map_or(0, |about| about.len());
        assert!(!reserve.give_up(1));
        reserve.fill();
        assert_eq!(len(), 32_768);
        assert!(reserve.give_up(20) && reserve.give_up(5000));
        assert_eq!(len(), 32_768 - 3 * 4096);
        assert!(reserve.give_up(1_000_000) && !reserve.give_up(1));
        assert_eq!(len(), 0);
        // Another process's is taken as it is.
        let mut reserve = Reserve::new(folder.path(), 3);
        reserve.cover(4097);
        reserve.fill();
        assert_eq!(len(), 32_768 + 8192);
        let mut reserve = Reserve::new(folder.path(), 3);
        assert!(reserve.give_up(1));
        reserve.remove();
        assert!(!path.exists());
    }
}
