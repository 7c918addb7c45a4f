//! The producer as programs see it.

use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use sansq_core::client::{ProducerEvent, ProducerPool, PublishError, PublishStats};
use sansq_core::http::call::UrlError;
use sansq_core::name::TopicName;

use super::drive::drive;
use super::events::Events;
use super::publishing::{Payload, Publishing, Submission, Submitted};
use super::setup::{ProducerConfig, SetupError, check_addresses, fill_in};
use super::shared::Shared;
use super::waiters::Wait;
use super::wakers::Offer;
use crate::runtime::Runtime;

/// Publishes to one nsqd, or to whichever of several has least to do.
///
/// Clones are the same producer. It connects at once, connects again by itself when a connection is
/// lost, and sends without waiting for earlier answers: have many publishes under way, and they
/// share writes. When the last clone and the last [`Publish`] and [`Receipt`] are dropped, it
/// closes as [`close`](Self::close) does, in the background.
#[derive(Clone)]
pub struct Producer(Arc<Alive>);

/// Closes the producer when nobody has it any more.
struct Alive(Arc<Shared<Publishing>>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.turn(Publishing::close);
    }
}

/// What a producer is up to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct ProducerStats {
    /// How many nsqds publishes can go to at once.
    pub connected: usize,
    /// How many publishes are taken and not completed.
    pub outstanding: usize,
    /// How many publishes wait for room.
    pub waiting: usize,
    /// The addresses of its nsqds.
    pub nsqds: Vec<String>,
    /// Figures of each of them: how long answers took, what went wrong how often.
    pub connections: Vec<PublishStats>,
}

impl Producer {
    /// Makes a producer and starts its tasks on `runtime`.
    ///
    /// # Errors
    /// [`SetupError`] for what is wrong with the configuration. Whether there is a server shows
    /// later.
    pub fn start<R: Runtime>(runtime: R, mut config: ProducerConfig) -> Result<Self, SetupError> {
        check_addresses(&config.nsqds, &config.nsqlookupds)?;
        let seed = config.net.seed();
        fill_in(&mut config.options.producer.connection);
        let publish_timeout = config.options.producer.publish_timeout;
        let pool = ProducerPool::new(config.options, seed)?;
        let shared = Shared::new(Publishing::new(pool, publish_timeout));
        shared.turn(|client, now, out| {
            for nsqd in &config.nsqds {
                client.pool.add_nsqd(nsqd, now, out);
            }
            config.nsqlookupds.into_iter().try_for_each(|address| {
                match client.pool.add_nsqlookupd(&address, now, out) {
                    Ok(_) => Ok(()),
                    Err(error) => Err(SetupError::Nsqlookupd(address, error)),
                }
            })
        })?;
        runtime.spawn(drive(runtime.clone(), config.net, Arc::clone(&shared)));
        Ok(Self(Arc::new(Alive(shared))))
    }

    /// Publishes a message. Nothing happens before the future is polled; it is over when the nsqd
    /// has answered, or its time is up.
    ///
    /// If too much is outstanding, it waits for room, behind those that wait already. Dropping the
    /// future takes the message back if it was not sent yet.
    ///
    /// A body made by [`Bytes::from_owner`] is dropped by the producer, at any time: its owner's
    /// drop must not call this producer.
    ///
    /// # Errors
    /// [`PublishError`]; its [`outcome`](PublishError::outcome) says whether the message may have
    /// been stored.
    pub fn publish(&self, topic: impl AsRef<str>, body: impl Into<Bytes>) -> Publish {
        self.submit(topic.as_ref(), Payload::One(body.into()))
    }

    /// Publishes a message that the nsqd holds back for `delay`, in whole milliseconds; at most
    /// `max_req_timeout`. Otherwise as [`publish`](Self::publish).
    pub fn publish_after(
        &self,
        topic: impl AsRef<str>,
        delay: Duration,
        body: impl Into<Bytes>,
    ) -> Publish {
        self.submit(topic.as_ref(), Payload::After(delay, body.into()))
    }

    /// Publishes several messages with one command: the nsqd takes all of them or, unless its disk
    /// fails, none. Otherwise as [`publish`](Self::publish).
    pub fn publish_many<B: Into<Bytes>>(
        &self,
        topic: impl AsRef<str>,
        bodies: impl IntoIterator<Item = B>,
    ) -> Publish {
        let bodies = bodies.into_iter().map(Into::into).collect();
        self.submit(topic.as_ref(), Payload::Many(bodies))
    }

    fn submit(&self, topic: &str, payload: Payload) -> Publish {
        let state = match TopicName::new(topic) {
            Ok(topic) => State::New(Submission { topic, payload, timeout: None }),
            Err(error) => State::Invalid(PublishError::Topic(error)),
        };
        Publish { producer: Arc::clone(&self.0), state }
    }

    /// Publishes a message now, without waiting for anything. The receipt is a future of the
    /// outcome; it may be dropped, the message is published all the same.
    ///
    /// # Errors
    /// [`PublishError::Full`] if there is no room, or others wait for it; and those that are about
    /// the message. It was not taken then.
    pub fn enqueue(
        &self,
        topic: impl AsRef<str>,
        body: impl Into<Bytes>,
    ) -> Result<Receipt, PublishError> {
        let topic = TopicName::new(topic.as_ref()).map_err(PublishError::Topic)?;
        let payload = Payload::One(body.into());
        let publish = Submission { topic, payload, timeout: None };
        let shared = &self.0.0;
        let id = shared.turn(|client, now, out| client.enqueue(&publish, now, out))?;
        Ok(Receipt { producer: Arc::clone(&self.0), place: Some(Submitted::Taken(id)) })
    }

    /// Takes no more publishes, waits up to `close_timeout` for those outstanding, and is over when
    /// the connections are closed. Publishes that wait for room fail with [`PublishError::Closed`].
    pub async fn close(&self) {
        let shared = &self.0.0;
        shared.turn(Publishing::close);
        let mut wait = Wait::new(shared, |client| &mut client.closers);
        poll_fn(|context| wait.poll(context, |client| client.poll_stopped())).await;
    }

    /// Publishes to the nsqd at `host:port` too; false if it does already, is closed, or if nothing
    /// can be dialled there.
    pub fn add_nsqd(&self, address: &str) -> bool {
        self.0.0.turn(|client, now, out| client.pool.add_nsqd(address, now, out))
    }

    /// Publishes to this nsqd no more; what it has not answered yet is waited for. False if it is
    /// not known.
    pub fn remove_nsqd(&self, address: &str) -> bool {
        self.0.0.turn(|client, now, out| client.pool.remove_nsqd(address, now, out))
    }

    /// Asks the nsqlookupd at `host:port`, or a URL, for nsqds too; false if it does already.
    ///
    /// # Errors
    /// [`UrlError`] if it cannot be asked.
    pub fn add_nsqlookupd(&self, address: &str) -> Result<bool, UrlError> {
        self.0.0.turn(|client, now, out| client.pool.add_nsqlookupd(address, now, out))
    }

    /// Asks this nsqlookupd no more; false if it is not known.
    pub fn remove_nsqlookupd(&self, address: &str) -> bool {
        self.0.0.turn(|client, _, _| client.pool.remove_nsqlookupd(address))
    }

    /// What it is up to.
    pub fn stats(&self) -> ProducerStats {
        self.0.0.look(|client| ProducerStats {
            connected: client.pool.connected(),
            outstanding: client.pool.outstanding(),
            waiting: client.waiting(),
            nsqds: client.pool.addresses(),
            connections: client.pool.stats(),
        })
    }

    /// What happens to it from now on.
    pub fn events(&self) -> Events<ProducerEvent> {
        self.0.0.look(|client| client.listeners.listen())
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Producer").field(&self.stats()).finish()
    }
}

/// A publish that is on its way: a future of its outcome.
#[must_use = "nothing is published before it is polled"]
pub struct Publish {
    producer: Arc<Alive>,
    state: State,
}

enum State {
    New(Submission),
    Invalid(PublishError),
    Under(Submitted),
    Over,
}

impl Publish {
    /// Sets how long it may take, instead of `publish_timeout`; waiting for room counts.
    pub fn within(mut self, timeout: Duration) -> Self {
        if let State::New(publish) = &mut self.state {
            publish.timeout = Some(timeout);
        }
        self
    }
}

impl Future for Publish {
    type Output = Result<(), PublishError>;

    /// # Panics
    /// If it is polled after its end.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { producer, state } = &mut *self;
        let shared = &producer.0;
        let mut offer = Offer::of(context);
        match core::mem::replace(state, State::Over) {
            State::New(publish) => {
                let mut publish = Some(publish);
                let place = shared
                    .turn(|client, now, out| client.submit(&mut publish, &mut offer, now, out))?;
                *state = State::Under(place);
                Poll::Pending
            }
            State::Under(mut place) => {
                let outcome = shared.look(|client| client.poll_outcome(&mut place, &mut offer));
                if outcome.is_pending() {
                    *state = State::Under(place);
                }
                outcome
            }
            State::Invalid(error) => Poll::Ready(Err(error)),
            State::Over => panic!("a publish was polled after its end"),
        }
    }
}

impl Drop for Publish {
    fn drop(&mut self) {
        if let State::Under(place) = core::mem::replace(&mut self.state, State::Over) {
            let left = self.producer.0.turn(|client, now, out| client.abandon(place, now, out));
            drop(left);
        }
    }
}

impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish").finish_non_exhaustive()
    }
}

/// A message that was taken: a future of its outcome. Dropping it changes nothing.
pub struct Receipt {
    producer: Arc<Alive>,
    place: Option<Submitted>,
}

impl Future for Receipt {
    type Output = Result<(), PublishError>;

    /// # Panics
    /// If it is polled after its end.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { producer, place } = &mut *self;
        let taken = place.as_mut().expect("a receipt is not polled after its end");
        let mut offer = Offer::of(context);
        let outcome = producer.0.look(|client| client.poll_outcome(taken, &mut offer));
        if outcome.is_ready() {
            *place = None;
        }
        outcome
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            let left = self.producer.0.look(|client| client.detach(place));
            drop(left);
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").finish_non_exhaustive()
    }
}
