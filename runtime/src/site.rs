//! nsqd's HTTP API: from requests to the shard and back.

use core::cell::RefCell;
use core::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use sansq_core::http::{HttpReply, Request};
use sansq_core::log::Level;
use sansq_core::nsqd::http::{self, Context, OptionRequest, OptionValues, Parsed, ReplyForm};
use sansq_core::nsqd::{AdminReply, AdminRequest, StatsFilter, TopicOp};
use sansq_core::options::NsqdOptions;
use sansq_core::time::Instant;

use crate::clock::Clock;
use crate::http::Site;
use crate::lanes::Lanes;
use crate::log::{Program, UNWRITTEN};
use crate::metrics::{self, NsqdPage};

/// Maps requests to admin requests of the shard, and its answers back.
///
/// `A` asks the shard: the reply, or `None` if the node ends before it comes.
pub struct NsqdSite<A> {
    shared: Rc<Shared<A>>,
    is_https: bool,
}

/// What the listeners of one nsqd answer from.
struct Shared<A> {
    clock: Clock,
    options: NsqdOptions,
    /// What `/config` shows now.
    shown: RefCell<OptionValues>,
    lanes: Arc<Lanes>,
    ask: A,
}

impl<A> NsqdSite<A> {
    /// The API of the nsqd that `ask` asks. `clock` and `lanes` are its shards'.
    pub fn new(clock: Clock, mut options: NsqdOptions, lanes: Arc<Lanes>, ask: A) -> Self {
        let shown = RefCell::new(core::mem::take(&mut options.shown));
        Self { shared: Rc::new(Shared { clock, options, shown, lanes, ask }), is_https: false }
    }

    /// The same behind a listener that speaks TLS.
    #[must_use]
    pub fn over_https(&self) -> Self {
        Self { shared: Rc::clone(&self.shared), is_https: true }
    }
}

impl<A> Shared<A> {
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
        http::body_limit(method, path, &self.shared.options.config)
    }

    async fn answer(&self, request: &Request<'_>, too_big: bool) -> HttpReply {
        let shared = &self.shared;
        match http::parse(request, too_big, self.is_https, &shared.options.config) {
            Parsed::Reply(reply) => reply,
            Parsed::Option(request) => shared.option(&request).await,
            Parsed::Metrics { aggregate } => shared.metrics(aggregate).await,
            Parsed::FreeMemory => shared.free_memory().await,
            Parsed::CreateThenReply(topic, reply) => {
                // The answer is the same whether or not the node ends meanwhile.
                let _ = (shared.ask)(AdminRequest::Topic(topic, TopicOp::Create)).await;
                reply
            }
            Parsed::Admin(request, form) => {
                if let Some(warning) = form.warning() {
                    Self::PROGRAM.log_kind(Level::Warn, Some("warnings about requests"), warning);
                }
                let is_publish = matches!(request, AdminRequest::Publish { .. });
                match (shared.ask)(request).await {
                    Some(reply) => http::reply(reply, &form, &shared.context(&form)),
                    None if is_publish => HttpReply::message(503, "EXITING").unlogged(),
                    None => HttpReply::message(503, "EXITING"),
                }
            }
        }
    }
}

impl<A: AsyncFn(AdminRequest) -> Option<AdminReply> + 'static> Shared<A> {
    /// `/metrics`.
    async fn metrics(&self, aggregate: bool) -> HttpReply {
        let filter = StatsFilter::default();
        let Some(AdminReply::Stats(stats)) = (self.ask)(AdminRequest::Stats(filter)).await else {
            return HttpReply::message(503, "EXITING");
        };
        metrics::reply(NsqdPage {
            stats: *stats,
            aggregate,
            start_time: self.options.config.start_time,
            memory: self.options.memory.map(|measure| measure()),
            lanes: self.lanes.lengths().collect(),
            requests: self.lanes.requests().collect(),
            turns: self.lanes.turns().collect(),
            visitors: self.lanes.visitors(),
            unwritten: UNWRITTEN.counts(),
        })
    }

    /// `/debug/freememory`. It may take a tenth of a second for each gigabyte, so no shard does it.
    async fn free_memory(&self) -> HttpReply {
        let Some(free_memory) = self.options.free_memory else {
            return HttpReply::message(404, "NOT_FOUND");
        };
        let (done, wait) = async_channel::bounded(1);
        let work = move || {
            free_memory();
            // Whoever asked may be gone.
            let _ = done.try_send(());
        };
        match thread::Builder::new().name("free memory".into()).spawn(work) {
            Ok(_) => {
                // An error would mean that the thread panicked, and then there is nothing to wait for either.
                let _ = wait.recv().await;
                HttpReply::empty()
            }
            Err(_) => HttpReply::message(503, "NO_THREAD"),
        }
    }

    /// `/config`. What is shown changes before the shard is asked, and so in the order of requests.
    async fn option(&self, request: &OptionRequest) -> HttpReply {
        if let OptionRequest::SetLogLevel(level) = request {
            let Some(set_log_level) = self.options.set_log_level else {
                return HttpReply::message(400, "INVALID_OPTION");
            };
            set_log_level(*level);
        }
        let reply = self.shown.borrow_mut().answer(request);
        if let OptionRequest::SetLookupds(addresses) = request {
            let addresses = addresses.clone().unwrap_or_default();
            let done = (self.ask)(AdminRequest::Lookupds(addresses)).await;
            if done != Some(AdminReply::Done) {
                return HttpReply::message(503, "EXITING");
            }
        }
        reply
    }
}

impl<A> fmt::Debug for NsqdSite<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NsqdSite").field("options", &self.shared.options).finish_non_exhaustive()
    }
}
