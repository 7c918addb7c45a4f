//! What a disk has to be asked to sync, and what of its files has to come back.
//!
//! Both are judged from the requests and the files alone, with a parser of records that is not the
//! core's.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use sansq_core::storage::{File, Op, Request, Store};
use sansq_core::time::Instant;

use super::{Oracles, Violation};
use crate::model::{
    ChannelKey, MessageNumber, PublishOutcome, Published, RawId, body_of, number_of,
};

/// Whether an nsqd has its data files synced as `--sync-every` and `--sync-timeout` promise.
///
/// What is written counts as unsynced until a sync that is asked for behind it; how long that takes
/// is the disk's affair. A disk that fails gets the time until the nsqd tries again, and nothing is
/// expected of a file whose sync failed.
#[derive(Debug)]
pub(crate) struct Syncs {
    every: u64,
    timeout: Duration,
    stores: BTreeMap<Store, StoreSyncs>,
    /// Not before that time is anything expected.
    patient_until: Instant,
}

#[derive(Debug, Default)]
struct StoreSyncs {
    /// Data files with something that no sync was asked for.
    unsynced: BTreeMap<u64, Unsynced>,
    /// Files up to this number are not known to be on the disk, whatever is asked.
    suspect: Option<u64>,
    /// How many syncs, reads, and replacements of the meta file, are under way. The next sync waits
    /// for them.
    under_way: usize,
    /// How many removals of all files are under way. A store's requests are carried out in order:
    /// what is written meanwhile was asked for before that, and goes with the rest.
    removals: usize,
    /// When nothing was waited for any more, or the files were opened.
    idle_since: Instant,
    /// Whether this process uses the files.
    is_open: bool,
}

#[derive(Clone, Copy, Debug)]
struct Unsynced {
    /// Where in the file it begins, and ends.
    from: u64,
    end: u64,
    since: Instant,
    /// Those of this process.
    records: u64,
}

impl Syncs {
    pub(crate) fn new(every: u64, timeout: Duration) -> Self {
        let every = every.max(1);
        Self { every, timeout, stores: BTreeMap::new(), patient_until: Instant::ZERO }
    }

    /// A request is made.
    pub(crate) fn asked(&mut self, request: &Request) {
        let store = self.stores.entry(request.store).or_default();
        match &request.op {
            Op::Sync { file } => {
                store.unsynced.remove(file);
                store.under_way += 1;
            }
            // Files without metadata are read and counted before anything else.
            Op::Read { .. } | Op::Replace { file: File::Meta, .. } => store.under_way += 1,
            // What is not needed any more need not last.
            Op::Remove { file: File::Data(file) } | Op::SetAside { file } => {
                store.unsynced.remove(file);
            }
            Op::RemoveAll => {
                store.removals += 1;
                store.unsynced.clear();
            }
            Op::Append { .. } | Op::Open => {}
            Op::Remove { .. } | Op::Replace { .. } => {}
        }
    }

    /// A request was carried out, or failed.
    pub(crate) fn done(&mut self, request: &Request, is_ok: bool, now: Instant) {
        if !is_ok {
            self.patient_until = now + RETRY_MAX;
        }
        let store = self.stores.entry(request.store).or_default();
        match &request.op {
            Op::Append { file, offset, data, .. } if is_ok => {
                let data = data.concat();
                let records = records_in(&data).len() as u64;
                let is_suspect = store.suspect.is_some_and(|suspect| *file <= suspect);
                let cut = store.cut(*file, *offset);
                if records > 0 && !is_suspect && store.removals == 0 {
                    store.is_open = true;
                    let since = cut.map_or(now, |cut| cut.since);
                    let fresh = Unsynced { from: *offset, end: *offset, since, records: 0 };
                    let unsynced = store.unsynced.entry(*file).or_insert(fresh);
                    unsynced.records += records;
                    unsynced.end = offset + data.len() as u64;
                }
            }
            Op::Sync { file } => {
                store.ended(now);
                if !is_ok {
                    store.suspect = store.suspect.max(Some(*file));
                    store.unsynced.retain(|number, _| number > file);
                }
            }
            Op::Read { .. } | Op::Replace { file: File::Meta, .. } => store.ended(now),
            Op::RemoveAll => store.removals = store.removals.saturating_sub(1),
            Op::Open if is_ok => store.opened(now),
            Op::Append { .. } | Op::Open | Op::Remove { .. } => {}
            Op::Replace { .. } | Op::SetAside { .. } => {}
        }
    }

    /// A process that starts has seen what there is, without a request.
    pub(crate) fn opened(&mut self, store: Store, now: Instant) {
        self.stores.entry(store).or_default().opened(now);
    }

    /// The process is gone; with its machine's power goes the difference between what is synced and
    /// what is not.
    pub(crate) fn died(&mut self, loses_power: bool) {
        for store in self.stores.values_mut() {
            (store.under_way, store.removals, store.is_open) = (0, 0, false);
            if loses_power {
                (store.unsynced, store.suspect) = (BTreeMap::new(), None);
            }
        }
    }

    /// The nsqd stands still, or did a moment ago.
    pub(crate) fn stands_still(&mut self, until: Instant) {
        self.patient_until = self.patient_until.max(until);
    }

    /// Whether the disk failed, or the nsqd stood still, a moment ago.
    pub(crate) fn is_patient(&self, now: Instant) -> bool {
        now <= self.patient_until
    }

    /// Whether nothing waits for its sync for longer than promised.
    ///
    /// # Errors
    /// The first file that does.
    pub(crate) fn check(&self, now: Instant) -> Result<(), Violation> {
        for (store, syncs) in &self.stores {
            if syncs.under_way > 0 || !syncs.is_open {
                continue;
            }
            let not_before = syncs.idle_since.max(self.patient_until);
            let records: u64 = syncs.unsynced.values().map(|unsynced| unsynced.records).sum();
            for (number, unsynced) in &syncs.unsynced {
                let bound = if records >= self.every { Duration::ZERO } else { self.timeout };
                if now > (unsynced.since + bound).max(not_before) + LAG {
                    let name = store.file(File::Data(*number));
                    let waits = now.saturating_since(unsynced.since);
                    let text = format!("{name}: no sync was asked for in {waits:?}");
                    return Err(Violation::Unsynced(text));
                }
            }
        }
        Ok(())
    }

    /// Whether an nsqd that has stopped in good order has left nothing unsynced.
    ///
    /// # Errors
    /// The first file that is.
    pub(crate) fn check_stopped(&self) -> Result<(), Violation> {
        for (store, syncs) in self.stores.iter().filter(|(_, syncs)| syncs.is_open) {
            if let Some(number) = syncs.unsynced.keys().next() {
                let name = store.file(File::Data(*number));
                return Err(Violation::Unsynced(format!("{name} is not synced after a stop")));
            }
        }
        Ok(())
    }
}

impl StoreSyncs {
    /// What is behind the offset is cut off, and need not last any more. Returns what was unsynced
    /// if nothing of it is left.
    fn cut(&mut self, file: u64, offset: u64) -> Option<Unsynced> {
        let unsynced = self.unsynced.get_mut(&file)?;
        if offset <= unsynced.from {
            return self.unsynced.remove(&file);
        }
        if offset < unsynced.end {
            // How many are left is not known here.
            (unsynced.records, unsynced.end) = (0, offset);
        }
        None
    }

    /// Whatever an earlier process left unsynced is this one's to sync, from now on.
    fn opened(&mut self, now: Instant) {
        (self.is_open, self.idle_since) = (true, now);
        for unsynced in self.unsynced.values_mut() {
            (unsynced.since, unsynced.records) = (now, 0);
        }
    }

    const fn ended(&mut self, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        self.idle_since = now;
    }
}

/// The messages in a data file, up to where it is damaged, each with its place. A message whose
/// body is damaged is left out; that of a record is no message of anybody, if it has a hole.
pub(crate) fn records_in(data: &[u8]) -> Vec<(usize, Option<MessageNumber>)> {
    let mut records = Vec::new();
    let mut at = 0;
    while let Some(len) = record_len(&data[at..]) {
        let body = &data[at..][4 + HEADER_LEN..len];
        let number = number_of(body).filter(|number| body == body_of(*number, body.len()));
        records.push((at, number));
        at += len;
    }
    records
}

/// The bodies of the records in a data file that have holes since the power went, by ids: where
/// there was a record there is one with the same header, and zeros in its body. A record of which
/// the header has holes is none any more, or has lost nothing.
pub(crate) fn bodies_with_holes(before: &[u8], after: &[u8]) -> Vec<(RawId, Vec<u8>)> {
    const BODY_AT: usize = 4 + HEADER_LEN;
    let mut bodies = Vec::new();
    let mut at = 0;
    while at < before.len() {
        let Some(len) = record_len(&before[at..]) else {
            // There may be holes from before.
            at += 1;
            continue;
        };
        let record = at..at + len;
        at += len;
        let (was, Some(is)) = (&before[record.clone()], after.get(record)) else { continue };
        let has_only_holes = was.iter().zip(is).all(|(was, is)| was == is || *is == 0);
        if was != is
            && has_only_holes
            && was[..BODY_AT] == is[..BODY_AT]
            && let Some(id) = is[..BODY_AT].last_chunk()
        {
            bodies.push((*id, is[BODY_AT..].to_vec()));
        }
    }
    bodies
}

/// The length of the record that begins here, if one does.
fn record_len(data: &[u8]) -> Option<usize> {
    let (size, rest) = data.split_first_chunk()?;
    let size = u32::from_be_bytes(*size) as usize;
    let header = rest.get(..size).filter(|_| size >= HEADER_LEN)?.get(..HEADER_LEN)?;
    header[HEADER_LEN - ID_LEN..].iter().all(u8::is_ascii_hexdigit).then_some(4 + size)
}

/// Where the meta file of a queue says that reading begins: the number of a data file, and a place
/// in it.
pub(crate) fn reading_begins(meta: &[u8]) -> Option<(u64, usize)> {
    let line = core::str::from_utf8(meta).ok()?.lines().nth(1)?;
    let (file, offset) = line.split_once(',')?;
    Some((file.parse().ok()?, offset.parse().ok()?))
}

impl Oracles {
    /// What an nsqd has on its disk when it is down.
    pub(super) fn kept(&mut self, node: usize, kept: BTreeSet<(Store, MessageNumber)>) {
        self.model.kept.insert(node, kept);
    }

    /// A channel of an nsqd that may have lost the message, but has it on its disk and did not
    /// finish it.
    pub(super) fn find_kept(
        &self,
        number: MessageNumber,
        message: &Published,
        node: usize,
    ) -> Option<ChannelKey> {
        let kept = self.model.kept.get(&node)?;
        if message.outcome != PublishOutcome::Accepted {
            return None;
        }
        let is_left = |place: &&ChannelKey| {
            let stores = [Some(place.channel), None].map(|of| Store::Queue(place.topic, of));
            let is_kept = stores.iter().any(|store| kept.contains(&(*store, number)));
            is_kept && !self.model.done.contains(&(place.topic, place.channel, number))
        };
        self.model.owed_to(message, node).map(|(place, _)| place).find(is_left).copied()
    }
}

/// Timers ring a little late.
const LAG: Duration = Duration::from_millis(50);

/// The longest that an nsqd waits before it tries again what failed, and what that takes.
const RETRY_MAX: Duration = Duration::from_secs(7);

/// What is between the size of a record and its body, in bytes.
const HEADER_LEN: usize = 26;

const ID_LEN: usize = 16;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sansq_core::name::TopicName;
    use sansq_core::storage::{Owner, RequestId};

    use super::*;

    fn record(number: u32) -> Vec<u8> {
        let body = body_of(MessageNumber(number), 20);
        let mut record = ((HEADER_LEN + body.len()) as u32).to_be_bytes().to_vec();
        record.extend([0; 10]);
        record.extend(b"0123456789abcdef");
        record.extend(body);
        record
    }

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    /// And where the file ends.
    struct Scene(Syncs, u64);

    impl Scene {
        fn new() -> Self {
            Self(Syncs::new(2, Duration::from_secs(2)), 0)
        }

        fn request(op: Op) -> Request {
            let store = Store::Queue(TopicName::new("t").unwrap(), None);
            Request { id: RequestId(1), owner: Owner::Metadata, store, op }
        }

        fn appends(&mut self, at: Instant) {
            self.writes(self.1, record(1), at);
        }

        fn writes(&mut self, offset: u64, data: Vec<u8>, at: Instant) {
            self.1 = offset + data.len() as u64;
            let request = Self::request(Op::Append {
                file: 3,
                offset,
                data: vec![Bytes::from(data)],
                sync: false,
            });
            self.0.asked(&request);
            self.0.done(&request, true, at);
        }
    }

    #[test]
    fn a_sync_that_is_not_asked_for_is_caught() {
        let mut scene = Scene::new();
        scene.appends(at(1000));
        assert_eq!(scene.0.check(at(3000)), Ok(()));
        assert!(scene.0.check(at(3100)).is_err());
        assert!(scene.0.check_stopped().is_err());
        let sync = Scene::request(Op::Sync { file: 3 });
        scene.0.asked(&sync);
        assert_eq!((scene.0.check(at(9000)), scene.0.check_stopped()), (Ok(()), Ok(())));
        // What comes while it is under way is for the next one.
        scene.appends(at(9000));
        scene.0.done(&sync, true, at(9500));
        assert_eq!(scene.0.check(at(11_000)), Ok(()));
        assert!(scene.0.check(at(11_100)).is_err());
    }

    #[test]
    fn so_many_records_are_synced_at_once() {
        let mut scene = Scene::new();
        scene.appends(at(1000));
        scene.appends(at(1000));
        assert!(scene.0.check(at(1100)).is_err());
        scene.0.stands_still(at(5000));
        assert_eq!(scene.0.check(at(5000)), Ok(()));
    }

    #[test]
    fn what_is_cut_off_needs_no_sync() {
        let mut scene = Scene::new();
        scene.appends(at(1000));
        let sync = Scene::request(Op::Sync { file: 3 });
        scene.0.asked(&sync);
        scene.0.done(&sync, true, at(1100));
        let end = scene.1;
        scene.appends(at(2000));
        assert!(scene.0.check_stopped().is_err());
        scene.writes(end, Vec::new(), at(2100));
        assert_eq!((scene.0.check(at(9000)), scene.0.check_stopped()), (Ok(()), Ok(())));
        // A part that is cut off leaves a part.
        scene.appends(at(9000));
        let middle = scene.1;
        scene.appends(at(9000));
        scene.writes(middle, Vec::new(), at(9000));
        assert!(scene.0.check_stopped().is_err());
        // What is written again is as old as it was.
        scene.writes(end, record(1), at(11_000));
        assert!(scene.0.check(at(11_100)).is_err());
    }

    #[test]
    fn a_failed_sync_says_nothing_about_later_files_only() {
        let mut scene = Scene::new();
        scene.appends(at(1000));
        let sync = Scene::request(Op::Sync { file: 3 });
        scene.0.asked(&sync);
        scene.0.done(&sync, false, at(1000));
        scene.appends(at(1000));
        assert_eq!(scene.0.check(at(60_000)), Ok(()));
    }

    #[test]
    fn what_was_asked_for_before_the_files_are_removed_needs_no_sync() {
        let mut scene = Scene::new();
        let removal = Scene::request(Op::RemoveAll);
        scene.0.asked(&removal);
        scene.appends(at(1000));
        scene.0.done(&removal, true, at(2000));
        assert_eq!(scene.0.check(at(9000)), Ok(()));
        // What comes behind it does.
        scene.appends(at(9000));
        assert!(scene.0.check(at(11_100)).is_err());
    }

    #[test]
    fn what_a_process_leaves_is_the_next_ones() {
        let mut scene = Scene::new();
        scene.appends(at(1000));
        scene.0.died(false);
        assert_eq!(scene.0.check(at(9000)), Ok(()));
        scene.0.done(&Scene::request(Op::Open), true, at(10_000));
        assert_eq!(scene.0.check(at(12_000)), Ok(()));
        assert!(scene.0.check(at(12_100)).is_err());
        scene.0.died(true);
        scene.0.done(&Scene::request(Op::Open), true, at(20_000));
        assert_eq!(scene.0.check(at(60_000)), Ok(()));
    }

    #[test]
    fn a_hole_in_a_body_is_known_and_nothing_else_is_forgiven() {
        let before = [record(1), record(2), record(3), record(4)].concat();
        let len = record(1).len();
        let mut after = before.clone();
        // In a body; over a whole header; in front of a size, which is as before; and behind the
        // end.
        after[len - 5..len].fill(0);
        after[2 * len - 3..3 * len - 7].fill(0);
        after[3 * len - 3..3 * len + 3].fill(0);
        let holes = bodies_with_holes(&before, &after[..4 * len - 1]);
        let body = |number: usize| &after[(number - 1) * len + 4 + HEADER_LEN..number * len];
        let id = *b"0123456789abcdef";
        assert_eq!(holes, [(id, body(1).to_vec()), (id, body(2).to_vec())]);
        // What has holes already may get more.
        let mut later = after.clone();
        later[len + 4 + HEADER_LEN..2 * len].fill(0);
        assert_eq!(bodies_with_holes(&after, &later), [(id, vec![0; len - 4 - HEADER_LEN])]);
    }

    #[test]
    fn records_end_where_a_file_is_damaged() {
        let mut data = [record(1), record(2), record(3)].concat();
        let len = record(1).len();
        let numbers =
            |data: &[u8]| records_in(data).into_iter().map(|(_, number)| number).collect();
        let found: Vec<_> = numbers(&data);
        assert_eq!(found, [1, 2, 3].map(|number| Some(MessageNumber(number))));
        data[2 * len - 1] = 0;
        let found: Vec<_> = numbers(&data[..3 * len - 1]);
        assert_eq!(found, [Some(MessageNumber(1)), None]);
        data[len..][..4].fill(0);
        assert_eq!(records_in(&data), [(0, Some(MessageNumber(1)))]);
        assert_eq!(reading_begins(b"2\n4,56\n4,99\n"), Some((4, 56)));
    }
}
