//! nsqlookupd's HTTP interface, as a function from request to reply (http-and-ops.md section 3).
//!
//! Not offered: Go's profiles below `/debug/pprof`, which are 404 here.

use alloc::string::String;
use core::fmt::Write as _;

use super::{Actions, Lookupd, LookupdStats, ProducerInfo};
use crate::http::{HttpReply, Query, Request, Route, Routed, Router};
use crate::name::{ChannelName, TopicName};
use crate::protocol::json;
use crate::time::Now;
use crate::version::{NSQ_VERSION, SANSQ_VERSION};

/// The endpoints.
#[derive(Clone, Copy, Debug)]
enum Handler {
    Channels,
    CreateChannel,
    CreateTopic,
    Debug,
    DeleteChannel,
    DeleteTopic,
    Info,
    Lookup,
    Metrics,
    Nodes,
    Ping,
    Tombstone,
    Topics,
}

static ROUTES: [Route<Handler>; 13] = [
    Route { path: "/ping", methods: &["GET"], handler: Handler::Ping },
    Route { path: "/info", methods: &["GET"], handler: Handler::Info },
    Route { path: "/topics", methods: &["GET"], handler: Handler::Topics },
    Route { path: "/channels", methods: &["GET"], handler: Handler::Channels },
    Route { path: "/lookup", methods: &["GET"], handler: Handler::Lookup },
    Route { path: "/nodes", methods: &["GET"], handler: Handler::Nodes },
    Route { path: "/metrics", methods: &["GET"], handler: Handler::Metrics },
    Route { path: "/debug", methods: &["GET"], handler: Handler::Debug },
    Route { path: "/topic/create", methods: &["POST"], handler: Handler::CreateTopic },
    Route { path: "/topic/delete", methods: &["POST"], handler: Handler::DeleteTopic },
    Route { path: "/topic/tombstone", methods: &["POST"], handler: Handler::Tombstone },
    Route { path: "/channel/create", methods: &["POST"], handler: Handler::CreateChannel },
    Route { path: "/channel/delete", methods: &["POST"], handler: Handler::DeleteChannel },
];

/// What a request is answered with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// These figures as metrics. The text's form is not NSQ's, so it is made where a library for it
    /// can be used.
    Metrics(LookupdStats),
    /// This.
    Reply(HttpReply),
}

impl Lookupd {
    /// Whether the answer to a request of the HTTP interface names everything that is registered,
    /// and so may be long: `/topics`, `/nodes`, `/debug`.
    pub fn is_about_everything(request: &Request<'_>) -> bool {
        matches!(
            Router(&ROUTES).route(request),
            Routed::Handler { handler: Handler::Topics | Handler::Nodes | Handler::Debug, .. }
        )
    }

    /// Answers a request of the HTTP interface. It leaves events in `out`, nothing else.
    pub fn handle_http(&mut self, request: &Request<'_>, now: Now, out: &mut Actions) -> Answer {
        let routed = Router(&ROUTES).route(request);
        *match &routed {
            Routed::Handler { handler: Handler::Lookup, .. } => &mut self.counters.lookups,
            Routed::Handler { .. } | Routed::Reply(_) => &mut self.counters.other_requests,
        } += 1;
        match routed {
            Routed::Handler { handler, .. } => {
                self.answer_http(handler, request, now, out).unwrap_or_else(Answer::Reply)
            }
            Routed::Reply(reply) => Answer::Reply(reply),
        }
    }

    fn answer_http(
        &mut self,
        handler: Handler,
        request: &Request<'_>,
        now: Now,
        out: &mut Actions,
    ) -> Result<Answer, HttpReply> {
        let query = || request.parameters().map_err(|_| refusal("INVALID_REQUEST"));
        let reply = match handler {
            Handler::Ping => HttpReply::plain(200, "OK"),
            Handler::Info => HttpReply::json(alloc::format!(
                "{{\"version\":\"{NSQ_VERSION}\",\"sansq_version\":\"{SANSQ_VERSION}\"}}"
            )),
            Handler::Topics => {
                let topics = self.registrations.topics().map(|(name, _)| name.as_str());
                let mut body = String::from("{\"topics\":");
                push_list(&mut body, topics, json::push_string);
                body.push('}');
                HttpReply::json(body)
            }
            Handler::Channels => {
                // What is no name has no channels either.
                let topic = TopicName::new(argument(&query()?, "topic", "MISSING_ARG_TOPIC")?);
                let channels = topic.map(|topic| self.channels(&topic)).unwrap_or_default();
                let mut body = String::from("{\"channels\":");
                push_list(&mut body, channels.iter().map(|c| c.as_str()), json::push_string);
                body.push('}');
                HttpReply::json(body)
            }
            Handler::Lookup => {
                let topic = TopicName::new(argument(&query()?, "topic", "MISSING_ARG_TOPIC")?);
                let lookup = topic.ok().and_then(|topic| self.lookup(&topic, now));
                let lookup = lookup.ok_or_else(|| HttpReply::message(404, "TOPIC_NOT_FOUND"))?;
                let mut body = String::from("{\"channels\":");
                push_list(&mut body, lookup.channels.iter().map(|c| c.as_str()), json::push_string);
                body.push_str(",\"producers\":");
                push_list(&mut body, &lookup.producers, |body, producer| {
                    body.push('{');
                    push_producer(body, producer);
                    body.push('}');
                });
                body.push('}');
                HttpReply::json(body)
            }
            Handler::Nodes => HttpReply::json(self.nodes_json(now)),
            Handler::Metrics => return Ok(Answer::Metrics(self.stats(now))),
            Handler::Debug => HttpReply::json(self.debug_json()),
            Handler::CreateTopic => {
                let query = query()?;
                let topic = topic(&query)?;
                self.create_topic(topic, out).map_err(|_| full())?;
                HttpReply::empty()
            }
            Handler::DeleteTopic => {
                let query = query()?;
                match argument(&query, "topic", "MISSING_ARG_TOPIC")? {
                    // The reference takes it for all topics, and so empties itself.
                    "*" => return Err(refusal("INVALID_ARG_TOPIC")),
                    name => {
                        if let Ok(topic) = TopicName::new(name) {
                            self.delete_topic(&topic, out);
                        }
                    }
                }
                HttpReply::empty()
            }
            Handler::CreateChannel => {
                let query = query()?;
                let (topic, channel) = (topic(&query)?, channel(&query)?);
                self.create_channel(topic, channel, out).map_err(|_| full())?;
                HttpReply::empty()
            }
            Handler::DeleteChannel => {
                let query = query()?;
                let (topic, channel) = (topic(&query)?, channel(&query)?);
                if !self.delete_channel(&topic, &channel, out) {
                    return Err(HttpReply::message(404, "CHANNEL_NOT_FOUND"));
                }
                HttpReply::empty()
            }
            Handler::Tombstone => {
                let query = query()?;
                let topic = TopicName::new(argument(&query, "topic", "MISSING_ARG_TOPIC")?);
                let node = argument(&query, "node", "MISSING_ARG_NODE")?;
                // Not in the reference: tells nsqds apart that share an address and an HTTP port.
                let tcp_port = query.first("tcp_port").map(str::parse).transpose();
                let tcp_port = tcp_port.map_err(|_| refusal("INVALID_ARG_TCP_PORT"))?;
                if let Ok(topic) = topic {
                    self.tombstone(&topic, node, tcp_port, now, out);
                }
                HttpReply::empty()
            }
        };
        Ok(Answer::Reply(reply))
    }

    fn nodes_json(&self, now: Now) -> String {
        let mut body = String::from("{\"producers\":");
        push_list(&mut body, self.nodes(now), |body, node| {
            body.push('{');
            push_producer(body, &node.producer);
            body.push_str(",\"tombstones\":");
            push_list(body, &node.topics, |body, (_, is_hidden)| {
                body.push_str(if *is_hidden { "true" } else { "false" });
            });
            body.push_str(",\"topics\":");
            push_list(body, &node.topics, |body, (topic, _)| json::push_string(body, topic));
            body.push('}');
        });
        body.push('}');
        body
    }

    /// Every registration with its producers, by `category:key:subkey`. Those without are left out.
    fn debug_json(&self) -> String {
        let mut keys = String::from("{");
        let mut push_key = |key: &str, producers: &[String]| {
            if !producers.is_empty() {
                if keys.len() > 1 {
                    keys.push(',');
                }
                json::push_string(&mut keys, key);
                keys.push_str(":[");
                keys.push_str(&producers.join(","));
                keys.push(']');
            }
        };
        let producer = |conn, tombstoned_at| self.debug_producer(conn, tombstoned_at);
        for (topic, entry) in self.registrations.topics() {
            for (channel, conns) in self.registrations.channels(entry) {
                let producers: alloc::vec::Vec<_> =
                    conns.iter().filter_map(|conn| producer(*conn, None)).collect();
                push_key(&alloc::format!("channel:{topic}:{channel}"), &producers);
            }
        }
        let clients: alloc::vec::Vec<_> =
            self.registrations.producers().filter_map(|(conn, _)| producer(conn, None)).collect();
        push_key("client::", &clients);
        for (topic, entry) in self.registrations.topics() {
            let producers: alloc::vec::Vec<_> = entry
                .producers
                .iter()
                .filter_map(|conn| {
                    let tombstone = self.registrations.tombstone_of(entry, *conn);
                    producer(*conn, tombstone.map(|t| t.at.unix.0))
                })
                .collect();
            push_key(&alloc::format!("topic:{topic}:"), &producers);
        }
        keys.push('}');
        keys
    }

    fn debug_producer(
        &self,
        conn: crate::arena::ConnId,
        tombstoned_at: Option<i64>,
    ) -> Option<String> {
        let producer = self.registrations.producer(conn)?;
        let mut body = String::from("{");
        let info = &producer.info;
        push_text(&mut body, "broadcast_address", &info.broadcast_address);
        push_text(&mut body, "hostname", &info.hostname);
        push_value(&mut body, "http_port", info.http_port);
        push_value(&mut body, "id", format_args!("\"{}\"", producer.remote));
        push_value(&mut body, "last_update", producer.last_update.unix);
        push_value(&mut body, "tcp_port", info.tcp_port);
        push_value(&mut body, "tombstoned", tombstoned_at.is_some());
        push_value(&mut body, "tombstoned_at", tombstoned_at.unwrap_or(NEVER));
        push_text(&mut body, "topology_region", &info.topology_region);
        push_text(&mut body, "topology_zone", &info.topology_zone);
        push_text(&mut body, "version", &info.version);
        body.push('}');
        Some(body)
    }
}

/// The members of a producer, as `/lookup` and `/nodes` list them, without the braces.
fn push_producer(body: &mut String, producer: &ProducerInfo<'_>) {
    let info = producer.info;
    push_value(body, "remote_address", format_args!("\"{}\"", producer.remote));
    push_text(body, "hostname", &info.hostname);
    push_text(body, "broadcast_address", &info.broadcast_address);
    push_value(body, "tcp_port", info.tcp_port);
    push_value(body, "http_port", info.http_port);
    push_text(body, "version", &info.version);
    push_text(body, "topology_zone", &info.topology_zone);
    push_text(body, "topology_region", &info.topology_region);
}

fn push_text(body: &mut String, key: &str, text: &str) {
    push_value(body, key, "");
    json::push_string(body, text);
}

/// Appends a member, after a comma unless it is the object's first. `value` is JSON already.
fn push_value(body: &mut String, key: &str, value: impl core::fmt::Display) {
    if !body.ends_with('{') {
        body.push(',');
    }
    write!(body, "\"{key}\":{value}").expect("a String takes all text");
}

fn push_list<T>(
    body: &mut String,
    items: impl IntoIterator<Item = T>,
    mut push: impl FnMut(&mut String, T),
) {
    body.push('[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        push(body, item);
    }
    body.push(']');
}

fn argument<'a>(query: &'a Query, name: &str, missing: &str) -> Result<&'a str, HttpReply> {
    query.first(name).ok_or_else(|| refusal(missing))
}

fn topic(query: &Query) -> Result<TopicName, HttpReply> {
    let name = argument(query, "topic", "MISSING_ARG_TOPIC")?;
    TopicName::new(name).map_err(|_| refusal("INVALID_ARG_TOPIC"))
}

fn channel(query: &Query) -> Result<ChannelName, HttpReply> {
    let name = argument(query, "channel", "MISSING_ARG_CHANNEL")?;
    ChannelName::new(name).map_err(|_| refusal("INVALID_ARG_CHANNEL"))
}

fn refusal(message: &str) -> HttpReply {
    HttpReply::message(400, message)
}

/// The limit on topics and channels, which the reference does not have.
fn full() -> HttpReply {
    HttpReply::message(503, "TOO_MANY_REGISTRATIONS")
}

/// What the reference shows as the time of a tombstone that never was: Go's zero time, overflown.
const NEVER: i64 = -6_795_364_578_871_345_152;

#[cfg(test)]
mod tests;
