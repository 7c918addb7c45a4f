//! nsqd's machine under the turn: what its actions mean here.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use sansq_core::nsqd::{
    Actions, AdminReply, AdminRequest, Peer, ReadState, ReplyToken, Shard, ShardId,
};
use sansq_core::options::NsqdOptions;
use sansq_core::upgrade::ClientTls;
use sansq_runtime::lanes::{Arrival, Lanes, Mail};
use sansq_runtime::places::Place;
use sansq_runtime::storage::{Disk, Inventory};
use sansq_runtime::{Clock, Program, StatsdSender};
use smol::channel::{Sender, bounded};

use crate::call;
use crate::connection::Departure;
use crate::lookup_peer::LookupPeers;
use crate::net::Socket;
use crate::server::Tasks;
use crate::turn::{Driven, Driver, Turn};

/// What a shard's driver holds besides its sockets.
#[derive(Debug)]
pub(crate) struct World {
    id: ShardId,
    /// Shards that got a batch in this turn.
    to_ring: Vec<ShardId>,
    pub(crate) peers: LookupPeers,
    statsd: StatsdSender,
    /// Whom the servers are believed that are asked over TLS.
    tls: Option<ClientTls>,
    replies: Replies,
    disk: Disk,
    /// Messages that queues gave up because the disk did not take them.
    lost: usize,
}

/// Who waits for the answers to admin requests. At most one for each open HTTP connection, and for a
/// moment those whose connection has gone.
#[derive(Debug, Default)]
struct Replies {
    last: u64,
    waiting: BTreeMap<ReplyToken, Sender<AdminReply>>,
}

/// Makes a shard's driver and starts it, with the topics and channels that there were.
pub(crate) fn drive(
    clock: Clock,
    shard: Shard,
    id: ShardId,
    lanes: &Arc<Lanes>,
    (options, disk, mut inventory): (&NsqdOptions, Disk, Inventory),
    tasks: Tasks,
) -> Rc<Driver<Shard>> {
    let actions = || Actions::new(lanes.shards());
    let world = World {
        id,
        to_ring: Vec::new(),
        peers: LookupPeers::default(),
        statsd: StatsdSender::new(options.memory),
        tls: options.client_tls.clone(),
        replies: Replies::default(),
        disk,
        lost: 0,
    };
    let driver =
        Driver::new(clock, id, shard, [actions(), actions()], world, Arc::clone(lanes), tasks);
    driver.turn(|shard, now, out| {
        shard.load(&inventory.metadata(), |store| inventory.take(store), now, out);
        shard.start(now, out);
    });
    driver
}

/// Takes in a socket that arrived.
fn admit(driver: &Rc<Driver<Shard>>, arrival: Arrival) {
    match arrival {
        Arrival::Accepted(socket, peer, place) => {
            // If the reactor does not take it, it is closed, as if it had never been accepted.
            if let Ok(socket) = driver.socket(socket) {
                accept(driver, socket, peer, place);
            }
        }
        Arrival::Rehomed(socket, place, detached, input) => {
            driver.turn_with(|turn| match driver.socket(socket) {
                Ok(socket) => turn.admit(driver, socket, place, input, |shard, input, now, out| {
                    let conn = shard.attach(detached, now, out);
                    (conn, shard.handle_input(conn, input, now, out))
                }),
                Err(_) => {
                    let conn = turn.machine.attach(detached, turn.now, &mut turn.out);
                    turn.machine.handle_closed(conn, turn.now, &mut turn.out);
                }
            })
        }
    }
}

/// Takes in a new connection.
pub(crate) fn accept(driver: &Rc<Driver<Shard>>, socket: Socket, peer: Peer, place: Place) {
    driver.turn_with(|turn| {
        turn.admit(driver, socket, place, BytesMut::new(), |shard, _, now, out| {
            (shard.accept(peer, now, out), ReadState::More(1))
        });
    });
}

/// Asks the shard and waits for its answer. `None` if the node ends before it comes.
pub(crate) async fn ask(driver: &Rc<Driver<Shard>>, request: AdminRequest) -> Option<AdminReply> {
    let (sender, receiver) = bounded(1);
    driver.turn_with(|turn| {
        let replies = &mut turn.world.replies;
        replies.last += 1;
        let token = ReplyToken(replies.last);
        replies.waiting.insert(token, sender);
        turn.machine.handle_admin(request, token, turn.now, &mut turn.out);
    });
    receiver.recv().await.ok()
}

impl Driven for Shard {
    type World = World;

    fn carry_out(driver: &Rc<Driver<Self>>, turn: &mut Turn<Self>, actions: &mut Actions) {
        let events = actions.events.drain(..);
        Program::Nsqd.log_all(events.map(|event| {
            turn.world.lost += event.lost_messages();
            (event.level(), event)
        }));
        actions.trim();
        for conn in actions.transmit.drain(..) {
            turn.transmit(driver, conn);
        }
        for (conn, how) in actions.close.drain(..) {
            turn.close(driver, conn, how);
        }
        for (conn, target) in actions.rehome.drain(..) {
            if let Some(detached) = turn.machine.detach(conn) {
                let lanes = Arc::clone(&turn.lanes);
                turn.depart(conn, Departure { lanes, target, detached });
            }
        }
        for conn in actions.resume.drain(..) {
            turn.resume(conn);
        }
        let world = &mut turn.world;
        for (target, batch) in (0..).map(ShardId).zip(&mut actions.lanes) {
            if !batch.is_empty() {
                turn.lanes.post(target, batch);
                if !world.to_ring.contains(&target) {
                    world.to_ring.push(target);
                }
            }
        }
        for (peer, action) in actions.peers.drain(..) {
            world.peers.carry_out(driver, peer, action);
        }
        for action in actions.statsd.drain(..) {
            if let Some(memory) = world.statsd.carry_out(action) {
                turn.machine.handle_memory(memory, turn.now, &mut turn.out);
            }
        }
        for (id, request) in actions.calls.drain(..) {
            call::spawn(driver, world.tls.clone(), id, request);
        }
        for (token, reply) in actions.replies.drain(..) {
            if let Some(sender) = world.replies.waiting.remove(&token) {
                // Whoever asked may have gone.
                let _ = sender.try_send(reply);
            }
        }
        world.disk.submit(&mut actions.storage);
    }

    fn end_turn(turn: &mut Turn<Self>) {
        for target in turn.world.to_ring.drain(..) {
            turn.lanes.ring(target);
        }
    }

    fn shut_down(turn: &mut Turn<Self>) {
        turn.machine.shut_down(turn.now, &mut turn.out);
    }

    fn flush(turn: &mut Turn<Self>) {
        if turn.world.id == ShardId(0) {
            Program::Nsqd.info("NSQ: closing topics");
        }
        turn.machine.flush(turn.now, &mut turn.out);
    }

    fn lost(turn: &Turn<Self>) -> usize {
        turn.world.lost
    }

    fn receive(driver: &Rc<Driver<Self>>, mail: &mut Mail) {
        if !mail.batch.is_empty() {
            driver.turn(|shard, now, out| shard.handle_shard(&mut mail.batch, now, out));
        }
        if !mail.done.is_empty() {
            driver.turn(|shard, now, out| {
                for done in mail.done.drain(..) {
                    shard.handle_storage(done, now, out);
                }
            });
        }
        for arrival in mail.arrivals.drain(..) {
            admit(driver, arrival);
        }
    }
}
