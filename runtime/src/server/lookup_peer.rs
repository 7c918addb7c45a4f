//! nsqd's connections to the nsqlookupds, on shard 0.

use core::cell::RefCell;
use core::time::Duration;
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;

use bytes::BytesMut;
use futures_lite::future;
use sansq_core::arena::PeerId;
use sansq_core::nsqd::{PeerAction, Shard};
use sansq_core::transmit::Transmit;

use super::turn::Driver;
use crate::listen::error_text;
use crate::runtime::{Runtime, Socket, Task, Thread, readable, within, writable};
use crate::signal::Signal;

/// The connections that are dialled or open; a handful, so a list will do.
#[derive(Debug)]
pub(crate) struct LookupPeers<T: Thread>(Vec<LookupPeer<T>>);

#[derive(Debug)]
struct LookupPeer<T: Thread> {
    id: PeerId,
    outbox: Rc<Outbox>,
    task: T::Task,
}

/// What is still to be written. The machine has a limit to it.
#[derive(Debug, Default)]
struct Outbox {
    owed: RefCell<Transmit>,
    filled: Signal,
}

impl<T: Thread> Default for LookupPeers<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Thread> LookupPeers<T> {
    /// Carries out one of [`Actions::peers`](sansq_core::nsqd::Actions::peers).
    pub(crate) fn carry_out(
        &mut self,
        driver: &Rc<Driver<Shard, T>>,
        id: PeerId,
        action: PeerAction,
    ) {
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
            self.0.swap_remove(index).task.cancel();
        }
    }
}

/// One connection from the dialling to its end.
async fn talk<T: Thread>(
    driver: Rc<Driver<Shard, T>>,
    id: PeerId,
    address: Box<str>,
    outbox: Rc<Outbox>,
) {
    let dial = driver.runtime().connect(&address, None);
    let reason = match within::<T::Runtime, _>(DIAL_TIME, dial).await {
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
        turn.resources.peers.close(id);
        turn.machine.handle_peer_closed(id, &reason, turn.now, &mut turn.out);
    });
}

/// Reads and writes until the other side ends it.
async fn converse<T: Thread>(
    driver: &Rc<Driver<Shard, T>>,
    id: PeerId,
    socket: &impl Socket,
    outbox: &Outbox,
) -> io::Result<()> {
    future::or(read(driver, id, socket), write(socket, outbox)).await
}

async fn read<T: Thread>(
    driver: &Rc<Driver<Shard, T>>,
    id: PeerId,
    socket: &impl Socket,
) -> io::Result<()> {
    let mut input = BytesMut::new();
    loop {
        readable(socket).await?;
        input.reserve(READ_LEN);
        match socket.try_read(&mut input) {
            Ok((0, _)) => return Ok(()),
            Ok(_) => {
                driver.turn(|shard, now, out| shard.handle_peer_input(id, &mut input, now, out));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if input.is_empty() {
            input = BytesMut::new();
        }
    }
}

async fn write(socket: &impl Socket, outbox: &Outbox) -> io::Result<()> {
    loop {
        if write_some(socket, outbox)? {
            outbox.filled.wait().await;
        } else {
            writable(socket).await?;
        }
    }
}

/// Writes what the socket takes; returns whether that is all.
fn write_some(socket: &impl Socket, outbox: &Outbox) -> io::Result<bool> {
    let mut owed = outbox.owed.borrow_mut();
    while !owed.is_empty() {
        let mut parts = [&[][..]];
        owed.slices(&mut parts);
        match socket.try_write(&[IoSlice::new(parts[0])]) {
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
