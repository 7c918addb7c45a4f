//! The consumer as programs see it.

use core::fmt::{self, Display};
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::sync::Arc;

use futures_lite::Stream;
use futures_util::stream::FuturesUnordered;
use sansq_core::client::{self, AnswerError, ConsumerEvent, ConsumerStats};
use sansq_core::http::call::UrlError;
use sansq_core::log::Level;

use super::consuming::Consuming;
use super::drive::drive;
use super::events::Events;
use super::message::Message;
use super::setup::{ConsumerConfig, SetupError, check_addresses, fill_in};
use super::shared::Shared;
use super::waiters::{Spot, Wait, Waiters};
use super::wakers::log;
use crate::runtime::Runtime;

/// Consumes one channel of one topic, from nsqds that are given or that nsqlookupds know.
///
/// It is a stream of [`Message`]s that ends when the consumer is stopped; [`run`](Self::run) gives
/// them to a handler. Not more than `max_in_flight` messages are asked for, those included that
/// wait here; a program whose handlers outlive their connections or the time in flight may have
/// more in hand, see [`sansq_core::client::consumer`]. When it is dropped it stops in the
/// background: messages that nobody has taken go back at once, others may still be answered for
/// [`drop_grace`](ConsumerConfig::drop_grace).
pub struct Consumer {
    handle: ConsumerHandle,
    /// Where it waits as a stream.
    spot: Spot,
    drop_grace: Duration,
}

/// Controls a [`Consumer`] that somebody else reads from. It does not keep the consumer alive.
#[derive(Clone)]
pub struct ConsumerHandle(Arc<Shared<Consuming>>);

impl Consumer {
    /// Makes a consumer and starts its tasks on `runtime`.
    ///
    /// # Errors
    /// [`SetupError`] for what is wrong with the configuration. Whether there is a server shows
    /// later.
    pub fn start<R: Runtime>(runtime: R, mut config: ConsumerConfig) -> Result<Self, SetupError> {
        check_addresses(&config.nsqds, &config.nsqlookupds)?;
        let (seed, drop_grace) = (config.net.seed(), config.drop_grace);
        let max_in_flight = config.options.max_in_flight;
        fill_in(&mut config.options.connection);
        config.options.hand_over_exhausted |= config.dead_letter.is_some();
        let machine = client::Consumer::new(config.topic, config.channel, config.options, seed)?;
        let shared = Shared::new(Consuming::new(machine, max_in_flight, config.dead_letter));
        shared.turn(|client, now, out| {
            for nsqd in &config.nsqds {
                client.machine.add_nsqd(nsqd, now, out);
            }
            config.nsqlookupds.into_iter().try_for_each(|address| {
                match client.machine.add_nsqlookupd(&address, now, out) {
                    Ok(_) => Ok(()),
                    Err(error) => Err(SetupError::Nsqlookupd(address, error)),
                }
            })
        })?;
        runtime.spawn(drive(runtime.clone(), config.net, Arc::clone(&shared)));
        Ok(Self { handle: ConsumerHandle(shared), spot: Spot::default(), drop_grace })
    }

    /// The next message; `None`: the consumer was stopped, and there will be no more. Several tasks
    /// may wait for messages at once; each message goes to one of them.
    pub async fn next(&self) -> Option<Message> {
        let mut wait = self.wait_for_messages();
        let delivery = poll_fn(|context| wait.poll(context, Consuming::poll_next)).await?;
        Some(Message::new(Arc::clone(&self.handle.0), delivery))
    }

    fn wait_for_messages(&self) -> Wait<'_, Consuming> {
        Wait::new(&self.handle.0, takers)
    }

    /// Has `handler` work on messages, up to `limit` of them at once, and answers them by what it
    /// says, until the consumer is stopped and the last of them is answered. `Ok` finishes the
    /// message; an error is logged and requeues it with backoff, so that the consumer slows down
    /// while everything fails. A handler that knows better answers by itself, for example with a
    /// delay of its own; then that counts.
    ///
    /// All handlers run within this future. If they compute more than they wait, call it in several
    /// tasks.
    ///
    /// # Panics
    /// If the handler does; all messages that are being handled are requeued then.
    pub async fn run<F, R, E>(&self, limit: usize, handler: F)
    where
        F: Fn(Message) -> R,
        R: Future<Output = Result<(), E>>,
        E: Display,
    {
        let handler = &handler;
        self.for_each_concurrent(limit, |message| async move {
            let outcome = match handler(message.lend()).await {
                Ok(()) => message.finish(),
                Err(error) => {
                    let id = message.id().escape_ascii();
                    log(Level::Error, format_args!("message {id} failed: {error}"));
                    message.requeue(None)
                }
            };
            match outcome {
                Ok(()) | Err(AnswerError::Answered) => {}
                Err(error) => log(Level::Warn, format_args!("not answered: {error}")),
            }
        })
        .await;
    }

    /// Has `handler` take messages and answer them, up to `limit` of them at once, until the
    /// consumer is stopped and the last of them is handled.
    ///
    /// # Panics
    /// If the handler does; all messages that it has not answered are requeued then.
    pub async fn for_each_concurrent<F, R>(&self, limit: usize, handler: F)
    where
        F: Fn(Message) -> R,
        R: Future<Output = ()>,
    {
        let mut at_work = FuturesUnordered::new();
        let mut wait = self.wait_for_messages();
        let mut has_ended = false;
        loop {
            let step = poll_fn(|context| {
                if !has_ended && at_work.len() < limit.max(1) {
                    match wait.poll(context, Consuming::poll_next) {
                        Poll::Ready(Some(delivery)) => {
                            let message = Message::new(Arc::clone(&self.handle.0), delivery);
                            return Poll::Ready(Step::Begin(message));
                        }
                        Poll::Ready(None) => has_ended = true,
                        Poll::Pending => {}
                    }
                }
                match Pin::new(&mut at_work).poll_next(context) {
                    Poll::Ready(Some(())) => Poll::Ready(Step::Done),
                    Poll::Ready(None) if has_ended => Poll::Ready(Step::End),
                    Poll::Ready(None) | Poll::Pending => Poll::Pending,
                }
            });
            match step.await {
                Step::Begin(message) => at_work.push(handler(message)),
                Step::Done => {}
                Step::End => return,
            }
        }
    }

    /// What controls it from elsewhere.
    pub fn handle(&self) -> ConsumerHandle {
        self.handle.clone()
    }

    /// See [`ConsumerHandle::stop`].
    pub async fn stop(&self, grace: Duration) {
        self.handle.stop(grace).await;
    }

    /// See [`ConsumerHandle::pause`].
    pub fn pause(&self) {
        self.handle.pause();
    }

    /// See [`ConsumerHandle::resume`].
    pub fn resume(&self) {
        self.handle.resume();
    }

    /// See [`ConsumerHandle::change_max_in_flight`].
    pub fn change_max_in_flight(&self, count: u32) {
        self.handle.change_max_in_flight(count);
    }

    /// See [`ConsumerHandle::is_starved`].
    pub fn is_starved(&self) -> bool {
        self.handle.is_starved()
    }

    /// See [`ConsumerHandle::stats`].
    pub fn stats(&self) -> ConsumerStats {
        self.handle.stats()
    }

    /// See [`ConsumerHandle::events`].
    pub fn events(&self) -> Events<ConsumerEvent> {
        self.handle.events()
    }
}

const fn takers(client: &mut Consuming) -> &mut Waiters {
    &mut client.takers
}

enum Step {
    Begin(Message),
    Done,
    End,
}

impl Stream for Consumer {
    type Item = Message;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        let Self { handle: ConsumerHandle(shared), spot, .. } = self.get_mut();
        shared
            .wait(spot, takers, context, Consuming::poll_next)
            .map(|delivery| Some(Message::new(Arc::clone(shared), delivery?)))
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.handle.0.leave(&mut self.spot, takers);
        self.handle.begin_stop(self.drop_grace);
    }
}

impl ConsumerHandle {
    /// Takes no more messages, requeues those that nobody has taken, waits up to `grace` for
    /// answers to the others, requeues the rest, and is over when the connections are closed.
    /// Calling it again may shorten the time.
    pub async fn stop(&self, grace: Duration) {
        self.begin_stop(grace);
        let mut wait = Wait::new(&self.0, |client| &mut client.stoppers);
        poll_fn(|context| wait.poll(context, |client| client.poll_stopped())).await;
    }

    fn begin_stop(&self, grace: Duration) {
        self.0.turn(|client, now, out| client.stop(grace, now, out));
    }

    /// Asks for no more messages until [`resume`](Self::resume). Those that are here stay here.
    pub fn pause(&self) {
        self.0.turn(Consuming::pause);
    }

    /// Asks for messages again.
    pub fn resume(&self) {
        self.0.turn(Consuming::resume);
    }

    /// Changes `max_in_flight`; 0 pauses.
    pub fn change_max_in_flight(&self, count: u32) {
        self.0.turn(|client, now, out| client.change_max_in_flight(count, now, out));
    }

    /// Consumes from the nsqd at `host:port` too; false if it does already, is stopping, or if
    /// nothing can be dialled there.
    pub fn add_nsqd(&self, address: &str) -> bool {
        self.0.turn(|client, now, out| client.machine.add_nsqd(address, now, out))
    }

    /// Forgets an nsqd: drains and closes its connection. False if it is not known.
    pub fn remove_nsqd(&self, address: &str) -> bool {
        self.0.turn(|client, now, out| client.machine.remove_nsqd(address, now, out))
    }

    /// Asks the nsqlookupd at `host:port`, or a URL, too; false if it does already.
    ///
    /// # Errors
    /// [`UrlError`] if it cannot be asked.
    pub fn add_nsqlookupd(&self, address: &str) -> Result<bool, UrlError> {
        self.0.turn(|client, now, out| client.machine.add_nsqlookupd(address, now, out))
    }

    /// Asks this nsqlookupd no more; false if it is not known.
    pub fn remove_nsqlookupd(&self, address: &str) -> bool {
        self.0.turn(|client, _, _| client.machine.remove_nsqlookupd(address))
    }

    /// Whether a handler that gathers messages should not wait for more: some connection has 85 %
    /// of what it may send in flight.
    pub fn is_starved(&self) -> bool {
        self.0.look(|client| client.machine.is_starved())
    }

    /// Counts since the consumer was made.
    pub fn stats(&self) -> ConsumerStats {
        self.0.look(|client| client.machine.stats())
    }

    /// What happens to it from now on.
    pub fn events(&self) -> Events<ConsumerEvent> {
        self.0.look(|client| client.listeners.listen())
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Consumer").field(&self.stats()).finish()
    }
}

impl fmt::Debug for ConsumerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConsumerHandle").field(&self.stats()).finish()
    }
}
