//! Plays a transcript: does what its lines say, and puts what comes behind each of them.

use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;

use bytes::Bytes;
use sansq_core::client::frame::Received;
use sansq_core::duration::{GoDuration, parse_go_duration};
use sansq_core::http::HttpReply;
use sansq_core::time::{Instant, Now};
use sansq_core::version::SANSQ_VERSION;

use crate::bytes::{Ids, sent, shown, value};
use crate::lookupd::Nsqlookupd;
use crate::nsqd::Nsqd;

/// How a transcript is played.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    /// Of an nsqd.
    pub(crate) shards: u16,
    /// How many bytes arrive at a time.
    pub(crate) piece: usize,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.piece {
            usize::MAX => write!(f, "shards: {}, in one piece", self.shards),
            piece => write!(f, "shards: {}, {piece} bytes at a time", self.shards),
        }
    }
}

/// A server, with its clock. Clients are numbers, in the order in which they connect.
pub(crate) trait Server {
    /// What a client says first.
    fn magic(&self) -> &'static [u8];
    fn connect(&mut self);
    fn send(&mut self, client: usize, bytes: &[u8]);
    /// The client sends nothing more.
    fn half_close(&mut self, client: usize);
    /// The client's socket is gone.
    fn close(&mut self, client: usize);
    /// Somebody asks over HTTP.
    fn ask(&mut self, method: &str, uri: &str, body: Bytes) -> Result<(), String>;
    /// An auth server answers; `None` if it does not in time.
    fn answer(&mut self, answer: Option<(u16, &str)>) -> Result<(), String>;
    fn stop(&mut self);
    fn now(&self) -> Now;
    fn poll_timeout(&self) -> Option<Instant>;
    fn advance(&mut self, duration: Duration);
    /// What came since the last look.
    fn take(&mut self) -> Vec<Came>;
}

/// What a server sends, and does.
pub(crate) enum Came {
    /// To a client.
    Response(usize, Bytes),
    Error(usize, Bytes),
    Message(usize, Received),
    /// The server closes a client's connection.
    Closed(usize),
    /// The answer to a request over HTTP.
    Reply(HttpReply),
    /// A request to an auth server.
    Call(String),
    /// A line of the log.
    Log(String),
}

/// The transcript with what comes now in place of what it said.
///
/// # Errors
/// The line that can't be understood.
pub(crate) fn play(text: &str, way: Way) -> Result<String, String> {
    let mut player = None;
    let mut played = String::new();
    for (number, line) in text.lines().enumerate() {
        let at_line = |why| format!("line {}: {why}", number + 1);
        if line.starts_with(['<', '!']) {
            continue;
        }
        // What is compiled without them has no TLS and no compression.
        if player.is_none() && line.ends_with(" upgrade") && !cfg!(feature = "upgrade") {
            return Ok(text.into());
        }
        played.push_str(line);
        played.push('\n');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let player = match &mut player {
            None => player.insert(Player::start(line, way).map_err(at_line)?),
            Some(player) => {
                player.step(line).map_err(at_line)?;
                player
            }
        };
        played.push_str(&player.came());
    }
    Ok(played)
}

struct Player {
    server: Box<dyn Server>,
    piece: usize,
    /// By number.
    names: Vec<String>,
    ids: Ids,
    /// What came while time passed, and when.
    early: Vec<(String, String)>,
    has_log: bool,
}

impl Player {
    /// The first line says which server it is: `nsqd --max-rdy-count=7`, `nsqlookupd log`.
    fn start(line: &str, way: Way) -> Result<Self, String> {
        let mut words = line.split(' ');
        let program = words.next().unwrap_or_default();
        let (switches, words): (Vec<_>, Vec<_>) =
            words.partition(|word| ["log", "upgrade"].contains(word));
        let words = words.into_iter().map(|word| {
            let flag = word.strip_prefix("--").and_then(|flag| flag.split_once('='));
            flag.ok_or_else(|| what_is(word))
        });
        let flags = words.collect::<Result<BTreeMap<_, _>, _>>();
        let server: Box<dyn Server> = match program {
            "nsqd" => Box::new(Nsqd::start(way.shards, flags?)?),
            "nsqlookupd" => Box::new(Nsqlookupd::start(flags?)?),
            _ => return Err("a transcript begins with nsqd or nsqlookupd".into()),
        };
        let (names, ids, early) = (Vec::new(), Ids::default(), Vec::new());
        Ok(Self { server, piece: way.piece, names, ids, early, has_log: switches.contains(&"log") })
    }

    fn step(&mut self, line: &str) -> Result<(), String> {
        if let Some((name, text)) = line.strip_prefix("> ").and_then(|line| line.split_once(": ")) {
            return match name {
                "auth" => self.answer(text),
                "http" => self.ask(text),
                _ => self.send(name, text),
            };
        }
        match line.split_once(' ') {
            Some(("@", duration)) => self.wait(duration),
            Some(("connect", name)) => {
                self.connect(name);
                Ok(())
            }
            Some(("half-close", name)) => {
                self.server.half_close(self.client(name)?);
                Ok(())
            }
            Some(("close", name)) => {
                self.server.close(self.client(name)?);
                Ok(())
            }
            None if line == "stop" => {
                self.server.stop();
                Ok(())
            }
            _ => Err(what_is(line)),
        }
    }

    /// `> a: SUB t c`. A name that is new connects, and sends its magic.
    fn send(&mut self, name: &str, text: &str) -> Result<(), String> {
        let mut bytes = sent(text, &self.ids)?;
        let client = self.client(name).unwrap_or_else(|_| {
            bytes.splice(..0, self.server.magic().iter().copied());
            self.connect(name)
        });
        for piece in bytes.chunks(self.piece.min(bytes.len())) {
            self.server.send(client, piece);
        }
        Ok(())
    }

    /// `> http: POST /pub?topic=t | hello`.
    fn ask(&mut self, text: &str) -> Result<(), String> {
        let (line, body) = text.split_once(" | ").unwrap_or((text, ""));
        let (method, uri) = line.split_once(' ').ok_or_else(|| what_is(line))?;
        let body = value(body, &self.ids)?;
        self.server.ask(method, uri, body.into())
    }

    /// `> auth: 200 {"ttl":60}`, `> auth: nothing`.
    fn answer(&mut self, text: &str) -> Result<(), String> {
        if text == "nothing" {
            return self.server.answer(None);
        }
        let (status, body) = text.split_once(' ').unwrap_or((text, ""));
        let status = status.parse().map_err(|_| what_is(text))?;
        self.server.answer(Some((status, body)))
    }

    /// `@ +250ms`. What comes on the way is shown with its time.
    fn wait(&mut self, text: &str) -> Result<(), String> {
        let duration = text.strip_prefix('+').and_then(|text| parse_go_duration(text).ok());
        let duration = duration.ok_or_else(|| what_is(text))?;
        let start = self.server.now().instant;
        let end = start + duration;
        while let Some(next) = self.server.poll_timeout().filter(|next| *next < end) {
            self.server.advance(next.saturating_since(self.server.now().instant));
            let at = GoDuration(self.server.now().instant.saturating_since(start));
            let came = self.lines();
            self.early
                .extend(came.into_iter().map(|(who, text)| (who, format!("{text}  @ +{at}"))));
        }
        self.server.advance(end.saturating_since(self.server.now().instant));
        Ok(())
    }

    fn connect(&mut self, name: &str) -> usize {
        self.server.connect();
        self.names.push(name.into());
        self.names.len() - 1
    }

    /// The last that has this name: who is closed may come again.
    fn client(&self, name: &str) -> Result<usize, String> {
        let found = self.names.iter().rposition(|other| other == name);
        found.ok_or_else(|| format!("{name} is not connected"))
    }

    /// What came since the last step, client by client: between them there is no order that holds
    /// on any number of shards.
    fn came(&mut self) -> String {
        let mut lines = core::mem::take(&mut self.early);
        lines.extend(self.lines());
        lines.sort_by(|(left, _), (right, _)| left.cmp(right));
        let line = |(who, text): &(String, String)| match who.as_str() {
            LOG => format!("! {text}\n"),
            who => format!("< {who}: {text}\n"),
        };
        lines.iter().map(line).collect()
    }

    fn lines(&mut self) -> Vec<(String, String)> {
        let came = self.server.take();
        came.into_iter().filter_map(|came| self.line(came)).collect()
    }

    /// Whose line it is, and what it says.
    fn line(&mut self, came: Came) -> Option<(String, String)> {
        let (who, text) = match came {
            Came::Response(client, text) => (self.names[client].clone(), shown(&text)),
            Came::Error(client, text) => {
                (self.names[client].clone(), format!("error {}", shown(&text)))
            }
            Came::Message(client, Received { id, attempts, body, .. }) => {
                let text =
                    format!("message {} attempt {attempts}: {}", self.ids.name(&id), shown(&body));
                (self.names[client].clone(), text)
            }
            Came::Closed(client) => (self.names[client].clone(), "closed".into()),
            Came::Reply(reply) => ("http".into(), self::reply(&reply)),
            Came::Call(text) => ("auth".into(), text),
            Came::Log(text) if self.has_log => (LOG.into(), text),
            Came::Log(_) => return None,
        };
        Some((who, self.ids.hide(&text).replace(SANSQ_VERSION, "$version")))
    }
}

/// Status, body, and the headers that do not follow from it; a text of several lines on lines of
/// its own.
fn reply(reply: &HttpReply) -> String {
    let mut text = reply.status.to_string();
    let usual = [
        ("X-NSQ-Content-Type", Some("nsq; version=1.0")),
        (
            "Content-Type",
            match reply.body.first() {
                None => None,
                Some(b'{') => Some("application/json; charset=utf-8"),
                Some(_) => Some("text/plain; charset=utf-8"),
            },
        ),
    ];
    for (name, value) in usual {
        let has = reply.header(name);
        if has != value {
            text.push_str(&format!(" ({name}: {})", has.unwrap_or("none")));
        }
    }
    for (name, value) in &reply.headers {
        if !usual.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            text.push_str(&format!(" ({name}: {value})"));
        }
    }
    let lines: Vec<_> = reply.body.split(|byte| *byte == b'\n').map(shown).collect();
    match &lines[..] {
        [line] if line.is_empty() => {}
        [line] => text.push_str(&format!(" {line}")),
        lines => {
            text.extend(lines.iter().map(|line| format!("\n<   | {line}").trim_end().to_owned()))
        }
    }
    text
}

pub(crate) fn what_is(text: &str) -> String {
    format!("what is {text:?}?")
}

/// Behind all names.
const LOG: &str = "~log";
