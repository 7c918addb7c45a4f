//! Making room: what goes when more is wanted than the configuration allows.

use super::{Full, Lookupd, LookupdActions, LookupdEvent};
use crate::arena::ConnId;
use crate::protocol::lookup::{LookupProtocolError, Registration};

impl Lookupd {
    /// Makes a topic or channel known without a producer, if need be in place of others without
    /// one.
    pub(super) fn create(
        &mut self,
        wanted: &Registration,
        out: &mut LookupdActions,
    ) -> Result<(), Full> {
        if !self.has_room(None, wanted) {
            let used = self.registrations.keys() - self.registrations.unused();
            if used + self.registrations.new_names(wanted) > self.names_max() {
                self.counters.refused += 1;
                return Err(Full);
            }
            let until = self.registrations.renew(wanted);
            while !self.has_room(None, wanted) && self.forget_unused(until, out) {}
            if !self.has_room(None, wanted) {
                self.counters.refused += 1;
                return Err(Full);
            }
        }
        self.registrations.create(wanted);
        Ok(())
    }

    /// Whether there is room for a REGISTER, now that some was made if need be. What goes first is
    /// what producers have left that are gone, then names without producers, then registrations
    /// of the producer with the most, as long as it has more than the one that wants this.
    pub(super) fn make_room(
        &mut self,
        conn: ConnId,
        wanted: &Registration,
        out: &mut LookupdActions,
    ) -> bool {
        let (_, more) = self.registrations.growth(conn, wanted);
        let size = self.registrations.size(conn) + more;
        if size > self.config.registrations_max_per_nsqd && more > 0 {
            return false;
        }
        if self.has_room(Some(conn), wanted) {
            return true;
        }
        self.take_back_some(out);
        for _ in 0..STEPS_MAX {
            if self.has_room(Some(conn), wanted) {
                return true;
            }
            let lacks_name = !self.has_room(None, wanted);
            // What has just been taken from somebody is unused later than what is wanted.
            let until = self.registrations.renew(wanted);
            if lacks_name && self.forget_unused(until, out) {
                continue;
            }
            let Some((loser, _)) = self.registrations.take_from_largest(size) else { break };
            self.counters.dropped_registrations += 1;
            let Some(loser) = self.connections.get_mut(loser) else { continue };
            if !core::mem::replace(&mut loser.has_lost, true) {
                out.events.push(LookupdEvent::Dropping(loser.remote));
            }
        }
        self.has_room(Some(conn), wanted)
    }

    /// Tells a producer that there is no room for what it registers. It keeps what it has.
    pub(super) fn refuse(&mut self, conn: ConnId, wanted: Registration, out: &mut LookupdActions) {
        self.counters.refused += 1;
        if let Some(connection) = self.connections.get_mut(conn)
            && !core::mem::replace(&mut connection.was_refused, true)
        {
            out.events.push(LookupdEvent::TooMany(connection.remote, wanted));
        }
        self.answer(conn, &LookupProtocolError::TooManyRegistrations.text(), out);
    }

    /// Takes a slice of the registrations of a producer that is gone.
    pub(super) fn take_back_some(&mut self, out: &mut LookupdActions) {
        if let Some((remote, gone, is_last)) = self.registrations.remove_slice() {
            out.events.extend(gone.into_iter().map(|key| LookupdEvent::Unregistered(remote, key)));
            if is_last && !self.registrations.is_leaving() {
                self.leaving_since = None;
            }
        }
    }

    fn forget_unused(&mut self, until: u64, out: &mut LookupdActions) -> bool {
        let Some(name) = self.registrations.forget_unused(until) else { return false };
        self.counters.forgotten_names += 1;
        out.events.push(LookupdEvent::Forgotten(name));
        true
    }

    /// Whether there is room for the names, and for what `conn` would have registered.
    fn has_room(&self, conn: Option<ConnId>, wanted: &Registration) -> bool {
        let (names, pairs) = match conn {
            Some(conn) => self.registrations.growth(conn, wanted),
            None => (self.registrations.new_names(wanted), 0),
        };
        self.registrations.keys().saturating_add(names) <= self.names_max()
            && self.registrations.pairs().saturating_add(pairs) <= self.config.registrations_max
    }

    fn names_max(&self) -> usize {
        self.config.names_max.min(self.config.registrations_max)
    }
}

/// So many names and registrations go at most for one REGISTER, which is refused if that was not
/// enough. One is enough unless many producers have what goes.
const STEPS_MAX: usize = 1000;
