//! Finding nsqds with the help of nsqlookupds: what the [`Directory`](super::super::Directory)
//! finds is connected to, and what it misses is drained, unless the program itself has added it.

use alloc::sync::Arc;
use core::mem;

use super::super::actions::LookupCallId;
use super::Consumer;
use super::actions::{ConsumerActions, ConsumerEvent};
use crate::http::call::{CallResult, UrlError};
use crate::time::Now;

impl Consumer {
    /// Asks the nsqlookupd at `host:port`, or at a URL, too; false if it does already, or is
    /// stopping. A URL without a path gets the path `/lookup`; `topic` is added to its query.
    ///
    /// # Errors
    /// [`UrlError`] if the address can't be asked; also for a host without a port.
    pub fn add_nsqlookupd(
        &mut self,
        address: &str,
        now: Now,
        out: &mut ConsumerActions,
    ) -> Result<bool, UrlError> {
        if !self.is_running() {
            return Ok(false);
        }
        self.directory.add(address, now, &mut out.net)
    }

    /// Asks an nsqlookupd no more; false if it is not known. What only it named is drained after
    /// `lookupd_forget_rounds`, as if nobody named it any more; without any nsqlookupd everything
    /// stays as it is.
    pub fn remove_nsqlookupd(&mut self, address: &str) -> bool {
        self.directory.remove(address)
    }

    /// An nsqlookupd answered, or did not.
    pub fn handle_called(
        &mut self,
        id: LookupCallId,
        result: CallResult,
        now: Now,
        out: &mut ConsumerActions,
    ) {
        let mut changes = mem::take(&mut self.changes);
        self.directory.handle_called(id, result, now, &mut out.net, &mut changes);
        out.events.extend(changes.events.drain(..).map(ConsumerEvent::Directory));
        for address in changes.found.drain(..) {
            let address: Arc<str> = address.into();
            if !self.nsqds.contains_key(&address) {
                let nsqd = self.new_nsqd(false);
                self.nsqds.insert(address.clone(), nsqd);
                self.dial(&address, now, out);
            }
        }
        for address in changes.vanished.drain(..) {
            if self.nsqds.get(address.as_str()).is_some_and(|nsqd| !nsqd.is_given) {
                self.forget(&address, now, out);
            }
        }
        self.changes = changes;
        self.settle(now, out);
    }
}
