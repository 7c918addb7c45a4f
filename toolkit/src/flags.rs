//! What the tools' flags are made of: NSQ's single dash, and kinds of values.

use std::ffi::OsString;

use sansq_core::log::Level;
use sansq_runtime::client::{Config, ConfigError};

/// Makes NSQ's single dash a double one: `-topic` is `--topic`. `-h` stays, and so does what
/// follows a `--` of its own.
pub fn normalise(args: &[OsString]) -> Vec<OsString> {
    let mut flags = true;
    let double = |arg: &OsString| {
        let text = arg.to_str().unwrap_or_default();
        flags &= text != "--";
        match text.as_bytes() {
            [b'-', b'a'..=b'z', rest @ ..] if flags && (text != "-h" || !rest.is_empty()) => {
                format!("-{text}").into()
            }
            _ => arg.clone(),
        }
    };
    args.iter().map(double).collect()
}

/// A switch in Go's way: alone it means yes, `--flag=false` means no. For clap's `value_parser`.
///
/// # Errors
/// If it is none of Go's words.
pub fn switch(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("it is true or false"),
    }
}

/// A level of the log, by its name.
///
/// # Errors
/// If it is none.
pub fn level(text: &str) -> Result<Level, &'static str> {
    Level::parse(text).ok_or("it is one of debug, info, warn, error, fatal")
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

    #[test]
    fn one_dash_or_two() {
        let args = ["-topic", "--n=5", "-n=5", "-h", "x", "-", "-5", "--", "-topic"];
        let expected = ["--topic", "--n=5", "--n=5", "-h", "x", "-", "-5", "--", "-topic"];
        assert_eq!(normalise(&args.map(Into::into)), expected.map(OsString::from));
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
