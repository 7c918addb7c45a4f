//! What is seen, and what must not be.

use core::fmt;
use core::time::Duration;
use std::collections::BTreeSet;

use bytes::Bytes;
use sansq_core::name::ChannelName;
use sansq_core::name::TopicName;
use sansq_core::storage::Store;

use crate::model::{ChannelKey, MessageNumber, PublishOutcome};
use crate::net::LinkId;

/// Something that was seen. What happens within one call of a shard is told in this order: commands
/// that were acted on, connections that are leaving, channels that came, deliveries, and who has
/// left.
#[derive(Clone, Debug)]
pub enum Observation {
    /// A publisher begins to publish the next message, see
    /// [`Oracles::next_number`](super::Oracles::next_number).
    Published {
        /// Where to.
        target: Target,
        /// The topic.
        topic: TopicName,
        /// The length of the body.
        len: usize,
        /// How long it is to be kept back.
        delay: Duration,
    },
    /// A publisher is told the outcome.
    Completed {
        /// The message.
        message: MessageNumber,
        /// The outcome.
        outcome: PublishOutcome,
    },
    /// A publish of messages that go [anywhere](Target::Anywhere) has reached an nsqd, which may
    /// take it or not.
    Reached {
        /// The nsqd.
        node: usize,
        /// The topic.
        topic: TopicName,
        /// The messages.
        messages: Vec<MessageNumber>,
    },
    /// A consumer has done with a message what it is there for.
    Handled {
        /// The topic.
        topic: TopicName,
        /// The channel.
        channel: ChannelName,
        /// The message.
        message: MessageNumber,
    },
    /// A channel came into being.
    ChannelCreated(ChannelKey),
    /// A topic was deleted, with its channels.
    TopicDeleted {
        /// The nsqd.
        node: usize,
        /// The topic.
        topic: TopicName,
    },
    /// A lasting channel was deleted.
    ChannelDeleted(ChannelKey),
    /// An nsqd is asked to empty or delete something.
    Discarding(Discard),
    /// It has done so, or will not any more.
    Discarded(Discard),
    /// An nsqd that starts finds this channel in its list.
    ChannelLoaded(ChannelKey),
    /// An nsqd died.
    Died {
        /// The nsqd.
        node: usize,
        /// Whether everything that it accepted was written.
        has_all_on_disk: bool,
        /// If the machine died with it: the bodies that have holes since, by the ids of their
        /// messages.
        damaged: BTreeSet<([u8; 16], Vec<u8>)>,
        /// What is on its disk now, and will be read.
        kept: BTreeSet<(Store, MessageNumber)>,
    },
    /// An nsqd is down and does not come back.
    Gone {
        /// The nsqd.
        node: usize,
    },
    /// An nsqd has stopped in good order.
    Stopped {
        /// The nsqd.
        node: usize,
        /// Whether its disk failed meanwhile: it does not wait for it for ever.
        has_failed: bool,
    },
    /// SUB.
    Subscribed {
        /// The connection.
        link: LinkId,
        /// The channel.
        place: ChannelKey,
        /// How long a delivery may stay unanswered.
        msg_timeout: Duration,
    },
    /// RDY.
    Ready {
        /// The connection.
        link: LinkId,
        /// The count.
        count: u32,
    },
    /// FIN.
    Finished {
        /// The connection.
        link: LinkId,
        /// The message's id.
        id: [u8; 16],
    },
    /// REQ.
    Requeued {
        /// The connection.
        link: LinkId,
        /// The message's id.
        id: [u8; 16],
        /// The delay.
        delay: Duration,
    },
    /// TOUCH.
    Touched {
        /// The connection.
        link: LinkId,
        /// The message's id.
        id: [u8; 16],
    },
    /// A connection ends in this call: deliveries to it count, and what was in flight on it may be
    /// delivered again.
    Leaving(LinkId),
    /// A connection has ended, and with it its subscription.
    Left(LinkId),
    /// A message was sent.
    Delivered {
        /// The connection.
        link: LinkId,
        /// The message's id.
        id: [u8; 16],
        /// How often, it says.
        attempts: u16,
        /// The body.
        body: Bytes,
    },
}

/// What is emptied or deleted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Discard {
    /// The nsqd.
    pub node: usize,
    /// The topic.
    pub topic: TopicName,
    /// The channel; `None`: the topic, and with it perhaps all its channels.
    pub channel: Option<ChannelName>,
}

/// Where a message is published.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Target {
    /// To this nsqd, once.
    Nsqd(usize),
    /// To whichever nsqd takes it, perhaps to several.
    Anywhere {
        /// Whether it is not to be stored twice.
        once: bool,
    },
}

/// Something that must not happen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Violation {
    /// Delivered after a FIN that was acted on.
    AfterFinish(MessageNumber, Box<ChannelKey>),
    /// Attempts did not rise by one.
    Attempts {
        /// The message.
        message: MessageNumber,
        /// What it should say.
        expected: u16,
        /// What it says.
        found: u16,
    },
    /// FIN, REQ or TOUCH was acted on although the message was not in flight there.
    NotInFlight(LinkId, String),
    /// Delivered to a connection that is not subscribed.
    NotSubscribed(LinkId),
    /// Delivered although nobody published it, or not to this topic, or not this body.
    NotPublished(String),
    /// More in flight than RDY.
    OverReady {
        /// The connection.
        link: LinkId,
        /// How much is in flight.
        in_flight: usize,
        /// RDY.
        ready: u32,
    },
    /// The publisher was told that it is not there, but it was delivered.
    Refused(MessageNumber),
    /// Accepted, but not finished on a channel that it is owed to.
    Lost(MessageNumber, Box<ChannelKey>),
    /// Delivered before its delay was over.
    TooEarly(MessageNumber),
    /// Delivered while it is in flight to somebody.
    TwiceInFlight(MessageNumber, Box<ChannelKey>),
    /// One message has two ids, or two messages one.
    Ids(MessageNumber),
    /// It was finished and no consumer had done anything with it.
    NotHandled(MessageNumber, Box<ChannelKey>),
    /// An nsqd counts what is not there, or does not count what is.
    Counts(String),
    /// An nsqd or a client holds more than its limits allow.
    Memory(String),
    /// Something was written and not synced in time.
    Unsynced(String),
    /// It was stored twice, although its publisher would rather have lost it.
    StoredTwice(MessageNumber),
    /// Something else; the text says what.
    Other(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AfterFinish(message, place) => {
                write!(f, "message {} came again after FIN at {place}", message.0)
            }
            Self::Attempts { message, expected, found } => {
                write!(f, "message {} says attempt {found}, not {expected}", message.0)
            }
            Self::NotInFlight(link, id) => {
                write!(f, "an answer to {id} counted, which is not in flight on link {}", link.0)
            }
            Self::NotSubscribed(link) => {
                write!(f, "a delivery on link {}, which is not subscribed", link.0)
            }
            Self::NotPublished(text) => write!(f, "delivered and never published: {text}"),
            Self::OverReady { link, in_flight, ready } => {
                write!(f, "{in_flight} in flight on link {} with RDY {ready}", link.0)
            }
            Self::Refused(message) => {
                write!(f, "message {} was refused and is delivered", message.0)
            }
            Self::Lost(message, place) => {
                write!(f, "message {} was accepted and not finished at {place}", message.0)
            }
            Self::TooEarly(message) => write!(f, "message {} came before its time", message.0),
            Self::TwiceInFlight(message, place) => {
                write!(f, "message {} is in flight twice at {place}", message.0)
            }
            Self::Ids(message) => write!(f, "message {} shares or changes its id", message.0),
            Self::NotHandled(message, place) => {
                write!(f, "message {} was finished at {place} and never handled", message.0)
            }
            Self::StoredTwice(message) => write!(f, "message {} was stored twice", message.0),
            Self::Counts(text) | Self::Memory(text) | Self::Other(text) | Self::Unsynced(text) => {
                f.write_str(text)
            }
        }
    }
}

impl core::error::Error for Violation {}

impl fmt::Display for ChannelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nsqd {} {}/{}", self.node, self.topic, self.channel)
    }
}
