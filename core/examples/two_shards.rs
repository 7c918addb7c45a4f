//! An nsqd of two shards on one thread: what a driver does with [`Actions`], lanes and moves
//! included.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use bytes::BytesMut;
use sansq_core::client::frame::{self, Frame};
use sansq_core::machine::{Machine, MachineActions};
use sansq_core::nsqd::{Actions, Config, Peer, Shard, ShardId};
use sansq_core::time::Now;
use sansq_core::transmit::Transmit;

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let now = Now::from_millis(0);
    let mut shards = [0, 1].map(|id| Shard::new(ShardId(id), 2, Config::default(), 7));
    let mut outs = [0, 1].map(|_| Actions::default());
    let peer = Peer::Tcp(([127, 0, 0, 1], 50_000).into());
    let mut conn = shards[0].accept(peer, now, &mut outs[0]);
    let mut input = BytesMut::from("  V2SUB fruit shop\nRDY 1\nPUB mail\n\0\0\0\x05hello");
    input.extend_from_slice(b"PUB fruit\n\0\0\0\x06apples");
    let _ = shards[0].handle_input(conn, &mut input, now, &mut outs[0]);

    while let Some(from) = outs.iter().position(|out| !out.is_empty()) {
        // Nothing else is caused here; a real driver names every group, so that none is missed.
        let Actions { events, transmit, rehome, lanes, .. } = core::mem::take(&mut outs[from]);
        events.iter().for_each(|event| println!("shard {from}: {event}"));
        if transmit.contains(&conn) {
            let mut owed = Transmit::new();
            shards[from].swap_transmit(conn, &mut owed);
            let mut bytes = BytesMut::from(&owed.into_vec()[..]);
            shards[from].handle_sent(conn, bytes.len(), now, &mut outs[from]);
            while let Some(frame) = frame::decode(&mut bytes, 1024)? {
                if let Frame::Message(message) = frame {
                    println!("message: {}", message.body.escape_ascii());
                }
            }
        }
        for (moved, home) in rehome {
            let detached = shards[from].detach(moved).ok_or("it is here until it is moved")?;
            let at = usize::from(home.0);
            conn = shards[at].attach(detached, now, &mut outs[at]);
            println!("the connection moved from shard {from} to {at}, with its unread input");
            let _ = shards[at].handle_input(conn, &mut input, now, &mut outs[at]);
        }
        for (home, mut batch) in lanes.into_iter().enumerate().filter(|(_, b)| !b.is_empty()) {
            println!("shard {from} tells shard {home} {} things", batch.len());
            shards[home].handle_shard(&mut batch, now, &mut outs[home]);
        }
    }
    Ok(())
}
