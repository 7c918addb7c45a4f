//! Flags and config files, as NSQ's programs take them.
//!
//! A program's options are a struct of clap's and serde's, in which each option is described once:
//! its flag, its help text, its range and default, its name in the config file and in `/config`.
//! Before clap parses them, flags in Go's form get a second dash; what the config file has is
//! turned into flags and parsed likewise.
//! Source: http-and-ops.md sections 4 to 6.

use core::any::TypeId;
use core::fmt;
use core::time::Duration;
use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command, Parser};
use sansq_core::nsqd::http::OptionValues;
use sansq_toolkit::flags::{self, split};
use serde::Serialize;
use serde_json::{Map, Value};

mod config;
mod host;
mod nsqd;
mod nsqlookupd;
#[cfg(test)]
mod tests;
mod value;

pub use host::default_node_id;
pub use nsqd::{CheckError, NsqdOptions};
pub use nsqlookupd::{BothOptions, NsqlookupdOptions};
pub use sansq_runtime::{host_name, nearest};
pub use sansq_toolkit::log::LogFormat;
pub use value::{Runtime, TlsRequired, TlsVersion};

/// A program with NSQ's kind of flags. What is serialized of it can be set in the config file.
pub trait Program: Parser + Serialize {
    /// What opens the help page.
    const ABOUT: &'static str;

    /// Changes what the options of another program have differently here.
    fn adapt(command: Command) -> Command {
        command
    }

    /// Called at the end, with what was given on the command line.
    fn heed(&mut self, _given: &ArgMatches) {}
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

/// The command line or the config file can't be used, for a reason of one line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ArgsError {
    /// The config file can't be read, is no TOML, or has a value that does not fit its key.
    Config {
        /// Its path.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// There is no such flag or subcommand, or its value does not fit.
    Usage(String),
}

impl ArgsError {
    /// The exit status: 2 for a usage error, 1 for a bad config file (http-and-ops.md section 6).
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Config { .. } => 1,
            Self::Usage(_) => 2,
        }
    }
}

impl fmt::Display for ArgsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config { file, reason } => {
                write!(f, "failed to load config file {file} - {reason}")
            }
            Self::Usage(reason) => f.write_str(reason),
        }
    }
}

impl core::error::Error for ArgsError {}

/// Reads the command line, then the config file that it names. A flag beats the file, the file
/// beats the default.
///
/// # Errors
/// [`ArgsError`] for the first thing that is wrong.
pub fn load<P: Program>(args: &[OsString]) -> Result<Request<P>, ArgsError> {
    if let Some(arg) = args.iter().find(|arg| arg.to_str().is_none()) {
        return Err(ArgsError::Usage(format!("{} is not UTF-8", arg.display())));
    }
    let mut command = command::<P>();
    let (mut flags, rest) = split(&command, args);
    let given = match command.try_get_matches_from_mut(&flags) {
        Ok(given) => given,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            return Ok(Request::Help(error.to_string()));
        }
        Err(error) => return Err(ArgsError::Usage(refusal(&mut command, &flags, &error))),
    };
    if given.get_flag("version") {
        return Ok(Request::Version);
    }
    let mut warnings = Vec::new();
    let rest: Vec<_> = rest.iter().filter_map(|arg| arg.to_str()).collect();
    let ignored = rest.strip_prefix(&["--"]).unwrap_or(&rest);
    if !ignored.is_empty() {
        warnings.push(format!("ignored what follows the flags: {}", ignored.join(" ")));
    }
    let file = given.get_one::<String>("config").filter(|file| !file.is_empty());
    if let Some(file) = file {
        flags.extend(config::flags::<P>(file, &mut command, &given, &mut warnings)?);
    }
    let usage = |error: clap::Error| ArgsError::Usage(one_line(&error));
    let all = command.try_get_matches_from_mut(&flags).map_err(usage)?;
    let mut options = P::from_arg_matches(&all).map_err(usage)?;
    options.heed(&given);

    // Who writes a default into a file asks for nothing.
    let (values, defaults) = (values(&options), values(&defaults::<P>()));
    let idle: Vec<_> = (command.get_arguments())
        .filter(|arg| arg.get_help_heading() == Some(WITHOUT_EFFECT))
        .filter(|arg| values.get(arg.get_id().as_str()) != defaults.get(arg.get_id().as_str()))
        .map(|arg| format!("--{}", arg.get_long().unwrap_or_default()))
        .collect();
    if !idle.is_empty() {
        warnings.push(format!("set but without effect so far: {}", idle.join(", ")));
    }
    Ok(Request::Run(options, warnings))
}

/// The options without any flag or file.
pub fn defaults<P: Program>() -> P {
    let matches = command::<P>().get_matches_from::<_, OsString>([]);
    P::from_arg_matches(&matches).expect("every option has a default")
}

/// The options as `/config` shows them, by their names in the config file.
pub fn shown<P: Program>(options: &P) -> OptionValues {
    serde_json::from_value(values(options).into()).expect("it has kinds of values for all options")
}

fn values<P: Program>(options: &P) -> Map<String, Value> {
    match serde_json::to_value(options) {
        Ok(Value::Object(values)) => values,
        other => unreachable!("options are a struct of plain values: {other:?}"),
    }
}

/// The command of a program, from which the help page, man pages and completions are made, too.
pub fn command<P: Program>() -> Command {
    P::adapt(flags::command::<P>())
        .about(P::ABOUT)
        .long_about(None)
        .version(env!("CARGO_PKG_VERSION"))
        // It is an option like the others.
        .disable_version_flag(true)
        .no_binary_name(true)
        .args_override_self(true)
        .max_term_width(100)
        .after_help(NOTE)
        .mut_args(|arg| {
            let says_nothing =
                [[""], ["false"]].iter().any(|none| arg.get_default_values() == none);
            let hidden = says_nothing || arg.is_hide_default_value_set();
            let name = value_name(&arg);
            // The help says which words there are.
            arg.hide_default_value(hidden)
                .hide_possible_values(true)
                .ignore_case(true)
                .allow_hyphen_values(true)
                .value_name(name)
        })
}

fn value_name(arg: &Arg) -> &'static str {
    let kind = arg.get_value_parser().type_id();
    let is = |id: TypeId| kind == id;
    if is(TypeId::of::<String>()) {
        "TEXT"
    } else if is(TypeId::of::<Duration>()) {
        "DURATION"
    } else if is(TypeId::of::<f64>()) {
        "NUMBERS"
    } else if is(TypeId::of::<bool>()) {
        "true|false"
    } else if [TypeId::of::<i64>(), TypeId::of::<u16>(), TypeId::of::<u64>()].into_iter().any(is) {
        "N"
    } else {
        "WORD"
    }
}

/// What is wrong with `flags`, in one line. Clap leaves control characters out of what it quotes,
/// so that a wrong value would look right: they are shown as escapes.
fn refusal(command: &mut Command, flags: &[OsString], error: &clap::Error) -> String {
    let escape = |flag: &OsString| -> OsString {
        let text = flag.to_string_lossy();
        let escaped = text
            .chars()
            .map(|c| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() });
        escaped.collect::<String>().into()
    };
    let escaped: Vec<_> = flags.iter().map(escape).collect();
    match command.try_get_matches_from_mut(escaped) {
        Err(shown) if shown.kind() == error.kind() => one_line(&shown),
        _ => one_line(error),
    }
}

/// What clap says of an error, with the tips that it has, but without the usage.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string().replace("\n\n  tip: ", "; ");
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let end = ["\n\nUsage: ", "\n\nFor more information, try "].map(|end| text.find(end));
    let end = end.into_iter().flatten().min().unwrap_or(text.len());
    let line = text[..end].lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let is_lost = error.kind() == ErrorKind::UnknownArgument && !line.contains("; ");
    if is_lost { format!("{line}; --help lists what there is") } else { line }
}

/// The heading of flags that are only accepted; they are named in a warning when they are set.
const WITHOUT_EFFECT: &str = "Without effect so far";

/// What holds for all flags.
const NOTE: &str = "A flag has one or two dashes; a value follows behind a blank or `=`. Durations: 250ms, 2s, 1h30m.";
