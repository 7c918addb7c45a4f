//! How files are called: tokens and times in a name (http-and-ops.md section 10.3).

use std::path::{Component, Path, PathBuf};

use jiff::Zoned;
use jiff::fmt::strtime;

/// The names of a topic's files.
#[derive(Clone, Debug)]
pub(super) struct Naming {
    /// With the time and the revision left to be filled in.
    format: String,
    /// The form of the time.
    datetime: String,
    suffix: &'static str,
}

/// What is the same in all names of a run.
#[derive(Clone, Debug)]
pub(super) struct Parts<'a> {
    /// `--filename-format`.
    pub(super) format: &'a str,
    /// `--datetime-format`.
    pub(super) datetime: &'a str,
    /// `--host-identifier`, with its tokens.
    pub(super) host: &'a str,
    /// The name of this machine.
    pub(super) hostname: &'a str,
    pub(super) is_gzip: bool,
}

impl Naming {
    pub(super) fn new(parts: &Parts<'_>, topic: &str) -> Self {
        let short = parts.hostname.split('.').next().unwrap_or_default();
        let host = parts.host.replace("<SHORT_HOST>", short).replace("<HOSTNAME>", parts.hostname);
        let format = parts
            .format
            .replace("<TOPIC>", topic)
            .replace("<HOST>", &host)
            .replace("<PID>", &std::process::id().to_string());
        let is_named = format.ends_with(GZIP_SUFFIX);
        let suffix = if parts.is_gzip && !is_named { GZIP_SUFFIX } else { "" };
        Self { format, datetime: parts.datetime.to_owned(), suffix }
    }

    /// The name at this time, in which only the revision is open.
    pub(super) fn name(&self, now: &Zoned) -> String {
        let mut name = self.format.replace("<DATETIME>", &time(&self.datetime, now));
        name.push_str(self.suffix);
        name
    }

    /// Whether names have a place for a revision.
    pub(super) fn has_revision(&self) -> bool {
        self.format.contains(REVISION)
    }
}

/// The path of this revision, below whatever folder; 0 is the first and is written only `if_first`.
/// `None` if it would leave that folder: topics may be called `..`, and nsqlookupd names them.
pub(super) fn path(name: &str, revision: u32, is_numbered: bool) -> Option<PathBuf> {
    let number = if is_numbered { format!("-{revision:06}") } else { String::new() };
    let path = PathBuf::from(name.replace(REVISION, &number));
    let is_inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    let is_file = path.file_name().is_some() && !name.ends_with('/');
    (is_inside && is_file && path != Path::new("")).then_some(path)
}

/// `format` with the specifiers that the reference knows filled in; all else stays as it is.
fn time(format: &str, now: &Zoned) -> String {
    let mut text = String::with_capacity(format.len() * 2);
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        let (before, specifier) = rest.split_at(at);
        text.push_str(before);
        let len = specifier.chars().take(2).map(char::len_utf8).sum();
        let (specifier, behind) = specifier.split_at(len);
        rest = behind;
        match specifier.as_bytes() {
            b"%%" => text.push('%'),
            [b'%', letter] if KNOWN.contains(letter) => match strtime::format(specifier, now) {
                Ok(value) => text.push_str(&value),
                Err(_) => text.push_str(specifier),
            },
            _ => text.push_str(specifier),
        }
    }
    text.push_str(rest);
    text
}

/// What becomes the revision: `-000000` and so on.
const REVISION: &str = "<REV>";

const GZIP_SUFFIX: &str = ".gz";

/// The letters behind a `%` that stand for a part of the time.
const KNOWN: &[u8] = b"BbmAadHIMSYypZz";

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: Parts<'_> = Parts {
        format: "<TOPIC>.<HOST><REV>.<DATETIME>.log",
        datetime: "%Y-%m-%d_%H",
        host: "<SHORT_HOST>",
        hostname: "web1.example.org",
        is_gzip: false,
    };

    fn now() -> Zoned {
        "2026-11-22T07:05:09+00:00[UTC]".parse().unwrap()
    }

    #[test]
    fn tokens_are_filled_in() {
        let name = Naming::new(&PARTS, "orders").name(&now());
        assert_eq!(name, "orders.web1<REV>.2026-11-22_07.log");
        assert_eq!(path(&name, 0, false).unwrap(), Path::new("orders.web1.2026-11-22_07.log"));
        assert_eq!(
            path(&name, 12, true).unwrap(),
            Path::new("orders.web1-000012.2026-11-22_07.log")
        );
        let parts =
            Parts { format: "<TOPIC>/<HOST>/<PID>", host: "h-<HOSTNAME>", is_gzip: true, ..PARTS };
        let naming = Naming::new(&parts, "t#ephemeral");
        let name = format!("t#ephemeral/h-web1.example.org/{}.gz", std::process::id());
        assert_eq!((naming.name(&now()), naming.has_revision()), (name, false));
        let named = Naming::new(&Parts { format: "a<REV>.gz", is_gzip: true, ..PARTS }, "t");
        assert_eq!((named.name(&now()).as_str(), named.has_revision()), ("a<REV>.gz", true));
    }

    #[test]
    fn times_have_the_specifiers_of_the_reference() {
        for (format, text) in [
            ("%Y-%m-%d_%H", "2026-11-22_07"),
            ("%B %b %A %a", "November Nov Sunday Sun"),
            ("%I:%M:%S %p %y", "07:05:09 AM 26"),
            ("%Z %z %%", "UTC +0000 %"),
            // Others stay.
            ("%Q%ü%j%", "%Q%ü%j%"),
            ("", ""),
        ] {
            assert_eq!(time(format, &now()), text, "{format}");
        }
    }

    #[test]
    fn no_name_leaves_its_folder() {
        let name =
            |topic: &str| Naming::new(&Parts { format: "<TOPIC>/x", ..PARTS }, topic).name(&now());
        assert_eq!(path(&name("t"), 0, false).unwrap(), Path::new("t/x"));
        for bad in ["../x", "/etc/x", "", "x/", "a/../../x", "..", "./x"] {
            assert_eq!(path(bad, 0, false), None, "{bad}");
        }
        assert_eq!(path(&name(".."), 0, false), None);
    }
}
