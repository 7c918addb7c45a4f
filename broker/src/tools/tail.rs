//! `sansq tail`: prints the messages of topics as they come.

use core::time::Duration;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;

use bytes::{Bytes, BytesMut};
use sansq_core::client::{
    Connection, ConnectionOptions, ConnectionOutput, Identity, Negotiated, Received,
};
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::time::Instant;

use super::link::{self, Clock, EVENTS_MAX, Happening};
use super::{TailOptions, ToolError, lookup};

/// Prints messages until standard output is closed or enough are printed.
///
/// Every message is finished once it is written. An nsqd that goes is connected to again; one that is
/// named and can't be reached at the start is an error.
///
/// # Errors
/// [`ToolError`] if a server can't be reached or standard output fails.
pub fn run_tail(mut options: TailOptions) -> Result<(), ToolError> {
    options.settle();
    let (events, inbox) = sync_channel(EVENTS_MAX);
    let clock = Clock::start();
    let number = clock.now().unix.0.rem_euclid(1_000_000);
    let channel =
        options.channel.or_else(|| ChannelName::new(format!("tail{number:06}#ephemeral")).ok());
    let channel = channel.ok_or_else(|| ToolError::Lookup("no channel".into()))?;
    let connection = link::connection_options();
    let mut tail = Tail {
        options,
        channel,
        clock,
        connection,
        events,
        links: BTreeMap::new(),
        dials: 0,
        printed: 0,
    };
    tail.find()?;
    let result = tail.run(&inbox);
    for link in tail.links.values_mut() {
        link.hang_up();
    }
    result
}

/// What the main thread is told.
#[derive(Debug)]
enum Event {
    /// Something happened to a connection: the one of this number.
    Link(Place, u64, Happening),
    /// An nsqlookupd knows an nsqd with a topic.
    Found(Place),
}

/// A topic at an nsqd.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Place {
    address: String,
    topic: TopicName,
}

struct Tail {
    options: TailOptions,
    channel: ChannelName,
    clock: Clock,
    connection: ConnectionOptions,
    events: SyncSender<Event>,
    links: BTreeMap<Place, Link>,
    dials: u64,
    printed: u64,
}

/// One subscription. It stays in the table while it waits to connect again.
struct Link {
    /// Tells its connection from those it had before.
    dial: u64,
    connection: Connection,
    socket: Option<TcpStream>,
    input: BytesMut,
    /// Whether it has been subscribed before; then its loss is no reason to give up.
    was_open: bool,
    redial_at: Option<Instant>,
}

impl Tail {
    /// Connects to the nsqds that are named, and has the nsqlookupds asked for more, now and then.
    fn find(&mut self) -> Result<(), ToolError> {
        for topic in self.options.topic.clone() {
            for address in self.options.nsqd_tcp_address.clone() {
                self.dial(Place { address, topic });
            }
        }
        let lookupds = self.options.lookupd_http_address.clone();
        if lookupds.is_empty() {
            return Ok(());
        }
        let topics = self.options.topic.clone();
        for topic in &topics {
            let found = lookup::nsqds(&lookupds, Some(topic)).map_err(ToolError::Lookup)?;
            for address in found {
                self.dial(Place { address, topic: *topic });
            }
        }
        let events = self.events.clone();
        let asking = thread::Builder::new().name("ask nsqlookupd".into()).spawn(move || {
            loop {
                thread::sleep(LOOKUP_INTERVAL);
                for topic in &topics {
                    // One that does not answer now may answer the next time.
                    for address in lookup::nsqds(&lookupds, Some(topic)).unwrap_or_default() {
                        if events.send(Event::Found(Place { address, topic: *topic })).is_err() {
                            return;
                        }
                    }
                }
            }
        });
        drop(asking);
        Ok(())
    }

    fn run(&mut self, inbox: &Receiver<Event>) -> Result<(), ToolError> {
        while !self.is_done() {
            let deadline = |link: &Link| match link.redial_at {
                Some(at) => Some(at),
                None => link.connection.poll_timeout(),
            };
            let next = self.links.values().filter_map(deadline).min();
            match inbox.recv_timeout(self.clock.until(next)) {
                Ok(Event::Found(place)) => {
                    if !self.links.contains_key(&place) {
                        self.dial(place);
                    }
                }
                Ok(Event::Link(place, dial, happening)) => self.handle(&place, dial, happening)?,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            self.handle_timeouts()?;
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.options.n > 0 && self.printed >= self.options.n
    }

    fn dial(&mut self, place: Place) {
        let connection = Connection::dial(&self.connection, &place.address, self.clock.now());
        let was_open = self.links.get(&place).is_some_and(|link| link.was_open);
        self.dials += 1;
        let dial = self.dials;
        let (input, redial_at) = (BytesMut::new(), None);
        let link = Link { dial, connection, socket: None, input, was_open, redial_at };
        self.links.insert(place.clone(), link);
        let address = place.address.clone();
        let wrap = move |happening| Event::Link(place.clone(), dial, happening);
        link::open(address, self.connection.dial_timeout, self.events.clone(), wrap);
    }

    fn handle(&mut self, place: &Place, dial: u64, happening: Happening) -> Result<(), ToolError> {
        let now = self.clock.now();
        let Some(link) = self.links.get_mut(place) else { return Ok(()) };
        if link.dial != dial || link.redial_at.is_some() {
            return Ok(());
        }
        match happening {
            Happening::Connected(socket) => {
                link.socket = Some(socket);
                link.connection.handle_connected(now);
                link.write();
            }
            Happening::Bytes(bytes) => return self.take(place, &bytes),
            Happening::Failed(reason) => return self.lose(place, reason),
            Happening::Closed(reason) => {
                let reason = reason.unwrap_or_else(|| "the server closed the connection".into());
                return self.lose(place, reason);
            }
        }
        Ok(())
    }

    /// Takes bytes of an nsqd: prints the messages and finishes them.
    fn take(&mut self, place: &Place, bytes: &[u8]) -> Result<(), ToolError> {
        let now = self.clock.now();
        let Some(link) = self.links.get_mut(place) else { return Ok(()) };
        link.input.extend_from_slice(bytes);
        let mut heard = Heard::default();
        let result = link.connection.handle_input(&mut link.input, now, &mut heard);
        if heard.is_open {
            link.was_open = true;
            link.connection.subscribe(&place.topic, &self.channel);
            link.connection.ready(self.options.max_in_flight);
        }
        let left = if self.options.n > 0 { self.options.n - self.printed } else { u64::MAX };
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let taken = &heard.messages[..heard.messages.len().min(left)];
        print(place, taken, self.options.print_topic).map_err(ToolError::Output)?;
        for message in taken {
            link.connection.finish(&message.id);
        }
        self.printed += taken.len() as u64;
        link.write();
        match (heard.refusal, result) {
            (Some(reason), _) => self.give_up(place, reason),
            (None, Err(error)) if error.is_refusal() => self.give_up(place, error.to_string()),
            (None, Err(error)) => self.lose(place, error.to_string()),
            (None, Ok(())) => Ok(()),
        }
    }

    /// A connection is lost, or was never made: it is tried again, unless it is one that the user named
    /// and that has never worked.
    fn lose(&mut self, place: &Place, reason: String) -> Result<(), ToolError> {
        let named = self.options.nsqd_tcp_address.contains(&place.address);
        let Some(link) = self.links.get_mut(place) else { return Ok(()) };
        link.hang_up();
        if named && !link.was_open {
            return self.give_up(place, reason);
        }
        if named {
            link.redial_at = Some(self.clock.now().instant + REDIAL_AFTER);
        } else {
            // The nsqlookupds are asked again before long.
            self.links.remove(place);
        }
        Ok(())
    }

    fn give_up(&self, place: &Place, reason: String) -> Result<(), ToolError> {
        Err(ToolError::Subscribe { address: place.address.clone(), reason })
    }

    fn handle_timeouts(&mut self) -> Result<(), ToolError> {
        let now = self.clock.now();
        let places: Vec<_> = self.links.keys().cloned().collect();
        for place in places {
            let Some(link) = self.links.get_mut(&place) else { continue };
            match link.redial_at {
                Some(at) if at <= now.instant => self.dial(place),
                Some(_) => {}
                None => match link.connection.handle_timeout(now) {
                    Ok(()) => {}
                    Err(error) => self.lose(&place, error.to_string())?,
                },
            }
        }
        Ok(())
    }
}

impl Link {
    fn hang_up(&mut self) {
        if let Some(socket) = self.socket.take() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Writes what there is. A broken socket is reported by its reading thread.
    fn write(&mut self) {
        let mut bytes = Vec::new();
        while let Some(socket) = &mut self.socket
            && self.connection.wants_transmit()
        {
            self.connection.swap_transmit(&mut bytes);
            if socket.write_all(&bytes).is_err() {
                return;
            }
        }
    }
}

/// What a connection told in one call.
#[derive(Default)]
struct Heard {
    is_open: bool,
    refusal: Option<String>,
    messages: Vec<Received>,
}

impl ConnectionOutput for Heard {
    fn authenticated(&mut self, _: Identity) {}

    fn opened(&mut self, _: &Negotiated) {
        self.is_open = true;
    }

    fn response(&mut self, _: Bytes) {}

    fn error(&mut self, text: Bytes) {
        let text = String::from_utf8_lossy(&text).into_owned();
        // A message that took so long to print that it timed out; everything else is the end.
        if !text.starts_with("E_FIN_FAILED") {
            self.refusal.get_or_insert(text);
        }
    }

    fn message(&mut self, message: Received) {
        self.messages.push(message);
    }
}

/// Prints messages, one per line.
fn print(place: &Place, messages: &[Received], with_topic: bool) -> std::io::Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    for message in messages {
        if with_topic {
            write!(out, "{} | ", place.topic)?;
        }
        out.write_all(&message.body)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// How often nsqlookupds are asked.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(5);

/// How long an nsqd that was lost is left alone.
const REDIAL_AFTER: Duration = Duration::from_secs(1);
