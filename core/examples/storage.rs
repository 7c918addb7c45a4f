//! An nsqd on a disk in memory: it stores two messages, the process dies, the next one finds them.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use bytes::BytesMut;
use sansq_core::machine::Machine;
use sansq_core::nsqd::{Actions, Config, Peer, Shard, ShardId, StatsFilter};
use sansq_core::storage::Metadata;
use sansq_core::storage::memory::MemoryFiles;
use sansq_core::time::Now;

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let mut files = MemoryFiles::new();
    let mut shard = start(&mut files)?;
    let mut input = BytesMut::from("  V2PUB orders\n\0\0\0\x06applesPUB orders\n\0\0\0\x05pears");
    let (now, mut actions) = (Now::from_millis(1), Actions::default());
    let conn = shard.accept(Peer::Tcp(([127, 0, 0, 1], 50_000).into()), now, &mut actions);
    let _ = shard.handle_input(conn, &mut input, now, &mut actions);
    settle(&mut shard, &mut files, now, &mut actions);
    drop(shard);
    files.names().for_each(|name| println!("{name}"));

    start(&mut files)?;
    Ok(())
}

/// A process begins on what there is, and keeps nothing in memory.
fn start(files: &mut MemoryFiles) -> Result<Shard, Box<dyn core::error::Error>> {
    let config = Config { mem_queue_size: 0, disk: true, ..Config::default() };
    let mut shard = Shard::new(ShardId(0), 1, config, 7);
    let (now, mut actions) = (Now::from_millis(0), Actions::default());
    if let Some(contents) = files.get("nsqd.dat") {
        shard.load(&Metadata::parse(contents)?.metadata, |_| None, now, &mut actions);
    }
    shard.start(now, &mut actions);
    settle(&mut shard, files, now, &mut actions);
    for topic in shard.stats(&StatsFilter::default(), now).topics {
        println!("{}: {} messages", topic.name, topic.depth);
    }
    Ok(shard)
}

/// Each request is carried out, in order, and its outcome handed back in a later turn.
fn settle(shard: &mut Shard, files: &mut MemoryFiles, now: Now, actions: &mut Actions) {
    while !actions.storage.is_empty() {
        for request in core::mem::take(&mut actions.storage) {
            shard.handle_storage(files.carry_out(&request), now, actions);
        }
    }
}
