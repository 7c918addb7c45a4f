//! The tools that consume and publish, as programs, against an nsqd that is one too.

mod bench;
mod hung;
mod memory;
mod pipes;
mod to_file;
mod to_http;
mod to_nsq;

use std::time::Instant;

use crate::server::{PATIENCE, Server};

fn nsqd() -> Server {
    nsqd_with(&[])
}

fn nsqd_with(flags: &[&str]) -> Server {
    Server::nsqd("tokio", &[&["--shards=1"], flags].concat())
}

impl Server {
    /// Publishes each of the messages.
    fn publish(&self, topic: &str, messages: &[&str]) {
        for message in messages {
            self.post(&format!("/pub?topic={topic}"), message);
        }
    }

    /// A figure of a channel; `None` while there is no such channel.
    fn figure(&self, topic: &str, channel: &str, key: &str) -> Option<i64> {
        let stats = self.stats(&format!("&topic={topic}&channel={channel}"));
        stats["topics"][0]["channels"][0][key].as_i64()
    }

    /// The topics that it has, by name.
    fn topics(&self) -> Vec<String> {
        let stats = self.stats("");
        let topics = stats["topics"].as_array().into_iter().flatten();
        topics.filter_map(|topic| topic["topic_name"].as_str().map(Into::into)).collect()
    }

    /// How many messages a topic has had.
    fn topic_count(&self, topic: &str) -> i64 {
        self.stats(&format!("&topic={topic}"))["topics"][0]["message_count"].as_i64().unwrap_or(0)
    }

    /// Bytes of memory that the process has; 0 where the system does not tell.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn memory(&self) -> u64 {
        self.stats("")["memory"]["heap_in_use_bytes"].as_u64().unwrap()
    }

    /// How many messages of a channel are to be had, now or later.
    fn waiting(&self, topic: &str, channel: &str) -> i64 {
        let figure = |key| self.figure(topic, channel, key).unwrap_or(0);
        figure("depth") + figure("deferred_count")
    }

    /// Waits until the figures of a channel are these.
    fn wait(&self, topic: &str, channel: &str, figures: &[(&str, i64)]) {
        let began = Instant::now();
        let is_so = |(key, value): &(&str, i64)| self.figure(topic, channel, key) == Some(*value);
        while !figures.iter().all(is_so) {
            assert!(began.elapsed() < PATIENCE, "{topic}/{channel}: {figures:?}");
        }
    }

    /// Waits until so many messages came to a channel and all of them are finished.
    fn wait_until_done(&self, topic: &str, channel: &str, count: i64) {
        let figures =
            [("message_count", count), ("depth", 0), ("in_flight_count", 0), ("deferred_count", 0)];
        self.wait(topic, channel, &figures);
    }
}
