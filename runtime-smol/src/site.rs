//! nsqd's HTTP API on shard 0.

use std::rc::Rc;

use sansq_core::http::{HttpReply, Request};
use sansq_core::log::Level;
use sansq_core::nsqd::http::{self, Context, Parsed, ReplyForm};
use sansq_core::nsqd::{AdminReply, AdminRequest, Shard, TopicOp};
use sansq_core::options::NsqdOptions;
use sansq_core::time::Instant;

use crate::http::Site;
use crate::log::Program;
use crate::shard::ask;
use crate::turn::Driver;

/// Maps requests to admin requests of the shard, and its answers back.
#[derive(Debug)]
pub(crate) struct NsqdSite {
    driver: Rc<Driver<Shard>>,
    options: NsqdOptions,
}

impl NsqdSite {
    pub(crate) const fn new(driver: Rc<Driver<Shard>>, options: NsqdOptions) -> Self {
        Self { driver, options }
    }

    /// What the mapping can't know by itself.
    fn context(&self, form: &ReplyForm) -> Context {
        let now = self.driver.clock.now();
        Context {
            now,
            start_time: self.options.config.start_time,
            utc_offset: self.options.utc_offset,
            uptime: now.instant.saturating_since(Instant::ZERO),
            memory: self.options.memory.filter(|_| form.shows_memory()).map(|measure| measure()),
        }
    }

    async fn ask(&self, request: AdminRequest) -> Option<AdminReply> {
        ask(&self.driver, request).await
    }
}

impl Site for NsqdSite {
    const PROGRAM: Program = Program::Nsqd;

    fn body_limit(&self, method: &str, path: &str) -> usize {
        http::body_limit(method, path, &self.options.config)
    }

    async fn answer(&self, request: &Request<'_>, too_big: bool) -> HttpReply {
        match http::parse(request, too_big, &self.options.config) {
            Parsed::Reply(reply) => reply,
            Parsed::CreateThenReply(topic, reply) => {
                // The answer is the same whether or not the node ends meanwhile.
                let _ = self.ask(AdminRequest::Topic(topic, TopicOp::Create)).await;
                reply
            }
            Parsed::Admin(request, form) => {
                if let Some(warning) = form.warning() {
                    Self::PROGRAM.log(Level::Warn, warning);
                }
                let is_publish = matches!(request, AdminRequest::Publish { .. });
                match self.ask(request).await {
                    Some(reply) => http::reply(reply, &form, &self.context(&form)),
                    None if is_publish => HttpReply::message(503, "EXITING").unlogged(),
                    None => HttpReply::message(503, "EXITING"),
                }
            }
        }
    }
}
