//! Bytes as transcripts write and show them.

use std::collections::BTreeMap;

/// The ids of messages, numbered in the order in which they came: `$1`, `$2`.
#[derive(Default)]
pub(crate) struct Ids(Vec<String>);

impl Ids {
    /// The number of an id, `$1`.
    pub(crate) fn name(&mut self, id: &[u8]) -> String {
        let id = String::from_utf8_lossy(id);
        let at = self.0.iter().position(|known| *known == id).unwrap_or_else(|| {
            self.0.push(id.into_owned());
            self.0.len() - 1
        });
        format!("${}", at + 1)
    }

    /// A text with numbers for the ids that are in it.
    pub(crate) fn hide(&self, text: &str) -> String {
        let numbered = self.0.iter().enumerate();
        numbered.fold(text.to_owned(), |text, (at, id)| text.replace(id, &format!("${}", at + 1)))
    }
}

/// What a client sends: a line with its bodies, or bytes as they are.
///
/// # Errors
/// What can't be understood.
pub(crate) fn sent(text: &str, ids: &Ids) -> Result<Vec<u8>, String> {
    if is_raw(text) {
        return raw(text, ids);
    }
    let mut parts = text.split(" | ");
    let line = unescape(parts.next().unwrap_or_default(), ids)?;
    let bodies = parts.map(|body| value(body, ids)).collect::<Result<Vec<_>, _>>()?;
    let mut bytes = [&line[..], b"\n"].concat();
    let verb = text.split(' ').next().unwrap_or_default();
    match &bodies[..] {
        [] => {}
        bodies if verb == "MPUB" => {
            let sized: Vec<u8> = bodies.iter().flat_map(|body| with_size(body)).collect();
            let count = (bodies.len() as u32).to_be_bytes();
            bytes.extend(with_size(&[&count, &sized[..]].concat()));
        }
        [body] => bytes.extend(with_size(body)),
        _ => return Err(format!("{verb} has one body")),
    }
    Ok(bytes)
}

/// A body, or another piece of text.
pub(crate) fn value(text: &str, ids: &Ids) -> Result<Vec<u8>, String> {
    if is_raw(text) { raw(text, ids) } else { unescape(text, ids) }
}

fn with_size(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes()[..], body].concat()
}

fn is_raw(text: &str) -> bool {
    text.starts_with(['"', '|'])
}

/// Pieces with a space between them: `"text\n"`, `"x"*100`, and `|5|`, a length of 4 bytes.
fn raw(text: &str, ids: &Ids) -> Result<Vec<u8>, String> {
    let unknown = || format!("what is {text:?}?");
    let (mut bytes, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let end;
        if let Some(number) = rest.strip_prefix('|') {
            let (number, behind) = number.split_once('|').ok_or_else(unknown)?;
            bytes.extend(number.parse::<i32>().map_err(|_| unknown())?.to_be_bytes());
            end = behind;
        } else {
            let quoted = rest.strip_prefix('"').ok_or_else(unknown)?;
            let mut escaped = false;
            let close = quoted.find(|c| {
                let is_end = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                is_end
            });
            let close = close.ok_or_else(unknown)?;
            let piece = unescape(&quoted[..close], ids)?;
            let behind = &quoted[close + 1..];
            let (times, behind) = match behind.strip_prefix('*') {
                Some(times) => times.split_once(' ').unwrap_or((times, "")),
                None => ("1", behind),
            };
            bytes.extend(piece.repeat(times.parse().map_err(|_| unknown())?));
            end = behind;
        }
        rest = end.trim_start();
    }
    Ok(bytes)
}

/// `\n`, `\r`, `\t`, `\0`, `\"`, `\\`, `\xHH`; `$1` is the id of the first message, `$$` a dollar.
fn unescape(text: &str, ids: &Ids) -> Result<Vec<u8>, String> {
    let simple = BTreeMap::from([
        ('n', b'\n'),
        ('r', b'\r'),
        ('t', b'\t'),
        ('0', b'\0'),
        ('"', b'"'),
        ('\\', b'\\'),
    ]);
    let (mut bytes, mut rest) = (Vec::new(), text.chars());
    while let Some(c) = rest.next() {
        let behind = rest.as_str();
        if c == '\\' {
            let escape = rest.next().unwrap_or_default();
            let hex = || behind.get(1..3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
            if let Some(byte) = simple.get(&escape) {
                bytes.push(*byte);
            } else if let Some(byte) = hex().filter(|_| escape == 'x') {
                bytes.push(byte);
                rest = behind[3..].chars();
            } else {
                return Err(format!("what is \"\\{escape}\"?"));
            }
        } else if c == '$' && behind.starts_with('$') {
            bytes.push(b'$');
            rest.next();
        } else if c == '$' {
            let digits = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
            let number = behind[..digits].parse::<usize>().unwrap_or(0);
            let id = ids.0.get(number.wrapping_sub(1));
            let id = id.ok_or_else(|| format!("no message ${} has come", &behind[..digits]))?;
            bytes.extend(id.as_bytes());
            rest = behind[digits..].chars();
        } else {
            bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    Ok(bytes)
}

/// Bytes on one line: what can't be seen is escaped, and a long run of one letter is shortened.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\0' => text.push_str("\\0"),
                _ if c.is_ascii_control() => text.push_str(&format!("\\x{:02x}", u32::from(c))),
                _ => text.push(c),
            }
        }
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    // Editors take spaces from the ends of lines.
    if let Some(start) = text.strip_suffix(' ') {
        text = format!("{start}\\x20");
    }
    shorten(&text)
}

fn shorten(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(first) = rest.chars().next() {
        let run = rest.find(|c| c != first).unwrap_or(rest.len());
        let count = run / first.len_utf8();
        if count > RUN_MAX {
            out.push_str(&format!("{first}…{count}…{first}"));
        } else {
            out.push_str(&rest[..run]);
        }
        rest = &rest[run..];
    }
    out
}

/// How often a letter may be repeated.
const RUN_MAX: usize = 40;
