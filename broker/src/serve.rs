//! From options to running servers, and their end.

use core::fmt;
use std::io::{self, Write as _};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use sansq_core::log::Level;
use sansq_core::upgrade::ServerTls;
use sansq_core::version::{NSQ_VERSION, SANSQ_VERSION};
use sansq_toolkit::log::{NSQD, NSQLOOKUPD, log};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use sansq_smol::Address;

use crate::args::{BothOptions, CheckError, NsqdOptions, NsqlookupdOptions, TlsVersion};
use crate::assemble::{self, Running};
use crate::version_line;
use sansq_runtime::listen::{ListenError, Listens};
use sansq_runtime::storage::{DataPath, DataPathError, MetadataFileError};

/// Runs nsqd until it is told to stop.
///
/// # Errors
/// [`ServeError`] if it can't start, or failed while it ran.
pub fn run_nsqd(mut options: NsqdOptions) -> Result<(), ServeError> {
    let (data_path, tls) = prepare_nsqd(&mut options, false)?;
    let ends = Ends::new().map_err(ServeError::Start)?;
    let nsqd = assemble::start_nsqd(&options, tls, data_path).map_err(ServeError::Start)?;
    ends.wait(vec![nsqd])
}

/// Runs nsqlookupd until it is told to stop.
///
/// # Errors
/// [`ServeError`] if it can't start, or failed while it ran.
pub fn run_nsqlookupd(options: NsqlookupdOptions) -> Result<(), ServeError> {
    log(NSQLOOKUPD, Level::Info, version_line(NSQLOOKUPD));
    let ends = Ends::new().map_err(ServeError::Start)?;
    let nsqlookupd = assemble::start_nsqlookupd(&options).map_err(ServeError::Start)?;
    ends.wait(vec![nsqlookupd])
}

/// Runs both servers in one process until it is told to stop. The data path is made if it is
/// missing and was not chosen by the user.
///
/// # Errors
/// [`ServeError`] if one of them can't start, or failed while it ran.
pub fn run_both(options: BothOptions) -> Result<(), ServeError> {
    let (mut nsqd_options, nsqlookupd_options) = options.split();
    let create = nsqd_options.data_path == BothOptions::DATA_PATH;
    let (data_path, tls) = prepare_nsqd(&mut nsqd_options, create)?;
    log(NSQLOOKUPD, Level::Info, version_line(NSQLOOKUPD));
    let ends = Ends::new().map_err(ServeError::Start)?;
    let nsqlookupd = assemble::start_nsqlookupd(&nsqlookupd_options).map_err(ServeError::Start)?;
    if nsqd_options.nsqlookupd_tcp_addresses.is_empty() {
        // Its port was left to the system, and is known only now.
        nsqd_options.nsqlookupd_tcp_addresses.push(nsqlookupd.tcp_addr().to_string());
    }
    let nsqd = assemble::start_nsqd(&nsqd_options, tls, data_path).map_err(ServeError::Start)?;
    let _ = write!(io::stdout(), "{}", welcome(&nsqd_options, &nsqd, &nsqlookupd));
    // nsqd first, so that nsqlookupd sees it go.
    ends.wait(vec![nsqd, nsqlookupd])
}

/// What listens where, and what to type next.
fn welcome(options: &NsqdOptions, nsqd: &Running, nsqlookupd: &Running) -> String {
    let http = nsqd.http_addr().map_or_else(|| "off".into(), |address| address.to_string());
    let lookup_http =
        nsqlookupd.http_addr().map_or_else(String::new, |address| address.to_string());
    let program = std::env::args().next().unwrap_or_else(|| "sansq".into());
    // The tools' own default is left out of what is to be typed, and so is what they can't reach.
    let tail = match nsqd.tcp_addr().port() {
        None | Some(4150) => String::new(),
        Some(port) => format!(" --nsqd-tcp-address 127.0.0.1:{port}"),
    };
    let (socket, port) = match nsqd.http_addr() {
        None => (String::new(), 0),
        Some(Address::Tcp(address)) => (String::new(), address.port()),
        Some(Address::Unix(path)) => (format!(" --unix-socket {}", path.display()), 80),
    };
    format!(
        "\n\
         sansq {SANSQ_VERSION} runs NSQ {NSQ_VERSION}'s nsqd and nsqlookupd, with data path {}\n\
         \n\
         \x20 nsqd        for clients {:<22} HTTP {http}\n\
         \x20 nsqlookupd  for nsqd    {:<22} HTTP {lookup_http}\n\
         \n\
         In a second terminal, read a topic:   {program} tail --topic greetings{tail}\n\
         In a third one, publish to it:        curl{socket} -d 'hello' 'http://127.0.0.1:{port}/pub?topic=greetings'\n\
         What there is:                        curl{socket} http://127.0.0.1:{port}/stats\n\
         Stop with Ctrl-C.\n\n",
        options.data_path,
        nsqd.tcp_addr().to_string(),
        nsqlookupd.tcp_addr().to_string(),
    )
}

/// What comes before anything else, in the reference's order: the lock, the options, and two lines
/// of the log (http-and-ops.md section 4).
fn prepare_nsqd(
    options: &mut NsqdOptions,
    create: bool,
) -> Result<(DataPath, Option<ServerTls>), ServeError> {
    let data_path = DataPath::open(&options.data_path, create).map_err(ServeError::DataPath)?;
    options.check().map_err(ServeError::Check)?;
    let tls = assemble::server_tls(options).map_err(ServeError::Tls)?;
    log(NSQD, Level::Info, version_line(NSQD));
    log(NSQD, Level::Info, format_args!("ID: {}", options.id));
    if tls.is_some() && matches!(options.tls_min_version, TlsVersion::Tls10 | TlsVersion::Tls11) {
        log(
            NSQD,
            Level::Warn,
            "NSQ: TLS 1.0 and 1.1 are not supported; clients need TLS 1.2 or 1.3",
        );
    }
    let tls = tls.map(|loaded| {
        assemble::log_tls(&loaded.warnings);
        loaded.tls
    });
    Ok((data_path, tls))
}

/// The ways in which the servers of this process come to their end.
struct Ends {
    happened: Receiver<End>,
    report: Sender<End>,
}

enum End {
    /// The user asked for it.
    Signal,
    /// A server ended, by itself or because it was asked to.
    Server(io::Result<()>),
}

impl Ends {
    /// From now on SIGINT, SIGTERM and SIGHUP are asked for here. A second one during the stop
    /// changes nothing, like in the reference. SIGHUP kills the reference, and what is in memory is
    /// lost; under nohup it stays without effect. SIGUSR1 and SIGUSR2 do nothing, and Go's programs
    /// survive them too.
    fn new() -> io::Result<Self> {
        let (report, happened) = channel();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1, SIGUSR2])?;
        if !ignores_hangups() {
            signals.add_signal(SIGHUP)?;
        }
        let signalled = report.clone();
        thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                if matches!(signal, SIGUSR1 | SIGUSR2) {
                    continue;
                }
                if signalled.send(End::Signal).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { happened, report })
    }

    /// Waits for a signal or for a server that fails; then ends all servers, in order.
    fn wait(self, servers: Vec<Running>) -> Result<(), ServeError> {
        let mut stoppers = Vec::new();
        let count = servers.len();
        for server in servers {
            stoppers.push(server.stopper());
            let report = self.report.clone();
            let watching = thread::Builder::new().name("watch".into()).spawn(move || {
                let _ = report.send(End::Server(server.join()));
            });
            watching.map_err(ServeError::Start)?;
        }
        let (mut result, mut ended) = (Ok(()), 0);
        while ended < count {
            if let Ok(End::Server(end)) = self.happened.recv() {
                ended += 1;
                if let Err(error) = end {
                    result = result.and(Err(ServeError::Run(error)));
                }
            }
            // Whatever it was that happened: it is the end of all.
            stoppers.iter().for_each(|stopper| stopper.shut_down());
        }
        result
    }
}

/// Whether this process was started with SIGHUP ignored, as nohup does it. Where the system does
/// not tell, it was not.
fn ignores_hangups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (SIGHUP - 1)) != 0)
}

/// Why a server did not start or ended early.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// An option is out of its range.
    Check(CheckError),
    /// The data path can't be used.
    DataPath(DataPathError),
    /// A server failed while it ran.
    Run(io::Error),
    /// A server could not be started, most often because its address is in use.
    Start(io::Error),
    /// The files of certificate and key can't be used.
    Tls(io::Error),
}

impl ServeError {
    /// The last line of the log, and whose log it is: of `program`, or of one of the two servers in
    /// it. It has the reference's words in front where it has some.
    pub fn last_line(&self, program: &str) -> (&'static str, String) {
        let target = match self.listen_error().map(|error| error.what) {
            Some(Listens::Nsqds | Listens::LookupHttp) => NSQLOOKUPD,
            None if program == NSQLOOKUPD => NSQLOOKUPD,
            // What is said for both servers together is nsqd's line.
            Some(Listens::Clients | Listens::Http | Listens::Https) | None => NSQD,
        };
        let is_metadata = |error: &io::Error| {
            error.get_ref().is_some_and(|error| error.is::<MetadataFileError>())
        };
        let line = match self {
            Self::Run(error) => error.to_string(),
            Self::Start(error) if is_metadata(error) => error.to_string(),
            Self::Start(_) => {
                let mut line = format!("failed to instantiate {target} - {self}");
                if let Some(error) = self.listen_error() {
                    let help = error.help.map(|help| format!("; {help}")).unwrap_or_default();
                    let flag = address_flag(error.what, program);
                    line += &format!("{help}; change it with --{flag}");
                }
                line
            }
            Self::DataPath(error) => {
                let help = error.help().map(|help| format!("; {help}")).unwrap_or_default();
                format!("failed to instantiate {target} - {self}{help}; change it with --data-path")
            }
            Self::Check(_) | Self::Tls(_) => format!("failed to instantiate {target} - {self}"),
        };
        (target, line)
    }

    /// The address that could not be listened on, if that is the reason.
    fn listen_error(&self) -> Option<&ListenError> {
        let Self::Start(error) = self else { return None };
        error.get_ref()?.downcast_ref()
    }
}

/// The flag of `program` that has the address to listen on for `what`.
fn address_flag(what: Listens, program: &str) -> &'static str {
    match what {
        Listens::Clients => "tcp-address",
        Listens::Http => "http-address",
        Listens::Https => "https-address",
        Listens::Nsqds if program == NSQLOOKUPD => "tcp-address",
        Listens::LookupHttp if program == NSQLOOKUPD => "http-address",
        Listens::Nsqds => "nsqlookupd-tcp-address",
        Listens::LookupHttp => "nsqlookupd-http-address",
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Check(error) => error.fmt(f),
            Self::DataPath(error) => error.fmt(f),
            Self::Run(error) | Self::Start(error) => error.fmt(f),
            Self::Tls(error) => write!(f, "failed to build TLS config - {error}"),
        }
    }
}

impl core::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Run(error) | Self::Start(error) | Self::Tls(error) => Some(error),
            Self::Check(_) | Self::DataPath(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_comes_before_the_options() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = NsqdOptions {
            data_path: folder.path().join("missing").to_str().unwrap().into(),
            id: 1024,
            ..NsqdOptions::default()
        };
        let error = prepare_nsqd(&mut options, false).unwrap_err().to_string();
        assert!(error.starts_with("failed to lock data-path: open "), "{error}");

        let error = prepare_nsqd(&mut options, true).unwrap_err().to_string();
        assert_eq!(error, "--node-id must be [0,1024)");

        options.id = 1023;
        let _held = prepare_nsqd(&mut options, false).unwrap();
        let error = prepare_nsqd(&mut options, false).unwrap_err().to_string();
        assert!(error.contains("possibly in use by another instance of nsqd"), "{error}");
    }
}
