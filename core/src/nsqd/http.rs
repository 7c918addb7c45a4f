//! nsqd's HTTP interface, as pure functions around the typed admin API (http-and-ops.md section 2).
//!
//! ```text
//!   method, path ──body_limit──► how much of the body to read
//!   request ──────parse────────► AdminRequest + ReplyForm, or the reply at once
//!   AdminReply + ReplyForm ──reply──► HttpReply
//! ```
//!
//! Requests to `/config` concern no shard, but for the list of nsqlookupds: whoever owns the
//! [`OptionValues`] answers them. Of `/debug` there is `/debug/freememory`; the rest is about Go's
//! runtime, and 404 here.
//!
//! Limits: a body has at most [`body_limit`] bytes. So a text `/mpub` makes at most
//! `max_body_size / 2 + 1` messages, and a binary one [`Config::mpub_count_max`].

use alloc::format;
use alloc::string::{String, ToString};
use core::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::admin::{AdminError, AdminReply, AdminRequest, ChannelOp, Info, TopicOp};
use super::config::{Config, TlsRequired};
use super::publish::Batch;
pub use super::stats::Memory;
use super::stats::{ClientStats, ServerStats, StatsFilter};
use crate::http::{HttpReply, HttpRequest, Query, Route, Routed, Router};
use crate::input::READ_LEN_MAX;
use crate::log::OneLine;
use crate::name::{ChannelName, TopicName};
use crate::protocol::json;
use crate::time::Now;
use crate::version::SANSQ_VERSION;

mod mpub;
mod options;
mod stats_json;
mod stats_text;

pub use options::{OptionRequest, OptionValue, OptionValues};

/// How much of the body of a request is kept whose body means nothing. More is no error: the rest
/// need not be read. Room for a client library's empty form or JSON object.
pub const IGNORED_BODY_LEN_MAX: usize = 4096;

/// The endpoints.
#[derive(Clone, Copy, Debug)]
enum HttpEndpoint {
    Channel(ChannelOp),
    FreeMemory,
    Info,
    Metrics,
    Mpub,
    Ping,
    Pub,
    SetOption,
    ShowOption,
    Stats,
    Topic(TopicOp),
}

static ROUTES: [Route<HttpEndpoint>; 19] = [
    get("/ping", HttpEndpoint::Ping),
    get("/info", HttpEndpoint::Info),
    post("/pub", HttpEndpoint::Pub),
    post("/mpub", HttpEndpoint::Mpub),
    get("/stats", HttpEndpoint::Stats),
    get("/metrics", HttpEndpoint::Metrics),
    get("/config/:opt", HttpEndpoint::ShowOption),
    Route { path: "/config/:opt", methods: &["PUT"], handler: HttpEndpoint::SetOption },
    post("/debug/freememory", HttpEndpoint::FreeMemory),
    post("/topic/create", HttpEndpoint::Topic(TopicOp::Create)),
    post("/topic/delete", HttpEndpoint::Topic(TopicOp::Delete)),
    post("/topic/empty", HttpEndpoint::Topic(TopicOp::Empty)),
    post("/topic/pause", HttpEndpoint::Topic(TopicOp::Pause)),
    post("/topic/unpause", HttpEndpoint::Topic(TopicOp::Unpause)),
    post("/channel/create", HttpEndpoint::Channel(ChannelOp::Create)),
    post("/channel/delete", HttpEndpoint::Channel(ChannelOp::Delete)),
    post("/channel/empty", HttpEndpoint::Channel(ChannelOp::Empty)),
    post("/channel/pause", HttpEndpoint::Channel(ChannelOp::Pause)),
    post("/channel/unpause", HttpEndpoint::Channel(ChannelOp::Unpause)),
];

const fn get(path: &'static str, handler: HttpEndpoint) -> Route<HttpEndpoint> {
    Route { path, methods: &["GET"], handler }
}

const fn post(path: &'static str, handler: HttpEndpoint) -> Route<HttpEndpoint> {
    Route { path, methods: &["POST"], handler }
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Parsed {
    /// Have this carried out, then make the answer with [`reply`].
    Admin(AdminRequest, ReplyForm),
    /// Have the topic made ([`TopicOp::Create`]), then answer this: the reference makes the topic
    /// before it looks at the rest of the request. If it can't be made, an answer of 200 would be
    /// wrong: 503 gives the reason instead.
    CreateThenReply(TopicName, HttpReply),
    /// Have the allocator give memory back that nobody uses, then answer [`HttpReply::empty`], or
    /// `NOT_FOUND` if it can't be asked. The reference does it and answers 500 (section 11).
    FreeMemory,
    /// Have the statistics gathered ([`StatsFilter::default`]) and shown as metrics. The text's
    /// form is not NSQ's, so it is made where a library for it can be used.
    Metrics {
        /// Sums over all topics instead of figures for each.
        aggregate: bool,
    },
    /// Have [`OptionValues::answer`] answer this, and do what it asks for: a list of nsqlookupds is
    /// for shard 0 ([`AdminRequest::Lookupds`]), a level is for the log.
    Option(OptionRequest),
    /// Answer this.
    Reply(HttpReply),
}

/// What the answer to an [`AdminRequest`] is to look like; from [`parse`] for [`reply`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReplyForm(Form);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Form {
    Other,
    Publish { warning: Option<String> },
    Stats(StatsForm),
}

/// What of the statistics is shown, and how.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct StatsForm {
    is_json: bool,
    has_memory: bool,
    /// The topic that was asked for. Of a client's publishes only those to it are shown.
    topic: Option<TopicName>,
    /// The topic that was asked for is no valid name, so there is none.
    no_topic: bool,
    /// The channel that was asked for is no valid name, so no topic has one.
    no_channel: bool,
}

impl ReplyForm {
    /// A text for the log, at level WARN, about the request; `None` for nearly all requests.
    pub fn warning(&self) -> Option<&str> {
        match &self.0 {
            Form::Publish { warning } => warning.as_deref(),
            Form::Other | Form::Stats(_) => None,
        }
    }

    /// Whether [`Context::memory`] will be looked at; otherwise it need not be measured.
    pub const fn shows_memory(&self) -> bool {
        matches!(&self.0, Form::Stats(form) if form.has_memory)
    }
}

/// What a reply shows besides the [`AdminReply`]; only the statistics do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Context {
    /// The time, for how long clients have been connected.
    pub now: Now,
    /// [`Config::start_time`]: seconds since the Unix epoch.
    pub start_time: i64,
    /// How far local time was ahead of UTC at the start, in seconds; 0 shows the start in UTC.
    pub utc_offset: i32,
    /// How long the broker has been running.
    pub uptime: Duration,
    /// The process's memory, if the platform tells. `None` is shown as zeros: tools expect the
    /// members.
    pub memory: Option<Memory>,
}

/// The most bytes of a request's body that [`parse`] wants. A body that has more, or a
/// `Content-Length` above it, is *too big*; what was read of it does not matter then.
pub fn body_limit(method: &str, path: &str, config: &Config) -> usize {
    let request = HttpRequest { method, path, query: None, body: &Bytes::new() };
    match Router(&ROUTES).route(&request) {
        Routed::Handler { handler: HttpEndpoint::Pub | HttpEndpoint::SetOption, .. } => {
            config.max_msg_size
        }
        Routed::Handler { handler: HttpEndpoint::Mpub, .. } => config.max_body_size,
        Routed::Handler { .. } | Routed::Reply(_) => IGNORED_BODY_LEN_MAX,
    }
}

/// Reads a request. `too_big` says that its body is longer than [`body_limit`].
///
/// Unlike in the reference a body without `Content-Length` is held to the same limits as one with
/// it, and the limit of `/mpub` is always the first check: there a binary body in chunks has none.
///
/// `is_https` says that it came over TLS. Where TLS is required of everybody, others are told the
/// port.
pub fn parse(request: &HttpRequest<'_>, too_big: bool, is_https: bool, config: &Config) -> Parsed {
    if !is_https && config.tls_required == TlsRequired::Yes {
        return Parsed::Reply(tls_required(config));
    }
    match Router(&ROUTES).route(request) {
        Routed::Handler { handler, parameter } => match handler {
            HttpEndpoint::Mpub => parse_mpub(request, too_big, config),
            HttpEndpoint::Pub => parse_pub(request, too_big, config),
            HttpEndpoint::FreeMemory => Ok(Parsed::FreeMemory),
            HttpEndpoint::Ping => Ok(Parsed::Admin(AdminRequest::Ping, ReplyForm(Form::Other))),
            HttpEndpoint::Info => Ok(Parsed::Admin(AdminRequest::Info, ReplyForm(Form::Other))),
            HttpEndpoint::SetOption => {
                let too_big = too_big || request.body.len() > config.max_msg_size;
                options::parse_change(&parameter, request.body, too_big).map(Parsed::Option)
            }
            HttpEndpoint::ShowOption => Ok(Parsed::Option(OptionRequest::Show(parameter))),
            HttpEndpoint::Stats => parse_stats(request),
            HttpEndpoint::Metrics => parse_metrics(request, config),
            HttpEndpoint::Topic(op) => parse_topic(request, op),
            HttpEndpoint::Channel(op) => parse_channel(request, op),
        }
        .unwrap_or_else(Parsed::Reply),
        Routed::Reply(reply) => Parsed::Reply(reply),
    }
}

/// Makes the answer of a request whose [`AdminRequest`] is done.
pub fn reply(reply: AdminReply, form: &ReplyForm, context: &Context) -> HttpReply {
    let reply = match reply {
        AdminReply::Done => HttpReply::empty(),
        AdminReply::Published => HttpReply::text("OK"),
        AdminReply::Health(result) => {
            let status = if result.is_ok() { 200 } else { 500 };
            HttpReply::plain(status, health(result.err().as_deref()))
        }
        AdminReply::Info(info) => {
            let sansq_version = SANSQ_VERSION;
            HttpReply::json(json::encode(&FullInfo { info: *info, sansq_version }))
        }
        AdminReply::Stats(stats) => {
            let form = if let Form::Stats(form) = form.0 { form } else { StatsForm::default() };
            let stats = form.select(*stats);
            if form.is_json {
                HttpReply::json(stats_json::show(&stats, &form, context))
            } else {
                HttpReply::text(stats_text::show(&stats, &form, context))
            }
        }
        AdminReply::Refused(error) => {
            let status = match error {
                AdminError::ChannelNotFound | AdminError::TopicNotFound => 404,
                AdminError::Exiting | AdminError::NotPublished(_) | AdminError::TooMany(_) => 503,
            };
            HttpReply::message(status, &error.to_string())
        }
    };
    if matches!(form.0, Form::Publish { .. }) { reply.unlogged() } else { reply }
}

/// `/pub` (section 2.3).
fn parse_pub(
    request: &HttpRequest<'_>,
    too_big: bool,
    config: &Config,
) -> Result<Parsed, HttpReply> {
    let check = || {
        if too_big || request.body.len() > config.max_msg_size {
            return Err(HttpReply::message(413, "MSG_TOO_BIG"));
        }
        if request.body.is_empty() {
            return Err(refusal("MSG_EMPTY"));
        }
        let query = query(request)?;
        Ok((topic(&query, "INVALID_TOPIC")?, query))
    };
    let (topic, query) = check().map_err(HttpReply::unlogged)?;
    let Some(delay) = delay(&query, config) else {
        return Ok(Parsed::CreateThenReply(topic, refusal("INVALID_DEFER").unlogged()));
    };
    // A small message must not keep the connection's read buffer alive, which may have a few times
    // as much.
    let body = match request.body {
        small if small.len() <= READ_LEN_MAX => Bytes::copy_from_slice(small),
        large => large.clone(),
    };
    let request = AdminRequest::Publish { topic, batch: Batch::One(body), delay };
    Ok(Parsed::Admin(request, ReplyForm(Form::Publish { warning: None })))
}

/// The argument `defer` in milliseconds, zero without one; `None` if it is refused. Nothing wraps
/// as it does in the reference.
fn delay(query: &Query, config: &Config) -> Option<Duration> {
    let Some(millis) = query.first("defer") else { return Some(Duration::ZERO) };
    let millis = u64::try_from(millis.parse::<i64>().ok()?).ok()?;
    Some(Duration::from_millis(millis)).filter(|delay| *delay <= config.max_req_timeout)
}

/// `/mpub` (section 2.4).
fn parse_mpub(
    request: &HttpRequest<'_>,
    too_big: bool,
    config: &Config,
) -> Result<Parsed, HttpReply> {
    let check = || {
        if too_big || request.body.len() > config.max_body_size {
            return Err(HttpReply::message(413, "BODY_TOO_BIG"));
        }
        let query = query(request)?;
        Ok((topic(&query, "INVALID_TOPIC")?, query))
    };
    let (topic, query) = check().map_err(HttpReply::unlogged)?;
    let (is_binary, deprecated) = match query.first("binary") {
        None | Some("false" | "0") => (false, None),
        Some("true" | "1") => (true, None),
        Some(value) => (true, Some(value)),
    };
    let bodies = if is_binary {
        mpub::split_binary(request.body, config)
    } else {
        mpub::split_lines(request.body, config)
    };
    let reply = match bodies {
        Ok(bodies) if !bodies.is_empty() => {
            let batch = Batch::Many(bodies);
            let request = AdminRequest::Publish { topic, batch, delay: Duration::ZERO };
            let warning = deprecated.map(|value| {
                format!("deprecated value '{}' used for /mpub binary param", OneLine(value))
            });
            return Ok(Parsed::Admin(request, ReplyForm(Form::Publish { warning })));
        }
        Ok(_) => HttpReply::text("OK"),
        Err(word) => HttpReply::message(413, word),
    };
    Ok(Parsed::CreateThenReply(topic, reply.unlogged()))
}

/// `/stats` (section 2.8).
fn parse_stats(request: &HttpRequest<'_>) -> Result<Parsed, HttpReply> {
    let query = query(request)?;
    let named = |key| query.first(key).filter(|name| !name.is_empty());
    let is_on = |key| !matches!(query.first(key), Some("false" | "0"));
    let topic = named("topic").map(TopicName::new).transpose();
    let channel = named("channel").map(ChannelName::new).transpose();
    let form = StatsForm {
        is_json: query.first("format") == Some("json"),
        has_memory: is_on("include_mem"),
        topic: topic.unwrap_or_default(),
        no_topic: topic.is_err(),
        no_channel: channel.is_err(),
    };
    let filter = StatsFilter {
        topic: form.topic,
        channel: channel.unwrap_or_default(),
        // Without a topic there will be no producers to show either.
        include_clients: is_on("include_clients") && !form.no_topic,
        page: None,
    };
    Ok(Parsed::Admin(AdminRequest::Stats(filter), ReplyForm(Form::Stats(form))))
}

/// `/metrics`, which the reference does not have.
fn parse_metrics(request: &HttpRequest<'_>, config: &Config) -> Result<Parsed, HttpReply> {
    let aggregate = match query(request)?.first("aggregate") {
        None => config.metrics_aggregate,
        Some("true" | "1" | "") => true,
        Some("false" | "0") => false,
        Some(_) => return Err(refusal("INVALID_ARG_AGGREGATE")),
    };
    Ok(Parsed::Metrics { aggregate })
}

/// `/topic/*` (section 2.5).
fn parse_topic(request: &HttpRequest<'_>, op: TopicOp) -> Result<Parsed, HttpReply> {
    let query = query(request)?;
    let topic = match op {
        TopicOp::Create | TopicOp::Empty => topic(&query, "INVALID_TOPIC")?,
        // These look the name up without judging it.
        TopicOp::Delete | TopicOp::Pause | TopicOp::Unpause => {
            let error = AdminError::TopicNotFound;
            TopicName::new(argument(&query, "topic", "MISSING_ARG_TOPIC")?)
                .map_err(|_| HttpReply::message(404, &error.to_string()))?
        }
    };
    Ok(Parsed::Admin(AdminRequest::Topic(topic, op), ReplyForm(Form::Other)))
}

/// `/channel/*` (section 2.5).
fn parse_channel(request: &HttpRequest<'_>, op: ChannelOp) -> Result<Parsed, HttpReply> {
    let query = query(request)?;
    let topic = topic(&query, "INVALID_ARG_TOPIC")?;
    let channel = ChannelName::new(argument(&query, "channel", "MISSING_ARG_CHANNEL")?)
        .map_err(|_| refusal("INVALID_ARG_CHANNEL"))?;
    Ok(Parsed::Admin(AdminRequest::Channel(topic, channel, op), ReplyForm(Form::Other)))
}

fn query(request: &HttpRequest<'_>) -> Result<Query, HttpReply> {
    request.parameters().map_err(|_| refusal("INVALID_REQUEST"))
}

fn argument<'a>(query: &'a Query, name: &str, missing: &str) -> Result<&'a str, HttpReply> {
    query.first(name).ok_or_else(|| refusal(missing))
}

/// The topic. The paths differ in how they call a bad one.
fn topic(query: &Query, invalid: &str) -> Result<TopicName, HttpReply> {
    let name = argument(query, "topic", "MISSING_ARG_TOPIC")?;
    TopicName::new(name).map_err(|_| refusal(invalid))
}

/// What plain HTTP is told where TLS is required (section 2.1); the blanks are the reference's.
fn tls_required(config: &Config) -> HttpReply {
    let port = config.https_port;
    let body = format!("{{\"message\": \"TLS_REQUIRED\", \"https_port\": {port}}}");
    HttpReply { status: 403, ..HttpReply::json(body) }.unlogged()
}

fn refusal(message: &str) -> HttpReply {
    HttpReply::message(400, message)
}

/// The word of `/ping` and of the statistics.
fn health(failure: Option<&str>) -> String {
    failure.map_or_else(|| String::from("OK"), |failure| format!("NOK - {failure}"))
}

/// `/info` (section 2.7), with sansq's own version as last member.
#[derive(Serialize)]
struct FullInfo {
    #[serde(flatten)]
    info: Info,
    sansq_version: &'static str,
}

impl StatsForm {
    /// Drops what a name that is none can't match, since the shards were asked without it, and what
    /// of a client is not shown.
    fn select(&self, mut stats: ServerStats) -> ServerStats {
        if self.no_topic {
            stats.topic_known = false;
        }
        if self.no_channel || !stats.topic_known {
            stats.topics.clear();
        }
        if !stats.topic_known {
            stats.producers.clear();
        }
        let channels = stats.topics.iter_mut().flat_map(|topic| &mut topic.channels);
        let consumers = channels.flat_map(|channel| channel.clients.iter_mut().flatten());
        consumers.chain(&mut stats.producers).for_each(|client| self.select_pub_count(client));
        stats
    }

    /// Keeps one count of a client's publishes: of the topic that was asked for, else of the topic
    /// to which it published most, where the reference picks an arbitrary one.
    fn select_pub_count(&self, client: &mut ClientStats) {
        let counts = &mut client.pub_counts;
        let shown = match self.topic {
            Some(topic) => counts.iter().position(|(name, _)| *name == topic),
            // Of equal counts the first topic's, whose name comes first.
            None => {
                let most = counts.iter().enumerate().rev().max_by_key(|(_, (_, count))| *count);
                most.map(|(at, _)| at)
            }
        };
        match shown {
            Some(at) => {
                counts.swap(0, at);
                counts.truncate(1);
            }
            None => counts.clear(),
        }
    }
}

#[cfg(test)]
mod tests;
