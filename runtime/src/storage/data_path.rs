//! The data path: opened, locked and checked before any file in it is read.
//!
//! The lock is the reference's, an exclusive `flock` on the folder itself, so that of sansq and
//! Go's nsqd only one runs on a path (storage-formats.md section 2).

use core::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::listen::error_text;

/// A data path that this process has for itself, until it is dropped.
#[derive(Debug)]
pub struct DataPath {
    path: PathBuf,
    /// Holds the lock: the kernel releases it when the descriptor is closed.
    _folder: Option<File>,
}

impl DataPath {
    /// Opens and locks the folder `path`, without waiting; an empty path is the current folder.
    /// With `create` a missing folder is made.
    ///
    /// # Errors
    /// [`DataPathError`] if the folder is missing, in use or not writable.
    pub fn open(path: impl AsRef<Path>, create: bool) -> Result<Self, DataPathError> {
        let path = path.as_ref();
        let path = if path.as_os_str().is_empty() {
            std::env::current_dir().map_err(|error| DataPathError::Open(".".into(), error))?
        } else {
            path.to_owned()
        };
        if create {
            let created = std::fs::create_dir_all(&path);
            created.map_err(|error| DataPathError::Open(path.clone(), error))?;
        }
        let folder = lock(&path)?;
        Ok(Self { path, _folder: folder })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The data path can't be used. The text is what follows `failed to instantiate nsqd - `.
#[derive(Debug)]
pub enum DataPathError {
    /// Another process has the lock, or there can be none on this file system.
    Lock(PathBuf, io::Error),
    /// It is missing, or no folder.
    Open(PathBuf, io::Error),
    /// Files can't be made in it.
    ReadOnly(PathBuf, io::Error),
}

impl DataPathError {
    /// What would be right, if that is not plain.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Lock(..) => Some(String::from("each nsqd needs a folder of its own")),
            Self::Open(path, error) if error.kind() == ErrorKind::NotFound => {
                let path = path.display().to_string().replace('\'', r"'\''");
                Some(format!("it has to exist, create it with: mkdir -p -- '{path}'"))
            }
            Self::Open(_, error) if error.kind() == ErrorKind::NotADirectory => {
                Some(String::from("it has to be a folder"))
            }
            Self::Open(..) => None,
            Self::ReadOnly(..) => Some(String::from("files have to be made in it")),
        }
    }
}

impl fmt::Display for DataPathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock(path, error) => write!(
                f,
                "failed to lock data-path: cannot flock directory {} - {} (possibly in use by another instance of nsqd)",
                path.display(),
                error_text(error),
            ),
            Self::Open(path, error) => {
                let path = path.display();
                write!(f, "failed to lock data-path: open {path}: {}", error_text(error))
            }
            Self::ReadOnly(path, error) => {
                write!(f, "data-path {} is not writable - {}", path.display(), error_text(error))
            }
        }
    }
}

impl core::error::Error for DataPathError {}

#[cfg(not(any(target_os = "illumos", target_os = "solaris")))]
fn lock(path: &Path) -> Result<Option<File>, DataPathError> {
    use rustix::fs::{Access, FlockOperation, Mode, OFlags};

    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| DataPathError::Open(path.into(), errno.into()))?;
    rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive)
        .map_err(|errno| DataPathError::Lock(path.into(), errno.into()))?;
    rustix::fs::access(path, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|errno| DataPathError::ReadOnly(path.into(), errno.into()))?;
    Ok(Some(folder.into()))
}

/// Illumos has no lock in the reference either.
#[cfg(any(target_os = "illumos", target_os = "solaris"))]
fn lock(path: &Path) -> Result<Option<File>, DataPathError> {
    match std::fs::read_dir(path) {
        Ok(_) => Ok(None),
        Err(error) => Err(DataPathError::Open(path.into(), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let first = DataPath::open(path, false).unwrap();
        assert_eq!(first.path(), folder.path());
        assert_eq!(
            DataPath::open(path, false).unwrap_err().to_string(),
            format!(
                "failed to lock data-path: cannot flock directory {path} - resource temporarily \
                 unavailable (possibly in use by another instance of nsqd)"
            )
        );
        drop(first);
        DataPath::open(path, false).unwrap();
    }

    #[test]
    fn a_missing_folder_is_made_only_on_request() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let path = path.to_str().unwrap();
        assert_eq!(
            DataPath::open(path, false).unwrap_err().to_string(),
            format!("failed to lock data-path: open {path}: no such file or directory")
        );
        DataPath::open(path, true).unwrap();
        DataPath::open(path, false).unwrap();
    }

    #[test]
    fn a_file_is_no_folder() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        assert_eq!(
            DataPath::open(path, false).unwrap_err().to_string(),
            format!("failed to lock data-path: open {path}: not a directory")
        );
    }

    #[test]
    fn a_read_only_folder_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o500)).unwrap();
        let opened = DataPath::open(folder.path().to_str().unwrap(), false);
        if rustix::process::geteuid().is_root() {
            // Modes don't bind root.
            opened.unwrap();
        } else {
            let error = opened.unwrap_err().to_string();
            assert!(error.ends_with(" is not writable - permission denied"), "{error}");
        }
    }

    #[test]
    fn no_path_is_the_current_folder() {
        assert_eq!(DataPath::open("", false).unwrap().path(), std::env::current_dir().unwrap());
    }
}
