//! What the files in a data path are called (storage-formats.md section 1).

use core::fmt;

use crate::name::{ChannelName, TopicName};

/// Files that belong together: requests about them are carried out in order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Store {
    /// The list of topics and channels: `nsqd.dat`.
    Metadata,
    /// The queue of a topic, or of one of its channels.
    Queue(TopicName, Option<ChannelName>),
}

/// A file of a [`Store`].
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum File {
    /// A data file that was set aside: `<queue>.diskqueue.000000.dat.bad`.
    Bad(u64),
    /// Records: `<queue>.diskqueue.000000.dat`, at least six digits.
    Data(u64),
    /// When the records that are deferred are due: `<queue>.sansq-deferred`. Go's nsqd does not
    /// know it.
    Deferred,
    /// Depth and positions: `<queue>.diskqueue.meta.dat`.
    Meta,
    /// `nsqd.dat`
    Metadata,
}

impl Store {
    /// The name of one of its files, without a folder.
    pub const fn file(&self, file: File) -> FileName<'_> {
        FileName { store: self, file }
    }

    /// Takes a file name apart. `None` for files that are not ours: other programs', those being
    /// written (`.tmp`), and names that no queue can have.
    ///
    /// ```
    /// use sansq_core::name::{ChannelName, TopicName};
    /// use sansq_core::storage::{File, Store};
    ///
    /// let queue = Store::Queue(TopicName::new("t").unwrap(), Some(ChannelName::new("c").unwrap()));
    /// let name = queue.file(File::Data(7)).to_string();
    /// assert_eq!(name, "t:c.diskqueue.000007.dat");
    /// assert_eq!(Store::parse(&name), Some((queue, File::Data(7))));
    /// ```
    pub fn parse(name: &str) -> Option<(Self, File)> {
        if name == METADATA {
            return Some((Self::Metadata, File::Metadata));
        }
        // From the right: a topic may itself be called `x.diskqueue.000000.dat`.
        let (queue, file) = if let Some(queue) = name.strip_suffix(DEFERRED) {
            (queue, File::Deferred)
        } else if let Some(queue) = name.strip_suffix(META) {
            (queue, File::Meta)
        } else {
            let (data, is_bad) = match name.strip_suffix(BAD) {
                Some(data) => (data, true),
                None => (name, false),
            };
            let (queue, digits) = data.strip_suffix(DATA_END)?.rsplit_once(DATA_START)?;
            let number = digits.parse().ok()?;
            // One name per number: no sign, and zeros only up to six digits.
            let canonical = digits.bytes().all(|digit| digit.is_ascii_digit())
                && (digits.len() == 6 || digits.len() > 6 && !digits.starts_with('0'));
            if !canonical {
                return None;
            }
            (queue, if is_bad { File::Bad(number) } else { File::Data(number) })
        };
        let (topic, channel) = match queue.split_once(SEPARATOR) {
            Some((topic, channel)) => (topic, Some(ChannelName::new(channel).ok()?)),
            None => (queue, None),
        };
        Some((Self::Queue(TopicName::new(topic).ok()?, channel), file))
    }
}

impl fmt::Display for Store {
    /// What a queue's files begin with, `TOPIC` or `TOPIC:CHANNEL`; or `nsqd.dat`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metadata => f.write_str(METADATA),
            Self::Queue(topic, None) => topic.fmt(f),
            Self::Queue(topic, Some(channel)) => write!(f, "{topic}{SEPARATOR}{channel}"),
        }
    }
}

/// The name of a file; its `Display` is the name.
#[derive(Clone, Copy, Debug)]
pub struct FileName<'a> {
    store: &'a Store,
    file: File,
}

impl fmt::Display for FileName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let store = self.store;
        match self.file {
            File::Bad(number) => write!(f, "{store}{DATA_START}{number:06}{DATA_END}{BAD}"),
            File::Data(number) => write!(f, "{store}{DATA_START}{number:06}{DATA_END}"),
            File::Deferred => write!(f, "{store}{DEFERRED}"),
            File::Meta => write!(f, "{store}{META}"),
            File::Metadata => f.write_str(METADATA),
        }
    }
}

const METADATA: &str = "nsqd.dat";
const META: &str = ".diskqueue.meta.dat";
const DEFERRED: &str = ".sansq-deferred";
const DATA_START: &str = ".diskqueue.";
const DATA_END: &str = ".dat";
const BAD: &str = ".bad";
const SEPARATOR: char = ':';

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use proptest::prelude::*;

    use super::*;

    fn queue(topic: &str, channel: Option<&str>) -> Store {
        let channel = channel.map(|channel| ChannelName::new(channel).unwrap());
        Store::Queue(TopicName::new(topic).unwrap(), channel)
    }

    #[test]
    fn names_are_the_references() {
        let names = [
            (queue("t", None), File::Data(0), "t.diskqueue.000000.dat"),
            (queue("..", None), File::Data(0), "...diskqueue.000000.dat"),
            (queue("t", Some("c")), File::Data(1_000_000), "t:c.diskqueue.1000000.dat"),
            (queue(".", Some("..")), File::Bad(12), ".:...diskqueue.000012.dat.bad"),
            (queue("et#ephemeral", Some("n")), File::Meta, "et#ephemeral:n.diskqueue.meta.dat"),
            (
                queue("Zz.diskqueue.000000.dat", None),
                File::Data(3),
                "Zz.diskqueue.000000.dat.diskqueue.000003.dat",
            ),
            (queue("t", Some("c")), File::Deferred, "t:c.sansq-deferred"),
            (Store::Metadata, File::Metadata, "nsqd.dat"),
        ];
        for (store, file, name) in names {
            assert_eq!(store.file(file).to_string(), name);
            assert_eq!(Store::parse(name), Some((store, file)), "{name}");
        }
    }

    #[test]
    fn other_files_are_not_ours() {
        for name in [
            "",
            "nsqd.dat.123.tmp",
            "t.diskqueue.meta.dat.4.tmp",
            "t.diskqueue.00001.dat",
            "t.diskqueue.0000001.dat",
            "t.diskqueue.+00001.dat",
            "t.diskqueue..dat",
            "t.diskqueue.99999999999999999999.dat",
            "t:.diskqueue.000000.dat",
            ":c.diskqueue.000000.dat",
            "a:b:c.diskqueue.000000.dat",
            "a b.diskqueue.000000.dat",
            "nsqd.log",
        ] {
            assert_eq!(Store::parse(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_name_leads_back_to_its_file(
            topic in "[.a-zA-Z0-9_-]{1,54}(#ephemeral)?",
            channel in prop::option::of("[.a-zA-Z0-9_-]{1,54}(#ephemeral)?"),
            number in 0_u64..3_000_000,
            kind in 0..4,
        ) {
            let store = queue(&topic, channel.as_deref());
            let file = match kind {
                0 => File::Bad(number),
                1 => File::Data(number),
                2 => File::Deferred,
                _ => File::Meta,
            };
            prop_assert_eq!(Store::parse(&store.file(file).to_string()), Some((store, file)));
        }
    }
}
