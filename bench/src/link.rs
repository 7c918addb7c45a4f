//! One connection: bytes in and out, through TLS and compression if there are any, frames read in
//! place.

use core::fmt;
use std::io::{ErrorKind, Read, Write};

use bytes::{Buf as _, BytesMut};
use sansq_core::transmit::Transmit;
use sansq_core::upgrade::{Decoded, Scratch, Stack};

use super::BenchError;

/// A connection over `S`. Without layers no byte is copied on the way out, and none is copied twice
/// on the way in.
pub(super) struct Link<S> {
    stream: S,
    /// What was read. With layers it is empty between calls.
    input: Vec<u8>,
    /// What of `input` has been read and not yet been taken.
    start: usize,
    end: usize,
    layers: Option<Box<Layers>>,
}

/// What a connection with TLS or compression has beside.
struct Layers {
    stack: Stack,
    scratch: Scratch,
    /// Read and not decoded.
    wire: BytesMut,
    /// Decoded; so many bytes of it have been taken.
    plain: BytesMut,
    taken: usize,
    /// Encoded and not written.
    unsent: Transmit,
}

/// A frame of the server (nsqd-protocol.md section 3).
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Frame<'a> {
    Error(&'a [u8]),
    Message(&'a [u8]),
    Response(&'a [u8]),
}

/// What a read brought.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Filled {
    /// Nothing: there is nothing now.
    Nothing,
    /// Bytes, and no more are there now.
    All,
    /// Bytes, and there may be more.
    Some,
}

impl<S> Link<S> {
    /// One that has sent and received nothing yet.
    pub(super) fn new(stream: S) -> Self {
        Self { stream, input: vec![0; INPUT_LEN_MIN], start: 0, end: 0, layers: None }
    }

    /// The same connection with another handle to its socket.
    pub(super) fn map<T, E>(self, map: impl FnOnce(S) -> Result<T, E>) -> Result<Link<T>, E> {
        let Self { stream, input, start, end, layers } = self;
        Ok(Link { stream: map(stream)?, input, start, end, layers })
    }

    /// The socket.
    pub(super) const fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Puts layers on, or changes those there are. What was read and not taken belongs to the new
    /// one.
    pub(super) fn raise(&mut self, raise: impl FnOnce(&mut Stack, BytesMut)) {
        let early = BytesMut::from(self.unread());
        match &mut self.layers {
            Some(layers) => layers.taken = layers.plain.len(),
            None => (self.start, self.end) = (0, 0),
        }
        let layers = self.layers.get_or_insert_default();
        raise(&mut layers.stack, early);
        layers.stack.flush(&mut layers.unsent);
    }

    /// Takes the next frame out of what was read; `None` if none is complete.
    pub(super) fn next(&mut self) -> Result<Option<Frame<'_>>, BenchError> {
        let len = loop {
            if let Some(len) = frame_len(self.unread())? {
                break len;
            }
            let Some(layers) = &mut self.layers else { return Ok(None) };
            if !layers.decode()? {
                return Ok(None);
            }
        };
        let frame = match &mut self.layers {
            Some(layers) => {
                layers.taken += len;
                &layers.plain[layers.taken - len..layers.taken]
            }
            None => {
                self.start += len;
                &self.input[self.start - len..self.start]
            }
        };
        match frame[4..].split_first_chunk() {
            Some(([0, 0, 0, 0], payload)) => Ok(Some(Frame::Response(payload))),
            Some(([0, 0, 0, 1], payload)) => Ok(Some(Frame::Error(payload))),
            Some(([0, 0, 0, 2], payload)) => Ok(Some(Frame::Message(payload))),
            _ => Err(BenchError::Malformed),
        }
    }

    fn unread(&self) -> &[u8] {
        match &self.layers {
            Some(layers) => &layers.plain[layers.taken..],
            None => &self.input[self.start..self.end],
        }
    }
}

impl<S: Read + Write> Link<S> {
    /// Reads once.
    pub(super) fn fill(&mut self) -> Result<Filled, BenchError> {
        self.make_room();
        let room = self.input.len() - self.end;
        let read = match self.stream.read(&mut self.input[self.end..]) {
            Ok(0) => return Err(BenchError::Io("receiving", ErrorKind::UnexpectedEof.into())),
            Ok(read) => read,
            Err(error) if NOTHING_YET.contains(&error.kind()) => return Ok(Filled::Nothing),
            Err(error) => return Err(BenchError::Io("receiving", error)),
        };
        self.end += read;
        if let Some(layers) = &mut self.layers {
            layers.wire.extend_from_slice(&self.input[self.start..self.end]);
            (self.start, self.end) = (0, 0);
        }
        if read == room && self.input.len() < INPUT_LEN_MAX {
            self.input.resize(2 * self.input.len(), 0);
        }
        // A read that does not fill its buffer took all there was; epoll and kqueue tell of more.
        Ok(if read < room { Filled::All } else { Filled::Some })
    }

    /// Takes bytes to be sent, from the front; how many. Fewer if the socket takes no more now.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<usize, BenchError> {
        if !self.flush()? {
            return Ok(0);
        }
        let Some(layers) = &mut self.layers else { return write(&mut self.stream, bytes) };
        let part = &bytes[..bytes.len().min(ENCODED_LEN)];
        if !part.is_empty() {
            let mut plain = Transmit::from(part.to_vec());
            layers.stack.encode(&mut plain, &mut layers.unsent, &mut layers.scratch);
            self.flush()?;
        }
        Ok(part.len())
    }

    /// Writes what the layers owe; whether they owe nothing any more.
    pub(super) fn flush(&mut self) -> Result<bool, BenchError> {
        let Some(layers) = &mut self.layers else { return Ok(true) };
        while !layers.unsent.is_empty() {
            let mut parts = [&[][..]; 1];
            layers.unsent.slices(&mut parts);
            let written = write(&mut self.stream, parts[0])?;
            layers.unsent.advance(written);
            if written == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Moves what is left, which is less than a frame, to the front; grows the buffer if a frame is
    /// larger than it.
    fn make_room(&mut self) {
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.input.len() {
            self.input.resize(2 * self.end, 0);
        }
    }
}

impl<S> fmt::Debug for Link<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Layers {
    /// Decodes a step; whether another one may bring more.
    fn decode(&mut self) -> Result<bool, BenchError> {
        self.plain.advance(self.taken);
        self.taken = 0;
        let decoded = self.stack.decode(&mut self.wire, &mut self.plain);
        self.stack.flush(&mut self.unsent);
        match decoded.map_err(BenchError::Layer)? {
            Decoded::All => Ok(false),
            Decoded::Some | Decoded::Handshaken => Ok(true),
            Decoded::End => Err(BenchError::Io("receiving", ErrorKind::UnexpectedEof.into())),
        }
    }
}

impl Default for Layers {
    fn default() -> Self {
        Self {
            stack: Stack::new(),
            scratch: Scratch::default(),
            wire: BytesMut::new(),
            plain: BytesMut::new(),
            taken: 0,
            unsent: Transmit::new(),
        }
    }
}

/// Bytes of the frame that `input` begins with; `None` if it is not complete.
fn frame_len(input: &[u8]) -> Result<Option<usize>, BenchError> {
    let Some((size, rest)) = input.split_first_chunk() else { return Ok(None) };
    let size = u32::from_be_bytes(*size) as usize;
    if !(4..=FRAME_MAX).contains(&size) {
        return Err(BenchError::Malformed);
    }
    Ok((rest.len() >= size).then_some(4 + size))
}

fn write(stream: &mut impl Write, bytes: &[u8]) -> Result<usize, BenchError> {
    if bytes.is_empty() {
        return Ok(0);
    }
    match stream.write(bytes) {
        Ok(written) => Ok(written),
        Err(error) if NOTHING_YET.contains(&error.kind()) => Ok(0),
        Err(error) => Err(BenchError::Io("sending", error)),
    }
}

/// What a read or write that has to wait ends with, by platform.
const NOTHING_YET: [ErrorKind; 3] =
    [ErrorKind::Interrupted, ErrorKind::TimedOut, ErrorKind::WouldBlock];
/// A read buffer's first size: for answers. It grows while reads fill it.
const INPUT_LEN_MIN: usize = 4 * 1024;
/// A thousand messages of the default size: fewer system calls gain nothing measurable.
const INPUT_LEN_MAX: usize = 256 * 1024;
/// Plain bytes that are encoded at a time: more would wait in memory.
const ENCODED_LEN: usize = 256 * 1024;
/// Larger frames are not of this protocol: servers limit messages to a megabyte by default.
const FRAME_MAX: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;
    use sansq_core::upgrade::Layer;
    use std::collections::VecDeque;
    use std::io;

    /// A socket whose peer has sent these parts, one per read.
    #[derive(Default)]
    struct Pipe {
        input: VecDeque<Vec<u8>>,
        output: Vec<u8>,
        /// Bytes that it takes per write.
        takes: usize,
    }

    impl Read for Pipe {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some(mut part) = self.input.pop_front() else {
                return Err(ErrorKind::WouldBlock.into());
            };
            let len = part.len().min(buffer.len());
            buffer[..len].copy_from_slice(&part[..len]);
            if part.len() > len {
                self.input.push_front(part.split_off(len));
            }
            Ok(len)
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let len = bytes.len().min(self.takes);
            if len == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.output.extend(&bytes[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn frame(kind: u32, payload: &[u8]) -> Vec<u8> {
        [&(payload.len() as u32 + 4).to_be_bytes()[..], &kind.to_be_bytes(), payload].concat()
    }

    fn frames(link: &mut Link<Pipe>) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            while let Some(frame) = link.next().unwrap() {
                let (Frame::Response(payload) | Frame::Error(payload) | Frame::Message(payload)) =
                    frame;
                all.push(String::from_utf8_lossy(payload).into_owned());
            }
            if link.fill().unwrap() == Filled::Nothing {
                return all;
            }
        }
    }

    #[test]
    fn frames_come_out_however_they_are_split_and_however_long() {
        let long = "y".repeat(100_000);
        let bytes = [frame(0, b"OK"), frame(2, long.as_bytes()), frame(1, b"E_X no")].concat();
        for step in [1_000, 5_000, 200_000] {
            let input = bytes.chunks(step).map(<[u8]>::to_vec).collect();
            let mut link = Link::new(Pipe { input, ..Pipe::default() });
            assert_eq!(frames(&mut link), ["OK", &long, "E_X no"]);
        }
    }

    #[test]
    fn layers_are_transparent() {
        for layer in [Layer::Snappy, Layer::Deflate(6)] {
            let bytes = [frame(0, b"OK"), frame(2, &[b'z'; 300_000])].concat();
            let mut server = Stack::new();
            server.push_packing(layer, BytesMut::new());
            let (mut plain, mut wire) = (Transmit::from(bytes), Transmit::new());
            server.encode(&mut plain, &mut wire, &mut Scratch::default());
            let wire = wire.into_vec();

            // The first bytes came with the frame before the layer.
            let (early, late) = wire.split_at(7);
            let first = [&frame(0, b"{}")[..], early].concat();
            let input =
                core::iter::once(first).chain(late.chunks(11).map(<[u8]>::to_vec)).collect();
            let mut link = Link::new(Pipe { input, takes: 10, ..Pipe::default() });
            assert_eq!(link.fill().unwrap(), Filled::All);
            assert_eq!(link.next().unwrap(), Some(Frame::Response(b"{}")));
            link.raise(|stack, early| stack.push_packing(layer, early));
            let got = frames(&mut link);
            assert_eq!((got[0].as_str(), got[1].len(), got.len()), ("OK", 300_000, 2));

            // And out, through a socket that takes a little at a time.
            let sent = b"PUB t\n".repeat(100);
            assert_eq!(link.send(&sent).unwrap(), sent.len());
            assert!(link.flush().unwrap());
            let mut wire = BytesMut::from(&link.stream_mut().output[..]);
            let mut plain = BytesMut::new();
            while server.decode(&mut wire, &mut plain).unwrap() != Decoded::All {}
            assert_eq!(plain, sent);
        }
    }

    #[test]
    fn what_is_not_taken_stays_with_the_caller() {
        let mut link = Link::new(Pipe::default());
        assert_eq!(link.send(b"NOP\n").unwrap(), 0);
        link.stream_mut().takes = 3;
        assert_eq!(link.send(b"NOP\n").unwrap(), 3);
        // Layers keep what they have encoded, and take no more until that is written.
        link.stream_mut().takes = 0;
        link.raise(|stack, early| stack.push_packing(Layer::Snappy, early));
        assert_eq!((link.send(b"NOP\n").unwrap(), link.flush().unwrap()), (4, false));
        assert_eq!(link.send(b"NOP\n").unwrap(), 0);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for bad in [&b"HTTP/1.1"[..], &[0, 0, 0, 3, 0, 0, 0], &[0, 0, 0, 4, 0, 0, 0, 3]] {
            let input = VecDeque::from([bad.to_vec()]);
            let mut link = Link::new(Pipe { input, ..Pipe::default() });
            link.fill().unwrap();
            assert!(matches!(link.next(), Err(BenchError::Malformed)), "{bad:?}");
        }
    }
}
