//! What flags are made of: Go's way of writing them, and kinds of values.

use std::ffi::OsString;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, Command, CommandFactory, Parser};
use sansq_core::log::Level;
use sansq_runtime::client::{Config, ConfigError};

/// Takes the flags in front apart from what follows: the first argument that is none, or `--`.
/// NSQ's single dash becomes a double one (`-topic` is `--topic`, `-h` is `--help`); a flag that
/// has no `=` brings its value along, whatever it looks like.
pub fn split<'a>(command: &Command, args: &'a [OsString]) -> (Vec<OsString>, &'a [OsString]) {
    let (mut flags, mut rest) = (Vec::new(), args);
    while let [arg, behind @ ..] = rest {
        let text = arg.to_str().unwrap_or_default();
        if !text.starts_with('-') || matches!(text, "-" | "--") {
            break;
        }
        rest = behind;
        let flag = text.strip_prefix("--").or_else(|| text.strip_prefix('-')).unwrap_or(text);
        let name = flag.split_once('=').map_or(flag, |(name, _)| name);
        flags.push(match name {
            // As Go does, whatever its value.
            "h" | "help" => "--help".into(),
            _ if flag.starts_with(|first: char| first.is_ascii_alphabetic()) => {
                format!("--{flag}").into()
            }
            _ => arg.clone(),
        });
        let known = command.get_opts().find(|known| known.get_long() == Some(flag));
        if let ([value, behind @ ..], Some(false)) = (rest, known.map(Arg::is_require_equals_set)) {
            flags.push(value.clone());
            rest = behind;
        }
    }
    (flags, rest)
}

/// As [`split`], for programs whose flags may also follow other arguments.
fn normalise(command: &Command, args: &[OsString]) -> Vec<OsString> {
    let (mut all, mut rest) = split(command, args);
    while let [arg, behind @ ..] = rest {
        all.push(arg.clone());
        if arg == "--" {
            all.extend_from_slice(behind);
            break;
        }
        let (flags, more) = split(command, behind);
        all.extend(flags);
        rest = more;
    }
    all
}

/// Parses what a tool is called with.
///
/// # Errors
/// What clap says, also to print help.
pub fn parse<P: Parser>(command: Command, args: &[OsString]) -> Result<P, clap::Error> {
    let args = normalise(&command, args);
    P::from_arg_matches(&command.no_binary_name(true).try_get_matches_from(args)?)
}

/// The command of a program, with Go's switches: alone they mean yes, `--flag=false` means no.
pub fn command<P: CommandFactory>() -> Command {
    P::command().mut_args(|arg| {
        if !matches!(arg.get_action(), ArgAction::SetTrue) {
            return arg;
        }
        let is_on = arg.get_default_values() == ["true"];
        arg.action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value(if is_on { "true" } else { "false" })
            .hide_default_value(!is_on)
            .value_name("true|false")
            .value_parser(switch)
    })
}

fn switch(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("it is true or false"),
    }
}

/// A level of the log, by its name.
pub fn level() -> impl TypedValueParser<Value = Level> {
    let words = [Level::Debug, Level::Info, Level::Warn, Level::Error, Level::Fatal];
    PossibleValuesParser::new(words.map(Level::word))
        .try_map(|word| Level::parse(&word).ok_or("it is no level"))
}

/// A text that is not empty.
///
/// # Errors
/// If it is.
pub fn filled(text: &str) -> Result<String, &'static str> {
    if text.is_empty() { Err("it must not be empty") } else { Ok(text.to_owned()) }
}

/// `host:port`, without a scheme in front.
///
/// # Errors
/// If there is a scheme, or no port.
pub fn address(text: &str) -> Result<String, &'static str> {
    if text.contains("://") {
        return Err("host:port is wanted, without a scheme");
    }
    let port = text.rsplit_once(':').map(|(_, port)| port);
    if port.is_none_or(|port| port.parse::<u16>().is_err()) {
        return Err("host:port is wanted");
    }
    Ok(text.to_owned())
}

/// Sets options of a client in the order they are given: `name,value`, or `name` for true.
///
/// # Errors
/// For the first that there is not, or whose value does not fit.
pub fn set_options(config: &mut Config, options: &[String]) -> Result<(), ConfigError> {
    options.iter().try_for_each(|option| {
        let (name, value) = option.split_once(',').unwrap_or((option, "true"));
        config.set(name, value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[arg(long)]
        v: bool,
        #[arg(long, default_value_t = true)]
        on: bool,
        #[arg(long, allow_hyphen_values = true)]
        prefix: Option<String>,
        word: Vec<String>,
    }

    #[test]
    fn switches_have_values_behind_an_equals_sign_only() {
        for (args, v, on, word) in [
            (&["-v", "false"][..], true, true, Some("false")),
            (&["-v=F", "--on=0"], false, false, None),
            (&["--v=1", "--on"], true, true, None),
            (&[], false, true, None),
        ] {
            let args: Vec<OsString> = args.iter().map(Into::into).collect();
            let flags: Flags = parse(command::<Flags>(), &args).unwrap();
            assert_eq!((flags.v, flags.on, flags.word.first().map(String::as_str)), (v, on, word));
        }
        let flags: Flags = parse(command::<Flags>(), &["-prefix".into(), "-v".into()]).unwrap();
        assert_eq!((flags.prefix.as_deref(), flags.v), (Some("-v"), false));
    }

    #[test]
    fn one_dash_or_two() {
        let command = command::<Flags>();
        let args =
            ["-topic", "--n=5", "-n=5", "-h=false", "-prefix", "-v", "-v", "x", "-", "-a", "-5"];
        let args = [&args[..], &["--", "-topic"]].concat();
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let flags = ["--topic", "--n=5", "--n=5", "--help", "--prefix", "-v", "--v"];
        let rest = ["x", "-", "-a", "-5", "--", "-topic"].map(OsString::from);
        assert_eq!(split(&command, &args), (flags.map(OsString::from).to_vec(), &rest[..]));
        let rest = ["x", "-", "--a", "-5", "--", "-topic"];
        assert_eq!(normalise(&command, &args), [&flags[..], &rest[..]].concat());
    }

    #[test]
    fn switches_are_go_s() {
        assert_eq!((switch("T"), switch("0")), (Ok(true), Ok(false)));
        assert!(switch("yes").is_err());
    }

    #[test]
    fn addresses_have_a_port_and_no_scheme() {
        assert_eq!(address("[::1]:4151").as_deref(), Ok("[::1]:4151"));
        for bad in ["http://a:1", "a", "a:", "a:65536", ""] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
