//! The config file: TOML with the options' names at the top level, turned into flags.
//!
//! The rules are those of http-and-ops.md section 6, except where they are traps: what the
//! reference ignores silently is named in a warning, an integer for a bool means what it says (the
//! reference inverts it), and a value of a wrong type is an error of one line.

use core::any::TypeId;
use core::slice;
use core::time::Duration;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};

use clap::builder::PossibleValue;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use sansq_runtime::listen::error_text;
use serde_json::Map;
use toml::{Table, Value};

use super::{ArgsError, Program, defaults, nearest, refusal, values};

/// What the file has for the options that are not `given` on the command line.
///
/// # Errors
/// [`ArgsError::Config`] if the file can't be read, is larger than [`LEN_MAX`], is no TOML, or has
/// a value that does not fit.
pub(super) fn flags<P: Program>(
    file: &str,
    command: &mut Command,
    given: &ArgMatches,
    warnings: &mut Vec<String>,
) -> Result<Vec<OsString>, ArgsError> {
    let refuse = |reason: String| ArgsError::Config { file: file.into(), reason };
    let text = read(file).map_err(|error| refuse(error_text(&error)))?;
    let table: Table = text.parse().map_err(|error| refuse(place_and_message(&text, &error)))?;
    let keys = values(&defaults::<P>());
    let mut all = Vec::new();
    for (key, value) in &table {
        let known = command.get_arguments().find(|arg| arg.get_id() == key);
        let Some(arg) = known.filter(|_| keys.contains_key(key)) else {
            warnings.push(format!("{file}: {}", unknown(key, value, command, &keys)));
            continue;
        };
        if given.value_source(key) == Some(ValueSource::CommandLine) {
            continue;
        }
        let flag = arg.get_long().unwrap_or_default();
        let texts =
            texts(arg, value).map_err(|kind| refuse(format!("{key}: {value} is not {kind}")))?;
        let flags: Vec<OsString> =
            texts.into_iter().map(|text| format!("--{flag}={text}").into()).collect();
        // One key at a time, so that the error can name it.
        if let Err(error) = command.try_get_matches_from_mut(&flags) {
            return Err(refuse(format!("{key}: {}", refusal(command, &flags, &error))));
        }
        all.extend(flags);
    }
    Ok(all)
}

fn read(file: &str) -> io::Result<String> {
    let mut text = Vec::new();
    File::open(file)?.take(LEN_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LEN_MAX {
        let why = format!("it is larger than {} MiB", LEN_MAX >> 20);
        return Err(io::Error::new(ErrorKind::FileTooLarge, why));
    }
    String::from_utf8(text).map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

/// The value as the texts that flags would have had. Clap sees whether these fit.
///
/// # Errors
/// What the value has to be, if its type can't fit.
fn texts(arg: &Arg, value: &Value) -> Result<Vec<String>, String> {
    let kind = arg.get_value_parser().type_id();
    let is_text = kind == TypeId::of::<String>();
    let is_word = !arg.get_possible_values().is_empty();
    let one = |value: &Value| {
        if let Some(text) = value.as_str() {
            Ok(text.into())
        } else if value.is_array() || value.is_table() || is_text || is_word && !value.is_bool() {
            Err(expected(arg))
        } else if kind == TypeId::of::<Duration>() && value.is_integer() {
            Ok(format!("{value}ms"))
        } else {
            Ok(value.to_string())
        }
    };
    if !matches!(arg.get_action(), ArgAction::Append) {
        return one(value).map(|text| vec![text]);
    }
    if let Some(text) = value.as_str() {
        return Ok(text.split(',').filter(|text| !text.is_empty()).map(Into::into).collect());
    }
    let items = value.as_array().map_or_else(|| slice::from_ref(value), Vec::as_slice);
    match items {
        items if items.iter().all(|item| item.is_str() == is_text) => {
            items.iter().map(one).collect()
        }
        _ if is_text => Err("a list of texts".into()),
        _ => Err("a list of numbers such as 0.99,0.95".into()),
    }
}

/// What the value of an option has to be.
fn expected(arg: &Arg) -> String {
    let words = arg.get_possible_values();
    let kind = arg.get_value_parser().type_id();
    if kind == TypeId::of::<bool>() {
        "true or false".into()
    } else if !words.is_empty() {
        let words: Vec<_> = words.iter().map(PossibleValue::get_name).collect();
        format!("one of {}", words.join(", "))
    } else if kind == TypeId::of::<String>() {
        "a text".into()
    } else if kind == TypeId::of::<Duration>() {
        "a duration such as 2s, or a whole number of milliseconds".into()
    } else {
        "a whole number".into()
    }
}

/// What is to be said of a key that is none.
fn unknown(
    key: &str,
    value: &Value,
    command: &Command,
    keys: &Map<String, serde_json::Value>,
) -> String {
    if value.is_table() {
        return format!("the section [{key}] is ignored, options belong at the top");
    }
    // A flag may have another name in the file.
    let flag = key.replace('_', "-");
    let by_flag = command.get_arguments().find(|arg| arg.get_long() == Some(&flag));
    let found = match by_flag.map(|arg| arg.get_id().as_str()) {
        Some(id) if keys.contains_key(id) => Some(id),
        Some(_) => return format!("{key} is a flag only and ignored here"),
        None => nearest(&key.replace('-', "_"), keys.keys().map(String::as_str)),
    };
    match found {
        Some(found) => format!("unknown key {key} is ignored; did you mean {found}?"),
        None => format!("unknown key {key} is ignored"),
    }
}

fn place_and_message(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map(|span| {
        let before = text.get(..span.start).unwrap_or(text);
        1 + before.matches('\n').count()
    });
    let message = error.message().replace('\n', ", ");
    match line {
        Some(line) => format!("line {line}: {message}"),
        None => message,
    }
}

/// The largest file, in bytes: all options take a few KiB. A device may have no end.
const LEN_MAX: u64 = 1 << 20;
