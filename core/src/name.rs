//! Topic and channel names, valid by construction (nsqd-protocol.md section 4.2).

use core::borrow::Borrow;
use core::fmt;
use core::ops::Deref;

use serde::{Serialize, Serializer};

/// The longest name in bytes, the `#ephemeral` suffix included.
pub const NAME_LEN_MAX: usize = 64;

/// The suffix of names that live in memory only and go with their last user.
pub const EPHEMERAL_SUFFIX: &str = "#ephemeral";

/// Whether `name` is valid for a topic or a channel: 1 to 64 bytes of `[.a-zA-Z0-9_-]`, then
/// optionally `#ephemeral`, which counts towards the length and needs something in front.
pub fn is_valid_name(name: &[u8]) -> bool {
    if name.is_empty() || name.len() > NAME_LEN_MAX {
        return false;
    }
    let stem = name.strip_suffix(EPHEMERAL_SUFFIX.as_bytes()).unwrap_or(name);
    !stem.is_empty()
        && stem.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// The name is not one that [`is_valid_name`] accepts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InvalidName;

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a name has 1 to 64 of the characters . a-z A-Z 0-9 _ - and optionally ends in #ephemeral",
        )
    }
}

impl core::error::Error for InvalidName {}

/// The bytes of a name, kept in place: copying one costs 65 bytes and no allocation.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
struct Name {
    // The bytes come first and are zero behind the end, so that the derived order is the text's.
    bytes: [u8; NAME_LEN_MAX],
    len: u8,
}

impl Name {
    fn new(name: &[u8]) -> Result<Self, InvalidName> {
        if !is_valid_name(name) {
            return Err(InvalidName);
        }
        let mut bytes = [0; NAME_LEN_MAX];
        bytes[..name.len()].copy_from_slice(name);
        Ok(Self { bytes, len: name.len() as u8 })
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
        pub struct $name(Name);

        impl $name {
            /// Takes `name` if it is valid.
            ///
            /// # Errors
            /// [`InvalidName`] if [`is_valid_name`] says no.
            pub fn new(name: impl AsRef<[u8]>) -> Result<Self, InvalidName> {
                Name::new(name.as_ref()).map(Self)
            }

            /// The name.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }

            /// The name as bytes. Cheaper than those of [`as_str`](Self::as_str), which is checked.
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_bytes()
            }

            /// Whether it ends in `#ephemeral`.
            pub fn is_ephemeral(&self) -> bool {
                self.0.as_bytes().ends_with(EPHEMERAL_SUFFIX.as_bytes())
            }
        }

        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                self.as_str()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.as_str())
            }
        }
    };
}

name_type! {
    /// The name of a topic.
    TopicName
}
name_type! {
    /// The name of a channel.
    ChannelName
}

impl TopicName {
    /// The shard, of `shards`, that owns the topic of this name and all its channels.
    pub fn home(&self, shards: u16) -> u16 {
        // FNV-1a: fixed for ever, because the same name must map alike on every shard.
        let hash = self.0.as_bytes().iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        // The last byte of a name hardly reaches the upper half of that hash, and names that are
        // numbered differ in nothing else: mixed once more, every byte reaches every bit.
        let mixed = (hash ^ hash >> 32).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        ((mixed >> 32) % u64::from(shards.max(1))) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn legal_and_illegal_names() {
        let longest = "a".repeat(54) + EPHEMERAL_SUFFIX;
        for name in ["a", ".", "..", "A-z_0.9", "x#ephemeral", &"a".repeat(64), &longest] {
            assert_eq!(TopicName::new(name).map(|n| format!("{n}")), Ok(name.into()), "{name}");
        }
        let too_long = "a".repeat(55) + EPHEMERAL_SUFFIX;
        for name in
            ["", "#ephemeral", "a b", "a$", "x#ephemeralx", "ä", "*", &"a".repeat(65), &too_long]
        {
            assert_eq!(ChannelName::new(name), Err(InvalidName), "{name}");
        }
    }

    #[test]
    fn numbered_topics_spread_over_the_shards() {
        for shards in 1..=16 {
            let mut counts = alloc::vec![0_usize; usize::from(shards)];
            for n in 0..1000 {
                let home = TopicName::new(format!("topic-{n}")).unwrap().home(shards);
                counts[usize::from(home)] += 1;
            }
            let fair = 1000 / usize::from(shards);
            let is_fair = |count: &usize| (fair * 2 / 3..=fair * 3 / 2).contains(count);
            assert!(counts.iter().all(is_fair), "{counts:?}");
        }
        // Ten names that differ in their last byte only do not end up on one of two shards.
        let homes = (0..10).map(|n| TopicName::new(format!("t{n}")).unwrap().home(2));
        assert!((3..=7).contains(&homes.filter(|home| *home == 0).count()));
    }

    #[test]
    fn order_is_that_of_the_text() {
        let mut names = ["b", "a", "aa", "a#ephemeral", "B"].map(|n| TopicName::new(n).unwrap());
        names.sort();
        assert_eq!(
            names.map(|n| alloc::string::String::from(n.as_str())),
            ["B", "a", "a#ephemeral", "aa", "b"]
        );
    }

    proptest::proptest! {
        /// A name is its text: what is taken is given back, equal and in order as texts are, and
        /// what is refused breaks the rule as it is written down.
        #[test]
        fn names_are_texts(a in "[a-c.#]{0,3}(#ephemeral)?", b in "[a-c!]{0,66}") {
            for text in [&a, &b] {
                let stem = text.strip_suffix(EPHEMERAL_SUFFIX).unwrap_or(text);
                let is_legal = (1..=NAME_LEN_MAX).contains(&text.len())
                    && !stem.is_empty()
                    && !stem.contains(['#', '!']);
                let name = TopicName::new(text);
                proptest::prop_assert_eq!(name.is_ok(), is_legal, "{}", text);
                if let Ok(name) = name {
                    proptest::prop_assert_eq!(name.as_str(), text);
                    proptest::prop_assert_eq!(name.is_ephemeral(), stem.len() < text.len());
                }
            }
            if let (Ok(one), Ok(two)) = (ChannelName::new(&a), ChannelName::new(&b)) {
                proptest::prop_assert_eq!(one.cmp(&two), a.cmp(&b));
            }
        }
    }
}
