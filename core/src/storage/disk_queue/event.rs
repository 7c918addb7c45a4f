//! What is worth a line in the log about a queue on disk.

use core::fmt;

use super::record::Damage;
use crate::log::{Count, Level};
use crate::storage::Failure;

/// Something happened to a queue on disk; the `Display` is what follows the queue's name in the
/// log.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DiskEvent {
    /// The meta file cannot be read, or says what cannot be: all data files are taken for unread.
    BadMeta,
    /// Something in a data file is no record. It is passed over, and the file is set aside when the
    /// rest of it is finished.
    Damaged {
        /// The data file's number.
        file: u64,
        /// Where.
        offset: u64,
        /// How many bytes are passed over.
        len: u64,
        /// What is wrong.
        damage: Damage,
    },
    /// The disk does not do what it is asked; it is asked again. Once per change of state.
    Failing(Failure),
    /// Data files that the meta file does not need are removed.
    LeftOver {
        /// How many.
        files: usize,
    },
    /// Data files are not there that the meta file counts on. On a full disk those go first whose
    /// records are all finished.
    Missing {
        /// How many.
        files: u64,
    },
    /// There are data files and no meta file: all are taken for unread.
    NoMeta {
        /// How many.
        files: usize,
    },
    /// The disk was in trouble when the queue was closed. Nothing is lost, but what was finished
    /// since the last sync may come again.
    NotClosed(Failure),
    /// The disk was in trouble for so long that the queue was closed with records unwritten.
    NotWritten {
        /// How many.
        records: usize,
        /// What the disk said.
        failure: Failure,
    },
    /// The disk works again.
    Recovered,
    /// A data file is shorter than the meta file says.
    Shrunk {
        /// The number of the data file that was written to last.
        file: u64,
        /// How long it should be, in bytes.
        offset: u64,
        /// How long it is.
        len: u64,
    },
    /// The data files go on behind the end that the meta file knows, as they do after a crash: they
    /// are read to their true end.
    StaleMeta {
        /// The number of the data file that was written to last, as far as the meta file knows.
        file: u64,
        /// Where it should end, in bytes.
        offset: u64,
        /// How long it is.
        len: u64,
    },
    /// A record at the end of a data file was not written to its end, and nobody was told that it
    /// was: it is cut off.
    Torn {
        /// The data file's number.
        file: u64,
        /// Where the record begins.
        offset: u64,
        /// How many bytes there are of it.
        len: u64,
    },
    /// A data file became shorter, or disappeared, under our hands.
    Vanished {
        /// The data file's number.
        file: u64,
        /// Where it ends now.
        offset: u64,
        /// How many bytes are missing.
        len: u64,
    },
}

impl DiskEvent {
    /// How loud the line is.
    pub const fn level(&self) -> Level {
        match self {
            Self::BadMeta
            | Self::Damaged { .. }
            | Self::Failing(_)
            | Self::NotWritten { .. }
            | Self::Shrunk { .. }
            | Self::Vanished { .. } => Level::Error,
            Self::Missing { .. }
            | Self::NoMeta { .. }
            | Self::NotClosed(_)
            | Self::StaleMeta { .. }
            | Self::Torn { .. } => Level::Warn,
            Self::LeftOver { .. } | Self::Recovered => Level::Info,
        }
    }
}

impl fmt::Display for DiskEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadMeta => f.write_str(
                "failed to retrieveMetaData - not depth and positions; reading all data files",
            ),
            Self::Damaged { file, offset, len, damage } => write!(
                f,
                "reading at {offset} of data file {file:06} - {damage}; passing over {}, \
                 the file will be kept as .bad",
                Count(*len, "byte")
            ),
            Self::Failing(failure) => failure.fmt(f),
            Self::LeftOver { files } => {
                write!(f, "removing {}, read already", Count(*files, "data file"))
            }
            Self::Missing { files } => write!(
                f,
                "{} listed in the metadata {} missing (a full disk removes finished files first); \
                 reading the rest",
                Count(*files, "data file"),
                if *files == 1 { "is" } else { "are" }
            ),
            Self::NoMeta { files } => {
                write!(f, "{} without metadata; reading everything", Count(*files, "data file"))
            }
            Self::NotClosed(failure) => write!(
                f,
                "not closed in good order, nothing is lost but messages may come again - {failure}"
            ),
            Self::NotWritten { records, failure } => {
                write!(f, "gave up writing and lost {} - {failure}", Count(*records, "message"))
            }
            Self::Recovered => f.write_str("the disk works again"),
            Self::Shrunk { file, offset, len } => write!(
                f,
                "metadata writePos {offset} > file size of {len} of data file {file:06}; reading what \
                 is there"
            ),
            Self::StaleMeta { file, offset, len } => write!(
                f,
                "metadata writePos {offset} < file size of {len} of data file {file:06}, or more data \
                 files follow; reading to the end, skipping to new file"
            ),
            Self::Torn { file, offset, len } => write!(
                f,
                "the last record of data file {file:06} was not written to its end; cutting off {} at \
                 {offset}",
                Count(*len, "byte")
            ),
            Self::Vanished { file, offset, len } => {
                let lacking = Count(*len, "byte");
                write!(f, "data file {file:06} lacks {lacking} from {offset} on")
            }
        }
    }
}
