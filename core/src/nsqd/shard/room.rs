//! Room for what clients have sent and have no answer to yet, in bytes.
//!
//! A publish takes room from the moment its command is there until it is answered, wherever it
//! waits meanwhile: on its way to another shard, for its topic, for the disk. The body of a command
//! that is only half there takes the room of all of it. Who finds none is not read from.
//!
//! ```text
//!   of one client, up to ALLOWANCE_LEN ──► the small part, a quarter of a shard's room
//!   whatever it has beyond that ─────────► the shared part, in the order of asking
//! ```
//!
//! The parts are apart so that clients with small messages go on although others have filled the
//! shared part with large ones. A client that has nothing unanswered may always send a small
//! message; else what a disk holds up would stop those who do not need it.
//!
//! Nobody holds some room and waits for more: a body gets all of its room or none. So what is taken
//! comes back: publishes are answered, and bodies are there in time, or their clients are closed
//! ([`BODY_PATIENCE`] while somebody waits).

use alloc::collections::{BTreeSet, VecDeque};
use core::mem;

use super::clients::Clients;
use super::timer::Timer;
use crate::arena::ConnId;
use crate::deadlines::Deadlines;
use crate::input::READ_LEN_MAX;
use crate::nsqd::actions::Actions;
use crate::nsqd::config::{ALLOWANCE_LEN, BODY_PATIENCE, Config, SMALL_ROOM_MIN};
use crate::nsqd::connection::{Connection, Share, Want};
use crate::time::{Instant, Now};

/// The room of a shard.
#[derive(Debug)]
pub(super) struct Room {
    shared_max: usize,
    small_max: usize,
    /// All that is taken.
    held: usize,
    /// What of it is within the allowances of connections that there are.
    small: usize,
    /// Connections that want some of the shared part, in order.
    waiting: VecDeque<ConnId>,
    /// Connections that want some of the small part, in order.
    waiting_small: VecDeque<ConnId>,
    /// Bodies that are half there and have room, by the time at which they got it.
    bodies: BTreeSet<(Instant, ConnId)>,
    /// The time at which the shard will look at them.
    armed: Option<Instant>,
    /// How often somebody had to wait.
    waits: u64,
    /// The most connections that there were at a time.
    conns_max: usize,
}

impl Room {
    /// The room of one of `shards` shards.
    pub(super) fn new(config: &Config, shards: u16) -> Self {
        let share = config.unanswered_share(shards);
        Self {
            shared_max: (share - share / 4).max(config.body_len_max()),
            small_max: (share / 4).max(SMALL_ROOM_MIN),
            held: 0,
            small: 0,
            waiting: VecDeque::new(),
            waiting_small: VecDeque::new(),
            bodies: BTreeSet::new(),
            armed: None,
            waits: 0,
            conns_max: 0,
        }
    }

    /// Bytes that are taken.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// There are so many connections.
    pub(super) fn note_connections(&mut self, conns: usize) {
        self.conns_max = self.conns_max.max(conns);
    }

    /// The most that may be taken, as many connections as there were.
    pub(super) const fn len_max(&self) -> usize {
        let each = self.conns_max.saturating_mul(ALLOWANCE_LEN + 2 * READ_LEN_MAX);
        self.shared_max.saturating_add(self.small_max).saturating_add(each)
    }

    /// How often a connection was not read from because there was none.
    pub(super) const fn waits(&self) -> u64 {
        self.waits
    }

    /// What is taken of the shared part.
    const fn shared(&self) -> usize {
        self.held.saturating_sub(self.small)
    }

    /// Whether the connection, which is one of `conns`, may have its next command decoded, with
    /// which `input` begins. If not, it waits from now on.
    pub(super) fn admits(
        &mut self,
        connection: &mut Connection,
        input: &[u8],
        conns: usize,
    ) -> bool {
        let Share { unanswered, reserved, .. } = connection.share;
        let is_free = if reserved > 0 {
            true
        } else if unanswered < ALLOWANCE_LEN {
            self.has_small(unanswered, conns)
        } else {
            self.waiting.is_empty() && self.shared() < self.shared_max
        };
        if is_free || !connection.publishes_next(input) {
            return true;
        }
        let want =
            if unanswered < ALLOWANCE_LEN { Want::Small } else { Want::Shared(READ_LEN_MAX) };
        self.wait(connection, want);
        false
    }

    /// Whether a connection with so much unanswered, less than its allowance, may have more.
    const fn has_small(&self, unanswered: usize, conns: usize) -> bool {
        if unanswered == 0 {
            // What connections left behind that are gone counts, or nothing would limit it.
            let all = self.shared_max.saturating_add(self.small_max);
            return self.held < all.saturating_add(conns.saturating_mul(ALLOWANCE_LEN));
        }
        self.small < self.small_max
    }

    /// No command is complete any more: sees to room for the one whose body is half there, of which
    /// there are `len` bytes. `is_next` says that it is another one than before.
    pub(super) fn see_to_body(
        &mut self,
        connection: &mut Connection,
        len: usize,
        is_next: bool,
        now: Now,
    ) {
        let need = connection.room_needed(len);
        if is_next || need == 0 {
            // It had room, and so its next body does not have to wait for what is no more than
            // that.
            let had = self.release(connection);
            if need > 0 && need <= had {
                return self.reserve(connection, need, now);
            }
        }
        let more = need.saturating_sub(connection.share.reserved);
        if more == 0 || !connection.is_open() {
            return;
        }
        if self.waiting.is_empty() && self.shared().saturating_add(more) <= self.shared_max {
            self.reserve(connection, more, now);
        } else {
            // Nobody holds some room and waits for more.
            self.release(connection);
            self.wait(connection, Want::Shared(need));
        }
    }

    /// A publish of the connection takes `len` bytes, which it gives back by
    /// [`answered`](Self::answered).
    pub(super) fn take(&mut self, connection: &mut Connection, len: usize) {
        let before = connection.share.unanswered;
        connection.share.unanswered = before + len;
        self.held += len;
        self.small += (before + len).min(ALLOWANCE_LEN) - before.min(ALLOWANCE_LEN);
    }

    /// A publish is answered that took `len` bytes. Its connection may be gone.
    pub(super) fn answered(&mut self, connection: Option<&mut Connection>, len: usize) {
        self.held = self.held.saturating_sub(len);
        let Some(connection) = connection else { return };
        let before = connection.share.unanswered;
        let after = before.saturating_sub(len);
        connection.share.unanswered = after;
        let small = before.min(ALLOWANCE_LEN) - after.min(ALLOWANCE_LEN);
        self.small = self.small.saturating_sub(small);
        if after == 0 && connection.share.wants == Some(Want::Small) {
            connection.share.wants = None;
        }
    }

    /// The connection goes. What it has published stays until that is answered.
    pub(super) fn leave(&mut self, connection: &mut Connection) {
        self.release(connection);
        let small = connection.share.unanswered.min(ALLOWANCE_LEN);
        self.small = self.small.saturating_sub(small);
        connection.share = Share::default();
    }

    /// Gives back what was taken for a body that was half there.
    pub(super) fn release(&mut self, connection: &mut Connection) -> usize {
        let reserved = mem::take(&mut connection.share.reserved);
        self.held = self.held.saturating_sub(reserved);
        if let Some(since) = connection.share.since.take() {
            self.bodies.remove(&(since, connection.id));
        }
        reserved
    }

    fn reserve(&mut self, connection: &mut Connection, more: usize, now: Now) {
        connection.share.reserved += more;
        self.held += more;
        if connection.share.since.is_none() {
            connection.share.since = Some(now.instant);
            self.bodies.insert((now.instant, connection.id));
        }
    }

    fn wait(&mut self, connection: &mut Connection, want: Want) {
        if connection.share.wants.replace(want).is_none() {
            self.waits += 1;
        }
        let queue = match want {
            Want::Small => &mut self.waiting_small,
            Want::Shared(_) => &mut self.waiting,
        };
        let queued = match want {
            Want::Small => &mut connection.share.is_queued_small,
            Want::Shared(_) => &mut connection.share.is_queued,
        };
        if !mem::replace(queued, true) {
            queue.push_back(connection.id);
        }
    }
}

impl Clients {
    /// Gives room that has come back to those who wait for it, and sees to the bodies that hold
    /// some.
    pub(super) fn grant_room(
        &mut self,
        deadlines: &mut Deadlines<Timer>,
        now: Now,
        out: &mut Actions,
    ) {
        let room = &mut self.room;
        if room.waiting.is_empty() && room.waiting_small.is_empty() {
            return;
        }
        let conns = self.conns.len();
        while let Some(&conn) = room.waiting_small.front() {
            if let Some(connection) = self.conns.get_mut(conn) {
                if connection.share.wants == Some(Want::Small) {
                    if !room.has_small(connection.share.unanswered, conns) {
                        break;
                    }
                    connection.share.wants = None;
                    connection.resume(out);
                }
                connection.share.is_queued_small = false;
            }
            room.waiting_small.pop_front();
        }
        while let Some(&conn) = room.waiting.front() {
            if let Some(connection) = self.conns.get_mut(conn) {
                if let Some(Want::Shared(want)) = connection.share.wants {
                    let want = want.min(room.shared_max);
                    if room.shared().saturating_add(want) > room.shared_max && room.shared() > 0 {
                        break;
                    }
                    connection.share.wants = None;
                    if connection.is_open() {
                        room.reserve(connection, want, now);
                        // It was the broker that kept the client waiting.
                        connection.restart_read_deadline(now);
                        connection.resume(out);
                    }
                }
                connection.share.is_queued = false;
            }
            room.waiting.pop_front();
        }
        self.mind_bodies(deadlines);
    }

    /// If somebody waits, the bodies that have room have to be there soon.
    fn mind_bodies(&mut self, deadlines: &mut Deadlines<Timer>) {
        let Room { waiting, bodies, armed, .. } = &mut self.room;
        let oldest = bodies.first().filter(|_| !waiting.is_empty());
        let due = oldest.map(|(since, _)| *since + BODY_PATIENCE);
        deadlines.arm_by(due, armed, Timer::Room);
    }

    /// Gives up the bodies that have had room for long, if somebody waits for it.
    pub(super) fn handle_room_timeout(
        &mut self,
        at: Instant,
        deadlines: &mut Deadlines<Timer>,
        now: Now,
        out: &mut Actions,
    ) {
        if self.room.armed != Some(at) {
            return;
        }
        self.room.armed = None;
        let is_late = |since: Instant| since + BODY_PATIENCE <= now.instant;
        while !self.room.waiting.is_empty()
            && let Some(&(since, conn)) = self.room.bodies.first()
            && is_late(since)
        {
            self.room.bodies.pop_first();
            let Some(connection) = self.conns.get_mut(conn) else { continue };
            connection.give_up_input(now, out);
            self.room.release(connection);
            self.unsettled.push(conn);
        }
        self.mind_bodies(deadlines);
    }
}
