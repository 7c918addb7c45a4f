//! `sansq top`: topics, channels, consumers and nsqds, live in a terminal, or once as text.
//!
//! [`model`] says what is shown, [`view`] how; here are the flags, the terminal and the threads:
//! one polls, one reads keys, and one draws when either of them or a signal has something to say.

mod model;
mod table;
#[cfg(test)]
mod tests;
mod view;

use core::time::Duration;
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use clap::Parser;
use ratatui::crossterm::event::{self, KeyEventKind};
use sansq_core::duration::parse_go_duration;
use sansq_core::name::TopicName;
use sansq_toolkit::flags;

use self::model::{Model, Step};
use self::table::{Subject, Table};
use super::cluster::{self, Cluster, Focus, Snapshot};
use super::{HttpTimeouts, ToolError};

pub use self::table::View;

/// What to show.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "sansq top",
    bin_name = "sansq top",
    about = "Shows topics, channels, clients and nsqds with their rates, live",
    after_help = "The key ? shows the keys. What the columns mean: IN/S and OUT/S are messages per \
        second that came in and that left for good (OUT/S of a topic is over all its channels); \
        DEPTH is what waits, in a topic and its channels, and DISK how many of those are not in memory.",
    args_override_self = true,
    max_term_width = 100
)]
pub struct TopOptions {
    /// host:port of an nsqd's HTTP API; repeat for more [default: 127.0.0.1:4151 unless nsqlookupd
    /// is asked]
    #[arg(long, value_name = "ADDRESS", value_parser = flags::address)]
    pub nsqd_http_address: Vec<String>,
    /// host:port of an nsqlookupd's HTTP API, which knows the nsqds; repeat for more
    #[arg(long, value_name = "ADDRESS", value_parser = flags::address)]
    pub lookupd_http_address: Vec<String>,
    /// Time between two rounds of asking
    #[arg(long, default_value = "2s", value_parser = parse_go_duration)]
    pub interval: Duration,
    /// What to begin with
    #[arg(long, value_enum, default_value_t = View::Topics)]
    pub view: View,
    /// Only this topic, and only the nsqds that nsqlookupds know for it
    #[arg(long, value_parser = |text: &str| TopicName::new(text))]
    pub topic: Option<TopicName>,
    /// The column to sort by: a part of its name [default: the name]
    #[arg(long, value_name = "COLUMN")]
    pub sort: Option<String>,
    /// Sort the other way round
    #[arg(long)]
    pub reverse: bool,
    /// Show only rows with this text in them
    #[arg(long, default_value = "", hide_default_value = true)]
    pub filter: String,
    /// Print one table as text, after two rounds, and end
    #[arg(long)]
    pub once: bool,
    /// How long nsqds and nsqlookupds may take.
    #[command(flatten)]
    pub http: HttpTimeouts,
}

/// Shows the cluster until the user or a signal ends it; or prints one table, with `--once`.
///
/// An nsqd that does not answer is shown as such, among the nsqds.
///
/// # Errors
/// [`ToolError`] if there is no terminal, or `--once` got no answer from any nsqd.
pub fn run_top(mut options: TopOptions) -> Result<(), ToolError> {
    if options.nsqd_http_address.is_empty() && options.lookupd_http_address.is_empty() {
        options.nsqd_http_address.push(NSQD_ADDRESS.into());
    }
    let subject = match options.view {
        View::Topics => Subject::Topics,
        View::Channels => Subject::Channels(None),
        View::Nodes => Subject::Nodes,
    };
    let column = sorted_by(&subject, options.sort.as_deref())?;
    let mut model = Model::new(subject, column, options.reverse, options.filter);
    let (events, inbox) = sync_channel(EVENTS_MAX);
    let cluster = Cluster {
        nsqds: options.nsqd_http_address,
        lookupds: options.lookupd_http_address,
        agent: options.http.agent(),
        topic: options.topic,
    };
    if !options.once && !io::stdout().is_terminal() {
        return Err(ToolError::NoTerminal);
    }
    cluster::stop_on_signals(events.clone(), || Notice::Stop)?;
    let (focus, focuses) = sync_channel(1);
    cluster::poll(cluster, options.interval, focuses, events.clone(), Notice::Round)?;
    if options.once { print(&mut model, &inbox) } else { show(&mut model, events, &inbox, &focus) }
}

/// The number of the column that `sort` names.
fn sorted_by(subject: &Subject, sort: Option<&str>) -> Result<usize, ToolError> {
    let Some(sort) = sort else { return Ok(0) };
    let columns = Table::columns(subject);
    let wanted = sort.to_uppercase();
    let exact = columns.iter().position(|name| **name == wanted);
    let part = || columns.iter().position(|name| name.contains(&wanted));
    exact.or_else(part).ok_or_else(|| {
        ToolError::Usage(format!("there is no column {sort}; there are {}", columns.join(", ")))
    })
}

/// What the drawing thread is told.
#[derive(Debug)]
enum Notice {
    Round(Snapshot),
    Terminal(event::Event),
    Stop,
}

/// Two rounds, because rates need two; then the table.
fn print(model: &mut Model, inbox: &Receiver<Notice>) -> Result<(), ToolError> {
    let mut rounds = 0;
    while rounds < 2 {
        match inbox.recv() {
            Ok(Notice::Round(snapshot)) => {
                rounds += 1;
                if let Some(error) = snapshot.failure() {
                    return Err(ToolError::Lookup(error));
                }
                for (address, node) in snapshot.nodes.iter().filter(|_| rounds == 2) {
                    if let Err(error) = node {
                        let _ = writeln!(io::stderr(), "nsqd at {address}: {error}");
                    }
                }
                model.update(snapshot);
            }
            Ok(Notice::Terminal(_)) => {}
            Ok(Notice::Stop) | Err(_) => return Ok(()),
        }
    }
    let text = model.table().map(Table::to_string).unwrap_or_default();
    io::stdout().write_all(text.as_bytes()).map_err(ToolError::Output)
}

fn show(
    model: &mut Model,
    events: SyncSender<Notice>,
    inbox: &Receiver<Notice>,
    focus: &SyncSender<Focus>,
) -> Result<(), ToolError> {
    // From here on the terminal is given back even if something panics.
    let mut terminal = ratatui::try_init().map_err(ToolError::Output)?;
    let reading = move || {
        while let Ok(event) = event::read() {
            if events.send(Notice::Terminal(event)).is_err() {
                return;
            }
        }
        let _ = events.send(Notice::Stop);
    };
    let spawned = thread::Builder::new().name("keys".into()).spawn(reading);
    let result = spawned.map_err(ToolError::Start).and_then(|_| {
        let mut wanted = None;
        loop {
            terminal.draw(|frame| view::draw(model, frame)).map_err(ToolError::Output)?;
            match inbox.recv() {
                Ok(Notice::Round(snapshot)) => model.update(snapshot),
                Ok(Notice::Terminal(event::Event::Key(key)))
                    if key.kind != KeyEventKind::Release =>
                {
                    match model.handle_key(key) {
                        Step::Draw => {}
                        Step::Ask => wanted = Some(model.focus()),
                        Step::Quit => return Ok(()),
                    }
                }
                // Another size: it is drawn again anyway.
                Ok(Notice::Terminal(_)) => {}
                Ok(Notice::Stop) | Err(_) => return Ok(()),
            }
            // The thread that polls may be asking just now; then it is told after that.
            if let Some(focus_wanted) = wanted.take()
                && let Err(TrySendError::Full(kept)) = focus.try_send(focus_wanted)
            {
                wanted = Some(kept);
            }
        }
    });
    ratatui::restore();
    result
}

/// Where an nsqd on this host has its HTTP API by default.
const NSQD_ADDRESS: &str = "127.0.0.1:4151";

/// Events that wait to be heeded; then the threads that send them wait.
const EVENTS_MAX: usize = 16;
