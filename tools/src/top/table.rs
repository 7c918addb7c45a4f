//! What is shown as rows and columns, made from the last two rounds.

use core::cmp::Ordering;
use core::fmt;
use std::collections::BTreeMap;

use clap::ValueEnum;

use crate::cluster::{ChannelStats, ClientStats, NodeStats, Snapshot};

/// What is looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Subject {
    /// All topics.
    Topics,
    /// The channels of a topic, or of all.
    Channels(Option<String>),
    /// The consumers of a channel: topic and channel.
    Clients(String, String),
    /// The nsqds.
    Nodes,
}

/// What `--view` can name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum View {
    /// Topics, summed over nsqds.
    Topics,
    /// Channels, summed over nsqds.
    Channels,
    /// nsqds.
    Nodes,
}

/// Rows under named columns.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) columns: &'static [&'static str],
    pub(super) rows: Vec<Row>,
}

/// A line, and what it stands for.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Tells it from the others, from round to round.
    pub(super) key: Key,
    pub(super) cells: Vec<Cell>,
}

/// A topic, a channel with its topic, an address.
pub(super) type Key = (String, String);

/// What stands in a column.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Text(String),
    Number(i64),
    /// Per second; none as long as there is nothing to compare with.
    Rate(Option<f64>),
    /// Nothing: the nsqd did not answer.
    None,
}

impl Table {
    /// The table of `subject`; `before` is what rates are computed against.
    pub(super) fn new(subject: &Subject, now: &Snapshot, before: Option<&Snapshot>) -> Self {
        match subject {
            Subject::Topics => topics(now, before),
            Subject::Channels(topic) => channels(now, before, topic.as_deref()),
            Subject::Clients(..) => clients(now),
            Subject::Nodes => nodes(now, before),
        }
    }

    /// The names of the columns of `subject`.
    pub(super) fn columns(subject: &Subject) -> &'static [&'static str] {
        match subject {
            Subject::Topics => TOPIC_COLUMNS,
            Subject::Channels(_) => CHANNEL_COLUMNS,
            Subject::Clients(..) => CLIENT_COLUMNS,
            Subject::Nodes => NODE_COLUMNS,
        }
    }

    /// Drops the rows in whose texts `filter` does not occur, whatever the case.
    pub(super) fn filter(&mut self, filter: &str) {
        let filter = filter.to_lowercase();
        let fits = |cell: &Cell| match cell {
            Cell::Text(text) => text.to_lowercase().contains(&filter),
            Cell::Number(_) | Cell::Rate(_) | Cell::None => false,
        };
        self.rows.retain(|row| filter.is_empty() || row.cells.iter().any(fits));
    }

    /// Sorts by a column; texts go from a to z and figures from many to few, unless `reversed`.
    pub(super) fn sort(&mut self, column: usize, reversed: bool) {
        self.rows.sort_by(|a, b| {
            let order = match (a.cells.get(column), b.cells.get(column)) {
                (Some(a), Some(b)) => a.compare(b),
                _ => Ordering::Equal,
            };
            let order = if reversed { order.reverse() } else { order };
            order.then_with(|| a.key.cmp(&b.key))
        });
    }
}

/// As text, columns side by side.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let mut line = String::new();
        let names = self.columns.iter().map(|name| (*name).to_owned());
        let rows = self.rows.iter().map(|row| row.cells.iter().map(Cell::to_string).collect());
        for cells in core::iter::once(names.collect()).chain(rows) {
            let cells: Vec<String> = cells;
            line.clear();
            for (index, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                let padding = width.saturating_sub(cell.chars().count());
                let is_left = self.is_left(index);
                if !is_left {
                    line.extend(core::iter::repeat_n(' ', padding));
                }
                line.push_str(cell);
                if is_left {
                    line.extend(core::iter::repeat_n(' ', padding));
                }
                line.push_str("  ");
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

impl Table {
    /// Columns of the terminal that each column needs.
    pub(super) fn widths(&self) -> Vec<usize> {
        let width = |index: usize| {
            let cells = self.rows.iter().filter_map(|row| row.cells.get(index));
            cells.map(|cell| cell.to_string().chars().count()).max().unwrap_or(0)
        };
        let names = self.columns.iter().enumerate();
        names.map(|(index, name)| name.len().max(width(index))).collect()
    }

    /// Whether a column is one of texts, which stand at its left.
    pub(super) fn is_left(&self, column: usize) -> bool {
        column == 0
            || self.rows.iter().any(|row| matches!(row.cells.get(column), Some(Cell::Text(_))))
    }
}

impl Cell {
    /// A text of a server or its clients: it may hold anything, and goes to a terminal.
    fn text(text: &str) -> Self {
        let clean = |char: char| if char.is_control() { '\u{fffd}' } else { char };
        Self::Text(text.chars().take(TEXT_LEN_MAX).map(clean).collect())
    }

    fn count(count: u64) -> Self {
        Self::Number(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// Texts from a to z, figures from many to few, what is not known last.
    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Number(a), Self::Number(b)) => b.cmp(a),
            (Self::Rate(a), Self::Rate(b)) => {
                let (a, b) = (a.unwrap_or(-1.0), b.unwrap_or(-1.0));
                b.total_cmp(&a)
            }
            (Self::None, Self::None) => Ordering::Equal,
            (Self::None, _) => Ordering::Greater,
            (_, Self::None) => Ordering::Less,
            (Self::Text(_), _) => Ordering::Less,
            (_, Self::Text(_)) => Ordering::Greater,
            (Self::Number(_), Self::Rate(_)) => Ordering::Less,
            (Self::Rate(_), Self::Number(_)) => Ordering::Greater,
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
            Self::Rate(Some(rate)) if *rate >= 100.0 => write!(f, "{rate:.0}"),
            Self::Rate(Some(rate)) => write!(f, "{rate:.1}"),
            Self::Rate(None) | Self::None => f.write_str("-"),
        }
    }
}

/// What is added up over nsqds, and over the channels of a topic.
#[derive(Clone, Debug, Default)]
struct Sum {
    nodes: i64,
    channels: BTreeMap<String, ()>,
    depth: i64,
    disk: i64,
    in_flight: i64,
    deferred: i64,
    requeued: u64,
    timed_out: u64,
    clients: i64,
    came: Rate,
    left: Rate,
    is_paused: bool,
}

impl Sum {
    fn add_channel(&mut self, channel: &ChannelStats) {
        self.depth = self.depth.saturating_add(channel.depth);
        self.disk = self.disk.saturating_add(channel.backend_depth);
        self.in_flight = self.in_flight.saturating_add(channel.in_flight_count);
        self.deferred = self.deferred.saturating_add(channel.deferred_count);
        self.requeued = self.requeued.saturating_add(channel.requeue_count);
        self.timed_out = self.timed_out.saturating_add(channel.timeout_count);
        self.clients = self.clients.saturating_add(channel.client_count);
    }

    /// The columns from `IN/S` on that topics and channels have in common.
    fn cells(&self) -> [Cell; 9] {
        [
            Cell::Rate(self.came.0),
            Cell::Rate(self.left.0),
            Cell::Number(self.depth),
            Cell::Number(self.disk),
            Cell::Number(self.in_flight),
            Cell::Number(self.deferred),
            Cell::count(self.requeued),
            Cell::count(self.timed_out),
            Cell::Number(self.clients),
        ]
    }
}

/// Messages per second, summed over those of which it is known.
#[derive(Clone, Copy, Debug, Default)]
struct Rate(Option<f64>);

impl Rate {
    fn add(&mut self, change: i128, seconds: f64) {
        // What an nsqd lost by a restart or an `empty` is not a rate.
        *self.0.get_or_insert(0.0) += change.max(0) as f64 / seconds;
    }
}

/// How a channel changed: messages that came, and messages that left it for good.
fn changes(now: &ChannelStats, before: &ChannelStats) -> (i128, i128) {
    let held = |it: &ChannelStats| {
        i128::from(it.depth) + i128::from(it.in_flight_count) + i128::from(it.deferred_count)
    };
    let came = i128::from(now.message_count.saturating_sub(before.message_count));
    (came, came - (held(now) - held(before)))
}

/// The round before as something to look up in, with the time since.
struct Before<'a> {
    snapshot: Option<&'a Snapshot>,
    seconds: f64,
}

impl<'a> Before<'a> {
    fn new(now: &Snapshot, before: Option<&'a Snapshot>) -> Self {
        let since = before.map(|before| now.at.saturating_duration_since(before.at));
        // Two rounds at the same instant would make rates infinite.
        let seconds = since.unwrap_or_default().as_secs_f64().max(0.001);
        Self { snapshot: before, seconds }
    }

    fn node(&self, address: &str) -> Option<&'a NodeStats> {
        self.snapshot?.nodes.get(address)?.as_ref().ok()
    }
}

/// Looks up the topics and channels of one nsqd by name: sorted, they are as many as 100,000.
struct Names<'a>(BTreeMap<(&'a str, &'a str), &'a ChannelStats>, BTreeMap<&'a str, u64>);

impl<'a> Names<'a> {
    fn new(node: Option<&'a NodeStats>) -> Self {
        let topics = || node.into_iter().flat_map(NodeStats::topics);
        let channels = topics().flat_map(|topic| {
            let channel =
                |it: &'a ChannelStats| ((topic.topic_name.as_str(), it.channel_name.as_str()), it);
            topic.channels().iter().map(channel)
        });
        let counts = topics().map(|topic| (topic.topic_name.as_str(), topic.message_count));
        Self(channels.collect(), counts.collect())
    }
}

fn topics(now: &Snapshot, before: Option<&Snapshot>) -> Table {
    let before = Before::new(now, before);
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for (address, node) in now.answers() {
        let Names(old_channels, old_topics) = Names::new(before.node(address));
        for topic in node.topics() {
            let name = topic.topic_name.as_str();
            let sum = sums.entry(name).or_default();
            sum.nodes += 1;
            sum.depth = sum.depth.saturating_add(topic.depth);
            sum.disk = sum.disk.saturating_add(topic.backend_depth);
            sum.is_paused |= topic.paused;
            if let Some(old) = old_topics.get(name) {
                let came = topic.message_count.saturating_sub(*old);
                sum.came.add(came.into(), before.seconds);
            }
            for channel in topic.channels() {
                sum.add_channel(channel);
                sum.channels.insert(channel.channel_name.clone(), ());
                if let Some(old) = old_channels.get(&(name, &channel.channel_name)) {
                    sum.left.add(changes(channel, old).1, before.seconds);
                }
            }
        }
    }
    let row = |(name, sum): (&str, Sum)| {
        let mut cells = vec![
            named(name, sum.is_paused),
            Cell::Number(sum.nodes),
            Cell::Number(i64::try_from(sum.channels.len()).unwrap_or(i64::MAX)),
        ];
        cells.extend(sum.cells());
        Row { key: (name.to_owned(), String::new()), cells }
    };
    Table { columns: TOPIC_COLUMNS, rows: sums.into_iter().map(row).collect() }
}

fn channels(now: &Snapshot, before: Option<&Snapshot>, only: Option<&str>) -> Table {
    let before = Before::new(now, before);
    let mut sums: BTreeMap<(&str, &str), Sum> = BTreeMap::new();
    for (address, node) in now.answers() {
        let Names(old_channels, _) = Names::new(before.node(address));
        for topic in node.topics() {
            let topic_name = topic.topic_name.as_str();
            if only.is_some_and(|only| only != topic_name) {
                continue;
            }
            for channel in topic.channels() {
                let names = (topic_name, channel.channel_name.as_str());
                let sum = sums.entry(names).or_default();
                sum.nodes += 1;
                sum.is_paused |= channel.paused;
                sum.add_channel(channel);
                if let Some(old) = old_channels.get(&names) {
                    let (came, left) = changes(channel, old);
                    sum.came.add(came, before.seconds);
                    sum.left.add(left, before.seconds);
                }
            }
        }
    }
    let row = |((topic, channel), sum): ((&str, &str), Sum)| {
        let mut cells =
            vec![named(channel, sum.is_paused), Cell::text(topic), Cell::Number(sum.nodes)];
        cells.extend(sum.cells());
        Row { key: (topic.to_owned(), channel.to_owned()), cells }
    };
    Table { columns: CHANNEL_COLUMNS, rows: sums.into_iter().map(row).collect() }
}

fn clients(now: &Snapshot) -> Table {
    let row = |address: &str, client: &ClientStats| {
        let name = if client.hostname.is_empty() { &client.client_id } else { &client.hostname };
        Row {
            key: (address.to_owned(), client.remote_address.clone()),
            cells: vec![
                Cell::text(name),
                Cell::text(&client.remote_address),
                Cell::text(address),
                Cell::Number(client.ready_count),
                Cell::Number(client.in_flight_count),
                Cell::count(client.finish_count),
                Cell::count(client.requeue_count),
                Cell::count(client.message_count),
                Cell::text(&client.user_agent),
            ],
        }
    };
    let rows = now
        .answers()
        .flat_map(|(address, node)| node.clients.iter().map(move |client| row(address, client)));
    Table { columns: CLIENT_COLUMNS, rows: rows.collect() }
}

fn nodes(now: &Snapshot, before: Option<&Snapshot>) -> Table {
    let before = Before::new(now, before);
    let mut rows = Vec::new();
    for (address, node) in &now.nodes {
        let mut cells = vec![Cell::text(address)];
        match node {
            Ok(node) => {
                let old = before.node(address);
                let (mut sum, mut channels) = (Sum::default(), 0);
                let Names(old_channels, old_topics) = Names::new(old);
                for topic in node.topics() {
                    sum.depth = sum.depth.saturating_add(topic.depth);
                    sum.disk = sum.disk.saturating_add(topic.backend_depth);
                    if let Some(count) = old_topics.get(topic.topic_name.as_str()) {
                        let came = topic.message_count.saturating_sub(*count);
                        sum.came.add(came.into(), before.seconds);
                    }
                    for channel in topic.channels() {
                        channels += 1;
                        sum.add_channel(channel);
                        let names = (topic.topic_name.as_str(), channel.channel_name.as_str());
                        if let Some(old) = old_channels.get(&names) {
                            sum.left.add(changes(channel, old).1, before.seconds);
                        }
                    }
                }
                if old.is_some() {
                    // It has nothing that could come or leave: that is a rate too.
                    sum.came.add(0, before.seconds);
                    sum.left.add(0, before.seconds);
                }
                cells.push(Cell::text(&node.health));
                cells.push(Cell::text(&node.version));
                cells.push(Cell::Number(i64::try_from(node.topics().len()).unwrap_or(i64::MAX)));
                cells.push(Cell::Number(channels));
                cells.extend(sum.cells());
            }
            Err(error) => {
                cells.push(Cell::text(&format!("no answer: {error}")));
                cells.resize(NODE_COLUMNS.len(), Cell::None);
            }
        }
        rows.push(Row { key: (address.clone(), String::new()), cells });
    }
    Table { columns: NODE_COLUMNS, rows }
}

/// A name, with a mark if what it names is paused.
fn named(name: &str, is_paused: bool) -> Cell {
    if is_paused { Cell::text(&format!("{name} (paused)")) } else { Cell::text(name) }
}

const TOPIC_COLUMNS: &[&str] = &[
    "TOPIC",
    "NSQDS",
    "CHANNELS",
    "IN/S",
    "OUT/S",
    "DEPTH",
    "DISK",
    "IN FLIGHT",
    "DEFERRED",
    "REQUEUED",
    "TIMED OUT",
    "CLIENTS",
];

const CHANNEL_COLUMNS: &[&str] = &[
    "CHANNEL",
    "TOPIC",
    "NSQDS",
    "IN/S",
    "OUT/S",
    "DEPTH",
    "DISK",
    "IN FLIGHT",
    "DEFERRED",
    "REQUEUED",
    "TIMED OUT",
    "CLIENTS",
];

const CLIENT_COLUMNS: &[&str] = &[
    "CLIENT",
    "ADDRESS",
    "NSQD",
    "RDY",
    "IN FLIGHT",
    "FINISHED",
    "REQUEUED",
    "MESSAGES",
    "USER AGENT",
];

const NODE_COLUMNS: &[&str] = &[
    "NSQD",
    "HEALTH",
    "VERSION",
    "TOPICS",
    "CHANNELS",
    "IN/S",
    "OUT/S",
    "DEPTH",
    "DISK",
    "IN FLIGHT",
    "DEFERRED",
    "REQUEUED",
    "TIMED OUT",
    "CLIENTS",
];

/// Characters of a text: what a client calls itself may be long.
const TEXT_LEN_MAX: usize = 200;
