//! Which program is meant, and how its start goes: `sansq nsqd`, a link called `nsqd`, `sansq`
//! alone.

use core::sync::atomic::AtomicBool;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use sansq_bench as bench;
use sansq_core::log::Level;
use sansq_core::version::{NSQ_VERSION, SANSQ_VERSION};
use sansq_toolkit::flags;
use sansq_toolkit::log::{self, Logs, NSQD, NSQLOOKUPD, log};
use sansq_tools::{
    ToolError, run_pub, run_stat, run_tail, run_to_file, run_to_http, run_to_nsq, run_top,
};
use signal_hook::consts::SIGXFSZ;

use crate::args::{
    ArgsError, BothOptions, NsqdOptions, NsqlookupdOptions, Program, Request, defaults, load,
    nearest,
};
use crate::serve::{self, ServeError};
use crate::{pages, version_line};

/// Does what the arguments ask for, the program's name first; the process's exit status. The log is
/// written when this returns, unless nobody takes it.
pub fn run(args: &[OsString]) -> u8 {
    survive_file_size_limit();
    let status = carry_out(args);
    log::flush();
    status
}

fn carry_out(args: &[OsString]) -> u8 {
    let (program, args) = match args.split_first() {
        Some((program, args)) => (program.as_os_str(), args),
        None => (OsStr::new("sansq"), args),
    };
    let (command, args) = match choose(program, args) {
        Ok(chosen) => chosen,
        Err(error) => return refuse(&error, error.exit_status()),
    };
    let tool_name = |name| original(program).map_or(name, |(original, _)| original);
    match command {
        Subcommand::Bench => tool("sansq bench", args, run_bench),
        Subcommand::Both => start(args, SANSQ, both_logs, serve::run_both),
        Subcommand::Completions => tool("sansq completions", args, pages::run_completions),
        Subcommand::Help => print(OVERVIEW),
        Subcommand::Man => tool("sansq man", args, pages::run_man),
        Subcommand::Nsqd => start(args, NSQD, nsqd_logs, serve::run_nsqd),
        Subcommand::Nsqlookupd => start(args, NSQLOOKUPD, nsqlookupd_logs, serve::run_nsqlookupd),
        Subcommand::Pub => tool(tool_name("sansq pub"), args, |it| run_pub(it).map(drop)),
        Subcommand::Stat => tool(tool_name("sansq stat"), args, run_stat),
        Subcommand::Tail => tool(tool_name("sansq tail"), args, run_tail),
        Subcommand::ToFile => tool(tool_name("sansq to-file"), args, run_to_file),
        Subcommand::ToHttp => tool(tool_name("sansq to-http"), args, run_to_http),
        Subcommand::ToNsq => tool(tool_name("sansq to-nsq"), args, run_to_nsq),
        Subcommand::Top => tool("sansq top", args, run_top),
        Subcommand::Version => print(&version(SANSQ)),
    }
}

/// Beyond its limit on the size of files (`ulimit -f`, `LimitFSIZE=`) the system kills a process
/// that writes on, unless it takes the signal: then the write fails, and whoever wrote sees to it,
/// as on a full disk. SIGPIPE needs nothing: Rust's programs ignore it, and writing to a pipe that
/// nobody reads fails.
fn survive_file_size_limit() {
    // It is the same without it as long as nobody sets such a limit.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Subcommand {
    Bench,
    Both,
    Completions,
    Help,
    Man,
    Nsqd,
    Nsqlookupd,
    Pub,
    Stat,
    Tail,
    ToFile,
    ToHttp,
    ToNsq,
    Top,
    Version,
}

/// What is meant by a program of this name with these arguments, and the arguments left for it.
fn choose(program: &OsStr, args: &[OsString]) -> Result<(Subcommand, Vec<OsString>), ArgsError> {
    if let Some((_, command)) = original(program) {
        return Ok((command, args.to_vec()));
    }
    let Some((first, rest)) = args.split_first() else { return Ok((Subcommand::Both, vec![])) };
    match first.to_str() {
        Some("help") => match rest.split_first() {
            // `sansq help nsqd` is `sansq nsqd --help`.
            Some((topic, _)) if topic == "flags" => Ok((Subcommand::Both, vec!["--help".into()])),
            Some((topic, _)) => Ok((subcommand(topic)?, vec!["--help".into()])),
            None => Ok((Subcommand::Help, vec![])),
        },
        Some("-h" | "-help" | "--help") => Ok((Subcommand::Help, vec![])),
        Some("-version" | "--version") => Ok((Subcommand::Version, vec![])),
        Some(flag) if flag.starts_with('-') => Ok((Subcommand::Both, args.to_vec())),
        _ => Ok((subcommand(first)?, rest.to_vec())),
    }
}

/// The program of NSQ that a program of this name stands for, a link that is.
fn original(program: &OsStr) -> Option<(&'static str, Subcommand)> {
    const ORIGINALS: [(&str, Subcommand); 8] = [
        (NSQD, Subcommand::Nsqd),
        (NSQLOOKUPD, Subcommand::Nsqlookupd),
        ("nsq_stat", Subcommand::Stat),
        ("nsq_tail", Subcommand::Tail),
        ("nsq_to_file", Subcommand::ToFile),
        ("nsq_to_http", Subcommand::ToHttp),
        ("nsq_to_nsq", Subcommand::ToNsq),
        ("to_nsq", Subcommand::Pub),
    ];
    let name = Path::new(program).file_name().and_then(OsStr::to_str)?;
    ORIGINALS.into_iter().find(|(original, _)| *original == name)
}

fn subcommand(name: &OsStr) -> Result<Subcommand, ArgsError> {
    const COMMANDS: [(&str, Subcommand); 13] = [
        ("bench", Subcommand::Bench),
        ("completions", Subcommand::Completions),
        ("help", Subcommand::Help),
        ("man", Subcommand::Man),
        (NSQD, Subcommand::Nsqd),
        (NSQLOOKUPD, Subcommand::Nsqlookupd),
        ("pub", Subcommand::Pub),
        ("stat", Subcommand::Stat),
        ("tail", Subcommand::Tail),
        ("to-file", Subcommand::ToFile),
        ("to-http", Subcommand::ToHttp),
        ("to-nsq", Subcommand::ToNsq),
        ("top", Subcommand::Top),
    ];
    let found = COMMANDS.iter().find(|(known, _)| name == *known);
    found.map(|(_, command)| *command).ok_or_else(|| {
        let name = name.to_string_lossy().into_owned();
        ArgsError::Usage(match nearest(&name, COMMANDS.map(|(known, _)| known)) {
            Some(nearest) => format!("unknown command {name}; did you mean {nearest}?"),
            None => format!("unknown command {name}; --help lists what there is"),
        })
    })
}

/// Starts a server: options, log, warnings, and whatever `serve` does.
fn start<P: Program>(
    args: Vec<OsString>,
    program: &'static str,
    logs: impl Fn(&P) -> Logs,
    serve: impl FnOnce(P) -> Result<(), ServeError>,
) -> u8 {
    // What is said for both servers together is nsqd's line.
    let target = if program == NSQLOOKUPD { NSQLOOKUPD } else { NSQD };
    let (options, warnings) = match load::<P>(&args) {
        Ok(Request::Help(page)) => return print(page.trim_end()),
        Ok(Request::Run(options, warnings)) => (options, warnings),
        Ok(Request::Version) => return print(&version(program)),
        Err(error @ ArgsError::Config { .. }) => {
            // The log's own options are unknown now: the defaults do.
            logs(&defaults()).install();
            log(target, Level::Fatal, &error);
            return error.exit_status();
        }
        Err(error) => return refuse(&error, error.exit_status()),
    };
    logs(&options).install();
    for warning in warnings {
        log(target, Level::Warn, warning);
    }
    match serve(options) {
        Ok(()) => 0,
        Err(error) => {
            let (target, line) = error.last_line(program);
            log(target, Level::Fatal, line);
            1
        }
    }
}

fn nsqd_logs(options: &NsqdOptions) -> Logs {
    Logs::new(options.log_format, [(NSQD, options.log_prefix.as_str(), options.log_level)])
}

fn nsqlookupd_logs(options: &NsqlookupdOptions) -> Logs {
    Logs::new(options.log_format, [(NSQLOOKUPD, options.log_prefix.as_str(), options.log_level)])
}

fn both_logs(options: &BothOptions) -> Logs {
    let level = options.nsqd.log_level;
    Logs::new(
        options.nsqd.log_format,
        [
            (NSQD, options.nsqd.log_prefix.as_str(), level),
            (NSQLOOKUPD, NsqlookupdOptions::default().log_prefix.as_str(), level),
        ],
    )
}

/// Runs a tool whose flags are declared with clap, under the name that it was called by.
fn tool<P: Parser, E: Into<Failure>>(
    name: &'static str,
    args: Vec<OsString>,
    run: impl FnOnce(P) -> Result<(), E>,
) -> u8 {
    let command = flags::command::<P>().bin_name(name).version(version(name));
    match flags::parse(command, &args).map(run) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => match error.into() {
            // Whoever reads has seen enough: `| head`.
            Failure { is_closed_pipe: true, .. } => 0,
            Failure { text, status, .. } => refuse(&text, status),
        },
        Err(error) if error.kind() == ErrorKind::DisplayVersion => print(&version(name)),
        Err(error) => {
            let error = as_written(error, &args);
            // Help goes to standard output, anything else to standard error.
            let _ = error.print();
            u8::try_from(error.exit_code()).unwrap_or(2)
        }
    }
}

/// A message of clap's, which sees two dashes, with the flags that it is about as they were
/// written: with one, perhaps.
fn as_written(mut error: clap::Error, args: &[OsString]) -> clap::Error {
    let args = args.iter().filter_map(|arg| arg.to_str()).take_while(|arg| *arg != "--");
    let flags: Vec<&str> = args.filter_map(|arg| arg.split('=').next()).collect();
    for kind in [ContextKind::InvalidArg, ContextKind::PriorArg] {
        let Some(ContextValue::String(shown)) = error.get(kind) else { continue };
        // With the name of its value behind it, as in `--rate <RATE>`.
        let flag = shown.split(' ').next().unwrap_or_default();
        if let Some(single) = flag.strip_prefix('-').filter(|single| flags.contains(single)) {
            let shown = format!("{single}{}", &shown[flag.len()..]);
            error.insert(kind, ContextValue::String(shown));
        }
    }
    error
}

/// What a tool leaves behind if it fails.
struct Failure {
    text: String,
    status: u8,
    /// What it printed to has nobody who reads any more.
    is_closed_pipe: bool,
}

impl From<ToolError> for Failure {
    fn from(error: ToolError) -> Self {
        let is_closed_pipe = matches!(&error, ToolError::Output(error) if error.kind() == BROKEN);
        Self { text: error.to_string(), status: error.exit_status(), is_closed_pipe }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let is_closed_pipe = error.kind() == BROKEN;
        Self { text: error.to_string(), status: 1, is_closed_pipe }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::new(text, 1)
    }
}

impl Failure {
    const fn new(text: String, status: u8) -> Self {
        Self { text, status, is_closed_pipe: false }
    }
}

/// Prints the figures of one server, or of two in turn.
fn run_bench(options: bench::BenchOptions) -> Result<(), Failure> {
    options.check().map_err(|text| Failure::new(text, 2))?;
    let failed = |(address, error)| Failure::new(format!("{address}: {error}"), 1);
    let (text, json, shortfall) = if let Some(pair) = &options.compare {
        let note = |report: &bench::Report| {
            // Rounds take their time: whoever waits sees that something happens.
            let _ = writeln!(io::stderr(), "{}", report.line());
        };
        let comparison = bench::compare(&options, pair, note).map_err(failed)?;
        (comparison.to_string(), comparison.to_json(), comparison.shortfall())
    } else {
        let address = options.nsqd_tcp_address.clone();
        let report = bench::measure(&options).map_err(|error| failed((address, error)))?;
        (report.to_string(), report.to_json(), report.shortfall())
    };
    if print(&if options.json { format!("{json:#}") } else { text }) != 0 {
        return Err(Failure::new("the figures could not be printed".into(), 1));
    }
    shortfall.map_or(Ok(()), |text| Err(Failure::new(text, 3)))
}

fn version(program: &str) -> String {
    if program.starts_with(SANSQ) {
        format!("sansq v{SANSQ_VERSION} (NSQ v{NSQ_VERSION})")
    } else {
        version_line(program)
    }
}

/// Prints on standard output; success even if nobody reads it.
fn print(text: &str) -> u8 {
    let mut out = io::stdout();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != BROKEN => {
            refuse(&format_args!("writing to standard output failed: {error}"), 1)
        }
        _ => 0,
    }
}

fn refuse(error: &dyn core::fmt::Display, status: u8) -> u8 {
    log::say(error);
    status
}

const BROKEN: io::ErrorKind = io::ErrorKind::BrokenPipe;

const SANSQ: &str = "sansq";

const OVERVIEW: &str = "\
sansq: NSQ's servers and tools in one program

Usage:
  sansq [flags]               run nsqd and nsqlookupd for this host, with ./data as data path
  sansq nsqd [flags]          run nsqd, with NSQ's flags, config file and data path
  sansq nsqlookupd [flags]    run nsqlookupd, with NSQ's flags and config file
  sansq pub [flags]           publish messages
  sansq tail [flags]          print messages
  sansq to-file [flags]       write the messages of topics to files
  sansq to-http [flags]       send the messages of a topic over HTTP
  sansq to-nsq [flags]        publish the messages of topics to other nsqds
  sansq stat [flags]          print rates and depths of a channel
  sansq top [flags]           watch topics, channels, clients and nsqds
  sansq bench [flags]         measure a server
  sansq completions SHELL     print completions of the flags for a shell
  sansq man FOLDER            write man pages
  sansq help [COMMAND]        this page, or that of a command; `sansq help flags` for the first line
  sansq --version             the version

Under a name of NSQ's (a link), sansq is that program: nsqd, nsqlookupd, nsq_stat, nsq_tail,
nsq_to_file, nsq_to_http, nsq_to_nsq, to_nsq.";

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(line: &str) -> Result<(Subcommand, String), String> {
        let words: Vec<OsString> = line.split_ascii_whitespace().map(Into::into).collect();
        let (command, args) = choose(&words[0], &words[1..]).map_err(|error| error.to_string())?;
        Ok((command, args.join(OsStr::new(" ")).into_string().unwrap()))
    }

    #[test]
    fn the_name_and_the_first_argument_decide() {
        use Subcommand::{
            Bench, Both, Completions, Help, Man, Nsqd, Nsqlookupd, Pub, Stat, Tail, ToFile, ToHttp,
            ToNsq, Top, Version,
        };
        for (line, command, args) in [
            ("sansq", Both, ""),
            ("sansq -tcp-address=:1 x", Both, "-tcp-address=:1 x"),
            ("/usr/bin/sansq nsqd -config x", Nsqd, "-config x"),
            ("/usr/bin/nsqd --help", Nsqd, "--help"),
            ("./nsqd nsqlookupd", Nsqd, "nsqlookupd"),
            ("./nsqlookupd --version", Nsqlookupd, "--version"),
            ("sansq nsqlookupd", Nsqlookupd, ""),
            ("sansq pub a", Pub, "a"),
            ("sansq tail", Tail, ""),
            ("sansq stat -topic x", Stat, "-topic x"),
            ("sansq top --once", Top, "--once"),
            ("/usr/bin/nsq_stat -topic x", Stat, "-topic x"),
            ("nsq_tail top", Tail, "top"),
            ("to_nsq -topic x", Pub, "-topic x"),
            ("nsq_to_file -topic x", ToFile, "-topic x"),
            ("nsq_to_http -topic x", ToHttp, "-topic x"),
            ("nsq_to_nsq -topic x", ToNsq, "-topic x"),
            ("sansq to-file -topic x", ToFile, "-topic x"),
            ("sansq bench --json", Bench, "--json"),
            ("sansq completions zsh nsqd", Completions, "zsh nsqd"),
            ("sansq man x", Man, "x"),
            ("sansq help", Help, ""),
            ("sansq help help", Help, "--help"),
            ("sansq -h", Help, ""),
            ("sansq --help", Help, ""),
            ("sansq help flags", Both, "--help"),
            ("sansq help tail", Tail, "--help"),
            ("sansq -version", Version, ""),
            ("nsqd-old nsqd", Nsqd, ""),
        ] {
            assert_eq!(chosen(line), Ok((command, args.into())), "{line}");
        }
    }

    #[test]
    fn an_unknown_command_is_named_with_the_nearest() {
        assert_eq!(chosen("sansq nsqdd"), Err("unknown command nsqdd; did you mean nsqd?".into()));
        assert_eq!(
            chosen("sansq help frobnicate"),
            Err("unknown command frobnicate; --help lists what there is".into())
        );
    }
}
