//! What the cluster should know: every message that was published, and where each copy of it is.
//!
//! The model is fed with observations at the nsqds' edges (see
//! [`Observation`](crate::oracles::Observation)) and knows nothing of their insides. So it is exact
//! about what was said, and careful about what it can't see: a delivery whose time is up may or may
//! not have been taken back yet.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use sansq_core::name::{ChannelName, TopicName};
use sansq_core::storage::Store;
use sansq_core::time::Instant;

use crate::net::LinkId;
use crate::oracles::{Discard, Target};

/// Names a message by the order of publishing; the body carries it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct MessageNumber(pub u32);

/// A channel of an nsqd.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ChannelKey {
    /// The nsqd.
    pub node: usize,
    /// The topic.
    pub topic: TopicName,
    /// The channel.
    pub channel: ChannelName,
}

/// What a publisher was told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PublishOutcome {
    /// Nothing yet.
    Pending,
    /// The nsqd has it.
    Accepted,
    /// The nsqd has not got it.
    Refused,
    /// The nsqd may have it.
    Unknown,
}

/// A message that somebody published.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) target: Target,
    pub(crate) topic: TopicName,
    pub(crate) len: usize,
    pub(crate) at: Instant,
    /// It was to be kept back for a time, wherever and whenever it gets there.
    pub(crate) is_deferred: bool,
    /// No delivery before this time.
    pub(crate) not_before: Instant,
    pub(crate) outcome: PublishOutcome,
    /// The publisher was told that it is refused. A part of it may be there, but it counts for
    /// nothing.
    pub(crate) is_refused: bool,
    /// When the publisher was told.
    pub(crate) completed_at: Option<Instant>,
    /// Its nsqd died, and had not promised to keep it.
    pub(crate) may_be_lost: bool,
    /// Its nsqd died, and may have handed it to its channels, or finished it, without knowing: it
    /// may come again, or twice.
    pub(crate) may_repeat: bool,
    /// The name that its nsqd gave it, once that is known.
    pub(crate) id: Option<RawId>,
    /// What one nsqd has of a message that may be on several: the message.
    pub(crate) origin: Option<MessageNumber>,
    /// Of a message that may be on several nsqds: those that its publishes reached, and whether
    /// each may have lost it.
    pub(crate) reached: BTreeMap<usize, bool>,
    /// Of the same: whether some nsqd delivered it.
    pub(crate) is_there: bool,
}

impl Published {
    /// Whether it is a message of this nsqd.
    pub(crate) fn is_on(&self, node: usize) -> bool {
        self.target == Target::Nsqd(node)
    }
}

pub(crate) type RawId = [u8; 16];

/// A channel, as seen from outside.
#[derive(Clone, Debug)]
pub(crate) struct Channel {
    pub(crate) created_at: Instant,
    /// The first channel of a topic gets what collected there before.
    pub(crate) is_first: bool,
    pub(crate) copies: BTreeMap<MessageNumber, Copy>,
    pub(crate) requeues: u64,
    /// Its nsqd died and may have forgotten it.
    pub(crate) is_gone: bool,
}

/// A message in a channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copy {
    pub(crate) attempts: u16,
    /// It was finished at least once.
    pub(crate) is_done: bool,
    pub(crate) state: CopyState,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CopyState {
    /// May be delivered from this time on.
    Waiting(Instant),
    InFlight {
        link: LinkId,
        delivered: Instant,
        deadline: Instant,
    },
    Finished,
}

/// A subscribed connection.
#[derive(Clone, Debug)]
pub(crate) struct Subscriber {
    pub(crate) place: ChannelKey,
    pub(crate) msg_timeout: Duration,
    pub(crate) ready: u32,
    /// The highest RDY within the turn at `ready_at`: commands and deliveries of one turn can't be
    /// told apart in time.
    pub(crate) ready_in_turn: u32,
    pub(crate) ready_at: Instant,
    pub(crate) is_leaving: bool,
    pub(crate) in_flight: InFlight,
}

/// The deliveries of a connection that are not answered, each for itself: an nsqd that died may
/// have a message twice, so that what is known of the message says nothing about any one of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight(Vec<(MessageNumber, Instant)>);

impl InFlight {
    /// A message was sent, and has to be answered by `deadline`.
    pub(crate) fn sent(&mut self, number: MessageNumber, deadline: Instant) {
        self.0.push((number, deadline));
    }

    /// A delivery of the message was answered, or taken back: if there are several, the last one,
    /// which counts for the longest time.
    pub(crate) fn remove(&mut self, number: MessageNumber) {
        if let Some(at) = self.0.iter().rposition(|(other, _)| *other == number) {
            self.0.remove(at);
        }
    }

    /// The only delivery of the message has got more time.
    pub(crate) fn extend(&mut self, number: MessageNumber, deadline: Instant) {
        for (other, until) in &mut self.0 {
            if *other == number {
                *until = deadline;
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// How many deliveries are in flight for sure.
    pub(crate) fn count(&self, now: Instant) -> usize {
        self.0.iter().filter(|(_, deadline)| now < *deadline).count()
    }

    pub(crate) fn numbers(&self) -> impl Iterator<Item = MessageNumber> {
        self.0.iter().map(|(number, _)| *number)
    }
}

/// How many messages reached a topic of which their publisher may have tried several nsqds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arrivals {
    pub(crate) total: u64,
    /// Since the process began.
    pub(crate) since_start: u64,
}

/// Everything that was observed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) messages: Vec<Published>,
    pub(crate) ids: BTreeMap<(usize, RawId), MessageNumber>,
    pub(crate) channels: BTreeMap<ChannelKey, Channel>,
    pub(crate) subscribers: BTreeMap<LinkId, Subscriber>,
    /// When each nsqd died last, and when it stopped last in whatever way.
    pub(crate) died_at: BTreeMap<usize, Instant>,
    pub(crate) stopped_at: BTreeMap<usize, Instant>,
    /// What consumers did their work on.
    pub(crate) handled: BTreeSet<(TopicName, ChannelName, MessageNumber)>,
    /// Channels whose consumers all tell of their work.
    pub(crate) handling: BTreeSet<(TopicName, ChannelName)>,
    /// What was finished, wherever it was stored.
    pub(crate) done: BTreeSet<(TopicName, ChannelName, MessageNumber)>,
    /// How many messages that may be on several nsqds reached each topic.
    pub(crate) arrivals: BTreeMap<(usize, TopicName), Arrivals>,
    /// How many copies of deferred messages nsqds have or had.
    pub(crate) delayed: usize,
    /// What is being emptied or deleted.
    pub(crate) discarding: Vec<Discard>,
    /// What was published before these times went with its channel or topic, perhaps.
    pub(crate) floors: BTreeMap<ChannelKey, Instant>,
    pub(crate) topic_floors: BTreeMap<(usize, TopicName), Instant>,
    /// What each nsqd had on its disk when it died last: that comes again.
    pub(crate) kept: BTreeMap<usize, BTreeSet<(Store, MessageNumber)>>,
    /// Bodies in which a loss of power left holes, with their nsqds and names: records have no
    /// checksum.
    pub(crate) holes: BTreeSet<(usize, RawId, Vec<u8>)>,
    /// Such a body was delivered under these names.
    pub(crate) damaged: BTreeSet<(usize, RawId)>,
}

impl Model {
    pub(crate) fn message(&self, number: MessageNumber) -> Option<&Published> {
        self.messages.get(number.0 as usize)
    }

    /// The message that somebody published, which `number` is or is a part of.
    pub(crate) fn origin(&self, number: MessageNumber) -> MessageNumber {
        self.message(number).and_then(|message| message.origin).unwrap_or(number)
    }

    /// The channels of an nsqd that a message has to get to if it is there: those that existed for
    /// sure before it was published, and the first of its topic. An ephemeral one may drop it.
    pub(crate) fn owed_to(
        &self,
        message: &Published,
        node: usize,
    ) -> impl Iterator<Item = (&ChannelKey, &Channel)> {
        let (topic, at) = (message.topic, message.at);
        let topic_floor = self.topic_floors.get(&(node, topic));
        let is_above = move |floor: Option<&Instant>| floor.is_none_or(|floor| *floor < at);
        self.channels.iter().filter(move |(place, channel)| {
            place.node == node
                && place.topic == topic
                && !place.channel.is_ephemeral()
                && !channel.is_gone
                && (channel.is_first || channel.created_at < at)
                && is_above(topic_floor)
                && is_above(self.floors.get(*place))
        })
    }
}

/// The body of a message: its number, then bytes that follow from it.
pub fn body_of(number: MessageNumber, len: usize) -> Vec<u8> {
    let mut body = format!("{:08}", number.0).into_bytes();
    let filler = (0..len.saturating_sub(body.len())).map(|at| (number.0 as usize + at) as u8);
    body.extend(filler);
    body
}

/// Which message a body says that it is; `None`: it is none of the simulator's.
pub fn number_of(body: &[u8]) -> Option<MessageNumber> {
    let digits = core::str::from_utf8(body.get(..8)?).ok()?;
    digits.parse().ok().map(MessageNumber)
}
