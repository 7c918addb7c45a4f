//! What the operating system says, as a [`Failure`].

use std::io::{self, ErrorKind};
use std::path::Path;

use sansq_core::storage::{Failure, FailureKind};

use crate::listen::error_text;

/// `verb path: text`, as Go puts it: `open /data/t.diskqueue.000000.dat: no space left on device`.
pub(super) fn failure(verb: &str, path: &Path, error: &io::Error) -> Failure {
    let text = format!("{verb} {}: {}", path.display(), error_text(error));
    Failure { kind: kind(error), text: text.into() }
}

fn kind(error: &io::Error) -> FailureKind {
    // The kinds of the standard library are many and may become more: those that have a word of
    // their own here are picked out.
    const KINDS: [(ErrorKind, FailureKind); 6] = [
        (ErrorKind::FileTooLarge, FailureKind::TooLarge),
        (ErrorKind::NotFound, FailureKind::Missing),
        (ErrorKind::PermissionDenied, FailureKind::Permission),
        (ErrorKind::QuotaExceeded, FailureKind::Quota),
        (ErrorKind::ReadOnlyFilesystem, FailureKind::ReadOnly),
        (ErrorKind::StorageFull, FailureKind::Full),
    ];
    let known = KINDS.iter().find(|(kind, _)| *kind == error.kind());
    match known {
        Some((_, kind)) => *kind,
        None if is_too_many_open(error) => FailureKind::TooManyOpen,
        None => FailureKind::Other,
    }
}

/// Whether it is the limit on open files, the process's or the system's, for which the standard
/// library has no kind.
fn is_too_many_open(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let limits = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|number| limits.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_have_a_kind_and_gos_words() {
        let path = Path::new("/data/%d/t.diskqueue.000000.dat");
        for (kind, expected, text) in [
            (ErrorKind::StorageFull, FailureKind::Full, "no storage space"),
            (ErrorKind::QuotaExceeded, FailureKind::Quota, "quota exceeded"),
            (ErrorKind::FileTooLarge, FailureKind::TooLarge, "file too large"),
            (
                ErrorKind::ReadOnlyFilesystem,
                FailureKind::ReadOnly,
                "read-only filesystem or storage medium",
            ),
            (ErrorKind::PermissionDenied, FailureKind::Permission, "permission denied"),
            (ErrorKind::NotFound, FailureKind::Missing, "entity not found"),
            (ErrorKind::TimedOut, FailureKind::Other, "i/o timeout"),
        ] {
            let found = failure("write", path, &kind.into());
            let text = format!("write /data/%d/t.diskqueue.000000.dat: {text}");
            assert_eq!((found.kind, &*found.text), (expected, text.as_str()));
        }
    }

    /// Every way in which a Linux refuses to open, write or sync a file, by what an operator has to
    /// do.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_the_system_refuses_is_named() {
        use rustix::io::Errno;
        let words = |errno: Errno| {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            failure("write", Path::new("f"), &error).in_words().into_string()
        };
        for (errno, expected) in [
            (Errno::ACCESS, "no permission - write f: permission denied"),
            (Errno::PERM, "no permission - write f: operation not permitted"),
            (Errno::ROFS, "disk read-only - write f: read-only file system"),
            (Errno::NOSPC, "disk full - write f: no space left on device"),
            (Errno::DQUOT, "disk quota used up - write f: disk quota exceeded"),
            (Errno::FBIG, "file size limit reached - write f: file too large"),
            (Errno::MFILE, "limit on open files reached - write f: too many open files"),
            (Errno::NFILE, "limit on open files reached - write f: too many open files in system"),
            (Errno::IO, "write f: input/output error"),
            (Errno::NOENT, "write f: no such file or directory"),
        ] {
            assert_eq!(words(errno).to_lowercase(), expected);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_says_so() {
        let error = std::fs::write("/dev/full", "x").unwrap_err();
        let found = failure("write", Path::new("/dev/full"), &error);
        assert_eq!(&*found.text, "write /dev/full: no space left on device");
        assert_eq!(found.kind, FailureKind::Full);
    }
}
