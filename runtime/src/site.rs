//! nsqd's HTTP API: from requests to the shard and back.

use core::fmt;

use sansq_core::http::{HttpReply, Request};
use sansq_core::log::Level;
use sansq_core::nsqd::http::{self, Context, Parsed, ReplyForm};
use sansq_core::nsqd::{AdminReply, AdminRequest, TopicOp};
use sansq_core::options::NsqdOptions;
use sansq_core::time::Instant;

use crate::clock::Clock;
use crate::http::Site;
use crate::log::Program;

/// Maps requests to admin requests of the shard, and its answers back.
///
/// `A` asks the shard: the reply, or `None` if the node ends before it comes.
pub struct NsqdSite<A> {
    clock: Clock,
    options: NsqdOptions,
    is_https: bool,
    ask: A,
}

impl<A> NsqdSite<A> {
    /// The API of the nsqd that `ask` asks. `clock` is its shards'.
    pub const fn new(clock: Clock, options: NsqdOptions, ask: A) -> Self {
        Self { clock, options, is_https: false, ask }
    }

    /// The same behind a listener that speaks TLS.
    #[must_use]
    pub const fn over_https(mut self) -> Self {
        self.is_https = true;
        self
    }

    /// What the mapping can't know by itself.
    fn context(&self, form: &ReplyForm) -> Context {
        let now = self.clock.now();
        Context {
            now,
            start_time: self.options.config.start_time,
            utc_offset: self.options.utc_offset,
            uptime: now.instant.saturating_since(Instant::ZERO),
            memory: self.options.memory.filter(|_| form.shows_memory()).map(|measure| measure()),
        }
    }
}

impl<A: AsyncFn(AdminRequest) -> Option<AdminReply> + 'static> Site for NsqdSite<A> {
    const PROGRAM: Program = Program::Nsqd;

    fn body_limit(&self, method: &str, path: &str) -> usize {
        http::body_limit(method, path, &self.options.config)
    }

    async fn answer(&self, request: &Request<'_>, too_big: bool) -> HttpReply {
        match http::parse(request, too_big, self.is_https, &self.options.config) {
            Parsed::Reply(reply) => reply,
            Parsed::CreateThenReply(topic, reply) => {
                // The answer is the same whether or not the node ends meanwhile.
                let _ = (self.ask)(AdminRequest::Topic(topic, TopicOp::Create)).await;
                reply
            }
            Parsed::Admin(request, form) => {
                if let Some(warning) = form.warning() {
                    Self::PROGRAM.log(Level::Warn, warning);
                }
                let is_publish = matches!(request, AdminRequest::Publish { .. });
                match (self.ask)(request).await {
                    Some(reply) => http::reply(reply, &form, &self.context(&form)),
                    None if is_publish => HttpReply::message(503, "EXITING").unlogged(),
                    None => HttpReply::message(503, "EXITING"),
                }
            }
        }
    }
}

impl<A> fmt::Debug for NsqdSite<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NsqdSite").field("options", &self.options).finish_non_exhaustive()
    }
}
