//! nsqd's connections to the nsqlookupds, on shard 0.

use core::cell::RefCell;
use core::time::Duration;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::rc::Rc;

use bytes::BytesMut;
use sansq_core::arena::PeerId;
use sansq_core::nsqd::{PeerAction, Shard};
use sansq_core::transmit::Transmit;
use sansq_runtime::Signal;
use sansq_runtime::listen::error_text;
use smol::{Async, Task, future};

use crate::net;
use crate::time::timeout;
use crate::turn::Driver;

/// The connections that are dialled or open; a handful, so a list will do.
#[derive(Debug, Default)]
pub(crate) struct LookupPeers(Vec<LookupPeer>);

#[derive(Debug)]
struct LookupPeer {
    id: PeerId,
    outbox: Rc<Outbox>,
    task: Task<()>,
}

/// What is still to be written. The machine has a limit to it.
#[derive(Debug, Default)]
struct Outbox {
    owed: RefCell<Transmit>,
    filled: Signal,
}

impl LookupPeers {
    /// Carries out one of [`Actions::peers`](sansq_core::nsqd::Actions::peers).
    pub(crate) fn carry_out(&mut self, driver: &Rc<Driver<Shard>>, id: PeerId, action: PeerAction) {
        match action {
            PeerAction::Dial(address) => {
                self.close(id);
                let outbox = Rc::new(Outbox::default());
                let talk = talk(Rc::clone(driver), id, address, Rc::clone(&outbox));
                self.0.push(LookupPeer { id, outbox, task: driver.spawn(talk) });
            }
            PeerAction::Send(bytes) => {
                if let Some(peer) = self.0.iter().find(|peer| peer.id == id) {
                    peer.outbox.owed.borrow_mut().push_body(&bytes);
                    peer.outbox.filled.ring();
                }
            }
            PeerAction::Close => self.close(id),
        }
    }

    fn close(&mut self, id: PeerId) {
        if let Some(index) = self.0.iter().position(|peer| peer.id == id) {
            drop(self.0.swap_remove(index).task);
        }
    }
}

/// One connection from the dialling to its end.
async fn talk(driver: Rc<Driver<Shard>>, id: PeerId, address: Box<str>, outbox: Rc<Outbox>) {
    let reason = match timeout(DIAL_TIME, net::connect(&*address)).await {
        Some(Ok(socket)) => {
            driver.turn(|shard, now, out| shard.handle_peer_connected(id, now, out));
            match converse(&driver, id, &socket, &outbox).await {
                Ok(()) => String::from("EOF"),
                Err(error) => error_text(&error),
            }
        }
        Some(Err(error)) => format!("dial tcp {address}: connect: {}", error_text(&error)),
        None => format!("dial tcp {address}: i/o timeout"),
    };
    driver.turn_with(|turn| {
        turn.world.peers.close(id);
        turn.machine.handle_peer_closed(id, &reason, turn.now, &mut turn.out);
    });
}

/// Reads and writes until the other side ends it.
async fn converse(
    driver: &Rc<Driver<Shard>>,
    id: PeerId,
    socket: &Async<TcpStream>,
    outbox: &Outbox,
) -> io::Result<()> {
    future::or(read(driver, id, socket), write(socket, outbox)).await
}

async fn read(driver: &Rc<Driver<Shard>>, id: PeerId, socket: &Async<TcpStream>) -> io::Result<()> {
    let mut input = BytesMut::new();
    loop {
        socket.readable().await?;
        let mut part = [0; READ_LEN];
        match socket.get_ref().read(&mut part) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                input.extend_from_slice(&part[..count]);
                driver.turn(|shard, now, out| shard.handle_peer_input(id, &mut input, now, out));
                if input.is_empty() {
                    input = BytesMut::new();
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn write(socket: &Async<TcpStream>, outbox: &Outbox) -> io::Result<()> {
    loop {
        if write_some(socket.get_ref(), outbox)? {
            outbox.filled.wait().await;
        } else {
            socket.writable().await?;
        }
    }
}

/// Writes what the socket takes; returns whether that is all.
fn write_some(mut socket: &TcpStream, outbox: &Outbox) -> io::Result<bool> {
    let mut owed = outbox.owed.borrow_mut();
    while !owed.is_empty() {
        let mut parts = [&[][..]];
        owed.slices(&mut parts);
        match socket.write(parts[0]) {
            Ok(count) => owed.advance(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    owed.release();
    Ok(true)
}

/// What [`PeerAction::Dial`] asks for.
const DIAL_TIME: Duration = Duration::from_secs(1);

/// Answers are short: `OK`, or a JSON document of a few hundred bytes.
const READ_LEN: usize = 4 * 1024;
