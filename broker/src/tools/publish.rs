//! `sansq pub`: publishes its arguments, or what comes in on standard input.

use core::time::Duration;
use std::collections::VecDeque;
use std::io::{BufRead, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;

use bytes::Bytes;
use sansq_core::client::{
    ConnectionError, DialId, Producer, ProducerActions, ProducerOptions, PublishError, PublishId,
};
use sansq_core::name::TopicName;
use sansq_core::time::Instant;

use super::link::{self, Clock, EVENTS_MAX, Happening};
use super::lookup::{self, Port};
use super::{PubOptions, ToolError, http};

/// Publishes the messages of the arguments or of standard input, to every nsqd that is named, or to
/// one that an nsqlookupd knows. Returns how many messages were acknowledged by each.
///
/// # Errors
/// [`ToolError`] for the first message that was not published.
pub fn run_pub(mut options: PubOptions) -> Result<u64, ToolError> {
    if !options.lookupd_http_address.is_empty() {
        let found =
            lookup::nsqds(&http::default_agent(), &options.lookupd_http_address, None, Port::Tcp)
                .map_err(ToolError::Lookup)?;
        let none = || ToolError::Lookup("the nsqlookupds know no nsqd".into());
        options.nsqd_tcp_address = vec![found.into_iter().next().ok_or_else(none)?];
    }
    let (events, inbox) = sync_channel(EVENTS_MAX);
    feed(&options, events.clone());
    Publishing::new(&options, events).run(&inbox)
}

/// What the main thread is told.
#[derive(Debug)]
enum Event {
    /// Messages to publish.
    Messages(Vec<Bytes>),
    /// There are no more, or they can't be read.
    End(std::io::Result<()>),
    /// Something happened to the connection of an nsqd, by number.
    Link(usize, DialId, Happening),
}

/// Puts the messages into `events`, on a thread of its own.
fn feed(options: &PubOptions, events: SyncSender<Event>) {
    let (messages, delimiter) = (options.messages.clone(), options.delimiter);
    let feeding = thread::Builder::new().name("read messages".into()).spawn(move || {
        let result = if messages.is_empty() {
            read(&mut std::io::stdin().lock(), delimiter, &events)
        } else {
            let _ = events.send(Event::Messages(messages.into_iter().map(Bytes::from).collect()));
            Ok(())
        };
        let _ = events.send(Event::End(result));
    });
    drop(feeding);
}

/// Reads messages, as many at a time as are there without waiting. Empty ones are skipped: NSQ has no
/// messages without a body.
fn read(
    input: &mut impl BufRead,
    delimiter: u8,
    events: &SyncSender<Event>,
) -> std::io::Result<()> {
    let mut message = Vec::new();
    loop {
        let buffered = input.fill_buf()?;
        if buffered.is_empty() {
            break;
        }
        let len = buffered.len();
        let mut messages = Vec::new();
        for piece in buffered.split_inclusive(|byte| *byte == delimiter) {
            match piece.strip_suffix(&[delimiter]) {
                Some(end) => {
                    message.extend_from_slice(end);
                    let whole = core::mem::take(&mut message);
                    if !whole.is_empty() {
                        messages.push(Bytes::from(whole));
                    }
                }
                None => message.extend_from_slice(piece),
            }
        }
        input.consume(len);
        if !messages.is_empty() && events.send(Event::Messages(messages)).is_err() {
            return Ok(());
        }
    }
    if !message.is_empty() {
        let _ = events.send(Event::Messages(vec![Bytes::from(message)]));
    }
    Ok(())
}

struct Publishing {
    topic: TopicName,
    clock: Clock,
    events: SyncSender<Event>,
    /// Messages that wait for room, or for their time if there is a rate.
    queue: VecDeque<Bytes>,
    is_input_over: bool,
    /// Time between two messages; zero for none.
    interval: Duration,
    next_at: Instant,
    nsqds: Vec<Nsqd>,
}

struct Nsqd {
    producer: Producer,
    actions: ProducerActions,
    socket: Option<TcpStream>,
    was_connected: bool,
    acknowledged: u64,
    failure: Option<PublishError>,
}

impl Publishing {
    fn new(options: &PubOptions, events: SyncSender<Event>) -> Self {
        let clock = Clock::start();
        let nsqd = |address: &String| {
            let seed = clock.now().unix.0.unsigned_abs();
            let options = ProducerOptions {
                connection: link::connection_options(),
                ..ProducerOptions::default()
            };
            let producer = Producer::new(address.clone(), options, seed);
            Nsqd {
                producer: producer.expect("the default options are in range"),
                actions: ProducerActions::default(),
                socket: None,
                was_connected: false,
                acknowledged: 0,
                failure: None,
            }
        };
        Self {
            topic: options.topic,
            clock,
            events,
            queue: VecDeque::new(),
            is_input_over: false,
            interval: Duration::from_secs(1).checked_div(options.rate as u32).unwrap_or_default(),
            next_at: Instant::ZERO,
            nsqds: options.nsqd_tcp_address.iter().map(nsqd).collect(),
        }
    }

    fn run(mut self, inbox: &Receiver<Event>) -> Result<u64, ToolError> {
        loop {
            self.publish();
            self.carry_out()?;
            if self.nsqds.iter().all(|nsqd| nsqd.producer.is_stopped()) {
                return Ok(self.nsqds.iter().map(|nsqd| nsqd.acknowledged).min().unwrap_or(0));
            }
            self.wait(inbox)?;
        }
    }

    /// Waits for something to happen, and tells the machines.
    fn wait(&mut self, inbox: &Receiver<Event>) -> Result<(), ToolError> {
        let deadlines = self.nsqds.iter().filter_map(|nsqd| nsqd.producer.poll_timeout());
        let paced = (!self.queue.is_empty() && !self.interval.is_zero()).then_some(self.next_at);
        let timeout = self.clock.until(deadlines.chain(paced).min());
        match inbox.recv_timeout(timeout) {
            Ok(Event::Messages(messages)) => self.queue.extend(messages),
            Ok(Event::End(result)) => {
                self.is_input_over = true;
                result.map_err(ToolError::Input)?;
            }
            Ok(Event::Link(index, dial, happening)) => self.handle(index, dial, happening),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        let now = self.clock.now();
        for nsqd in &mut self.nsqds {
            nsqd.producer.handle_timeout(now, &mut nsqd.actions);
        }
        Ok(())
    }

    fn handle(&mut self, index: usize, dial: DialId, happening: Happening) {
        let (now, nsqd) = (self.clock.now(), &mut self.nsqds[index]);
        let Nsqd { producer, actions, socket, was_connected, failure, .. } = nsqd;
        match happening {
            Happening::Connected(writer) => {
                *socket = Some(writer);
                *was_connected = true;
                producer.handle_connected(dial, now, actions);
            }
            Happening::Failed(reason) => {
                // A person waits for it: an address that never worked is not tried again.
                if !*was_connected {
                    let error = ConnectionError::Dial(reason.clone());
                    failure.get_or_insert(PublishError::NotSent(error));
                }
                producer.handle_connect_failed(dial, &reason, now, actions);
            }
            Happening::Bytes(mut bytes) => producer.handle_input(dial, &mut bytes, now, actions),
            Happening::Closed(reason) => {
                *socket = None;
                producer.handle_closed(dial, reason.as_deref(), now, actions);
            }
        }
    }

    /// Hands messages to the producers as far as all of them have room, and as their time comes.
    fn publish(&mut self) {
        let now = self.clock.now();
        while let Some(body) = self.queue.front() {
            let paced = !self.interval.is_zero();
            if (paced && now.instant < self.next_at) || !self.nsqds.iter().all(Nsqd::has_room) {
                return;
            }
            for nsqd in &mut self.nsqds {
                let (topic, body) = (&self.topic, body.clone());
                if let Err(error) = nsqd.producer.publish(topic, body, now, &mut nsqd.actions) {
                    nsqd.failure.get_or_insert(error);
                }
            }
            self.queue.pop_front();
            if paced {
                self.next_at = self.next_at.max(now.instant) + self.interval;
            }
        }
        if self.is_input_over {
            for nsqd in &mut self.nsqds {
                nsqd.producer.close(now, &mut nsqd.actions);
            }
        }
    }

    fn carry_out(&mut self) -> Result<(), ToolError> {
        for (index, nsqd) in self.nsqds.iter_mut().enumerate() {
            while !nsqd.actions.is_empty() {
                if !nsqd.actions.net.close.is_empty() {
                    nsqd.hang_up();
                }
                for dial in nsqd.actions.net.dial.drain(..) {
                    let id = dial.id;
                    let wrap = move |happening| Event::Link(index, id, happening);
                    link::open(dial.address, CONNECT_TIMEOUT, self.events.clone(), wrap);
                }
                if !nsqd.actions.net.transmit.is_empty() {
                    nsqd.write(self.clock);
                }
                let completed = core::mem::take(&mut nsqd.actions.completed);
                completed.into_iter().for_each(|outcome| nsqd.count(outcome));
                nsqd.actions.clear();
            }
            if let Some(error) = nsqd.failure.take() {
                let (address, acknowledged) = (nsqd.producer.address().into(), nsqd.acknowledged);
                return Err(ToolError::Publish { address, acknowledged, error });
            }
        }
        Ok(())
    }
}

impl Nsqd {
    /// Whether another publish fits, with something to spare.
    fn has_room(&self) -> bool {
        self.producer.outstanding() < OUTSTANDING_MAX
            && self.producer.outstanding_bytes() < OUTSTANDING_LEN_MAX
    }

    fn hang_up(&mut self) {
        if let Some(socket) = self.socket.take() {
            // Its reading thread ends with it, and reports nothing that the producer would heed.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Writes everything there is. A broken socket is reported by its reading thread.
    fn write(&mut self, clock: Clock) {
        let mut bytes = Vec::new();
        while let Some(socket) = &mut self.socket {
            self.producer.swap_transmit(clock.now(), &mut bytes);
            if bytes.is_empty() {
                return;
            }
            if socket.write_all(&bytes).is_err() {
                let _ = socket.shutdown(Shutdown::Both);
                return;
            }
        }
    }

    fn count(&mut self, (_, outcome): (PublishId, Result<(), PublishError>)) {
        match outcome {
            Ok(()) => self.acknowledged += 1,
            Err(error) => {
                self.failure.get_or_insert(error);
            }
        }
    }
}

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What may be outstanding before no more is handed to a producer; well below its own limits.
const OUTSTANDING_MAX: usize = 1000;
const OUTSTANDING_LEN_MAX: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_end_at_the_delimiter_and_empty_ones_are_skipped() {
        let (events, inbox) = sync_channel(100);
        // A buffer of three bytes, so that messages are cut.
        let mut input = std::io::BufReader::with_capacity(3, &b"one\n\n\ntwo\r\nthree"[..]);
        read(&mut input, b'\n', &events).unwrap();
        drop(events);
        let messages: Vec<_> = inbox
            .iter()
            .flat_map(|event| match event {
                Event::Messages(messages) => messages,
                Event::End(_) | Event::Link(..) => Vec::new(),
            })
            .collect();
        assert_eq!(messages, ["one", "two\r", "three"]);
    }
}
