//! What goes when there is no room: names that nobody produces, those first that are so for
//! longest, then registrations of the producer that has the most.
//!
//! So whoever fills an nsqlookupd up, on one connection or on many, keeps nobody out who wants less
//! than it has itself.

use core::mem;
use core::net::SocketAddr;

use alloc::vec::Vec;

use super::{Leaving, Registrations};
use crate::arena::{ChannelId, ConnId, TopicId};
use crate::nsqlookupd::Category;
use crate::protocol::lookup::Registration;

impl Registrations {
    /// How many registrations a producer has.
    pub(in crate::nsqlookupd) fn size(&self, conn: ConnId) -> usize {
        self.producers.get(&conn).map_or(0, |producer| producer.registered.len())
    }

    /// Whether a producer that is gone has left registrations behind: [`Self::remove_slice`].
    pub(in crate::nsqlookupd) fn is_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Takes at most [`SLICE`] registrations of a producer that is gone: its address, what is gone
    /// now, and whether that was the last of it. `None` if there is none.
    pub(in crate::nsqlookupd) fn remove_slice(
        &mut self,
    ) -> Option<(SocketAddr, Vec<Category>, bool)> {
        let Leaving { conn, remote, mut registered } = self.leaving.pop_front()?;
        let mut gone = Vec::new();
        for _ in 0..SLICE {
            // A topic comes before its channels, and so goes behind them.
            let Some((topic, channel)) = registered.pop_last() else { break };
            gone.extend(self.leave(conn, topic, channel));
        }
        let is_last = registered.is_empty();
        if !is_last {
            self.leaving.push_front(Leaving { conn, remote, registered });
        }
        Some((remote, gone, is_last))
    }

    /// Counts a topic and channel that somebody wants as the last that became unused, if they are,
    /// and returns what [`Self::forget_unused`] may go up to.
    pub(in crate::nsqlookupd) fn renew(&mut self, wanted: &Registration) -> u64 {
        let before = self.moments;
        let Some(topic) = self.topic(&wanted.topic) else { return before };
        let (id, channel) = (topic.id, wanted.channel.and_then(|it| self.channel_id(topic, it)));
        if let Some(topic) = self.topics.get_mut(id) {
            self.unused.remove(&mem::take(&mut topic.unused));
        }
        self.note_unused(id, None);
        if let Some(entry) = channel.and_then(|channel| self.channels.get_mut(channel)) {
            self.unused.remove(&mem::take(&mut entry.unused));
            self.note_unused(id, channel);
        }
        before
    }

    /// Forgets the topic or channel that has been without a producer for longest, if it became so
    /// at `until` or before. Of a topic its channels go first.
    pub(in crate::nsqlookupd) fn forget_unused(&mut self, until: u64) -> Option<Category> {
        let (_, (id, channel)) = self.unused.range(..=until).next()?;
        let (id, channel) = (*id, *channel);
        let name = self.topics.get(id)?.name;
        let channel = match channel {
            Some(channel) => self.channels.get(channel).map(|channel| channel.name),
            None => self.channel_entries(id).next().and_then(|((_, name), _)| name),
        };
        if let Some(channel) = channel {
            self.delete_channel(&name, &channel);
            return Some(Category::Channel(name, channel));
        }
        self.delete_topic(&name);
        Some(Category::Topic(name))
    }

    /// Takes one registration from the producer that has the most, if it has more than `size`.
    pub(in crate::nsqlookupd) fn take_from_largest(
        &mut self,
        size: usize,
    ) -> Option<(ConnId, Category)> {
        let (_, conn) = self.by_size.last().filter(|(largest, _)| *largest > size).copied()?;
        let (topic, channel) = self.producers.get_mut(&conn)?.registered.pop_last()?;
        let gone = self.leave(conn, topic, channel);
        self.resize(conn);
        gone.map(|gone| (conn, gone))
    }

    /// Topics and channels without producers.
    pub(in crate::nsqlookupd) fn unused(&self) -> usize {
        self.unused.len()
    }

    /// Notes that a topic or channel has no producer, if that is so and new.
    pub(super) fn note_unused(&mut self, topic: TopicId, channel: Option<ChannelId>) {
        let place = match channel {
            None => self.topics.get_mut(topic).map(|it| (it.producers.is_empty(), &mut it.unused)),
            Some(channel) => {
                self.channels.get_mut(channel).map(|it| (it.producers.is_empty(), &mut it.unused))
            }
        };
        if let Some((true, place)) = place
            && *place == 0
        {
            self.moments += 1;
            *place = self.moments;
            self.unused.insert(self.moments, (topic, channel));
        }
    }

    /// Puts a producer where its number of registrations belongs.
    pub(super) fn resize(&mut self, conn: ConnId) {
        let Some(producer) = self.producers.get_mut(&conn) else { return };
        let size = producer.registered.len();
        let before = mem::replace(&mut producer.size, size);
        if before != size {
            self.by_size.remove(&(before, conn));
            if size > 0 {
                self.by_size.insert((size, conn));
            }
        }
    }

    /// Takes a producer off a channel, or off a topic whose channels it has left.
    fn leave(
        &mut self,
        conn: ConnId,
        topic: TopicId,
        channel: Option<ChannelId>,
    ) -> Option<Category> {
        let name = self.topics.get(topic)?.name;
        let Some(channel) = channel else {
            self.leave_topic(conn, topic, &[]);
            return Some(Category::Topic(name));
        };
        Some(Category::Channel(name, self.leave_channel(conn, topic, channel)?))
    }
}

/// So many registrations of a producer that is gone are taken back in one turn: about a
/// millisecond.
pub(in crate::nsqlookupd) const SLICE: usize = 1000;
