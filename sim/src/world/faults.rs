//! What breaks: drawn by the seed, or chosen by the user.

use core::time::Duration;

use sansq_core::nsqd::{AdminRequest, ChannelOp, TopicOp};
use sansq_core::rng::Rng;

use super::calls::Caller;
use super::{World, channel, topic};
use crate::chance::Chance;
use crate::client::Gone;
use crate::disk::DOWN_MAX as NODE_DOWN_MAX;
use crate::events::WorldEvent;
use crate::net::Process;
use crate::swarm::Fault;

/// For users: what breaks when they want it. Nothing of it lasts beyond the calm but what is
/// [gone for good](World::kill).
impl World {
    /// Ends the process of an nsqd at once, with its machine if `loses_power`: then what is not
    /// synced may be lost. It stays down until [`start`](Self::start). Nothing happens if it does
    /// not run.
    pub fn kill(&mut self, node: usize, loses_power: bool) {
        self.gone.insert(node);
        self.die(node, loses_power);
    }

    /// Stops an nsqd in good order, as SIGTERM does. It stays down until [`start`](Self::start).
    pub fn stop(&mut self, node: usize) {
        self.gone.insert(node);
        if self.nodes[node].is_up() {
            self.nodes[node].disk.make_room();
            self.nodes[node].shut_down(false, &mut self.env);
        }
    }

    /// Starts an nsqd that was killed, or has stopped, on what is on its disk. If it is still
    /// stopping, it is started when it has.
    pub fn start(&mut self, node: usize) {
        self.gone.remove(&node);
        if self.nodes[node].is_down() {
            self.env.queue.push(self.env.now.instant, WorldEvent::NodeUp(node));
        } else {
            self.nodes[node].come_back();
        }
    }

    /// Kills a client; it starts anew at once.
    pub fn crash_client(&mut self, client: usize) {
        self.calls.retain(|_, under_way| match under_way.caller {
            Caller::Client(asker) => asker.client != client,
            Caller::Shard { .. } => true,
        });
        self.paused.remove(&Process::Client(client));
        self.clients[client].crash(&mut self.env);
    }

    /// Kills an nsqlookupd, which forgets everything; it starts anew after `down`.
    pub fn restart_lookupd(&mut self, lookupd: usize, down: Duration) {
        if self.directories[lookupd].is_up() {
            self.directories[lookupd].stop(&mut self.env);
            self.env.queue.push(self.env.now.instant + down, WorldEvent::LookupdUp(lookupd));
        }
    }

    /// Lets a process stand still for a while; its machine goes on, and takes what comes for it.
    pub fn pause(&mut self, process: Process, time: Duration) {
        // What came for it waits for the end of a longer standstill already.
        let before = self.paused.get(&process).copied().unwrap_or_default();
        let until = before.max(self.env.now.instant + time);
        self.env.line(format_args!("  {process:?} stands still until {until:?}"));
        self.paused.insert(process, until);
    }

    /// Lets nothing through from one machine to another, until [`heal`](Self::heal). Connections
    /// stay, and what is under way arrives later.
    pub fn cut(&mut self, from: Process, to: Process) {
        self.env.line(format_args!("  {from:?} is cut off from {to:?}"));
        self.env.net.cut(from, to);
    }

    /// Lets everything through again.
    pub fn heal(&mut self, from: Process, to: Process) {
        self.env.net.heal(from, to, self.env.now, &mut self.env.queue);
    }

    /// Sets the wall clock of an nsqd ahead of the others' by so many nanoseconds, or behind.
    pub fn set_clock_ahead(&mut self, node: usize, nanos: i64) {
        self.nodes[node].clock_ahead = nanos;
    }

    /// Breaks any one connection, if there is one; `silently`: its ends do not notice, and go on
    /// writing to nobody.
    pub fn break_any_link(&mut self, silently: bool) {
        let env = &mut self.env;
        let Some(link) = env.net.any_live(&mut self.faults) else { return };
        env.line(format_args!("  link {} breaks", link.0));
        if silently {
            env.net.silence(link);
        } else {
            env.net.break_link(link, env.now, &mut env.queue);
        }
    }

    /// Lets an nsqd's disk fail in some way, until [`mend_disk`](Self::mend_disk).
    pub fn break_disk(&mut self, node: usize) {
        self.nodes[node].disk.break_somehow();
    }

    /// Lets an nsqd's disk work again.
    pub fn mend_disk(&mut self, node: usize) {
        self.nodes[node].disk.mend();
    }
}

impl World {
    /// The seed breaks something.
    pub(super) fn fault(&mut self) {
        let count: u64 = self.counts.values().sum();
        if self.env.calm || self.options.faults.count_max.is_some_and(|max| count >= max) {
            return;
        }
        let next = self.env.now.instant + self.faults.within(self.options.faults.every_max);
        self.env.queue.push(next, WorldEvent::Fault);
        let rng = &mut self.faults;
        let env = &mut self.env;
        let kind = *rng.pick(&self.options.faults.kinds);
        *self.counts.entry(kind).or_default() += 1;
        let node = |rng: &mut Rng, nodes: usize| rng.below(nodes as u64) as usize;
        match kind {
            Fault::LoseLink => self.break_any_link(false),
            Fault::SilenceLink => self.break_any_link(true),
            Fault::StallLink => {
                if let Some(link) = env.net.any_live(rng) {
                    let until = env.now.instant + rng.within(STALL_MAX);
                    env.line(format_args!("  link {} stalls until {until:?}", link.0));
                    env.net.stall(link, until);
                }
            }
            Fault::Partition => self.partition(),
            Fault::PauseProcess => {
                let process = self.any_process();
                let time = self.faults.within(STALL_MAX);
                self.pause(process, time);
            }
            Fault::RestartLookupd => {
                let index = node(rng, self.directories.len());
                let down = rng.within(DOWN_MAX);
                self.restart_lookupd(index, down);
            }
            Fault::KillClient => {
                let index = node(rng, self.clients.len());
                if !self.clients.is_empty() {
                    self.crash_client(index);
                }
            }
            Fault::StepClock => {
                let nanos = rng.within(CLOCK_STEP_MAX).as_nanos() as i64;
                env.step_clock(if rng.percent(50) { nanos } else { -nanos });
            }
            Fault::SkewClock => {
                let at = node(rng, self.nodes.len());
                let nanos = rng.within(CLOCK_STEP_MAX).as_nanos() as i64;
                self.nodes[at].clock_ahead = if rng.percent(50) { nanos } else { -nanos };
            }
            Fault::BreakDisk => {
                let at = node(rng, self.nodes.len());
                let disk = &mut self.nodes[at].disk;
                if rng.percent(50) { disk.break_somehow() } else { disk.mend() }
            }
            Fault::FillDisk => {
                let at = node(rng, self.nodes.len());
                let disk = &mut self.nodes[at].disk;
                // A batch in the topic and in each channel, and what else there is.
                let batch = 5 * (self.options.body_len_max as u64 + 100);
                let least = 16 * 1024 + (self.options.channels as u64 + 2) * batch;
                if rng.percent(70) {
                    disk.fill(least, batch);
                } else {
                    disk.make_room();
                }
            }
            Fault::KillNode | Fault::LosePower => {
                let at = node(rng, self.nodes.len());
                if self.options.disks.is_some() && self.nodes[at].is_up() {
                    self.die(at, kind == Fault::LosePower);
                    self.start_later(at);
                }
            }
            Fault::RestartNode => {
                let at = node(rng, self.nodes.len());
                if self.nodes[at].is_up() && self.options.disks.is_some() {
                    self.nodes[at].disk.mend();
                    // What is only in memory has to go somewhere.
                    self.nodes[at].disk.make_room();
                    self.nodes[at].shut_down(true, env);
                }
            }
            Fault::Discard => {
                let at = node(rng, self.nodes.len());
                let topic = topic(node(rng, self.options.topics));
                let channel = channel(node(rng, self.options.channels));
                let request = match rng.below(6) {
                    0 => AdminRequest::Topic(topic, TopicOp::Empty),
                    1 => AdminRequest::Topic(topic, TopicOp::Delete),
                    2 | 3 => AdminRequest::Channel(topic, channel, ChannelOp::Empty),
                    _ => AdminRequest::Channel(topic, channel, ChannelOp::Delete),
                };
                self.ask(at, request, None);
            }
            Fault::Pause => {
                let at = node(rng, self.nodes.len());
                let topic = topic(node(rng, self.options.topics));
                let channel = channel(node(rng, self.options.channels));
                let request = match rng.below(4) {
                    0 => AdminRequest::Topic(topic, TopicOp::Pause),
                    1 => AdminRequest::Topic(topic, TopicOp::Unpause),
                    2 => AdminRequest::Channel(topic, channel, ChannelOp::Pause),
                    _ => AdminRequest::Channel(topic, channel, ChannelOp::Unpause),
                };
                self.ask(at, request, None);
            }
        }
    }

    /// Cuts two processes off from each other for a while, or one from the other.
    fn partition(&mut self) {
        let (from, to) = (self.any_process(), self.any_process());
        let mut cuts = vec![(from, to)];
        if self.faults.percent(50) {
            cuts.push((to, from));
        }
        for (from, to) in &cuts {
            self.cut(*from, *to);
        }
        let at = self.env.now.instant + self.faults.within(PARTITION_MAX);
        self.env.queue.push(at, WorldEvent::Heal(self.next_cut));
        self.cuts.insert(self.next_cut, cuts);
        self.next_cut += 1;
    }

    pub(super) fn heal_cut(&mut self, number: u64) {
        for (from, to) in self.cuts.remove(&number).unwrap_or_default() {
            let still = self.cuts.values().flatten().any(|cut| *cut == (from, to));
            if !still {
                self.heal(from, to);
            }
        }
    }

    fn any_process(&mut self) -> Process {
        let (nodes, lookupds) = (self.nodes.len(), self.directories.len());
        let at = self.faults.below((nodes + lookupds + self.clients.len()) as u64) as usize;
        match at.checked_sub(nodes) {
            None => Process::Nsqd(at),
            Some(at) if at < lookupds => Process::Lookupd(at),
            Some(at) => Process::Client(at - lookupds),
        }
    }

    /// An nsqd that is down is started again after a while.
    pub(super) fn start_later(&mut self, node: usize) {
        let at = self.env.now.instant + self.faults.within(NODE_DOWN_MAX);
        self.env.queue.push(at, WorldEvent::NodeUp(node));
    }

    fn die(&mut self, node: usize, loses_power: bool) {
        if self.nodes[node].is_down() {
            return;
        }
        self.paused.remove(&Process::Nsqd(node));
        self.nodes[node].kill(loses_power, &mut self.env);
        self.drop_calls(node);
        // Whoever waited for an answer gets none.
        let waiting = self.tokens.iter().filter(|(_, (of, _))| *of == node);
        let waiting: Vec<_> = waiting.map(|(token, _)| *token).collect();
        for token in waiting {
            self.discarded(token);
            if let Some((_, asker)) = self.tokens.remove(&token) {
                self.replied(asker, Err(Gone::Broken));
            }
        }
    }
}

/// The longest that a connection or a process stands still: beyond the shorter heartbeats.
const STALL_MAX: Duration = Duration::from_secs(12);

/// The longest that two machines are cut off: beyond the longer heartbeats' timeouts.
const PARTITION_MAX: Duration = Duration::from_secs(30);

/// The longest that an nsqlookupd is down.
const DOWN_MAX: Duration = Duration::from_secs(5);

/// The longest step of the wall clock.
const CLOCK_STEP_MAX: Duration = Duration::from_secs(6 * 3600);
