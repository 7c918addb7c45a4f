//! nsqd's HTTP API on shard 0.

use std::rc::Rc;

use sansq_core::http::{HttpReply, Request};
use sansq_core::nsqd::{AdminReply, AdminRequest, Config, Shard};

use crate::http::Site;
use crate::log::Program;
use crate::shard::ask;
use crate::turn::Driver;

/// Maps requests to admin requests of the shard, and its answers back.
#[derive(Debug)]
pub(crate) struct NsqdSite {
    driver: Rc<Driver<Shard>>,
    config: Config,
}

impl NsqdSite {
    pub(crate) const fn new(driver: Rc<Driver<Shard>>, config: Config) -> Self {
        Self { driver, config }
    }
}

impl Site for NsqdSite {
    const PROGRAM: Program = Program::Nsqd;

    fn body_limit(&self, _method: &str, _path: &str) -> usize {
        self.config.max_body_size
    }

    async fn answer(&self, request: &Request<'_>, _too_big: bool) -> HttpReply {
        if (request.method, request.path) != ("GET", "/ping") {
            return HttpReply::message(404, "NOT_FOUND");
        }
        match ask(&self.driver, AdminRequest::Ping).await {
            Some(AdminReply::Health(Err(text))) => HttpReply::plain(500, format!("NOK - {text}")),
            Some(_) => HttpReply::plain(200, "OK"),
            None => HttpReply::message(503, "EXITING"),
        }
    }
}
