//! nsqd's HTTP interface: any sequence of requests, right, wrong or made of any bytes, against one
//! shard. Every request gets one reply; what says that it is JSON is JSON; a refusal changes
//! nothing; and the counts of published messages are those of the requests that were answered with
//! OK.

use core::time::Duration;
use std::collections::BTreeMap;

use bytes::Bytes;
use sansq_core::http::{HttpReply, HttpRequest};
use sansq_core::name::TopicName;
use sansq_core::nsqd::http::{
    Context, IGNORED_BODY_LEN_MAX, OptionValue, OptionValues, Parsed, ReplyForm, body_limit, parse,
    reply,
};
use sansq_core::nsqd::{AdminReply, AdminRequest, Config, ServerStats, StatsFilter, TopicOp};
use sansq_core::testing::Node;

use crate::peer::{Reader, STEPS_MAX};

const METHODS: [&str; 8] = ["GET", "POST", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "get"];

const PATHS: [&str; 25] = [
    "/pub",
    "/mpub",
    "/pub",
    "/mpub",
    "/stats",
    "/ping",
    "/info",
    "/metrics",
    "/config/log_level",
    "/config/nsqlookupd_tcp_addresses",
    "/topic/create",
    "/topic/delete",
    "/topic/empty",
    "/topic/pause",
    "/topic/unpause",
    "/channel/create",
    "/channel/delete",
    "/channel/empty",
    "/channel/pause",
    "/channel/unpause",
    "/",
    "/pub/",
    "//topic/../pub",
    "/debug/pprof",
    "/debug/freememory",
];

const PARAMETERS: [&str; 20] = [
    "topic=a",
    "topic=a",
    "topic=b%23ephemeral",
    "topic=b%2",
    "topic=",
    "topic=a+b",
    "channel=c",
    "channel=c",
    "channel=d%23ephemeral",
    "defer=100",
    "defer=-1",
    "defer=3600001",
    "binary=true",
    "binary=0",
    "format=json",
    "include_clients=false",
    "include_mem=true",
    "topic=%FF",
    ";",
    "=&&=",
];

/// Reads the input as options and requests.
///
/// # Panics
/// If the interface is wrong.
pub fn check(data: &[u8]) {
    let mut reader = Reader::new(data);
    let Some(flags) = reader.next() else { return };
    let mut server = Server::new(flags);
    for _ in 0..STEPS_MAX {
        let Some(what) = reader.next() else { break };
        server.request(what, &mut reader);
    }
    server.end();
}

struct Server {
    node: Node,
    config: Config,
    options: OptionValues,
    /// How many messages each topic took, since it was made.
    published: BTreeMap<TopicName, u64>,
}

impl Server {
    fn new(flags: u8) -> Self {
        let mut config = Config::default();
        if flags & 1 == 1 {
            (config.max_msg_size, config.max_body_size) = (40, 90);
        }
        let options = [
            ("log_level", OptionValue::Integer(2)),
            ("nsqlookupd_tcp_addresses", OptionValue::Texts(None)),
            ("tls_cert", OptionValue::Text("a\"b".into())),
        ];
        Self {
            node: Node::new(1, config.clone()),
            config,
            options: options.map(|(name, value)| (name.into(), value)).into_iter().collect(),
            published: BTreeMap::new(),
        }
    }

    fn request(&mut self, what: u8, reader: &mut Reader<'_>) {
        let method = METHODS[usize::from(what & 7)];
        let path = match usize::from(what >> 3) {
            at if at < PATHS.len() => PATHS[at].into(),
            _ => String::from_utf8_lossy(reader.some()).into_owned(),
        };
        let query = self.query(reader);
        let limit = body_limit(method, &path, &self.config);
        let longest = self.config.max_body_size.max(self.config.max_msg_size);
        assert!(limit <= longest.max(IGNORED_BODY_LEN_MAX));
        let body = Bytes::copy_from_slice(reader.some());
        let too_big = body.len() > limit;
        let request = HttpRequest { method, path: &path, query: query.as_deref(), body: &body };
        let is_publish = path.ends_with("pub");
        let reply = match parse(&request, too_big, false, &self.config) {
            Parsed::Admin(request, form) => {
                if let AdminRequest::Publish { batch, .. } = &request {
                    assert!(is_publish && !too_big && !batch.is_empty(), "{path}");
                    assert!(batch.len() <= body.len());
                }
                self.admin(request, &form)
            }
            Parsed::CreateThenReply(topic, reply) => {
                // An MPUB of empty lines is answered with OK, and publishes nothing.
                assert!(is_publish && !reply.is_logged, "{reply:?}");
                self.topic(topic, TopicOp::Create);
                reply
            }
            Parsed::Metrics { .. } => {
                self.stats();
                return;
            }
            Parsed::FreeMemory => return,
            Parsed::Option(request) => self.options.answer(&request),
            Parsed::Reply(reply) => reply,
        };
        judge(&reply);
        self.node.advance(Duration::from_millis(u64::from(what)));
        self.look();
    }

    /// Some parameters that are known, or any bytes.
    fn query(&self, reader: &mut Reader<'_>) -> Option<String> {
        let count = reader.byte();
        match count % 8 {
            0 => None,
            7 => Some(String::from_utf8_lossy(reader.some()).into_owned()),
            count => {
                let mut parameters = Vec::new();
                for _ in 0..count {
                    let at = usize::from(reader.byte()) % PARAMETERS.len();
                    parameters.push(PARAMETERS[at]);
                }
                Some(parameters.join("&"))
            }
        }
    }

    fn admin(&mut self, request: AdminRequest, form: &ReplyForm) -> HttpReply {
        let is_ping = request == AdminRequest::Ping;
        let before = self.published.clone();
        let answer = if let AdminRequest::Topic(topic, op) = request {
            self.topic(topic, op)
        } else {
            self.ask(request.clone())
        };
        if let AdminRequest::Publish { topic, batch, .. } = request {
            if answer == AdminReply::Published {
                *self.published.entry(topic).or_default() += batch.len() as u64;
            } else {
                assert_eq!(before, self.published);
            }
        }
        let context = Context { now: self.node.now, start_time: 1, ..Context::default() };
        let reply = reply(answer, form, &context);
        assert!(is_ping || reply.header("X-NSQ-Content-Type").is_some(), "{reply:?}");
        reply
    }

    fn topic(&mut self, topic: TopicName, op: TopicOp) -> AdminReply {
        let answer = self.ask(AdminRequest::Topic(topic, op));
        if (op, &answer) == (TopicOp::Delete, &AdminReply::Done) {
            self.published.remove(&topic);
        }
        answer
    }

    /// Asks the shard, which answers once, and at once: nothing waits for room or for a disk.
    fn ask(&mut self, request: AdminRequest) -> AdminReply {
        let reply = self.node.admin(0, request).expect("it answers at once");
        assert!(self.node.replies.is_empty(), "it answers once");
        reply
    }

    fn stats(&mut self) -> ServerStats {
        let AdminReply::Stats(stats) = self.ask(AdminRequest::Stats(StatsFilter::default())) else {
            panic!("these are no statistics");
        };
        *stats
    }

    /// What holds after each request.
    fn look(&mut self) {
        let stats = self.stats();
        for topic in &stats.topics {
            let published = self.published.get(&topic.name).copied().unwrap_or(0);
            assert_eq!(topic.message_count, published, "{}", topic.name);
            assert!(topic.depth <= published, "{topic:?}");
        }
        for name in self.published.keys() {
            assert!(stats.topics.iter().any(|topic| topic.name == *name), "{name} is gone");
        }
    }

    fn end(&mut self) {
        let names: Vec<_> = self.stats().topics.iter().map(|topic| topic.name).collect();
        for name in names {
            assert_eq!(self.topic(name, TopicOp::Delete), AdminReply::Done);
        }
        assert!(self.stats().topics.is_empty());
    }
}

/// A reply is whole, and says truly what it is.
fn judge(reply: &HttpReply) {
    assert!((200..600).contains(&reply.status), "{reply:?}");
    let is_json =
        reply.header("Content-Type").is_some_and(|kind| kind.starts_with("application/json"));
    if is_json {
        let value: Result<serde_json::Value, _> = serde_json::from_slice(&reply.body);
        assert!(value.is_ok(), "{reply:?}");
    }
    assert!(core::str::from_utf8(&reply.body).is_ok(), "{reply:?}");
    for (name, value) in &reply.headers {
        assert!(!value.chars().any(char::is_control), "{name}: {value:?}");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        crate::replay_seeds("http", super::check);
    }
}
