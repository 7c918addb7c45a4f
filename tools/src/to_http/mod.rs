//! `sansq to-http`: a request for each message (http-and-ops.md section 10.4).

mod hosts;

use core::cell::RefCell;
use core::hash::{BuildHasher, Hasher};
use core::time::Duration;
use std::hash::RandomState;
use std::time::Instant;

use bytes::Bytes;
use clap::{ArgGroup, Parser};
use sansq_core::duration::parse_go_duration;
use sansq_core::log::Level;
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::rng::Rng;
use sansq_tokio::Message;
use sansq_toolkit::http;
use sansq_toolkit::log::{TOOL, log};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use ureq::http::{HeaderName, HeaderValue, Uri};

use self::hosts::Hosts;
use super::ToolError;
use super::clients::{self, Orders, Sources, Subscription};
use super::progress::Progress;
use super::status::Status;

pub use self::hosts::HttpMode;

/// What to send where.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "sansq to-http",
    bin_name = "sansq to-http",
    about = "Consumes a topic and sends each message over HTTP",
    long_about = "Consumes a topic and sends each message over HTTP.\n\n\
        A message is finished when the answer to its request is good: 200 for GET, any 2xx for POST. \
        Otherwise it comes again later, and the tool slows down.",
    group = ArgGroup::new("addresses").required(true).args(["get", "post"]),
    args_override_self = true,
    max_term_width = 100
)]
pub struct ToHttpOptions {
    /// The topic
    #[arg(long, value_parser = |text: &str| TopicName::new(text))]
    pub topic: TopicName,
    /// The channel
    #[arg(long, default_value = "nsq_to_http", value_parser = |text: &str| ChannelName::new(text))]
    pub channel: ChannelName,
    /// Where the messages come from.
    #[command(flatten)]
    pub sources: Sources,
    /// A URL to GET, with one %s for the message; repeat for more
    #[arg(long, value_name = "URL", value_parser = template)]
    pub get: Vec<Template>,
    /// A URL to POST messages to; repeat for more
    #[arg(long, value_name = "URL", value_parser = url)]
    pub post: Vec<String>,
    /// The content type of a POST
    #[arg(long, default_value = "application/octet-stream", value_parser = header_value)]
    pub content_type: HeaderValue,
    /// A header of requests, `Name: value`; repeat for more
    #[arg(long, value_name = "HEADER", value_parser = header)]
    pub header: Vec<(HeaderName, HeaderValue)>,
    /// How one of several addresses is chosen
    #[arg(long, value_enum, default_value_t = HttpMode::Hostpool)]
    pub mode: HttpMode,
    /// Requests at a time
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub n: u16,
    /// The share of messages to send, 0 to 1; the others are finished
    #[arg(long, default_value_t = 1.0, value_parser = share)]
    pub sample: f64,
    /// Messages in flight at a time
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_in_flight: u32,
    /// Log a line after so many messages; 0: never
    #[arg(long, default_value_t = 250)]
    pub status_every: u64,
    /// How long connecting may take
    #[arg(long, default_value = "2s", value_parser = parse_go_duration)]
    pub http_client_connect_timeout: Duration,
    /// How long a request may take
    #[arg(long, default_value = "20s", value_parser = parse_go_duration)]
    pub http_client_request_timeout: Duration,
}

/// A URL with a place for a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template {
    before: String,
    behind: String,
}

/// Sends what comes until a signal ends it.
///
/// # Errors
/// [`ToolError`] for flags that don't go together, and for servers to consume from that can't be
/// reached at the start.
pub fn run_to_http(options: ToHttpOptions) -> Result<(), ToolError> {
    clients::pass_on(&options.sources, "[nsq_to_http] ", "sent", async |orders, progress| {
        run(&options, orders, progress).await
    })
}

async fn run(
    options: &ToHttpOptions,
    orders: watch::Sender<Orders>,
    progress: &Progress,
) -> Result<(), ToolError> {
    let seed = RandomState::new().build_hasher().finish();
    let targets = Target::all(options);
    let times = (options.http_client_connect_timeout, options.http_client_request_timeout);
    let agent = if targets.iter().any(|target| target.is_https()) {
        http::agent_with_tls(times.0, times.1).map_err(ToolError::Tls)?
    } else {
        http::agent(times.0, times.1)
    };
    let status = |name: &str| Status::new(name, options.status_every);
    // One line is enough where there is one address.
    let each = if targets.len() > 1 { &targets[..] } else { &[] };
    let sending = Sending {
        hosts: RefCell::new(Hosts::new(options.mode, targets.len(), seed)),
        each: RefCell::new(each.iter().map(|target| status(&target.name())).collect()),
        all: RefCell::new(status("aggregate")),
        rng: RefCell::new(Rng::new(seed).fork(1)),
        targets,
        request: RequestParts {
            agent,
            headers: options.header.clone(),
            content_type: options.content_type.clone(),
        },
        // In parts of 2^32.
        share: (options.sample * 4_294_967_296.0) as u64,
        progress,
    };
    let subscription = Subscription {
        tool: "nsq_to_http",
        topic: options.topic,
        channel: options.channel,
        sources: &options.sources,
        max_in_flight: options.max_in_flight,
        max_attempts: clients::MAX_ATTEMPTS,
        lookupd_poll_interval: clients::LOOKUPD_POLL_INTERVAL,
    };
    let consumer = subscription.consumer()?;
    let named = &options.sources.nsqd_tcp_address;
    let handler = async |message: Message| sending.send(message).await;
    clients::consume(consumer, named, usize::from(options.n), &orders, handler).await
}

/// What a message goes through.
struct Sending<'a> {
    targets: Vec<Target>,
    hosts: RefCell<Hosts>,
    request: RequestParts,
    each: RefCell<Vec<Status>>,
    all: RefCell<Status>,
    rng: RefCell<Rng>,
    share: u64,
    progress: &'a Progress,
}

impl Sending<'_> {
    async fn send(&self, message: Message) {
        if self.rng.borrow_mut().below(1 << 32) >= self.share {
            return clients::answered(message.finish());
        }
        let began = Instant::now();
        let chosen = self.hosts.borrow_mut().choose(began);
        let requests = chosen.into_iter().map(|index| self.send_to(index, message.body().clone()));
        let outcomes = futures_util::future::join_all(requests).await;
        if outcomes.into_iter().all(|is_good| is_good) {
            clients::answered(message.finish());
            self.progress.add(1);
            if let Some(line) = self.all.borrow_mut().record(began.elapsed()) {
                log(TOOL, Level::Info, line);
            }
        } else {
            clients::answered(message.requeue(None));
        }
    }

    /// Sends a message to the address of this number; whether the answer was good.
    async fn send_to(&self, index: usize, body: Bytes) -> bool {
        let Some(target) = self.targets.get(index) else { return false };
        let (began, request, to) = (Instant::now(), self.request.clone(), target.clone());
        let result = spawn_blocking(move || request.send(&to, &body)).await;
        let result = result.unwrap_or_else(|_| Err("the request failed".into()));
        let now = Instant::now();
        let latency = now.saturating_duration_since(began);
        self.hosts.borrow_mut().report(index, result.is_ok().then_some(latency), now);
        match result {
            Ok(()) => {
                let mut each = self.each.borrow_mut();
                if let Some(line) = each.get_mut(index).and_then(|status| status.record(latency)) {
                    log(TOOL, Level::Info, line);
                }
                true
            }
            Err(error) => {
                log(TOOL, Level::Error, format_args!("{}: {error}", target.name()));
                false
            }
        }
    }
}

/// Where a request goes.
#[derive(Clone, Debug)]
enum Target {
    Get(Template),
    Post(String),
}

impl Target {
    fn all(options: &ToHttpOptions) -> Vec<Self> {
        let get = options.get.iter().cloned().map(Self::Get);
        get.chain(options.post.iter().cloned().map(Self::Post)).collect()
    }

    fn is_https(&self) -> bool {
        let url = self.name();
        url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
    }

    fn name(&self) -> String {
        match self {
            Self::Get(template) => format!("{}%s{}", template.before, template.behind),
            Self::Post(url) => url.clone(),
        }
    }
}

/// What all requests have in common.
#[derive(Clone, Debug)]
struct RequestParts {
    agent: ureq::Agent,
    headers: Vec<(HeaderName, HeaderValue)>,
    content_type: HeaderValue,
}

impl RequestParts {
    /// Sends, and reads the answer to its end, so that the connection serves again.
    fn send(&self, target: &Target, body: &[u8]) -> Result<(), String> {
        let result = match target {
            Target::Get(template) => {
                let request = self.agent.get(template.fill(body));
                self.with_headers(request).call()
            }
            Target::Post(url) => {
                let request = self.agent.post(url).header("Content-Type", &self.content_type);
                self.with_headers(request).send(body)
            }
        };
        let mut answer = result.map_err(|error| error.to_string())?;
        let status = answer.status();
        let is_good = match target {
            Target::Get(_) => status.as_u16() == 200,
            Target::Post(_) => status.is_success(),
        };
        // What is longer costs the connection.
        let _ = answer.body_mut().with_config().limit(ANSWER_LEN_MAX).read_to_vec();
        if is_good { Ok(()) } else { Err(format!("the answer was {status}")) }
    }

    fn with_headers<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        let request = request.header("User-Agent", clients::user_agent("nsq_to_http"));
        self.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    }
}

impl Template {
    fn fill(&self, body: &[u8]) -> String {
        format!("{}{}{}", self.before, http::escape(body), self.behind)
    }
}

fn template(text: &str) -> Result<Template, String> {
    let (before, behind) = text.split_once("%s").ok_or("it needs one %s for the message")?;
    if behind.contains("%s") {
        return Err("it needs one %s, not several".into());
    }
    let template = Template { before: before.into(), behind: behind.into() };
    url(&template.fill(b"x"))?;
    Ok(template)
}

fn url(text: &str) -> Result<String, String> {
    let uri: Uri = text.parse().map_err(|error| format!("it is no URL: {error}"))?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.authority().is_some() => Ok(text.to_owned()),
        _ => Err("it has to begin with http:// or https://".into()),
    }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("it has to be Name: value")?;
    let name = name.trim().parse().map_err(|_| "its name is not one of a header".to_owned())?;
    Ok((name, header_value(value.trim())?))
}

fn header_value(text: &str) -> Result<HeaderValue, String> {
    text.parse().map_err(|_| "a header cannot have this value".to_owned())
}

fn share(text: &str) -> Result<f64, &'static str> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or("it is a number from 0 to 1")
}

/// Bytes of an answer that are read.
const ANSWER_LEN_MAX: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_one_place_for_a_message() {
        let filled = |text| template(text).map(|template| template.fill(b"a b&c"));
        assert_eq!(filled("http://h:1/x?m=%s&y"), Ok("http://h:1/x?m=a+b%26c&y".into()));
        for bad in ["http://h/", "http://h/%s%s", "h/%s", "ftp://h/%s", "%s", ""] {
            assert!(template(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn headers_are_checked_at_the_start() {
        let (name, value) = header("X-Key:  a b ").unwrap();
        assert_eq!((name.as_str(), value.as_bytes()), ("x-key", &b"a b"[..]));
        for bad in ["x", "a b: c", ": c", "x: a\nb"] {
            assert!(header(bad).is_err(), "{bad}");
        }
        assert_eq!((share("0.5"), share("1")), (Ok(0.5), Ok(1.0)));
        for bad in ["1.1", "-1", "NaN", "x"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }
}
