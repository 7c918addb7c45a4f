//! An nsqd that a transcript talks to.

use core::time::Duration;
use std::collections::BTreeMap;

use bytes::Bytes;
use sansq_core::client::frame::Frame;
use sansq_core::duration::parse_go_duration;
use sansq_core::http::call::{CallAnswer, CallFailure};
use sansq_core::http::{HttpReply, HttpRequest};
use sansq_core::nsqd::http::{Context, OptionValues, Parsed, ReplyForm, body_limit, parse, reply};
use sansq_core::nsqd::{AdminReply, AdminRequest, Config, ReplyToken, TopicOp};
use sansq_core::testing::{ClientId, Node};
use sansq_core::time::{Instant, Now};

use crate::player::{Came, Server, what_is};

pub(crate) struct Nsqd {
    node: Node,
    config: Config,
    clients: Vec<Client>,
    /// Requests over HTTP that are not answered yet.
    asked: Vec<(ReplyToken, Answer)>,
    /// Replies to those that no shard had to answer.
    replies: Vec<HttpReply>,
    /// How many requests to auth servers were shown and are not answered.
    calls_shown: usize,
    started: Now,
}

#[derive(Debug)]
struct Client {
    id: ClientId,
    is_closed: bool,
}

/// What is answered when the shards are done.
enum Answer {
    Form(ReplyForm),
    Reply(HttpReply),
}

impl Nsqd {
    pub(crate) fn start(shards: u16, flags: BTreeMap<&str, &str>) -> Result<Self, String> {
        let mut config = Config::default();
        for (flag, value) in flags {
            set(&mut config, flag, value).ok_or_else(|| what_is(&format!("--{flag}={value}")))?;
        }
        let node = Node::new(shards, config.clone());
        let (clients, asked, replies) = (Vec::new(), Vec::new(), Vec::new());
        let started = node.now;
        config.start_time = started.unix.0 / 1_000_000_000;
        Ok(Self { node, config, clients, asked, replies, calls_shown: 0, started })
    }

    /// Shows the answer to a request that the shards are done with.
    fn shape(&self, done: AdminReply, answer: Answer) -> HttpReply {
        match answer {
            Answer::Form(form) => {
                let context = Context {
                    now: self.node.now,
                    start_time: self.config.start_time,
                    utc_offset: 0,
                    uptime: self.node.now.instant.saturating_since(self.started.instant),
                    memory: None,
                };
                reply(done, &form, &context)
            }
            Answer::Reply(reply) => reply,
        }
    }
}

fn set(config: &mut Config, flag: &str, value: &str) -> Option<()> {
    let duration = || parse_go_duration(value).ok();
    match flag {
        "auth-http-address" => config.auth_http_addresses.push(value.into()),
        "max-body-size" => config.max_body_size = value.parse().ok()?,
        "max-channel-consumers" => config.max_channel_consumers = value.parse().ok()?,
        "max-msg-size" => config.max_msg_size = value.parse().ok()?,
        "max-rdy-count" => config.max_rdy_count = value.parse().ok()?,
        "max-req-timeout" => config.max_req_timeout = duration()?,
        "mem-queue-size" => config.mem_queue_size = value.parse().ok()?,
        "msg-timeout" => config.msg_timeout = duration()?,
        _ => return None,
    }
    Some(())
}

impl Server for Nsqd {
    fn magic(&self) -> &'static [u8] {
        b"  V2"
    }

    fn connect(&mut self) {
        // Not all at one shard.
        let shard = self.clients.len() % self.node.shards().len();
        let id = self.node.connect(shard);
        self.clients.push(Client { id, is_closed: false });
    }

    fn send(&mut self, client: usize, bytes: &[u8]) {
        self.node.send(self.clients[client].id, bytes);
    }

    fn half_close(&mut self, client: usize) {
        self.node.half_close(self.clients[client].id);
    }

    fn close(&mut self, client: usize) {
        let client = &mut self.clients[client];
        client.is_closed = true;
        self.node.close(client.id);
    }

    fn ask(&mut self, method: &str, uri: &str, body: Bytes) -> Result<(), String> {
        let (path, query) = uri.split_once('?').map_or((uri, None), |(p, q)| (p, Some(q)));
        let too_big = body.len() > body_limit(method, path, &self.config);
        let request = HttpRequest { method, path, query, body: &body };
        let (request, answer) = match parse(&request, too_big, false, &self.config) {
            Parsed::Admin(request, form) => (request, Answer::Form(form)),
            Parsed::CreateThenReply(topic, reply) => {
                (AdminRequest::Topic(topic, TopicOp::Create), Answer::Reply(reply))
            }
            Parsed::Option(request) => {
                self.replies.push(OptionValues::default().answer(&request));
                return Ok(());
            }
            Parsed::Reply(reply) => {
                self.replies.push(reply);
                return Ok(());
            }
            Parsed::FreeMemory | Parsed::Metrics { .. } => return Err(what_is(uri)),
        };
        let token = self.node.ask(0, request);
        self.asked.push((token, answer));
        Ok(())
    }

    fn answer(&mut self, answer: Option<(u16, &str)>) -> Result<(), String> {
        if self.node.calls.is_empty() {
            return Err("no auth server is asked".into());
        }
        let answer =
            answer.map(|(status, body)| CallAnswer { status, body: body.to_owned().into() });
        self.calls_shown -= 1;
        self.node.called(answer.ok_or(CallFailure::TimedOut));
        Ok(())
    }

    fn stop(&mut self) {
        self.node.shut_down();
    }

    fn now(&self) -> Now {
        self.node.now
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.node.poll_timeout()
    }

    fn advance(&mut self, duration: Duration) {
        self.node.advance(duration);
    }

    fn take(&mut self) -> Vec<Came> {
        let mut came = Vec::new();
        for (number, client) in self.clients.iter_mut().enumerate() {
            for frame in self.node.frames(client.id) {
                came.push(match frame {
                    Frame::Response(text) => Came::Response(number, text),
                    Frame::Error(text) => Came::Error(number, text),
                    Frame::Message(message) => Came::Message(number, message),
                });
            }
            if self.node.is_closed(client.id) && !client.is_closed {
                client.is_closed = true;
                came.push(Came::Closed(number));
            }
        }
        for (_, _, call) in self.node.calls.iter().skip(self.calls_shown) {
            let method = if call.body.is_some() { "POST" } else { "GET" };
            let scheme = if call.url.is_https() { "https" } else { "http" };
            let url = format!("{scheme}://{}{}", call.url.authority(), call.url.target());
            let body = call.body.as_deref().map(|body| format!(" | {}", body.escape_ascii()));
            came.push(Came::Call(format!("{method} {url}{}", body.unwrap_or_default())));
        }
        self.calls_shown = self.node.calls.len();
        came.extend(self.replies.drain(..).map(Came::Reply));
        for (token, answer) in core::mem::take(&mut self.asked) {
            match self.node.replies.remove(&token) {
                Some(done) => came.push(Came::Reply(self.shape(done, answer))),
                None => self.asked.push((token, answer)),
            }
        }
        let log = self.node.events.drain(..);
        came.extend(log.map(|event| Came::Log(format!("{} {event}", event.level()))));
        came
    }
}
