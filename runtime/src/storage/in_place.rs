//! What a full disk has no room for beside the file that it is to replace.
//!
//! A file is replaced by another one that was written aside, which takes a block. Without it the
//! positions of a queue would not be written down on a full disk, and what is finished would come
//! again after a stop. A meta file is one short text in the first sector of a block that it has
//! already. So there it is written over, in such an order that each state of the disk is the old
//! text or the new one: line ends behind the third line mean nothing, to us or to Go's nsqd.
//!
//! A longer file can't be written over in one step. If it has the contents already, nothing is to
//! be done: `nsqd.dat` is written once more at each stop.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use sansq_core::storage::{Failure, File};

/// Sees to it that the file at `target` has these contents although there was no room for another
/// one, as `failure` says.
///
/// # Errors
/// `failure`, if it is about anything else, or there is no way.
pub(super) fn without_room(
    file: File,
    target: &Path,
    contents: &[u8],
    failure: Failure,
) -> Result<(), Failure> {
    if !failure.kind.is_want_of_room() {
        return Err(failure);
    }
    let is_there = match file {
        File::Meta => write_over(target, contents).is_ok(),
        File::Bad(_) | File::Data(_) | File::Deferred | File::Metadata => {
            holds(target, contents).unwrap_or(false)
        }
    };
    if is_there { Ok(()) } else { Err(failure) }
}

/// Writes a text over the one that a file has.
fn write_over(target: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(target)?;
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if len.max(contents.len()) > SECTOR_LEN {
        return Err(ErrorKind::FileTooLarge.into());
    }
    // Longer by line ends first: a text that is cut would name another place.
    if len < contents.len() {
        file.seek(SeekFrom::End(0))?;
        file.write_all(&LINE_ENDS[..contents.len() - len])?;
        file.sync_all()?;
    }
    let mut text = LINE_ENDS;
    text[..contents.len()].copy_from_slice(contents);
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&text[..len.max(contents.len())])?;
    file.sync_data()?;
    if len > contents.len() {
        file.set_len(contents.len() as u64)?;
    }
    Ok(())
}

/// Whether the file has these contents.
fn holds(target: &Path, contents: &[u8]) -> io::Result<bool> {
    let mut file = fs::File::open(target)?;
    if file.metadata()?.len() != contents.len() as u64 {
        return Ok(false);
    }
    let (mut rest, mut chunk) = (contents, [0; SECTOR_LEN]);
    while !rest.is_empty() {
        let count = file.read(&mut chunk)?;
        let read = chunk.get(..count).filter(|read| !read.is_empty() && rest.starts_with(read));
        let Some(read) = read else { return Ok(false) };
        rest = &rest[read.len()..];
    }
    Ok(true)
}

/// What disks write whole or not at all, in bytes.
const SECTOR_LEN: usize = 512;

const LINE_ENDS: [u8; SECTOR_LEN] = [b'\n'; SECTOR_LEN];

#[cfg(test)]
mod tests {
    use sansq_core::storage::FailureKind;

    use super::*;

    fn full() -> Failure {
        Failure { kind: FailureKind::Full, text: "no space left on device".into() }
    }

    #[test]
    fn a_meta_file_is_written_over_whatever_its_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.diskqueue.meta.dat");
        let write = |text: &str| without_room(File::Meta, &path, text.as_bytes(), full());
        // There is none, and to make one takes room.
        assert_eq!(write("1\n0,0\n0,35\n"), Err(full()));
        fs::write(&path, "1\n0,0\n0,35\n").unwrap();
        for text in ["35\n1,490\n5,980\n", "0\n5,980\n5,980\n", "0\n6,0\n6,0\n"] {
            write(text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        // What somebody made of it is left to them.
        fs::write(&path, [b' '; 513]).unwrap();
        assert_eq!(write("0\n6,0\n6,0\n"), Err(full()));
        // Other trouble is other trouble.
        let other = Failure { kind: FailureKind::Other, text: "input/output error".into() };
        let result = without_room(File::Meta, &path, b"0\n6,0\n6,0\n", other.clone());
        assert_eq!(result, Err(other));
    }

    #[test]
    fn a_list_that_is_as_it_should_be_needs_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nsqd.dat");
        let text = "x".repeat(1300);
        let write = |text: &str| without_room(File::Metadata, &path, text.as_bytes(), full());
        assert_eq!(write(&text), Err(full()));
        fs::write(&path, &text).unwrap();
        assert_eq!(write(&text), Ok(()));
        assert_eq!(write(&text[1..]), Err(full()));
        assert_eq!(write(&text.replacen('x', "y", 1)), Err(full()));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}
