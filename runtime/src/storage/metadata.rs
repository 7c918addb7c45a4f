//! Reading `nsqd.dat` (storage-formats.md section 3).

use core::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;

use sansq_core::log::Level;
use sansq_core::storage::{Metadata, Store};

use super::failure::failure;
use crate::log::Program;

/// The list of topics and channels can't be read, or is not one. The server does not start, as it
/// would write over the file.
#[derive(Debug)]
pub struct MetadataFileError(String);

impl fmt::Display for MetadataFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to load metadata - {}", self.0)
    }
}

impl core::error::Error for MetadataFileError {}

/// Reads the metadata; there is none at the first start.
pub(super) fn read(folder: &Path) -> io::Result<Metadata> {
    let path = folder.join(Store::Metadata.to_string());
    let refuse = |kind, text| io::Error::new(kind, MetadataFileError(text));
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Metadata::default()),
        Err(error) => {
            let failure = failure("open", &path, &error);
            let text = format!("failed to read metadata from {} - {failure}", path.display());
            return Err(refuse(error.kind(), text));
        }
    };
    let parsed = Metadata::parse(&text).map_err(|error| {
        let text = format!("failed to parse metadata in {} - {error}", path.display());
        refuse(ErrorKind::InvalidData, text)
    })?;
    for name in parsed.skipped {
        Program::Nsqd.log(Level::Warn, name);
    }
    Ok(parsed.metadata)
}
