//! Data files and a meta file with any contents: the queue opens them, gives what is in them once
//! and in order, ends, and leaves a folder that is in order.

use core::time::Duration;
use std::collections::VecDeque;

use sansq_core::name::TopicName;
use sansq_core::storage::memory::MemoryFiles;
use sansq_core::storage::{
    CLOSE_PATIENCE, DiskEvent, DiskOptions, DiskOutput, DiskQueue, Durability, Failure, Op,
    RequestId, RequestIds, Store, Ticket,
};
use sansq_core::time::Now;

const OPTIONS: DiskOptions = DiskOptions {
    max_bytes_per_file: 1000,
    sync_every: 3,
    sync_timeout: Duration::from_secs(2),
    max_msg_size: 200,
    max_delay: Duration::from_secs(3600),
};

#[derive(Debug, Default)]
struct Out {
    requests: RequestIds,
    asked: VecDeque<(RequestId, Op)>,
    is_damaged: bool,
    /// The meta file is older than the data files.
    is_stale: bool,
}

impl DiskOutput for Out {
    fn ask(&mut self, op: Op) -> RequestId {
        let id = self.requests.next_id();
        self.asked.push_back((id, op));
        id
    }
    fn stored(&mut self, _: Ticket, _: Result<Durability, &Failure>) {}
    fn event(&mut self, event: DiskEvent) {
        assert!(!event.to_string().is_empty());
        self.is_damaged |= matches!(event, DiskEvent::Damaged { .. });
        self.is_stale |= matches!(event, DiskEvent::StaleMeta { .. });
    }
}

/// Takes the input apart at bytes `0xFF 0xFE`: the first piece is the meta file (there is none if
/// it begins with `-`), the others are data files, the first byte of each being its number.
///
/// # Panics
/// If the queue is wrong.
pub fn check(data: &[u8]) {
    let Ok(topic) = TopicName::new("t") else { return };
    let store = Store::Queue(topic, None);
    let mut files = MemoryFiles::new();
    let mut rest = data;
    let mut at = 0;
    while at < 9 && !rest.is_empty() {
        let end = rest.windows(2).position(|pair| pair == [0xFF, 0xFE]).unwrap_or(rest.len());
        let (piece, behind) = rest.split_at(end);
        rest = behind.get(2..).unwrap_or_default();
        if at == 0 {
            if !piece.starts_with(b"-") {
                files.insert("t.diskqueue.meta.dat", piece);
            }
        } else if let Some((number, contents)) = piece.split_first() {
            files.insert(&format!("t.diskqueue.{number:06}.dat"), contents);
        }
        at += 1;
    }
    let bytes: usize = files.names().filter_map(|name| files.get(name)).map(<[u8]>::len).sum();
    let (first, state) = drain(&store, &mut files, false);
    assert!(first.len() <= bytes / 30, "there is no room for so many records");
    // Nothing was finished: all of it comes again.
    let (again, _) = drain(&store, &mut files, false);
    if !state.is_damaged {
        assert_eq!(first, again);
    } else if !state.is_stale {
        // But the end that the meta file knew leads past a damage to the records behind it only
        // once. An end that is older than the data files also hides, once, what seems to be a
        // record and reaches beyond it.
        let mut rest = first.iter();
        assert!(again.iter().all(|record| rest.any(|other| other == record)), "{again:?}");
    }
    // By now the meta file is this queue's own.
    assert_eq!(again, drain(&store, &mut files, true).0);
    assert!(drain(&store, &mut files, true).0.is_empty());
}

type Records = Vec<(u64, Vec<u8>)>;

/// Takes everything out, and finishes it or not; closes the queue.
fn drain(store: &Store, files: &mut MemoryFiles, finishes: bool) -> (Records, Out) {
    let (mut out, now) = (Out::default(), Now::from_millis(1));
    let mut queue = DiskQueue::open(OPTIONS, &mut out);
    let mut records = Vec::new();
    loop {
        if let Some(popped) = queue.pop(now, &mut out) {
            records.push((popped.message.id.0, popped.message.body.to_vec()));
            if let Some(record) = popped.message.record.filter(|_| finishes) {
                queue.finish(record, now, &mut out);
            }
        } else {
            let Some((id, op)) = out.asked.pop_front() else { break };
            queue.handle(id, files.execute(store, &op), now, &mut out);
        }
    }
    assert!(queue.is_empty() && queue.depth() == 0, "{queue:?}");
    queue.close(&[], now.instant + CLOSE_PATIENCE, now, &mut out);
    while let Some((id, op)) = out.asked.pop_front() {
        queue.handle(id, files.execute(store, &op), now, &mut out);
    }
    assert!(queue.is_closed());
    (records, out)
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        crate::replay_seeds("record_file", super::check);
    }
}
