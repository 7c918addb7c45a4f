//! A program's table as a command of clap: what shell completions and man pages are made from.
//!
//! Nothing is parsed with it: clap knows no flags with a single dash.

use std::borrow::Cow;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, Command, ValueHint};

use super::{Flag, Kind, Program, help};

/// The command of a program: its flags under the names of their groups, with the values they can
/// have where these are words. Defaults that depend on the host are put into words.
pub fn command<P: Program>(name: &'static str) -> Command {
    let mut options = P::default();
    Command::new(name)
        .about(P::INTRO)
        .version(env!("CARGO_PKG_VERSION"))
        // It is in the table.
        .disable_version_flag(true)
        .after_help(help::NOTE)
        .args(options.flags().iter().map(arg))
}

fn arg(flag: &Flag<'_>) -> Arg {
    let kind = flag.value.kind();
    let arg = Arg::new(flag.name)
        .long(flag.name)
        .help_heading(flag.group)
        .help(format!("{}{}", flag.help, help::default(kind, &shown_default(flag))))
        .value_name(help::value_name(kind).unwrap_or("true|false"));
    let arg = match kind {
        Kind::Bool | Kind::BoolOrWord => arg.num_args(0..=1).require_equals(true),
        Kind::Texts | Kind::Floats => arg.action(ArgAction::Append),
        Kind::Duration | Kind::Int | Kind::Text | Kind::Word => arg,
    };
    let arg = match flag.value.words() {
        [] => arg,
        // The help says which words there are.
        words => arg.value_parser(PossibleValuesParser::new(words)).hide_possible_values(true),
    };
    arg.value_hint(match flag.name {
        "config" | "tls-cert" | "tls-key" | "tls-root-ca-file" => ValueHint::FilePath,
        "data-path" => ValueHint::DirPath,
        _ => ValueHint::Other,
    })
}

fn shown_default(flag: &Flag<'_>) -> Cow<'static, str> {
    flag.default.map_or_else(|| flag.show().into(), Into::into)
}
