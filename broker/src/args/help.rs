//! The page that `--help` prints.

use super::{Flag, Kind};

/// The page: intro, usage, and the flags in the order of the table, under the names of their
/// groups.
pub(super) fn page(intro: &str, usage: &str, flags: &[Flag<'_>]) -> String {
    let mut page = format!("{intro}\n\nUsage: {usage}\n");
    let mut group = "";
    for flag in flags {
        if flag.group != group {
            group = flag.group;
            page.push_str(&format!("\n{group}\n"));
        }
        let head = format!("  --{}{}", flag.name, placeholder(flag.value.kind()));
        let text = format!("{}{}", flag.help, default(flag.value.kind(), &flag.show()));
        if head.len() + 2 > INDENT {
            page.push_str(&head);
            page.push('\n');
            wrap(&mut page, "", &text);
        } else {
            wrap(&mut page, &head, &text);
        }
    }
    page.push('\n');
    page.push_str(NOTE);
    page.push('\n');
    page
}

fn placeholder(kind: Kind) -> String {
    match value_name(kind) {
        None => String::new(),
        Some(name) if kind == Kind::BoolOrWord => format!("[={name}]"),
        Some(name) => format!(" {name}"),
    }
}

/// What stands for a flag's value; `None` if it needs none.
pub(super) fn value_name(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Bool => None,
        Kind::BoolOrWord | Kind::Word => Some("WORD"),
        Kind::Duration => Some("DURATION"),
        Kind::Floats => Some("NUMBERS"),
        Kind::Int => Some("N"),
        Kind::Text | Kind::Texts => Some("TEXT"),
    }
}

/// What is said of the default behind a flag's text.
pub(super) fn default(kind: Kind, shown: &str) -> String {
    let more = match kind {
        Kind::Texts | Kind::Floats => "; repeat for more",
        Kind::Bool | Kind::BoolOrWord | Kind::Duration | Kind::Int | Kind::Text | Kind::Word => "",
    };
    match shown {
        // A switch that is off needs no words.
        "" | "false" => more.into(),
        default => format!(" (default {default}){more}"),
    }
}

/// Appends `head` and beside it `text`, in lines of at most [`WIDTH`] columns.
fn wrap(page: &mut String, head: &str, text: &str) {
    let mut line = format!("{head:INDENT$}");
    let mut empty = true;
    for word in text.split(' ') {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            page.push_str(line.trim_end());
            page.push('\n');
            line = " ".repeat(INDENT);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    page.push_str(line.trim_end());
    page.push('\n');
}

/// What holds for all flags.
pub(super) const NOTE: &str = "A flag has one or two dashes; a value follows behind a blank or `=`. Durations: 250ms, 2s, 1h30m.";

/// Columns of a line; narrower than a wide screen, because long lines are hard to read.
const WIDTH: usize = 100;
/// The column where the texts begin.
const INDENT: usize = 42;
