//! nsqlookupd's HTTP interface, as a function from request to reply (http-and-ops.md section 3).
//!
//! Not offered: Go's profiles below `/debug/pprof`, which are 404 here.

use alloc::format;
use alloc::vec::Vec;
use core::iter::once;
use core::net::SocketAddr;

use serde::{Serialize, Serializer};

use super::{Lookupd, LookupdActions, LookupdStats, NodeInfo, ProducerInfo};
use crate::arena::ConnId;
use crate::http::{HttpReply, HttpRequest, Query, Route, Routed, Router};
use crate::name::{ChannelName, TopicName};
use crate::protocol::json;
use crate::time::Now;
use crate::version::{NSQ_VERSION, SANSQ_VERSION};

/// The endpoints.
#[derive(Clone, Copy, Debug)]
enum HttpEndpoint {
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

static ROUTES: [Route<HttpEndpoint>; 13] = [
    Route { path: "/ping", methods: &["GET"], handler: HttpEndpoint::Ping },
    Route { path: "/info", methods: &["GET"], handler: HttpEndpoint::Info },
    Route { path: "/topics", methods: &["GET"], handler: HttpEndpoint::Topics },
    Route { path: "/channels", methods: &["GET"], handler: HttpEndpoint::Channels },
    Route { path: "/lookup", methods: &["GET"], handler: HttpEndpoint::Lookup },
    Route { path: "/nodes", methods: &["GET"], handler: HttpEndpoint::Nodes },
    Route { path: "/metrics", methods: &["GET"], handler: HttpEndpoint::Metrics },
    Route { path: "/debug", methods: &["GET"], handler: HttpEndpoint::Debug },
    Route { path: "/topic/create", methods: &["POST"], handler: HttpEndpoint::CreateTopic },
    Route { path: "/topic/delete", methods: &["POST"], handler: HttpEndpoint::DeleteTopic },
    Route { path: "/topic/tombstone", methods: &["POST"], handler: HttpEndpoint::Tombstone },
    Route { path: "/channel/create", methods: &["POST"], handler: HttpEndpoint::CreateChannel },
    Route { path: "/channel/delete", methods: &["POST"], handler: HttpEndpoint::DeleteChannel },
];

/// What a request is answered with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LookupdReply {
    /// These figures as metrics. The text's form is not NSQ's, so it is made where a library for it
    /// can be used.
    Metrics(LookupdStats),
    /// This.
    Reply(HttpReply),
}

impl Lookupd {
    /// Whether the answer to a request of the HTTP interface names everything that is registered,
    /// and so may be long: `/topics`, `/nodes`, `/debug`.
    pub fn is_about_everything(request: &HttpRequest<'_>) -> bool {
        matches!(
            Router(&ROUTES).route(request),
            Routed::Handler {
                handler: HttpEndpoint::Topics | HttpEndpoint::Nodes | HttpEndpoint::Debug,
                ..
            }
        )
    }

    /// Answers a request of the HTTP interface. It leaves events in `out`, nothing else.
    pub fn handle_http(
        &mut self,
        request: &HttpRequest<'_>,
        now: Now,
        out: &mut LookupdActions,
    ) -> LookupdReply {
        let routed = Router(&ROUTES).route(request);
        *match &routed {
            Routed::Handler { handler: HttpEndpoint::Lookup, .. } => &mut self.counters.lookups,
            Routed::Handler { .. } | Routed::Reply(_) => &mut self.counters.other_requests,
        } += 1;
        match routed {
            Routed::Handler { handler, .. } => {
                self.answer_http(handler, request, now, out).unwrap_or_else(LookupdReply::Reply)
            }
            Routed::Reply(reply) => LookupdReply::Reply(reply),
        }
    }

    fn answer_http(
        &mut self,
        handler: HttpEndpoint,
        request: &HttpRequest<'_>,
        now: Now,
        out: &mut LookupdActions,
    ) -> Result<LookupdReply, HttpReply> {
        let query = || request.parameters().map_err(|_| refusal("INVALID_REQUEST"));
        let reply = match handler {
            HttpEndpoint::Ping => HttpReply::plain(200, "OK"),
            HttpEndpoint::Info => {
                json(&Info { version: NSQ_VERSION, sansq_version: SANSQ_VERSION })
            }
            HttpEndpoint::Topics => {
                let topics = self.registrations.topics().map(|(name, _)| name).collect();
                json(&Topics { topics })
            }
            HttpEndpoint::Channels => {
                // What is no name has no channels either.
                let topic = TopicName::new(argument(&query()?, "topic", "MISSING_ARG_TOPIC")?);
                let channels = topic.map(|topic| self.channels(&topic)).unwrap_or_default();
                json(&Channels { channels })
            }
            HttpEndpoint::Lookup => {
                let topic = TopicName::new(argument(&query()?, "topic", "MISSING_ARG_TOPIC")?);
                let lookup = topic.ok().and_then(|topic| self.lookup(&topic, now));
                let lookup = lookup.ok_or_else(|| HttpReply::message(404, "TOPIC_NOT_FOUND"))?;
                json(&lookup)
            }
            HttpEndpoint::Nodes => json(&Nodes { producers: self.nodes(now) }),
            HttpEndpoint::Metrics => return Ok(LookupdReply::Metrics(self.stats(now))),
            HttpEndpoint::Debug => json(&Debug(self)),
            HttpEndpoint::CreateTopic => {
                let query = query()?;
                let topic = topic(&query)?;
                self.create_topic(topic, out).map_err(|_| full())?;
                HttpReply::empty()
            }
            HttpEndpoint::DeleteTopic => {
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
            HttpEndpoint::CreateChannel => {
                let query = query()?;
                let (topic, channel) = (topic(&query)?, channel(&query)?);
                self.create_channel(topic, channel, out).map_err(|_| full())?;
                HttpReply::empty()
            }
            HttpEndpoint::DeleteChannel => {
                let query = query()?;
                let (topic, channel) = (topic(&query)?, channel(&query)?);
                if !self.delete_channel(&topic, &channel, out) {
                    return Err(HttpReply::message(404, "CHANNEL_NOT_FOUND"));
                }
                HttpReply::empty()
            }
            HttpEndpoint::Tombstone => {
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
        Ok(LookupdReply::Reply(reply))
    }
}

fn json(value: &impl Serialize) -> HttpReply {
    HttpReply::json(json::encode(value))
}

#[derive(Serialize)]
struct Info {
    version: &'static str,
    sansq_version: &'static str,
}

#[derive(Serialize)]
struct Topics<'a> {
    topics: Vec<&'a TopicName>,
}

#[derive(Serialize)]
struct Channels {
    channels: Vec<ChannelName>,
}

#[derive(Serialize)]
struct Nodes<'a> {
    producers: Vec<NodeInfo<'a>>,
}

/// As `/lookup` and `/nodes` list it.
impl Serialize for ProducerInfo<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Listed<'a> {
            remote_address: SocketAddr,
            hostname: &'a str,
            broadcast_address: &'a str,
            tcp_port: i64,
            http_port: i64,
            version: &'a str,
            topology_zone: &'a str,
            topology_region: &'a str,
        }
        let info = self.info;
        let listed = Listed {
            remote_address: self.remote,
            hostname: &info.hostname,
            broadcast_address: &info.broadcast_address,
            tcp_port: info.tcp_port,
            http_port: info.http_port,
            version: &info.version,
            topology_zone: &info.topology_zone,
            topology_region: &info.topology_region,
        };
        listed.serialize(serializer)
    }
}

/// Every registration with its producers, by `category:key:subkey`. Those without are left out.
struct Debug<'a>(&'a Lookupd);

impl Serialize for Debug<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let registrations = &self.0.registrations;
        let channels = registrations.topics().flat_map(|(topic, entry)| {
            registrations.channels(entry).map(move |(channel, conns)| {
                let producers = conns.iter().filter_map(|conn| self.producer(*conn, None));
                (format!("channel:{topic}:{channel}"), producers.collect::<Vec<_>>())
            })
        });
        let clients = registrations.producers();
        let clients = clients.filter_map(|(conn, _)| self.producer(conn, None)).collect();
        let topics = registrations.topics().map(|(topic, entry)| {
            let producers = entry.producers.iter().filter_map(|conn| {
                let tombstone = registrations.tombstone_of(entry, *conn);
                self.producer(*conn, tombstone.map(|tombstone| tombstone.at.unix.0))
            });
            (format!("topic:{topic}:"), producers.collect())
        });
        let all = channels.chain(once(("client::".into(), clients))).chain(topics);
        serializer.collect_map(all.filter(|(_, producers)| !producers.is_empty()))
    }
}

#[derive(Serialize)]
struct DebugProducer<'a> {
    broadcast_address: &'a str,
    hostname: &'a str,
    http_port: i64,
    id: SocketAddr,
    last_update: i64,
    tcp_port: i64,
    tombstoned: bool,
    tombstoned_at: i64,
    topology_region: &'a str,
    topology_zone: &'a str,
    version: &'a str,
}

impl<'a> Debug<'a> {
    fn producer(&self, conn: ConnId, tombstoned_at: Option<i64>) -> Option<DebugProducer<'a>> {
        let producer = self.0.registrations.producer(conn)?;
        let info = &producer.info;
        Some(DebugProducer {
            broadcast_address: &info.broadcast_address,
            hostname: &info.hostname,
            http_port: info.http_port,
            id: producer.remote,
            last_update: producer.last_update.unix.0,
            tcp_port: info.tcp_port,
            tombstoned: tombstoned_at.is_some(),
            tombstoned_at: tombstoned_at.unwrap_or(NEVER),
            topology_region: &info.topology_region,
            topology_zone: &info.topology_zone,
            version: &info.version,
        })
    }
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
