//! What happens to a client, for those who want to know.

use core::fmt::Display;
use core::pin::Pin;
use core::task::{Context, Poll};

use async_channel::{Receiver, Sender};
use futures_lite::{Stream, StreamExt};
use sansq_core::log::Level;

/// What happens to a client from now on, as a stream that ends with the client.
///
/// It holds [`EVENTS_MAX`] events that nobody has taken yet; of more, the oldest are lost.
#[derive(Debug)]
pub struct Events<E>(Pin<Box<Receiver<E>>>);

impl<E> Events<E> {
    /// The next event; `None` when the client has stopped.
    pub async fn next(&mut self) -> Option<E> {
        StreamExt::next(self).await
    }
}

impl<E> Stream for Events<E> {
    type Item = E;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<E>> {
        self.0.as_mut().poll_next(context)
    }
}

/// The streams that were asked for.
#[derive(Debug)]
pub(super) struct Listeners<E>(Vec<Sender<E>>);

impl<E> Default for Listeners<E> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<E: Clone> Listeners<E> {
    pub(super) fn listen(&mut self) -> Events<E> {
        let (sender, receiver) = async_channel::bounded(EVENTS_MAX);
        self.0.push(sender);
        Events(Box::pin(receiver))
    }

    pub(super) fn tell(&mut self, event: &E) {
        self.0.retain(|listener| listener.force_send(event.clone()).is_ok());
    }

    /// Nothing more will happen.
    pub(super) fn end(&mut self) {
        self.0.clear();
    }
}

/// Writes a line of the log.
pub(super) fn log(level: Level, line: impl Display) {
    match level {
        Level::Debug => tracing::debug!(target: "sansq::client", "{line}"),
        Level::Info => tracing::info!(target: "sansq::client", "{line}"),
        Level::Warn => tracing::warn!(target: "sansq::client", "{line}"),
        Level::Error | Level::Fatal => tracing::error!(target: "sansq::client", "{line}"),
    }
}

/// The most events that a stream holds: more than an hour of redials to a server that is down.
pub const EVENTS_MAX: usize = 256;
