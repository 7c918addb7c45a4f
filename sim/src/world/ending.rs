//! The calm, the end, and what must hold then.

use core::time::Duration;

use sansq_core::nsqd::{AdminRequest, ChannelOp, ChannelStats, ServerStats, StatsFilter, TopicOp};

use super::{World, channel, topic};
use crate::events::WorldEvent;
use crate::net::Process;
use crate::node::Node;
use crate::oracles::counts::Look;
use crate::oracles::{Observation, Violation};

impl World {
    /// From now on everything has to work.
    pub(super) fn calm_down(&mut self) {
        self.env.calm = true;
        self.env.net.calm_down();
        self.nodes.iter_mut().for_each(|node| node.disk.mend());
        let now = self.env.now.instant;
        self.calm_until = now + CALM_MAX;
        for node in self.gone.clone() {
            self.env.observe(Observation::Gone { node });
        }
        self.cuts.clear();
        for (from, to) in self.env.net.cuts() {
            self.heal(from, to);
        }
        for slot in &mut self.clients {
            slot.with(&mut self.env, |client, context| client.calm(context));
        }
        self.env.queue.push(now + CHECK_EVERY, WorldEvent::Check);
    }

    /// Unpauses everything that a fault may have paused.
    fn unpause(&mut self) {
        for node in 0..self.nodes.len() {
            for at in 0..self.options.topics {
                let request = AdminRequest::Topic(topic(at), TopicOp::Unpause);
                self.ask(node, request, None);
                for channel in (0..self.options.channels).map(channel) {
                    let request = AdminRequest::Channel(topic(at), channel, ChannelOp::Unpause);
                    self.ask(node, request, None);
                }
            }
        }
    }

    /// Whether everything is consumed, and then whether everything is closed.
    pub(super) fn check(&mut self) {
        let now = self.env.now.instant;
        self.env.queue.push(now + CHECK_EVERY, WorldEvent::Check);
        if self.stopping_until.is_none() && !self.all_up() {
            if now >= self.calm_until {
                self.violate("an nsqd does not come back".into());
            }
            return;
        }
        // Not earlier: it must not overtake a request to pause that goes another way, perhaps
        // through an nsqd that stands still.
        if now + CALM_MAX >= self.calm_until + UNPAUSE_AFTER
            && !core::mem::replace(&mut self.unpaused, true)
        {
            self.unpause();
        }
        if let Some(until) = self.stopping_until {
            let open: usize = self.nodes.iter().map(Node::connections).sum();
            self.done = self.nodes.iter().all(Node::is_down);
            if !self.done && now >= until {
                self.violate(format!("an nsqd has not ended, {open} connections are open"));
            }
            return;
        }
        let undone = match self.find_undone() {
            None if self.stats_wanted => self.find_left(),
            undone => undone,
        };
        match undone {
            None if self.stats_wanted => {
                for (node, stats) in core::mem::take(&mut self.stats).into_iter().enumerate() {
                    self.check_stats(node, &stats.unwrap_or_default(), false);
                }
                self.stopping_until = Some(now + STOP_MAX);
                for node in self.nodes.iter_mut().filter(|node| node.is_up()) {
                    node.shut_down(false, &mut self.env);
                }
            }
            Some(undone) if now >= self.calm_until => self.env.judge(Err(undone)),
            // What the nsqds say counts if it is asked for after the last message.
            still => {
                self.stats_wanted = still.is_none();
                for node in 0..self.nodes.len() {
                    self.stats[node] = None;
                    self.ask(node, AdminRequest::Stats(StatsFilter::default()), None);
                }
            }
        }
    }

    /// Whether all nsqds run that are to run.
    fn all_up(&self) -> bool {
        let mut nodes = self.nodes.iter().enumerate();
        nodes.all(|(at, node)| node.is_up() || self.gone.contains(&at))
    }

    /// Something that clients still have to do.
    fn find_undone(&self) -> Option<Violation> {
        if let Err(violation) = self.env.oracles.check_drained() {
            return Some(violation);
        }
        for (index, slot) in self.clients.iter().enumerate() {
            if let Err(text) = slot.client.check_done() {
                return Some(Violation::Other(format!("client {index} {text}")));
            }
        }
        let unanswered = !self.tokens.is_empty() || !self.asks.is_empty();
        unanswered.then(|| Violation::Other("an admin request was never answered".into()))
    }

    /// Messages that nsqds still have.
    fn find_left(&self) -> Option<Violation> {
        for (node, stats) in self.stats.iter().enumerate() {
            if self.gone.contains(&node) {
                continue;
            }
            let Some(stats) = stats else {
                return Some(Violation::Other(format!("nsqd {node} gives no statistics")));
            };
            // What waits for a first channel stays.
            let is_all_finished = stats.topics.iter().all(|topic| !topic.channels.is_empty());
            if is_all_finished && let Some(name) = self.nodes[node].disk.find_left_over() {
                let text = format!("the disk of nsqd {node} is full, and {name} is finished");
                return Some(Violation::Other(text));
            }
            for topic in &stats.topics {
                // Without a channel messages collect, as they should.
                let depth = if topic.channels.is_empty() { 0 } else { topic.depth };
                let left = |channel: &ChannelStats| {
                    channel.depth + channel.in_flight_count + channel.deferred_count
                };
                let left = depth + topic.channels.iter().map(left).sum::<u64>();
                if left > 0 {
                    let text = format!("nsqd {node} has messages left: {topic:?}");
                    return Some(Violation::Other(text));
                }
            }
        }
        None
    }

    /// Looks at what the nsqds count and hold, and at what they asked of their disks. They are not
    /// asked: what they answer is what was.
    pub(super) fn audit(&mut self) {
        let now = self.env.now.instant;
        self.env.queue.push(now + AUDIT_EVERY, WorldEvent::Audit);
        self.audit_clients();
        for node in 0..self.nodes.len() {
            let stands_still_until = self.paused.get(&Process::Nsqd(node)).copied();
            let disk = &mut self.nodes[node].disk;
            if let Some(until) = stands_still_until {
                disk.syncs.stands_still(until);
            }
            self.env.judge(disk.syncs.check(now));
            if self.nodes[node].is_up() {
                let result = self.nodes[node].check_held(self.env.oracles.delayed());
                self.env.judge(result);
                let stats = self.nodes[node].stats(self.env.now);
                let stands_still = stands_still_until.is_some_and(|until| until >= now);
                self.check_stats(node, &stats, stands_still);
            }
        }
    }

    fn audit_clients(&mut self) {
        for index in 0..self.clients.len() {
            if let Err(text) = self.clients[index].client.check_held() {
                self.env.judge(Err(Violation::Memory(format!("client {index} {text}"))));
            }
        }
    }

    /// Compares what an nsqd counts with what was seen.
    fn check_stats(&mut self, node: usize, stats: &ServerStats, stands_still: bool) {
        let now = self.env.now.instant;
        let is_settled = self.nodes[node].disk.is_settled(now);
        let look = Look { node, now, is_settled, stands_still };
        for topic in &stats.topics {
            let result = self.env.oracles.check_counts(look, topic);
            self.env.judge(result);
        }
    }
}

/// How long, once nothing breaks any more, consuming everything may take: the longest time-outs and
/// back-offs, one behind the other.
pub(super) const CALM_MAX: Duration = Duration::from_secs(300);

/// Between two looks at what nsqds count.
const AUDIT_EVERY: Duration = Duration::from_millis(700);

/// When whatever stood still goes on for sure.
const UNPAUSE_AFTER: Duration = Duration::from_secs(16);

/// How long connections may take to close; nsqds linger for five seconds.
const STOP_MAX: Duration = Duration::from_secs(20);

/// Between two looks at whether all is done.
const CHECK_EVERY: Duration = Duration::from_secs(2);
