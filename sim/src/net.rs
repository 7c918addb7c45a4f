//! The network: connections as pairs of byte pipes.
//!
//! Fault model. Bytes of one direction keep their order and arrive after a latency that the seed
//! draws for each write; a reader gets them in pieces of any length. A pipe holds a bounded number
//! of bytes, so that a slow reader makes its writer wait. A connection may break at any time: what
//! was under way is lost, and each end notices later, by itself. It may also stand still for a
//! while. Dials may fail. Once the network is calm, none of this is begun any more, and everything
//! under way arrives.

use core::time::Duration;
use std::collections::BTreeSet;

use bytes::{Buf, BytesMut};
use sansq_core::arena::PeerId;
use sansq_core::rng::Rng;
use sansq_core::time::{Instant, Now};

use crate::chance::Chance;
use crate::events::{Queue, WorldEvent};

/// Names a connection; never reused.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct LinkId(pub usize);

/// One end of a connection.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct End {
    /// The connection.
    pub link: LinkId,
    /// Which end.
    pub side: Side,
}

/// Which end of a connection.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Side {
    /// The one that dialled.
    Client,
    /// The one that listened.
    Server,
}

/// Who is at an end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Endpoint {
    /// An nsqd, as a server.
    Nsqd(usize),
    /// An nsqd, as a client of an nsqlookupd.
    Peer {
        /// The nsqd.
        node: usize,
        /// Its name for the nsqlookupd.
        peer: PeerId,
    },
    /// An nsqlookupd.
    Lookupd(usize),
    /// A client.
    Client(usize),
    /// Nobody listens here.
    Nobody,
}

/// A program on a machine of its own.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Process {
    /// An nsqd.
    Nsqd(usize),
    /// An nsqlookupd.
    Lookupd(usize),
    /// A client.
    Client(usize),
}

impl Endpoint {
    /// The program.
    pub const fn process(self) -> Option<Process> {
        match self {
            Self::Nsqd(node) | Self::Peer { node, .. } => Some(Process::Nsqd(node)),
            Self::Lookupd(index) => Some(Process::Lookupd(index)),
            Self::Client(index) => Some(Process::Client(index)),
            Self::Nobody => None,
        }
    }
}

/// How bad the network is.
#[derive(Clone, Copy, Debug)]
pub struct NetOptions {
    /// The longest that bytes are under way.
    pub latency_max: Duration,
    /// The most bytes that one read gets.
    pub chunk_max: usize,
    /// The most bytes that one direction holds, written and not read.
    pub capacity: usize,
    /// So many ends of a hundred read slowly.
    pub slow_percent: u64,
    /// So many dials of a hundred fail.
    pub dial_failure_percent: u64,
}

/// All connections.
#[derive(Debug)]
pub struct Net {
    links: Vec<Link>,
    options: NetOptions,
    rng: Rng,
    calm: bool,
    /// From whom nothing gets to whom.
    cuts: BTreeSet<(Process, Process)>,
    /// What waits for a cut to heal.
    held: Vec<(Process, Process, WorldEvent)>,
    /// Clients that do not keep to the protocol.
    impolite: BTreeSet<usize>,
}

#[derive(Debug)]
struct Link {
    who: [Endpoint; 2],
    open: [bool; 2],
    /// By the side that writes.
    pipes: [Pipe; 2],
    /// Whether the server has taken it on.
    accepted: bool,
    broken: bool,
    stalled_until: Instant,
}

#[derive(Debug)]
struct Pipe {
    bytes: BytesMut,
    /// How many of them may be read.
    arrived: usize,
    /// When the last of them arrives.
    arrives_at: Instant,
    /// The writer has closed.
    ended: bool,
    /// The reader was told so.
    end_seen: bool,
    /// The reader has closed: what is written is dropped.
    dropped: bool,
    /// A read is in the queue.
    read_due: bool,
    /// The reader wants to read.
    wanted: bool,
    writer_waits: bool,
    read_delay_max: Duration,
}

/// What a read gave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Read {
    pub(crate) len: usize,
    pub(crate) is_end: bool,
}

impl Net {
    pub(crate) const fn new(options: NetOptions, rng: Rng) -> Self {
        Self {
            links: Vec::new(),
            options,
            rng,
            calm: false,
            cuts: BTreeSet::new(),
            held: Vec::new(),
            impolite: BTreeSet::new(),
        }
    }

    /// From now on nothing fails any more.
    pub(crate) fn calm_down(&mut self) {
        self.calm = true;
        for link in &mut self.links {
            for pipe in &mut link.pipes {
                pipe.read_delay_max = READ_DELAY_MAX;
            }
        }
    }

    /// Begins a connection.
    pub(crate) fn dial(
        &mut self,
        client: Endpoint,
        server: Endpoint,
        now: Now,
        queue: &mut Queue,
    ) -> LinkId {
        let id = LinkId(self.links.len());
        let pipes = [self.pipe(), self.pipe()];
        let fails = server == Endpoint::Nobody
            || !self.calm && self.rng.percent(self.options.dial_failure_percent);
        self.links.push(Link {
            who: [client, server],
            open: [true, !fails],
            pipes,
            accepted: false,
            broken: fails,
            stalled_until: Instant::ZERO,
        });
        let there = now.instant + self.latency();
        if fails {
            queue.push(there, WorldEvent::DialFailed(id));
        } else {
            queue.push(there, WorldEvent::Accepted(id));
        }
        id
    }

    /// Lets nothing more through from one program to another; what is under way waits, and
    /// connections stay.
    pub(crate) fn cut(&mut self, from: Process, to: Process) {
        self.cuts.insert((from, to));
    }

    /// Lets everything through again from one program to another.
    pub(crate) fn heal(&mut self, from: Process, to: Process, now: Now, queue: &mut Queue) {
        self.cuts.remove(&(from, to));
        let held = core::mem::take(&mut self.held);
        let (freed, held): (Vec<_>, _) =
            held.into_iter().partition(|(a, b, _)| (*a, *b) == (from, to));
        self.held = held;
        for (_, _, event) in freed {
            let at = now.instant + self.latency();
            queue.push(at, event);
        }
    }

    /// All that is cut.
    pub(crate) fn cuts(&self) -> Vec<(Process, Process)> {
        self.cuts.iter().copied().collect()
    }

    /// Whether nothing gets through from one program to another.
    pub(crate) fn is_cut(&self, from: Process, to: Process) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// Keeps back what would have to get through a cut.
    pub(crate) fn holds(&mut self, event: WorldEvent) -> bool {
        if self.cuts.is_empty() {
            return false;
        }
        let (link, to) = match event {
            WorldEvent::Accepted(link) => (link, Side::Server),
            WorldEvent::Connected(link) | WorldEvent::DialFailed(link) => (link, Side::Client),
            WorldEvent::Arrived(end, _) | WorldEvent::Writable(end) | WorldEvent::Reset(end) => {
                (end.link, end.side)
            }
            WorldEvent::Ask(_)
            | WorldEvent::Audit
            | WorldEvent::Call(_)
            | WorldEvent::Calm
            | WorldEvent::Check
            | WorldEvent::Deadline(_)
            | WorldEvent::Disk { .. }
            | WorldEvent::Fault
            | WorldEvent::Heal(_)
            | WorldEvent::Lane { .. }
            | WorldEvent::LookupdUp(_)
            | WorldEvent::Moved { .. }
            | WorldEvent::NodeUp(_)
            | WorldEvent::Readable(_)
            | WorldEvent::Started(_)
            | WorldEvent::Wake { .. } => return false,
        };
        let who = self.links[link.0].who;
        let (from, to) = (who[to.other() as usize].process(), who[to as usize].process());
        let (Some(from), Some(to)) = (from, to) else { return false };
        let is_cut = self.is_cut(from, to);
        if is_cut {
            self.held.push((from, to, event));
        }
        is_cut
    }

    /// The server takes a connection on; what arrived already can be read now.
    pub(crate) fn accept(&mut self, id: LinkId, now: Now, queue: &mut Queue) {
        self.links[id.0].accepted = true;
        let back = now.instant + self.latency();
        queue.push(back, WorldEvent::Connected(id));
        self.schedule_read(End { link: id, side: Side::Server }, now, queue);
    }

    /// From now on the clients' ends of new connections count as those of programs that keep to the
    /// protocol, or do not, by the number of the client.
    pub(crate) fn set_polite(&mut self, client: usize, is_polite: bool) {
        if is_polite {
            self.impolite.remove(&client);
        } else {
            self.impolite.insert(client);
        }
    }

    /// Whether the client's end keeps to the protocol.
    pub(crate) fn is_polite(&self, id: LinkId) -> bool {
        match self.links[id.0].who[Side::Client as usize] {
            Endpoint::Client(index) => !self.impolite.contains(&index),
            Endpoint::Nsqd(_) | Endpoint::Peer { .. } | Endpoint::Lookupd(_) | Endpoint::Nobody => {
                true
            }
        }
    }

    /// Who is at this end.
    pub(crate) fn who(&self, end: End) -> Endpoint {
        self.links[end.link.0].who[end.side as usize]
    }

    /// Whether this end still has its socket.
    pub(crate) fn is_open(&self, end: End) -> bool {
        self.links[end.link.0].open[end.side as usize]
    }

    /// Writes the front of `bytes`, as much as there is room for, and takes it off.
    pub(crate) fn write(
        &mut self,
        end: End,
        bytes: &mut BytesMut,
        now: Now,
        queue: &mut Queue,
    ) -> usize {
        let latency = self.latency();
        let link = &mut self.links[end.link.0];
        let pipe = &mut link.pipes[end.side as usize];
        if link.broken || pipe.dropped {
            let len = bytes.len();
            bytes.clear();
            return len;
        }
        let room = self.options.capacity.saturating_sub(pipe.bytes.len());
        let len = room.min(bytes.len());
        pipe.writer_waits = len < bytes.len();
        if len > 0 {
            pipe.bytes.extend_from_slice(&bytes[..len]);
            bytes.advance(len);
            let at = (now.instant + latency).max(link.stalled_until).max(pipe.arrives_at);
            pipe.arrives_at = at;
            queue.push(at, WorldEvent::Arrived(end.other(), len));
        }
        len
    }

    /// Bytes, or the end of them, have reached `end`.
    pub(crate) fn arrived(&mut self, end: End, len: usize, now: Now, queue: &mut Queue) {
        let pipe = self.incoming(end);
        pipe.arrived = (pipe.arrived + len).min(pipe.bytes.len());
        self.schedule_read(end, now, queue);
    }

    /// Reads some of what has arrived, appending it to `input`.
    pub(crate) fn read(
        &mut self,
        end: End,
        input: &mut BytesMut,
        now: Now,
        queue: &mut Queue,
    ) -> Read {
        let latency = self.latency();
        let chunk = 1 + self.rng.below(self.options.chunk_max.max(1) as u64) as usize;
        let pipe = self.incoming(end);
        pipe.read_due = false;
        if !pipe.wanted {
            return Read { len: 0, is_end: false };
        }
        let len = chunk.min(pipe.arrived);
        input.extend_from_slice(&pipe.bytes[..len]);
        pipe.bytes.advance(len);
        pipe.arrived -= len;
        let is_end = pipe.ended && pipe.bytes.is_empty() && !pipe.end_seen;
        pipe.end_seen |= is_end;
        if len > 0 && core::mem::take(&mut pipe.writer_waits) {
            queue.push(now.instant + latency, WorldEvent::Writable(end.other()));
        }
        self.schedule_read(end, now, queue);
        Read { len, is_end }
    }

    /// Whether this end wants to read.
    pub(crate) fn set_wanted(&mut self, end: End, wanted: bool, now: Now, queue: &mut Queue) {
        self.incoming(end).wanted = wanted;
        self.schedule_read(end, now, queue);
    }

    /// Closes this end: the other reads what was written and then the end.
    pub(crate) fn close(&mut self, end: End, now: Now, queue: &mut Queue) {
        let latency = self.latency();
        let link = &mut self.links[end.link.0];
        if !core::mem::replace(&mut link.open[end.side as usize], false) || link.broken {
            return;
        }
        let pipe = &mut link.pipes[end.side as usize];
        pipe.ended = true;
        let at = (now.instant + latency).max(link.stalled_until).max(pipe.arrives_at);
        queue.push(at, WorldEvent::Arrived(end.other(), 0));
        let pipe = self.incoming(end);
        pipe.dropped = true;
        pipe.bytes.clear();
        pipe.arrived = 0;
        if core::mem::take(&mut pipe.writer_waits) {
            queue.push(now.instant + latency, WorldEvent::Writable(end.other()));
        }
    }

    /// Closes this end without a word; the other notices that the connection broke.
    pub(crate) fn reset(&mut self, end: End, now: Now, queue: &mut Queue) {
        self.links[end.link.0].open[end.side as usize] = false;
        self.break_link(end.link, now, queue);
    }

    /// Breaks a connection in the middle: both ends notice, each in its time.
    pub(crate) fn break_link(&mut self, id: LinkId, now: Now, queue: &mut Queue) {
        let latencies = [self.latency(), self.latency()];
        let link = &mut self.links[id.0];
        if core::mem::replace(&mut link.broken, true) {
            return;
        }
        for (side, latency) in [Side::Client, Side::Server].into_iter().zip(latencies) {
            link.pipes[side as usize].bytes.clear();
            link.pipes[side as usize].arrived = 0;
            if link.open[side as usize] {
                queue.push(now.instant + latency, WorldEvent::Reset(End { link: id, side }));
            }
        }
    }

    /// Loses a connection so that neither end notices: what is written goes nowhere.
    pub(crate) fn silence(&mut self, id: LinkId) {
        let link = &mut self.links[id.0];
        link.broken = true;
        for pipe in &mut link.pipes {
            pipe.bytes.clear();
            pipe.arrived = 0;
        }
    }

    /// Lets nothing more through until `until`.
    pub(crate) fn stall(&mut self, id: LinkId, until: Instant) {
        let link = &mut self.links[id.0];
        link.stalled_until = link.stalled_until.max(until);
    }

    /// An end notices that its connection broke. Whether it had not closed itself.
    pub(crate) fn notice_reset(&mut self, end: End) -> bool {
        core::mem::replace(&mut self.links[end.link.0].open[end.side as usize], false)
    }

    /// A connection that works, if there is one, drawn from the stream of whoever asks.
    pub(crate) fn any_live(&self, rng: &mut Rng) -> Option<LinkId> {
        let live: Vec<_> = (0..self.links.len())
            .filter(|at| self.links[*at].accepted && !self.links[*at].broken)
            .filter(|at| self.links[*at].open == [true; 2])
            .collect();
        (!live.is_empty()).then(|| LinkId(*rng.pick(&live)))
    }

    fn pipe(&mut self) -> Pipe {
        let slow = !self.calm && self.rng.percent(self.options.slow_percent);
        Pipe {
            bytes: BytesMut::new(),
            arrived: 0,
            arrives_at: Instant::ZERO,
            ended: false,
            end_seen: false,
            dropped: false,
            read_due: false,
            wanted: true,
            writer_waits: false,
            read_delay_max: if slow { SLOW_READ_DELAY_MAX } else { READ_DELAY_MAX },
        }
    }

    fn incoming(&mut self, end: End) -> &mut Pipe {
        &mut self.links[end.link.0].pipes[end.side.other() as usize]
    }

    fn latency(&mut self) -> Duration {
        self.rng.within(self.options.latency_max) + LATENCY_MIN
    }

    /// Lets the reader at `end` read, if it wants to and there is something.
    fn schedule_read(&mut self, end: End, now: Now, queue: &mut Queue) {
        if end.side == Side::Server && !self.links[end.link.0].accepted {
            return;
        }
        let pipe = self.incoming(end);
        let is_end = pipe.ended && pipe.bytes.is_empty() && !pipe.end_seen;
        if pipe.wanted && !pipe.read_due && (pipe.arrived > 0 || is_end) {
            pipe.read_due = true;
            let delay_max = pipe.read_delay_max;
            let at = now.instant + self.rng.within(delay_max);
            queue.push(at, WorldEvent::Readable(end));
        }
    }
}

impl Side {
    /// The other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

impl End {
    /// The other end of the same connection.
    #[must_use]
    pub const fn other(self) -> Self {
        Self { link: self.link, side: self.side.other() }
    }
}

/// Nothing arrives in no time.
const LATENCY_MIN: Duration = Duration::from_micros(1);

/// The longest between two reads of one end.
const READ_DELAY_MAX: Duration = Duration::from_micros(50);

/// The same of an end that reads slowly.
const SLOW_READ_DELAY_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: NetOptions = NetOptions {
        latency_max: Duration::from_millis(3),
        chunk_max: 7,
        capacity: 50,
        slow_percent: 50,
        dial_failure_percent: 0,
    };

    /// A reader that takes whatever comes, and a writer that goes on when it may.
    fn transfer(seed: u64, bytes: &[u8]) -> Vec<u8> {
        let (mut net, mut queue) = (Net::new(OPTIONS, Rng::new(seed)), Queue::new(Rng::new(seed)));
        let now = Now::from_millis(0);
        let link = net.dial(Endpoint::Client(0), Endpoint::Nsqd(0), now, &mut queue);
        let (mut input, mut outbox) = (BytesMut::new(), BytesMut::from(bytes));
        let client = End { link, side: Side::Client };
        while let Some((at, event)) = queue.pop() {
            let now = Now { instant: at, ..now };
            if let WorldEvent::Accepted(link) = event {
                net.accept(link, now, &mut queue);
            } else if matches!(event, WorldEvent::Connected(_) | WorldEvent::Writable(_)) {
                net.write(client, &mut outbox, now, &mut queue);
                assert!(net.links[0].pipes[0].bytes.len() <= OPTIONS.capacity);
                if outbox.is_empty() {
                    net.close(client, now, &mut queue);
                }
            } else if let WorldEvent::Arrived(end, len) = event {
                net.arrived(end, len, now, &mut queue);
            } else if let WorldEvent::Readable(end) = event {
                let read = net.read(end, &mut input, now, &mut queue);
                assert!(read.len <= OPTIONS.chunk_max);
                if read.is_end {
                    return input.to_vec();
                }
            } else {
                panic!("{event:?} is not part of a transfer");
            }
        }
        panic!("the end never came");
    }

    #[test]
    fn bytes_arrive_whole_and_in_order_through_a_narrow_pipe() {
        let bytes: Vec<u8> = (0..1000_u32).map(|n| n as u8).collect();
        for seed in 0..20 {
            assert_eq!(transfer(seed, &bytes), bytes);
        }
    }

    #[test]
    fn a_broken_connection_loses_what_is_under_way_and_both_ends_notice() {
        let (mut net, mut queue) = (Net::new(OPTIONS, Rng::new(1)), Queue::new(Rng::new(1)));
        let now = Now::from_millis(0);
        let link = net.dial(Endpoint::Client(0), Endpoint::Nsqd(0), now, &mut queue);
        let client = End { link, side: Side::Client };
        net.accept(link, now, &mut queue);
        net.write(client, &mut BytesMut::from(&b"lost"[..]), now, &mut queue);
        net.break_link(link, now, &mut queue);
        let mut noticed = Vec::new();
        while let Some((at, event)) = queue.pop() {
            let now = Now { instant: at, ..now };
            if let WorldEvent::Arrived(end, len) = event {
                net.arrived(end, len, now, &mut queue);
            } else if let WorldEvent::Reset(end) = event {
                noticed.push((end.side, net.notice_reset(end)));
            }
            assert!(!matches!(event, WorldEvent::Readable(_)), "there is nothing to read");
        }
        noticed.sort_unstable();
        assert_eq!(noticed, [(Side::Client, true), (Side::Server, true)]);
    }
}
