//! A consumer that tries everything the protocol allows.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use sansq_core::client::connection::Identity;
use sansq_core::client::{
    ClientConnection, ClientConnectionOutput, ConnectionOptions, Negotiated, Received,
};
use sansq_core::http::call::CallResult;
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::protocol::frame::CLOSE_WAIT;

use super::{Client, Context, Gone, nsqd_address};
use crate::chance::Chance;
use crate::net::LinkId;
use crate::node::node_of;
use crate::swarm::{Habit, Habits, Options, connection_options};

/// Consumes one channel with one connection to each nsqd that has its topic; what it does with a
/// message is drawn from its [`Habits`].
#[derive(Debug)]
pub struct Subscriber {
    topic: TopicName,
    channel: ChannelName,
    options: ConnectionOptions,
    conns: BTreeMap<LinkId, Conn>,
    plans: BTreeMap<u64, Plan>,
    planned: u64,
    script: VecDeque<Habit>,
    habits: Habits,
    ready_max: u32,
}

#[derive(Debug)]
struct Conn {
    node: usize,
    connection: ClientConnection,
    subscribed: bool,
    ready: u32,
    /// The highest that it may have there.
    ready_max: u32,
}

/// What a consumer will do with a message when it has worked on it.
#[derive(Debug)]
struct Plan {
    link: LinkId,
    id: [u8; 16],
    habit: Habit,
    body: Bytes,
}

impl Subscriber {
    /// One that consumes this channel as `options` say; it begins with what `script` says.
    pub fn new(
        topic: TopicName,
        channel: ChannelName,
        script: Vec<Habit>,
        options: &Options,
    ) -> Self {
        Self {
            topic,
            channel,
            options: connection_options(options),
            conns: BTreeMap::new(),
            plans: BTreeMap::new(),
            planned: 0,
            script: script.into(),
            habits: options.habits.clone(),
            ready_max: options.ready_max,
        }
    }

    /// Asks an nsqlookupd, and looks after its connections.
    fn look_up(&mut self, context: &mut Context<'_>) {
        let again = LOOKUP_EVERY_MIN + context.rng.within(LOOKUP_EVERY_MIN);
        context.wake(again, LOOK_UP);
        let lookupd = context.rng.below(context.lookupds() as u64) as usize;
        context.get(lookupd, &format!("/lookup?topic={}", self.topic));
        let links: Vec<_> = self.conns.keys().copied().collect();
        for link in links {
            self.look_after(link, context);
        }
    }

    /// Gives a connection up.
    fn drop_link(&mut self, link: LinkId, context: &mut Context<'_>) {
        if self.conns.remove(&link).is_some() {
            context.close(link);
            self.plans.retain(|_, plan| plan.link != link);
        }
    }

    /// The work on a message is done.
    fn decide(&mut self, plan: u64, context: &mut Context<'_>) {
        let Some(Plan { link, id, habit, body }) = self.plans.remove(&plan) else { return };
        let Some(conn) = self.conns.get_mut(&link) else { return };
        match habit {
            Habit::Finish | Habit::FinishTwice => {
                context.handled(self.topic, self.channel, &body);
                conn.connection.finish(&id);
                if habit == Habit::FinishTwice {
                    conn.connection.finish(&id);
                }
            }
            Habit::Requeue => {
                let delay = context.rng.within(self.habits.requeue_delay_max);
                conn.connection.requeue(&id, delay);
            }
            Habit::Touch => {
                conn.connection.touch(&id);
                self.plan(link, id, Habit::Finish, body, context);
            }
            Habit::Ignore => {}
        }
        self.flush(link, context);
    }

    fn take(&mut self, link: LinkId, got: Got, context: &mut Context<'_>) {
        let Some(conn) = self.conns.get_mut(&link) else { return };
        match got {
            Got::Opened(ready_max) => {
                conn.ready_max = self.ready_max.min(ready_max);
                conn.connection.subscribe(&self.topic, &self.channel);
            }
            Got::Response(text) if text == CLOSE_WAIT => self.drop_link(link, context),
            Got::Response(_) => {
                conn.subscribed = true;
                conn.ready = conn.ready_max;
                conn.connection.ready(conn.ready);
            }
            // A FIN, REQ or TOUCH that came too late; anything else is followed by the end.
            Got::Error(text) => {
                context.log(format_args!("is told {}", String::from_utf8_lossy(&text)));
            }
            Got::Message(message) => {
                let habit = match self.script.pop_front() {
                    Some(habit) => habit,
                    None if context.is_calm() => Habit::Finish,
                    None => self.habits.draw(context.rng),
                };
                self.plan(link, message.id, habit, message.body, context);
            }
        }
    }

    fn plan(
        &mut self,
        link: LinkId,
        id: [u8; 16],
        habit: Habit,
        body: Bytes,
        context: &mut Context<'_>,
    ) {
        self.planned += 1;
        self.plans.insert(self.planned, Plan { link, id, habit, body });
        let work_max = if context.is_calm() { Duration::ZERO } else { self.habits.work_max };
        let delay = context.rng.within(work_max);
        context.wake(delay, self.planned);
    }

    /// Changes RDY or leaves an nsqd, as the habits are.
    fn look_after(&mut self, link: LinkId, context: &mut Context<'_>) {
        let Some(conn) = self.conns.get_mut(&link) else { return };
        if !conn.subscribed || !conn.connection.is_open() {
            return;
        }
        let changes = context.rng.percent(self.habits.ready_percent);
        let leaves = context.rng.percent(self.habits.close_percent);
        let drawn = context.rng.below(u64::from(self.ready_max) + 1) as u32;
        let ready = match (context.is_calm(), changes) {
            (true, _) => conn.ready_max,
            (false, true) => drawn.min(conn.ready_max),
            (false, false) => conn.ready,
        };
        if ready != conn.ready {
            conn.ready = ready;
            conn.connection.ready(ready);
        }
        if leaves && !context.is_calm() {
            conn.connection.start_close();
        }
        self.flush(link, context);
    }

    fn flush(&mut self, link: LinkId, context: &mut Context<'_>) {
        if let Some(conn) = self.conns.get_mut(&link)
            && conn.connection.wants_transmit()
        {
            let mut spare = Vec::new();
            conn.connection.swap_transmit(&mut spare);
            context.write(link, &spare);
        }
        self.arm(context);
    }

    fn arm(&self, context: &mut Context<'_>) {
        let deadlines = self.conns.values().filter_map(|conn| conn.connection.poll_timeout());
        context.arm(deadlines.min());
    }
}

impl Client for Subscriber {
    fn started(&mut self, context: &mut Context<'_>) {
        context.handles(self.topic, self.channel);
        context.wake(Duration::ZERO, LOOK_UP);
    }

    fn connected(&mut self, link: LinkId, context: &mut Context<'_>) {
        if let Some(conn) = self.conns.get_mut(&link) {
            conn.connection.handle_connected(context.now());
            self.flush(link, context);
        }
    }

    fn input(&mut self, link: LinkId, input: &mut BytesMut, context: &mut Context<'_>) {
        let Some(conn) = self.conns.get_mut(&link) else { return };
        let mut got = Vec::new();
        let now = context.now();
        if let Err(error) = conn.connection.handle_input(input, now, &mut Sink(&mut got)) {
            context.log(format_args!("drops link {}: {error}", link.0));
            return self.drop_link(link, context);
        }
        for got in got {
            self.take(link, got, context);
        }
        self.flush(link, context);
    }

    fn closed(&mut self, link: LinkId, _: Gone, context: &mut Context<'_>) {
        self.drop_link(link, context);
    }

    /// Connects to the nsqds that an nsqlookupd names.
    fn called(&mut self, _: u64, result: CallResult, context: &mut Context<'_>) {
        let Ok(answer) = result else { return };
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let names = text.split("\"broadcast_address\":\"").skip(1);
        for node in names.filter_map(|name| node_of(name.split('"').next()?)) {
            if self.conns.values().any(|conn| conn.node == node) {
                continue;
            }
            let address = nsqd_address(node);
            let link = context.dial(&address);
            let connection = ClientConnection::dial(&self.options, &address, context.now());
            let (ready, ready_max) = (0, self.ready_max);
            let conn = Conn { node, connection, subscribed: false, ready, ready_max };
            self.conns.insert(link, conn);
        }
        self.arm(context);
    }

    fn timeout(&mut self, context: &mut Context<'_>) {
        let mut late = Vec::new();
        for (link, conn) in &mut self.conns {
            if let Err(error) = conn.connection.handle_timeout(context.now()) {
                context.log(format_args!("drops link {}: {error}", link.0));
                late.push(*link);
            }
        }
        for link in late {
            self.drop_link(link, context);
        }
        self.arm(context);
    }

    fn woken(&mut self, token: u64, context: &mut Context<'_>) {
        if token == LOOK_UP { self.look_up(context) } else { self.decide(token, context) }
    }

    fn crashed(&mut self, context: &mut Context<'_>) {
        self.conns.clear();
        self.plans.clear();
        self.started(context);
    }
}

/// What a connection said in one call.
enum Got {
    /// And takes this RDY at most.
    Opened(u32),
    Response(Bytes),
    Error(Bytes),
    Message(Received),
}

struct Sink<'a>(&'a mut Vec<Got>);

impl ClientConnectionOutput for Sink<'_> {
    // No secret is ever asked for.
    fn authenticated(&mut self, _: Identity) {}

    fn opened(&mut self, negotiated: &Negotiated) {
        self.0.push(Got::Opened(negotiated.max_rdy_count));
    }

    fn response(&mut self, text: Bytes) {
        self.0.push(Got::Response(text));
    }

    fn error(&mut self, text: Bytes) {
        self.0.push(Got::Error(text));
    }

    fn message(&mut self, message: Received) {
        self.0.push(Got::Message(message));
    }
}

/// The wake for the next look-up; others are numbers of plans, from 1 on.
const LOOK_UP: u64 = 0;

/// A consumer asks again after this long, or up to twice as long.
const LOOKUP_EVERY_MIN: Duration = Duration::from_millis(1500);
