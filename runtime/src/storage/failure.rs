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
    let kind = error.kind();
    if matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge) {
        FailureKind::Full
    } else if matches!(kind, ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) {
        FailureKind::ReadOnly
    } else if kind == ErrorKind::NotFound {
        FailureKind::Missing
    } else {
        FailureKind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_have_a_kind_and_gos_words() {
        let path = Path::new("/data/%d/t.diskqueue.000000.dat");
        for (kind, expected, text) in [
            (ErrorKind::StorageFull, FailureKind::Full, "no storage space"),
            (ErrorKind::QuotaExceeded, FailureKind::Full, "quota exceeded"),
            (ErrorKind::FileTooLarge, FailureKind::Full, "file too large"),
            (
                ErrorKind::ReadOnlyFilesystem,
                FailureKind::ReadOnly,
                "read-only filesystem or storage medium",
            ),
            (ErrorKind::PermissionDenied, FailureKind::ReadOnly, "permission denied"),
            (ErrorKind::NotFound, FailureKind::Missing, "entity not found"),
            (ErrorKind::TimedOut, FailureKind::Other, "i/o timeout"),
        ] {
            let found = failure("write", path, &kind.into());
            let text = format!("write /data/%d/t.diskqueue.000000.dat: {text}");
            assert_eq!((found.kind, &*found.text), (expected, text.as_str()));
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
