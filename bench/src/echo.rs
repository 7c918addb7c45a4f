//! The server `echo`: what this machine leaves to any broker that hands messages from one thread to
//! another.
//!
//! One thread reads from a publisher's connection, hands what it made of the bytes to a second
//! thread, and answers; the second thread writes to a consumer's connection. The bytes are those of
//! PUB, OK and delivery. There is no queue, no RDY, no FIN, no channel; every thread waits in a
//! blocking read or for its one lane.

use core::net::{Ipv4Addr, SocketAddr};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use sansq_core::protocol::frame::{CLOSE_WAIT, OK};

/// The address that stands for it on the command line.
pub(super) const ECHO: &str = "echo";

/// An echo that listens on a port of its own, until it is dropped.
#[derive(Debug)]
pub(super) struct Echo {
    pub(super) address: SocketAddr,
    hub: Arc<Hub>,
    acceptor: Option<JoinHandle<()>>,
}

/// The consumers there are.
#[derive(Debug, Default)]
struct Hub {
    lanes: Mutex<Vec<(u64, SyncSender<Vec<u8>>)>>,
    /// How many there were.
    count: AtomicU64,
    is_over: AtomicBool,
}

impl Echo {
    /// Starts one.
    ///
    /// # Errors
    /// If the operating system has no port or no thread.
    pub(super) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let hub = Arc::new(Hub::default());
        let accepting = Arc::clone(&hub);
        let acceptor = thread::Builder::new().name(ECHO.into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.is_over.load(Ordering::Acquire) {
                    break;
                }
                let hub = Arc::clone(&accepting);
                // Whatever ends a connection, its peer notices. It is this program.
                thread::spawn(move || serve(&hub, stream).ok());
            }
        })?;
        Ok(Self { address, hub, acceptor: Some(acceptor) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.hub.is_over.store(true, Ordering::Release);
        // Only so that the thread looks.
        let is_awake = TcpStream::connect(self.address).is_ok();
        if let Some(acceptor) = self.acceptor.take().filter(|_| is_awake) {
            let _ = acceptor.join();
        }
    }
}

/// One connection, until its peer closes it or sends what is not understood.
fn serve(hub: &Hub, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BufReader::with_capacity(INPUT_LEN, stream.try_clone()?);
    input.read_exact(&mut [0; 4])?;
    let (mut line, mut body) = (Vec::new(), Vec::new());
    let mut count = 0;
    loop {
        line.clear();
        input.by_ref().take(LINE_LEN_MAX).read_until(b'\n', &mut line)?;
        let command = line.split(|byte| byte.is_ascii_whitespace()).next();
        match command {
            Some(b"IDENTIFY") => read_sized(&mut input, &mut body)?,
            Some(b"PUB") => {
                read_sized(&mut input, &mut body)?;
                hub.deliver(count, message(&body));
            }
            Some(b"MPUB") => {
                read_sized(&mut input, &mut body)?;
                hub.deliver(count, messages(body.get(4..).unwrap_or_default())?);
            }
            Some(b"SUB") => return consume(hub, input, stream),
            Some(b"NOP") => continue,
            _ => return Err(ErrorKind::InvalidData.into()),
        }
        count += 1;
        stream.write_all(&frame(0, OK))?;
    }
}

/// A consumer's connection: this thread drops its commands, and another one writes.
fn consume(hub: &Hub, mut input: impl io::BufRead, stream: TcpStream) -> io::Result<()> {
    let (lane, frames) = sync_channel(LANE_LEN_MAX);
    // It is written when the consumer is known, so that whatever is published after it finds one.
    let _ = lane.send(frame(0, OK));
    let id = hub.count.fetch_add(1, Ordering::Relaxed);
    hub.lanes().push((id, lane.clone()));
    thread::spawn(move || write_out(stream, &frames).ok());
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.by_ref().take(LINE_LEN_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line == b"CLS\n" {
            // It does not matter if nobody writes any more.
            let _ = lane.send(frame(0, CLOSE_WAIT));
        }
    }
}

fn write_out(mut stream: TcpStream, frames: &Receiver<Vec<u8>>) -> io::Result<()> {
    while let Ok(frames) = frames.recv() {
        stream.write_all(&frames)?;
    }
    Ok(())
}

impl Hub {
    /// To the consumers in turn; to nobody if there is none. Waits if the consumer is behind.
    fn deliver(&self, count: usize, frames: Vec<u8>) {
        let lanes = self.lanes();
        let Some((id, lane)) = lanes.get(count % lanes.len().max(1)).cloned() else {
            return;
        };
        drop(lanes);
        if lane.send(frames).is_err() {
            self.lanes().retain(|(other, _)| *other != id);
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Vec<(u64, SyncSender<Vec<u8>>)>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Four bytes of length, and as much.
fn read_sized(input: &mut impl Read, body: &mut Vec<u8>) -> io::Result<()> {
    let mut len = [0; 4];
    input.read_exact(&mut len)?;
    let len = u64::from(u32::from_be_bytes(len));
    body.clear();
    if len > super::options::COMMANDS_MAX || input.take(len).read_to_end(body)? as u64 != len {
        return Err(ErrorKind::InvalidData.into());
    }
    Ok(())
}

/// The frames of an MPUB's messages.
fn messages(mut rest: &[u8]) -> io::Result<Vec<u8>> {
    let mut frames = Vec::with_capacity(2 * rest.len());
    while let Some((len, more)) = rest.split_first_chunk() {
        let len = u32::from_be_bytes(*len) as usize;
        let (body, more) = more.split_at_checked(len).ok_or(ErrorKind::InvalidData)?;
        frames.extend(message(body));
        rest = more;
    }
    Ok(frames)
}

/// A message's frame (nsqd-protocol.md section 3): no time, the first attempt, an id of zeros.
fn message(body: &[u8]) -> Vec<u8> {
    let mut head = [0; 26];
    head[9] = 1;
    head[10..].fill(b'0');
    let mut frame = Vec::with_capacity(8 + head.len() + body.len());
    push_head(&mut frame, 2, head.len() + body.len());
    frame.extend(head);
    frame.extend(body);
    frame
}

fn frame(kind: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(8 + payload.len());
    push_head(&mut frame, kind, payload.len());
    frame.extend(payload);
    frame
}

fn push_head(frame: &mut Vec<u8>, kind: u32, len: usize) {
    frame.extend((len as u32 + 4).to_be_bytes());
    frame.extend(kind.to_be_bytes());
}

/// A read's worth.
const INPUT_LEN: usize = 256 * 1024;
/// Longer lines are no commands.
const LINE_LEN_MAX: u64 = 1024;
/// Commands whose messages are handed over and not written.
const LANE_LEN_MAX: usize = 256;
