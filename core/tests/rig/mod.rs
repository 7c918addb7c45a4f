//! A producer and consumers on one shard, for those who count what a message costs: its buffers are
//! used again and again, and it does little itself.

use bytes::BytesMut;
use sansq_core::arena::ConnId;
use sansq_core::machine::{Machine, MachineActions, ReadState};
use sansq_core::nsqd::{Actions, Config, Peer, Shard, ShardId};
use sansq_core::time::Now;
use sansq_core::transmit::Transmit;

pub(crate) struct Rig {
    pub(crate) shard: Shard,
    pub(crate) actions: Actions,
    pub(crate) now: Now,
    pub(crate) producer: ConnId,
    pub(crate) consumer: ConnId,
    input: BytesMut,
    spare: Transmit,
    /// The ids that the consumer got, one behind the other.
    pub(crate) ids: Vec<[u8; 16]>,
}

impl Rig {
    /// A topic with so many channels, of which the first has a consumer that is not ready yet.
    pub(crate) fn new(config: Config, channels: usize) -> Self {
        let now = Now::from_millis(1_789_000_000_000);
        let mut shard = Shard::new(ShardId(0), 1, config, 1);
        let mut actions = Actions::default();
        let peer = Peer::Tcp(([127, 0, 0, 1], 4000).into());
        let producer = shard.accept(peer, now, &mut actions);
        let consumer = shard.accept(peer, now, &mut actions);
        let mut rig = Self {
            shard,
            actions,
            now,
            producer,
            consumer,
            input: BytesMut::new(),
            spare: Transmit::new(),
            ids: Vec::new(),
        };
        rig.send(producer, b"  V2");
        for channel in 1..channels {
            let conn = rig.shard.accept(peer, now, &mut rig.actions);
            rig.send(conn, format!("  V2SUB t c{channel}\n").as_bytes());
        }
        if channels > 0 {
            rig.send(consumer, b"  V2SUB t c\n");
        }
        rig
    }

    pub(crate) fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        let Self { shard, actions, now, input, .. } = self;
        let state = shard.handle_input(conn, input, *now, actions);
        assert!(matches!(state, ReadState::More(_)) && input.is_empty(), "the command was refused");
        self.write();
    }

    /// Writes what is owed until nothing is. The ids of messages are kept.
    pub(crate) fn write(&mut self) {
        self.actions.events.clear();
        while let Some(conn) = self.actions.transmit.pop() {
            self.shard.swap_transmit(conn, &mut self.spare);
            let len = self.spare.len();
            let mut slices = [&[][..]; 1];
            self.spare.slices(&mut slices);
            let mut rest = slices[0];
            assert_eq!(rest.len(), len, "small frames lie flat");
            while let Some((header, _)) = rest.split_first_chunk::<8>() {
                let [a, b, c, d, .., kind] = *header;
                let (frame, behind) = rest.split_at(4 + u32::from_be_bytes([a, b, c, d]) as usize);
                assert_ne!(kind, 1, "an error: {}", String::from_utf8_lossy(&frame[8..]));
                if kind == 2
                    && let Some(id) = frame[18..].first_chunk()
                {
                    self.ids.push(*id);
                }
                rest = behind;
            }
            self.spare.advance(len);
            self.shard.handle_sent(conn, len, self.now, &mut self.actions);
            self.actions.events.clear();
        }
        assert!(self.actions.is_empty(), "nothing else is asked for");
    }
}
