//! A [`Socket`] as those want it who read and write streams: rustls and hyper.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io::{self, ErrorKind, IoSlice};

use bytes::{Buf, BytesMut};
use futures_lite::io::{AsyncRead, AsyncWrite};
use hyper::rt::{Read, ReadBufCursor, Write};

use crate::runtime::Socket;

/// A socket as a stream of bytes.
#[derive(Debug)]
pub(crate) struct Stream<S> {
    socket: S,
    /// What was read and not taken. It has memory only while there is something in it, or a read
    /// under way.
    input: BytesMut,
}

impl<S: Socket> Stream<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self { socket, input: BytesMut::new() }
    }

    /// Waits for the first bytes and shows them; they are still to be read. Empty at the end.
    pub(crate) fn poll_first(&mut self, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        if self.input.is_empty() {
            ready!(self.poll_fill(context))?;
        }
        Poll::Ready(Ok(&self.input))
    }

    /// Reads until there is something in `input`, or the end has come.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.socket.poll_readable(context)?.is_pending() {
                self.input = BytesMut::new();
                return Poll::Pending;
            }
            self.input.reserve(READ_LEN);
            match self.socket.try_read(&mut self.input) {
                Err(error) if is_passing(&error) => {}
                result => return Poll::Ready(result.map(|_| ())),
            }
        }
    }

    /// Hands over what was read, up to `room` bytes.
    fn poll_take(
        &mut self,
        context: &mut Context<'_>,
        room: usize,
        mut take: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        let first = ready!(self.poll_first(context))?;
        let count = first.len().min(room);
        take(&first[..count]);
        self.input.advance(count);
        Poll::Ready(Ok(count))
    }

    fn poll_put(
        &self,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_writable(context))?;
            match self.socket.try_write(parts) {
                Err(error) if is_passing(&error) => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl<S: Socket> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let len = room.len();
        self.poll_take(context, len, |bytes| room[..bytes.len()].copy_from_slice(bytes))
    }
}

impl<S: Socket> AsyncWrite for Stream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_put(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_put(context, parts)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.shut_down_writing())
    }
}

/// A stream of either kind under hyper: a socket's, or TLS around one.
#[derive(Debug)]
pub(crate) struct HyperIo<T> {
    stream: T,
    /// Where one read goes to before hyper has it; kept only while the connection is busy.
    part: Vec<u8>,
}

impl<T> HyperIo<T> {
    pub(crate) const fn new(stream: T) -> Self {
        Self { stream, part: Vec::new() }
    }
}

impl<T: AsyncRead + Unpin> Read for HyperIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut room: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, part } = &mut *self;
        let len = room.remaining().min(READ_LEN);
        if part.len() < len {
            // Not resized: zeroed memory is to be had for less.
            *part = vec![0; len];
        }
        let wanted = part.get_mut(..len).unwrap_or_default();
        let polled = Pin::new(stream).poll_read(context, wanted);
        if let Poll::Ready(Ok(count)) = &polled {
            room.put_slice(part.get(..*count).unwrap_or_default());
        }
        if polled.is_pending() {
            *part = Vec::new();
        }
        polled.map_ok(|_| ())
    }
}

impl<T: AsyncWrite + Unpin> Write for HyperIo<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }
}

/// Whether to try again, perhaps after a wait.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock)
}

/// Bytes of one read.
const READ_LEN: usize = 16 * 1024;
