//! From options to running servers.

use core::fmt;

use sansq_core::log::Level;

use crate::args::{BothOptions, CheckError, NsqdOptions, NsqlookupdOptions};
use crate::data_path::{DataPath, DataPathError};
use crate::log::{Logs, NSQD, NSQLOOKUPD, log};
use crate::{NSQ_VERSION, version_line};

/// Runs nsqd until it is told to stop.
///
/// # Errors
/// [`ServeError`] if it can't start, or failed while it ran.
pub fn run_nsqd(mut options: NsqdOptions, logs: &Logs) -> Result<(), ServeError> {
    let data_path = prepare_nsqd(&mut options, false)?;
    let _ = (data_path, logs);
    Err(ServeError::NotAssembled)
}

/// Runs nsqlookupd until it is told to stop.
///
/// # Errors
/// [`ServeError`] if it can't start, or failed while it ran.
pub fn run_nsqlookupd(options: NsqlookupdOptions, logs: &Logs) -> Result<(), ServeError> {
    log(NSQLOOKUPD, Level::Info, version_line(NSQLOOKUPD));
    let _ = (options, logs);
    Err(ServeError::NotAssembled)
}

/// Runs both servers in one process until it is told to stop. The data path is made if it is missing
/// and was not chosen by the user.
///
/// # Errors
/// [`ServeError`] if one of them can't start, or failed while it ran.
pub fn run_both(mut options: BothOptions, logs: &Logs) -> Result<(), ServeError> {
    options.settle();
    let create = options.nsqd.data_path == BothOptions::DATA_PATH;
    let data_path = prepare_nsqd(&mut options.nsqd, create)?;
    log(NSQLOOKUPD, Level::Info, version_line(NSQLOOKUPD));
    let _ = (data_path, logs);
    Err(ServeError::NotAssembled)
}

/// What comes before anything else, in the reference's order: the lock, the options, and two lines of
/// the log (http-and-ops.md section 4).
fn prepare_nsqd(options: &mut NsqdOptions, create: bool) -> Result<DataPath, ServeError> {
    let data_path = DataPath::open(&options.data_path, create).map_err(ServeError::DataPath)?;
    options.check().map_err(ServeError::Check)?;
    log(NSQD, Level::Info, version_line(NSQD));
    log(NSQD, Level::Info, format_args!("ID: {}", options.node_id));
    Ok(data_path)
}

/// Why a server did not start or ended early.
#[derive(Debug)]
pub enum ServeError {
    /// An option is out of its range.
    Check(CheckError),
    /// The data path can't be used.
    DataPath(DataPathError),
    /// This build has no runtime to drive it.
    NotAssembled,
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Check(error) => error.fmt(f),
            Self::DataPath(error) => error.fmt(f),
            Self::NotAssembled => {
                write!(f, "this build of sansq for NSQ {NSQ_VERSION} has no runtime in it")
            }
        }
    }
}

impl core::error::Error for ServeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_comes_before_the_options() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = NsqdOptions {
            data_path: folder.path().join("missing").to_str().unwrap().into(),
            node_id: 1024,
            ..NsqdOptions::default()
        };
        let error = prepare_nsqd(&mut options, false).unwrap_err().to_string();
        assert!(error.starts_with("failed to lock data-path: open "), "{error}");

        let error = prepare_nsqd(&mut options, true).unwrap_err().to_string();
        assert_eq!(error, "--node-id must be [0,1024)");

        options.node_id = 1023;
        let _held = prepare_nsqd(&mut options, false).unwrap();
        let error = prepare_nsqd(&mut options, false).unwrap_err().to_string();
        assert!(error.contains("possibly in use by another instance of nsqd"), "{error}");
    }
}
