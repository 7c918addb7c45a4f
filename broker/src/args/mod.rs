//! Flags and config files, as NSQ's programs take them.
//!
//! A program's options are a plain struct. Its one table, [`Program::flags`], binds each field to a
//! name, a help text and a range; parsing, the config file and the help page all follow from it.
//! Source: http-and-ops.md sections 4 to 6.
//!
//! NSQ's flags have one or two dashes and long names, take `-flag value` and `-flag=value`, and end
//! at the first argument that is none. No option parser at hand does the single dash, the bare
//! bools and the one-line errors together, and the config file needs the same table.

use std::ffi::OsString;

use sansq_core::duration::go_duration;
use sansq_core::nsqd::http::{OptionValue, OptionValues};

mod config;
mod describe;
mod error;
mod help;
mod host;
mod nsqd;
mod nsqlookupd;
mod value;

pub use describe::command;
pub use error::ArgsError;
pub use host::default_node_id;
pub use nsqd::{CheckError, NsqdOptions};
pub use nsqlookupd::{BothOptions, NsqlookupdOptions};
pub use sansq_runtime::{host_name, nearest};
pub use sansq_toolkit::log::LogFormat;
pub use value::{Kind, Runtime, TlsRequired, TlsVersion, Unfit, Value};

/// A program with NSQ's kind of flags.
pub trait Program: Default {
    /// The line that opens the help page.
    const INTRO: &'static str;
    /// How it is called, after `Usage: `.
    const USAGE: &'static str;

    /// The table: each flag with its place in the options.
    fn flags(&mut self) -> Vec<Flag<'_>>;
    /// Whether `--version` was given.
    fn version(&self) -> bool;
    /// The config file's path; empty for none.
    fn config(&self) -> &str;
}

/// What the arguments ask for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request<O> {
    /// Print this page and end.
    Help(String),
    /// Run with these options, after a warning per text.
    Run(O, Vec<String>),
    /// Print the version and end.
    Version,
}

/// Reads the command line, then the config file that it names. A flag beats the file, the file
/// beats the default.
///
/// # Errors
/// [`ArgsError`] for the first thing that is wrong.
pub fn load<P: Program>(args: &[OsString]) -> Result<Request<P>, ArgsError> {
    let mut options = P::default();
    let given = parse(&mut options.flags(), args)?;
    if given.help {
        return Ok(Request::Help(help::page(P::INTRO, P::USAGE, &P::default().flags())));
    }
    if options.version() {
        return Ok(Request::Version);
    }
    let mut warnings = Vec::new();
    if !given.rest.is_empty() {
        warnings.push(format!("ignored what follows the flags: {}", given.rest.join(" ")));
    }
    let mut set = given.set;
    let file = options.config().to_owned();
    if !file.is_empty() {
        config::apply(&file, &mut options.flags(), &mut set, &mut warnings)?;
    }
    let mut defaults = P::default();
    // Who writes a default into a file asks for nothing.
    let idle: Vec<_> = (options.flags().iter().zip(&set).zip(&defaults.flags()))
        .filter(|((flag, set), default)| {
            **set && flag.without_effect && flag.show() != default.show()
        })
        .map(|((flag, _), _)| format!("--{}", flag.name))
        .collect();
    if !idle.is_empty() {
        warnings.push(format!("set but without effect so far: {}", idle.join(", ")));
    }
    Ok(Request::Run(options, warnings))
}

/// The options as `/config` shows them, by their names in the config file.
pub fn shown<P: Program + Clone>(options: &P) -> OptionValues {
    let mut options = options.clone();
    let flags = options.flags();
    flags.iter().filter_map(|flag| Some((flag.config_key()?, flag.shown()))).collect()
}

/// One row of a program's table.
pub struct Flag<'a> {
    name: &'static str,
    group: &'static str,
    help: &'static str,
    value: &'a mut dyn Value,
    /// Where it differs from the name with underscores; empty: not settable in the file.
    key: Option<&'static str>,
    range: Option<(i64, i64)>,
    /// What the default is in words, where its value is another one on each host.
    default: Option<&'static str>,
    without_effect: bool,
}

impl core::fmt::Debug for Flag<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "--{}={:?}", self.name, self.value.show())
    }
}

impl<'a> Flag<'a> {
    /// A flag whose value goes to `value`, which holds the default.
    pub fn new(
        group: &'static str,
        name: &'static str,
        value: &'a mut dyn Value,
        help: &'static str,
    ) -> Self {
        Self {
            name,
            group,
            help,
            value,
            key: None,
            range: None,
            default: None,
            without_effect: false,
        }
    }

    /// Sets the name in the config file.
    #[must_use]
    pub fn key(self, key: &'static str) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Keeps the flag out of the config file.
    #[must_use]
    pub fn not_in_file(self) -> Self {
        self.key("")
    }

    /// Refuses numbers and durations (in nanoseconds) below `min`.
    #[must_use]
    pub fn at_least(self, min: i64) -> Self {
        self.within(min, i64::MAX)
    }

    /// Refuses numbers and durations (in nanoseconds) outside `min` to `max`.
    #[must_use]
    pub fn within(self, min: i64, max: i64) -> Self {
        Self { range: Some((min, max)), ..self }
    }

    /// Says in words what the default is, for pages that are printed on one host and read on
    /// another.
    #[must_use]
    pub fn by_default(self, words: &'static str) -> Self {
        Self { default: Some(words), ..self }
    }

    /// Says that nothing heeds the flag so far; it is then named in a warning when it is set.
    #[must_use]
    pub fn without_effect(self) -> Self {
        Self { without_effect: true, ..self }
    }

    /// The flag's name, without dashes.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The value as text.
    pub fn show(&self) -> String {
        self.value.show()
    }

    /// The value as `/config` shows it.
    pub fn shown(&self) -> OptionValue {
        self.value.shown()
    }

    /// The name in the config file; `None` if the file can't set it.
    pub fn config_key(&self) -> Option<String> {
        match self.key {
            Some("") => None,
            Some(key) => Some(key.into()),
            None => Some(self.name.replace('-', "_")),
        }
    }

    /// Sets the value from `text`, or says what would have fitted.
    fn set(&mut self, text: &str) -> Result<(), String> {
        self.value.set(text).map_err(|_| self.expected())?;
        match (self.range, self.value.number()) {
            (Some((min, max)), Some(number)) if number < min || number > max => {
                Err(self.expected())
            }
            _ => Ok(()),
        }
    }

    fn expected(&self) -> String {
        let Some((min, max)) = self.range else { return self.value.expected() };
        match (self.value.kind(), max) {
            (Kind::Duration, _) => {
                let min = core::time::Duration::from_nanos(min.unsigned_abs());
                format!("{} of at least {}", self.value.expected(), go_duration(min))
            }
            (_, i64::MAX) => format!("a whole number from {min} up"),
            _ => format!("a whole number from {min} to {max}"),
        }
    }
}

/// What the command line said besides the values.
#[derive(Debug, Default)]
struct Given {
    help: bool,
    /// Per flag: whether it was given.
    set: Vec<bool>,
    /// The arguments behind the flags, which the daemons ignore.
    rest: Vec<String>,
}

fn parse(flags: &mut [Flag<'_>], args: &[OsString]) -> Result<Given, ArgsError> {
    let mut given = Given { set: vec![false; flags.len()], ..Given::default() };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let arg = text(arg)?;
        let Some(flag) = arg.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            given.rest.push(arg.into());
            break;
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        if flag.is_empty() {
            break;
        }
        if flag.starts_with(['-', '=']) {
            return Err(ArgsError::Malformed(arg.into()));
        }
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        };
        let Some(index) = flags.iter().position(|flag| flag.name == name) else {
            if matches!(name, "h" | "help") {
                given.help = true;
                return Ok(given);
            }
            let nearest = nearest(name, flags.iter().map(|flag| flag.name)).map(Into::into);
            return Err(ArgsError::Unknown { what: "flag", name: name.into(), nearest });
        };
        let flag = &mut flags[index];
        let value = match value {
            Some(value) => value,
            None if matches!(flag.value.kind(), Kind::Bool | Kind::BoolOrWord) => "true",
            None => match args.next() {
                Some(value) => text(value)?,
                None => {
                    let expected = flag.expected();
                    return Err(ArgsError::MissingValue { flag: name.into(), expected });
                }
            },
        };
        if !given.set[index] {
            flag.value.clear();
            given.set[index] = true;
        }
        flag.set(value).map_err(|expected| ArgsError::BadValue {
            flag: name.into(),
            value: value.into(),
            expected,
        })?;
    }
    for arg in args {
        given.rest.push(text(arg)?.into());
    }
    for (flag, _) in flags.iter_mut().zip(&given.set).filter(|(_, set)| **set) {
        flag.value.settle();
    }
    Ok(given)
}

fn text(arg: &OsString) -> Result<&str, ArgsError> {
    arg.to_str().ok_or_else(|| ArgsError::Malformed(arg.to_string_lossy().into_owned()))
}

/// What the default is of an address that others are told.
const HOST_NAME: &str = "the host's name";

#[cfg(test)]
mod tests;
