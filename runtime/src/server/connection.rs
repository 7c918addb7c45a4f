//! Connections: one task reads, writes happen at the end of the turn that caused them, and a second
//! task exists only while the socket takes no more, or while the connection closes.

use core::cell::{Cell, RefCell};
use core::mem;
use core::time::Duration;
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use sansq_core::arena::{ConnId, Key};
use sansq_core::machine::ReadState;
use sansq_core::nsqd::{Close, Detached, ShardId};
use sansq_core::time::Now;
use sansq_core::transmit::Transmit;

use super::turn::{Driven, Driver, Turn};
use crate::connection_limit::ConnectionPermit;
use crate::lanes::{Arrival, Lanes};
use crate::runtime::{Runtime, Socket, Task, Thread, readable, within, writable};
use crate::signal::Signal;

/// What the tasks of a connection share.
#[derive(Debug)]
pub(crate) struct ServerConnection<S> {
    id: ConnId,
    socket: S,
    permit: ConnectionPermit,
    /// Rung when the reader, which was told to wait, is to go on or to depart.
    go_on: Signal,
    departure: RefCell<Option<Departure>>,
    /// What is owed is written, then the connection ends.
    is_closing: Cell<bool>,
}

/// Where a re-homed connection goes.
#[derive(Debug)]
pub(crate) struct Departure {
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) target: ShardId,
    pub(crate) detached: Detached,
}

/// The connections of a machine, by id.
#[derive(Debug)]
pub(crate) struct Sockets<T: Thread> {
    entries: Vec<Option<Entry<T>>>,
    count: usize,
}

#[derive(Debug)]
struct Entry<T: Thread> {
    connection: Rc<ServerConnection<T::Socket>>,
    /// `None` once the connection closes.
    reader: Option<T::Task>,
    /// Swapped out of the machine and not yet written: empty unless there is a writer.
    owed: Transmit,
    writer: Option<T::Task>,
    /// Whether the last write was large. Then the machine gets an output buffer with capacity for
    /// the next, otherwise an empty one; so an idle connection holds none, at the latest after its
    /// next heartbeat.
    is_busy: bool,
}

impl<T: Thread> Default for Sockets<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), count: 0 }
    }
}

impl<T: Thread> Sockets<T> {
    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    fn insert(&mut self, entry: Entry<T>) {
        let index = entry.connection.id.index() as usize;
        if index >= self.entries.len() {
            self.entries.resize_with(index + 1, || None);
        }
        let before = self.entries[index].replace(entry);
        assert!(before.is_none(), "the machine gave an id away that is in use");
        self.count += 1;
    }

    fn get_mut(&mut self, conn: ConnId) -> Option<&mut Entry<T>> {
        let entry = self.entries.get_mut(conn.index() as usize)?.as_mut()?;
        (entry.connection.id == conn).then_some(entry)
    }

    fn remove(&mut self, conn: ConnId) -> Option<Entry<T>> {
        self.get_mut(conn)?;
        self.count -= 1;
        self.entries[conn.index() as usize].take()
    }
}

impl<T: Thread> Entry<T> {
    /// Ends the tasks, and with them the socket.
    fn cancel(self) {
        self.reader.into_iter().chain(self.writer).for_each(Task::cancel);
    }
}

/// What became of an attempt to write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Written {
    /// Everything that was owed.
    All,
    /// As much as one connection may write in one go.
    Share,
    /// As much as the socket takes.
    Full,
    /// The connection is gone.
    Gone,
}

impl<M: Driven, T: Thread> Turn<M, T> {
    /// Takes a socket in. `enter` tells the machine of it, and may already hand it `input`.
    pub(crate) fn admit(
        &mut self,
        driver: &Rc<Driver<M, T>>,
        socket: T::Socket,
        permit: ConnectionPermit,
        mut input: BytesMut,
        enter: impl FnOnce(&mut M, &mut BytesMut, Now, &mut M::Actions) -> (ConnId, ReadState),
    ) {
        let (id, state) = enter(&mut self.machine, &mut input, self.now, &mut self.out);
        let connection = Rc::new(ServerConnection {
            id,
            socket,
            permit,
            go_on: Signal::default(),
            departure: RefCell::default(),
            is_closing: Cell::new(false),
        });
        let reader = driver.spawn(read(Rc::clone(driver), Rc::clone(&connection), input, state));
        self.sockets.insert(Entry {
            connection,
            reader: Some(reader),
            owed: Transmit::new(),
            writer: None,
            is_busy: false,
        });
    }

    /// Carries out [`Actions::transmit`](sansq_core::nsqd::Actions::transmit).
    pub(crate) fn transmit(&mut self, driver: &Rc<Driver<M, T>>, conn: ConnId) {
        let Some(entry) = self.sockets.get_mut(conn) else { return };
        // A writer asks the machine for more by itself.
        if entry.writer.is_some() {
            return;
        }
        // A peer that reads as fast as this turn writes must not hold up the others.
        if self.round < DIRECT_ROUNDS_MAX
            && matches!(self.write(conn), Written::All | Written::Gone)
        {
            return;
        }
        if let Some(entry) = self.sockets.get_mut(conn) {
            let connection = Rc::clone(&entry.connection);
            entry.writer = Some(driver.spawn(write_out(Rc::clone(driver), connection)));
        }
    }

    /// Writes what is owed, as far as the socket takes it without waiting.
    fn write(&mut self, conn: ConnId) -> Written {
        let Some(entry) = self.sockets.get_mut(conn) else { return Written::Gone };
        let mut sent = 0;
        let result = loop {
            if entry.owed.is_empty() {
                let mut buffer =
                    if entry.is_busy { mem::take(&mut self.spare) } else { Transmit::new() };
                self.machine.swap_transmit(conn, &mut buffer);
                if buffer.is_empty() {
                    if entry.is_busy {
                        self.spare = buffer;
                    }
                    break Ok(Written::All);
                }
                entry.is_busy = buffer.len() > SMALL_LEN_MAX;
                entry.owed = buffer;
            }
            if sent >= WRITE_LEN_MAX {
                break Ok(Written::Share);
            }
            match write_some(&entry.connection.socket, &entry.owed) {
                Ok(count) => {
                    entry.owed.advance(count);
                    sent += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(Written::Full),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
            if entry.owed.is_empty() {
                self.spare = mem::take(&mut entry.owed);
            }
        };
        if sent > 0 {
            self.machine.handle_sent(conn, sent, self.now, &mut self.out);
        }
        result.unwrap_or_else(|_| {
            self.end(conn);
            Written::Gone
        })
    }

    /// Carries out [`Actions::close`](sansq_core::nsqd::Actions::close).
    pub(crate) fn close(&mut self, driver: &Rc<Driver<M, T>>, conn: ConnId, how: Close) {
        let Some(entry) = self.sockets.get_mut(conn) else { return };
        match how {
            Close::Now => self.end(conn),
            Close::AfterSending => {
                if let Some(reader) = entry.reader.take() {
                    reader.cancel();
                }
                entry.connection.is_closing.set(true);
                if entry.writer.is_none() {
                    let connection = Rc::clone(&entry.connection);
                    entry.writer = Some(driver.spawn(write_out(Rc::clone(driver), connection)));
                }
                if let Some(time) = M::CLOSE_TIME {
                    let driver_then = Rc::clone(driver);
                    let end = driver.spawn(async move {
                        T::Runtime::sleep(time + LINGER_TIME).await;
                        driver_then.turn_with(|turn| turn.end(conn));
                    });
                    end.detach();
                }
            }
        }
    }

    /// Carries out [`Actions::resume`](sansq_core::nsqd::Actions::resume).
    pub(crate) fn resume(&mut self, conn: ConnId) {
        if let Some(entry) = self.sockets.get_mut(conn) {
            entry.connection.go_on.ring();
        }
    }

    /// Sends a connection, which the machine has let go, on its way.
    pub(crate) fn depart(&mut self, conn: ConnId, departure: Departure) {
        if let Some(entry) = self.sockets.remove(conn) {
            entry.reader.into_iter().for_each(Task::detach);
            *entry.connection.departure.borrow_mut() = Some(departure);
            entry.connection.go_on.ring();
        }
    }

    /// The end of a connection, reported once.
    fn end(&mut self, conn: ConnId) {
        if let Some(entry) = self.sockets.remove(conn) {
            entry.cancel();
            self.machine.handle_closed(conn, self.now, &mut self.out);
        }
    }
}

/// The reading task of a connection.
async fn read<M: Driven, T: Thread>(
    driver: Rc<Driver<M, T>>,
    connection: Rc<ServerConnection<T::Socket>>,
    mut unread: BytesMut,
    mut state: ReadState,
) {
    let conn = connection.id;
    let mut is_drained = false;
    loop {
        match state {
            ReadState::More(missing) => {
                if mem::take(&mut is_drained) && readable(&connection.socket).await.is_err() {
                    return driver.turn_with(|turn| turn.end(conn));
                }
                match read_once(&driver, &connection, &mut unread, missing) {
                    Ok(Some((next, drained))) => {
                        (state, is_drained) = (next, drained);
                        if !is_drained {
                            T::yield_now().await;
                        }
                    }
                    Ok(None) => return,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => is_drained = true,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return driver.turn_with(|turn| turn.end(conn)),
                }
            }
            ReadState::Wait => {
                connection.go_on.wait().await;
                // Others come first: it may be what was too much for one call.
                T::yield_now().await;
                let departure = connection.departure.take();
                if let Some(departure) = departure {
                    return depart::<T>(connection, departure, unread);
                }
                state = driver
                    .turn(|machine, now, out| machine.handle_input(conn, &mut unread, now, out));
            }
            ReadState::Stop => return,
        }
    }
}

/// Reads once and hands over what came; also tells whether that was all there is. `None` at the end
/// of the input.
fn read_once<M: Driven, T: Thread>(
    driver: &Rc<Driver<M, T>>,
    connection: &ServerConnection<T::Socket>,
    unread: &mut BytesMut,
    missing: usize,
) -> io::Result<Option<(ReadState, bool)>> {
    let conn = connection.id;
    let (mut input, result) = driver.look(|turn| {
        let mut input = turn.inputs.lend(unread, missing);
        let result = connection.socket.try_read(&mut input);
        (input, result)
    });
    let result = result.map(|(count, is_drained)| {
        driver.turn(|machine, now, out| {
            if count == 0 {
                machine.handle_eof(conn, now, out);
                return None;
            }
            Some((machine.handle_input(conn, &mut input, now, out), is_drained))
        })
    });
    *unread = driver.look(|turn| turn.inputs.give_back(input));
    result
}

/// Hands a re-homed connection over to its new shard.
fn depart<T: Thread>(
    connection: Rc<ServerConnection<T::Socket>>,
    departure: Departure,
    unread: BytesMut,
) {
    let Departure { lanes, target, detached } = departure;
    let connection = Rc::into_inner(connection)
        .expect("a connection that is let go owes nothing, and so only its reader is left");
    // If the reactor cannot let the socket go, it is lost like any broken connection: the machine
    // that had it has already let go.
    let ServerConnection { socket, permit, .. } = connection;
    if let Ok(socket) = T::release(socket) {
        lanes.send(target, Arrival::Rehomed(socket, permit, detached, unread));
    }
}

/// The writing task of a connection: it lives until nothing is owed, and closes the connection if
/// that is what it waits for.
async fn write_out<M: Driven, T: Thread>(
    driver: Rc<Driver<M, T>>,
    connection: Rc<ServerConnection<T::Socket>>,
) {
    let conn = connection.id;
    loop {
        let written = driver.turn_with(|turn| {
            let written = turn.write(conn);
            if written == Written::All
                && !connection.is_closing.get()
                && let Some(entry) = turn.sockets.get_mut(conn)
            {
                entry.writer = None;
                return Written::Gone;
            }
            written
        });
        match written {
            Written::All => break,
            Written::Share => T::yield_now().await,
            Written::Full => {
                if writable(&connection.socket).await.is_err() {
                    return driver.turn_with(|turn| turn.end(conn));
                }
            }
            Written::Gone => return,
        }
    }
    linger(&driver, &connection.socket).await;
    driver.turn_with(|turn| turn.end(conn));
}

/// Says that nothing more comes, and drops for a moment what the peer still sends: closing a socket
/// with unread input makes the kernel send a reset, which can overtake an error frame.
pub(crate) async fn linger<M: Driven, T: Thread>(driver: &Rc<Driver<M, T>>, socket: &T::Socket) {
    if socket.shut_down_writing().is_err() {
        return;
    }
    let drain = async {
        let mut left = LINGER_LEN_MAX;
        while left > 0 {
            let result = driver.look(|turn| {
                let mut input = turn.inputs.lend(&mut BytesMut::new(), 1);
                let result = socket.try_read(&mut input);
                input.clear();
                let _ = turn.inputs.give_back(input);
                result
            });
            match result {
                Ok((count, _)) if count > 0 => left = left.saturating_sub(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if readable(socket).await.is_err() {
                        return;
                    }
                }
                Ok(_) | Err(_) => return,
            }
        }
    };
    let _ = within::<T::Runtime, _>(LINGER_TIME, drain).await;
}

/// Writes the next parts of what is owed.
fn write_some(socket: &impl Socket, owed: &Transmit) -> io::Result<usize> {
    let mut parts = [&[][..]; SLICES_MAX];
    let count = owed.slices(&mut parts);
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    for (slice, part) in slices.iter_mut().zip(&parts[..count]) {
        *slice = IoSlice::new(part);
    }
    let written = socket.try_write(&slices[..count])?;
    if written == 0 { Err(ErrorKind::WriteZero.into()) } else { Ok(written) }
}

/// Slices of one write. More bring little: each large body is one system call's worth by itself.
const SLICES_MAX: usize = 64;

/// Bytes of one connection's share of a turn.
const WRITE_LEN_MAX: usize = 1024 * 1024;

/// Rounds of a turn in which connections write at once; after them, writing is left to tasks of
/// their own.
const DIRECT_ROUNDS_MAX: u32 = 8;

/// Up to this much is a small write, after which a connection may well be idle.
const SMALL_LEN_MAX: usize = 4 * 1024;

/// How much of a closing connection's input is dropped, and for how long.
const LINGER_LEN_MAX: usize = 64 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(1);
