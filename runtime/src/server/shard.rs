//! nsqd's machine under the turn: what its actions mean here.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use async_channel::Sender;
use bytes::BytesMut;
use sansq_core::arena::CallId;
use sansq_core::http::call::Call;
use sansq_core::machine::{Machine, ReadState};
use sansq_core::nsqd::{Actions, AdminReply, AdminRequest, Peer, ReplyToken, Shard, ShardId};
use sansq_core::upgrade::ClientTls;

use super::connection::Departure;
use super::lookup_peer::LookupPeers;
use super::turn::{Driven, Driver, Turn};
use crate::call;
use crate::clock::Clock;
use crate::connection_limit::ConnectionPermit;
use crate::lanes::{Arrival, Lanes, Mail};
use crate::log::Program;
use crate::options::NsqdOptions;
use crate::room::Permit;
use crate::runtime::{Task, Thread};
use crate::statsd::StatsdSender;
use crate::storage::{Disk, Inventory};

/// What a shard's driver holds besides its sockets.
#[derive(Debug)]
pub(crate) struct Resources<T: Thread> {
    id: ShardId,
    /// Shards that got a batch in this turn.
    to_ring: Vec<ShardId>,
    pub(crate) peers: LookupPeers<T>,
    statsd: StatsdSender,
    /// Whom the servers are believed that are asked over TLS.
    tls: Option<ClientTls>,
    replies: Replies,
    disk: Disk,
}

/// Who waits for the answers to admin requests. At most one for each open HTTP connection, and for
/// a moment those whose connection has gone.
#[derive(Debug, Default)]
struct Replies {
    last: u64,
    /// With the room that each takes.
    waiting: BTreeMap<ReplyToken, (Sender<AdminReply>, Option<Permit>)>,
}

/// Makes a shard's driver and starts it, with the topics and channels that there were.
pub(crate) fn drive<T: Thread>(
    thread: Rc<T>,
    clock: Clock,
    shard: Shard,
    id: ShardId,
    lanes: &Arc<Lanes>,
    (options, disk, mut inventory): (&NsqdOptions, Disk, Inventory),
) -> Rc<Driver<Shard, T>> {
    let resources = Resources {
        id,
        to_ring: Vec::new(),
        peers: LookupPeers::default(),
        statsd: StatsdSender::new(options.memory),
        tls: options.client_tls.clone(),
        replies: Replies::default(),
        disk,
    };
    let driver = Driver::new(thread, clock, id, shard, resources, Arc::clone(lanes));
    driver.turn(|shard, now, out| {
        shard.load(&inventory.metadata(), |store| inventory.take(store), now, out);
        shard.start(now, out);
    });
    driver
}

/// Takes in a socket that arrived.
fn admit<T: Thread>(driver: &Rc<Driver<Shard, T>>, arrival: Arrival) {
    match arrival {
        Arrival::Accepted(stream, peer, permit) => {
            // If the reactor does not take it, it is closed, as if it had never been accepted.
            if let Ok(socket) = driver.adopt(stream) {
                accept(driver, socket, peer, permit);
            }
        }
        Arrival::Rehomed(stream, permit, detached, input) => driver.turn_with(|turn| match driver
            .adopt(stream)
        {
            Ok(socket) => turn.admit(driver, socket, permit, input, |shard, input, now, out| {
                let conn = shard.attach(detached, now, out);
                (conn, shard.handle_input(conn, input, now, out))
            }),
            Err(_) => {
                let conn = turn.machine.attach(detached, turn.now, &mut turn.out);
                turn.machine.handle_closed(conn, turn.now, &mut turn.out);
            }
        }),
    }
}

/// Takes in a new connection.
pub(crate) fn accept<T: Thread>(
    driver: &Rc<Driver<Shard, T>>,
    socket: T::Socket,
    peer: Peer,
    permit: ConnectionPermit,
) {
    driver.turn_with(|turn| {
        turn.admit(driver, socket, permit, BytesMut::new(), |shard, _, now, out| {
            (shard.accept(peer, now, out), ReadState::More(1))
        });
    });
}

/// Asks the shard and waits for its answer. `None` if the node ends before it comes. `permit` is
/// kept until the answer comes, also if nobody waits for it any more.
pub(crate) async fn ask<T: Thread>(
    driver: &Rc<Driver<Shard, T>>,
    request: AdminRequest,
    permit: Option<Permit>,
) -> Option<AdminReply> {
    let (sender, receiver) = async_channel::bounded(1);
    driver.turn_with(|turn| {
        let replies = &mut turn.resources.replies;
        replies.last += 1;
        let token = ReplyToken(replies.last);
        replies.waiting.insert(token, (sender, permit));
        turn.machine.handle_admin(request, token, turn.now, &mut turn.out);
    });
    receiver.recv().await.ok()
}

/// Carries out one of [`Actions::calls`].
fn spawn_call<T: Thread>(
    driver: &Rc<Driver<Shard, T>>,
    tls: Option<ClientTls>,
    id: CallId,
    call: Call,
) {
    let caller = Rc::clone(driver);
    let task = driver.spawn(async move {
        let result = call::carry_out(caller.runtime(), &call, tls).await;
        caller.turn(|shard, now, out| shard.handle_called(id, result, now, out));
    });
    task.detach();
}

impl Driven for Shard {
    type Resources<T: Thread> = Resources<T>;

    const PROGRAM: Program = Program::Nsqd;

    fn carry_out<T: Thread>(
        driver: &Rc<Driver<Self, T>>,
        turn: &mut Turn<Self, T>,
        actions: &mut Actions,
    ) {
        // By name, so that none is forgotten.
        let Actions {
            events,
            transmit,
            close,
            rehome,
            resume,
            lanes,
            peers,
            calls,
            statsd,
            replies,
            storage,
        } = actions;
        let events = events.drain(..);
        Program::Nsqd.log_all(events.map(|event| (event.level(), event.kind(), event)));
        for conn in transmit.drain(..) {
            turn.transmit(driver, conn);
        }
        for (conn, how) in close.drain(..) {
            turn.close(driver, conn, how);
        }
        for (conn, target) in rehome.drain(..) {
            if let Some(detached) = turn.machine.detach(conn) {
                let lanes = Arc::clone(&turn.lanes);
                turn.depart(conn, Departure { lanes, target, detached });
            }
        }
        for conn in resume.drain(..) {
            turn.resume(conn);
        }
        let resources = &mut turn.resources;
        for (target, batch) in (0..).map(ShardId).zip(lanes) {
            if !batch.is_empty() {
                turn.lanes.post(target, batch);
                if !resources.to_ring.contains(&target) {
                    resources.to_ring.push(target);
                }
            }
        }
        for (peer, action) in peers.drain(..) {
            resources.peers.carry_out(driver, peer, action);
        }
        for action in statsd.drain(..) {
            if let Some(memory) = resources.statsd.carry_out(action) {
                turn.machine.handle_memory(memory, turn.now, &mut turn.out);
            }
        }
        for (id, request) in calls.drain(..) {
            spawn_call(driver, resources.tls.clone(), id, request);
        }
        for (token, reply) in replies.drain(..) {
            if let Some((sender, _)) = resources.replies.waiting.remove(&token) {
                // Whoever asked may have gone.
                let _ = sender.try_send(reply);
            }
        }
        resources.disk.submit(storage);
        actions.trim();
    }

    fn end_turn<T: Thread>(turn: &mut Turn<Self, T>) {
        for target in turn.resources.to_ring.drain(..) {
            turn.lanes.ring(target);
        }
    }

    fn flush<T: Thread>(turn: &mut Turn<Self, T>) {
        if turn.resources.id == ShardId(0) {
            Program::Nsqd.info("NSQ: closing topics");
        }
        turn.machine.flush(turn.now, &mut turn.out);
    }

    fn is_flushed(&self) -> bool {
        self.is_flushed()
    }

    fn flush_failure(&self) -> Option<String> {
        self.flush_failure().map(|failure| failure.to_string())
    }

    fn receive<T: Thread>(driver: &Rc<Driver<Self, T>>, mail: &mut Mail) {
        if !mail.batch.is_empty() {
            driver.turn(|shard, now, out| shard.handle_shard(&mut mail.batch, now, out));
        }
        if !mail.completions.is_empty() {
            driver.turn(|shard, now, out| {
                for completion in mail.completions.drain(..) {
                    shard.handle_storage(completion, now, out);
                }
            });
        }
        for arrival in mail.arrivals.drain(..) {
            admit(driver, arrival);
        }
    }
}
