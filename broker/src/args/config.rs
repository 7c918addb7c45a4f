//! The config file: TOML with the flags' names, underscores for dashes, at the top level.
//!
//! The rules are those of http-and-ops.md section 6, except where they are traps: what the
//! reference ignores silently is named in a warning, an integer for a bool means what it says (the
//! reference inverts it), and a value of a wrong type is an error of one line.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};

use sansq_core::duration::go_duration;
use sansq_runtime::listen::error_text;
use sansq_toolkit::flags::switch;
use toml::{Table, Value};

use super::{ArgsError, Flag, Kind, nearest};

/// Sets each flag that `set` does not mark from the file, and marks it.
///
/// # Errors
/// [`ArgsError::Config`] if the file can't be read, is larger than [`LEN_MAX`], is no TOML, or has
/// a value that does not fit.
pub(super) fn apply(
    file: &str,
    flags: &mut [Flag<'_>],
    set: &mut [bool],
    warnings: &mut Vec<String>,
) -> Result<(), ArgsError> {
    let refuse = |reason: String| ArgsError::Config { file: file.into(), reason };
    let text = read(file).map_err(|error| refuse(error_text(&error)))?;
    let table: Table = text.parse().map_err(|error| refuse(one_line(&text, &error)))?;

    for (key, given) in &table {
        let Some(index) = flags.iter().position(|f| f.config_key().as_ref() == Some(key)) else {
            warnings.push(unknown(file, key, given, flags));
            continue;
        };
        let flag = &mut flags[index];
        if set[index] {
            continue;
        }
        set[index] = true;
        flag.value.clear();
        let texts = texts(flag.value.kind(), given);
        let refusal = |expected| refuse(format!("{key}: {given} is not {expected}"));
        for text in texts.ok_or_else(|| refusal(flag.expected()))? {
            flag.set(&text).map_err(refusal)?;
        }
    }
    Ok(())
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

/// The value as the texts that a flag would have had, `None` if its type does not fit.
fn texts(kind: Kind, given: &Value) -> Option<Vec<String>> {
    let text = match (kind, given) {
        (Kind::Texts, Value::Array(items)) => return items.iter().map(string).collect(),
        (Kind::Floats, Value::Array(items)) => return items.iter().map(number).collect(),
        (Kind::Texts, Value::String(text)) => {
            return Some(text.split(',').filter(|t| !t.is_empty()).map(Into::into).collect());
        }
        (Kind::Floats, Value::String(text)) if text.is_empty() => return Some(vec![]),
        (_, Value::String(text)) => text.clone(),
        (Kind::Floats, _) => number(given)?,
        (Kind::Int, Value::Integer(n)) => n.to_string(),
        (Kind::Duration, Value::Integer(ms)) => {
            let millis = u64::try_from(*ms).ok()?;
            go_duration(core::time::Duration::from_millis(millis)).to_string()
        }
        (Kind::Bool | Kind::BoolOrWord, Value::Boolean(b)) => b.to_string(),
        (Kind::Bool, Value::Integer(n)) => switch(&n.to_string()).ok()?.to_string(),
        _ => return None,
    };
    Some(vec![text])
}

fn string(given: &Value) -> Option<String> {
    given.as_str().map(Into::into)
}

fn number(given: &Value) -> Option<String> {
    let number = given.as_float().or_else(|| given.as_integer().map(|n| n as f64))?;
    Some(number.to_string())
}

fn unknown(file: &str, key: &str, given: &Value, flags: &[Flag<'_>]) -> String {
    if given.is_table() {
        return format!("{file}: the section [{key}] is ignored, options belong at the top");
    }
    let keys: Vec<_> = flags.iter().filter_map(Flag::config_key).collect();
    // A flag may have another name in the file.
    let by_flag = flags.iter().find(|f| f.name.replace('-', "_") == key.replace('-', "_"));
    let found = match by_flag.map(Flag::config_key) {
        Some(Some(key)) => Some(key),
        Some(None) => return format!("{file}: {key} is a flag only and ignored here"),
        None => nearest(&key.replace('-', "_"), keys.iter().map(String::as_str)).map(Into::into),
    };
    match found {
        Some(found) => format!("{file}: unknown key {key} is ignored; did you mean {found}?"),
        None => format!("{file}: unknown key {key} is ignored"),
    }
}

fn one_line(text: &str, error: &toml::de::Error) -> String {
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
