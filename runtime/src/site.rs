//! nsqd's HTTP API: from requests to the shard and back.

use core::cell::RefCell;
use core::fmt;
use std::rc::Rc;
use std::sync::Arc;

use futures_lite::future::yield_now;
use sansq_core::http::{HttpReply, HttpRequest};
use sansq_core::log::Level;
use sansq_core::nsqd::http::{self, Context, OptionRequest, OptionValues, Parsed, ReplyForm};
use sansq_core::nsqd::{
    AdminReply, AdminRequest, ChannelStats, ServerStats, StatsFilter, StatsPage, TopicOp,
    TopicStats,
};
use sansq_core::time::Instant;

use crate::clock::Clock;
use crate::http::Site;
use crate::lanes::Lanes;
use crate::log::{Program, UNWRITTEN};
use crate::metrics::{self, NsqdPage};
use crate::options::NsqdOptions;
use crate::reply_room::{PendingReply, ReplyRoom, fit};
use crate::room::{HttpRoom, Permit};
use crate::turnstile::{Pass, Turnstile};

/// Maps requests to admin requests of the shard, and its answers back.
///
/// `A` asks the shard: the reply, or `None` if the node ends before it comes. The permit is to be
/// kept until then, also if nobody waits for the reply any more.
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
    room: HttpRoom,
    answers: ReplyRoom,
    /// Memory is given back for one request at a time.
    freeing: Turnstile,
    ask: A,
}

impl<A> NsqdSite<A> {
    /// The API of the nsqd that `ask` asks. `clock` and `lanes` are its shards'.
    pub fn new(clock: Clock, mut options: NsqdOptions, lanes: Arc<Lanes>, ask: A) -> Self {
        let shown = RefCell::new(core::mem::take(&mut options.shown));
        let room = HttpRoom::new(&options.config, lanes.shards());
        let (answers, freeing) = (ReplyRoom::new(), Turnstile::new());
        let shared = Shared { clock, options, shown, lanes, room, answers, freeing, ask };
        Self { shared: Rc::new(shared), is_https: false }
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

impl<A: AsyncFn(AdminRequest, Option<Permit>) -> Option<AdminReply> + 'static> Site
    for NsqdSite<A>
{
    const PROGRAM: Program = Program::Nsqd;

    fn body_limit(&self, method: &str, path: &str) -> usize {
        http::body_limit(method, path, &self.shared.options.config)
    }

    fn room(&self) -> Option<&HttpRoom> {
        Some(&self.shared.room)
    }

    fn answers(&self) -> &ReplyRoom {
        &self.shared.answers
    }

    async fn answer(
        &self,
        request: &HttpRequest<'_>,
        too_big: bool,
        permit: Option<Permit>,
    ) -> PendingReply {
        let shared = &self.shared;
        let reply = match http::parse(request, too_big, self.is_https, &shared.options.config) {
            Parsed::Reply(reply) => reply,
            Parsed::Option(request) => return shared.option(&request, permit).await,
            Parsed::Metrics { aggregate } => return shared.metrics(aggregate).await,
            Parsed::FreeMemory => shared.free_memory().await,
            Parsed::CreateThenReply(topic, reply) => {
                let create = AdminRequest::Topic(topic, TopicOp::Create);
                match (shared.ask)(create, None).await {
                    // Nothing was published, but nothing was made either.
                    Some(AdminReply::Refused(error)) if reply.status == 200 => {
                        HttpReply::message(503, &error.to_string()).unlogged()
                    }
                    // The answer is the same whether or not the node ends meanwhile.
                    _ => reply,
                }
            }
            Parsed::Admin(request, form) => {
                if let Some(warning) = form.warning() {
                    Self::PROGRAM.log_kind(Level::Warn, Some("warnings about requests"), warning);
                }
                let is_publish = matches!(request, AdminRequest::Publish { .. });
                if let AdminRequest::Stats(filter) = request {
                    return shared.stats(filter, form).await;
                }
                match (shared.ask)(request, permit).await {
                    Some(reply) => http::reply(reply, &form, &shared.context(&form)),
                    None if is_publish => HttpReply::message(503, "EXITING").unlogged(),
                    None => HttpReply::message(503, "EXITING"),
                }
            }
        };
        reply.into()
    }
}

impl<A: AsyncFn(AdminRequest, Option<Permit>) -> Option<AdminReply> + 'static> Shared<A> {
    /// `/metrics`.
    async fn metrics(&self, aggregate: bool) -> PendingReply {
        let pass = self.answers.pass().await;
        let Some(stats) = self.gather(StatsFilter::default()).await else {
            return HttpReply::message(503, "EXITING").into();
        };
        let is_large = is_large(&stats);
        let page = NsqdPage {
            stats,
            aggregate,
            start_time: self.options.config.start_time,
            memory: self.options.memory.map(|measure| measure()),
            lanes: self.lanes.lengths().collect(),
            requests: self.lanes.requests().collect(),
            turns: self.lanes.turns().collect(),
            refused_connections: self.lanes.refused(),
            visitors: self.lanes.visitors(),
            unwritten: UNWRITTEN.counts(),
            http_unanswered: (self.room.held(), self.room.waits()),
            http_answers: self.answers.figures(),
        };
        shown(is_large, pass, move || metrics::reply(page)).await
    }

    /// `/stats`.
    async fn stats(&self, filter: StatsFilter, form: ReplyForm) -> PendingReply {
        let pass = match filter.topic {
            None => self.answers.pass().await,
            Some(_) => self.answers.pass_for_one().await,
        };
        let Some(stats) = self.gather(filter).await else {
            return HttpReply::message(503, "EXITING").into();
        };
        let (is_large, context) = (is_large(&stats), self.context(&form));
        let reply = move || http::reply(AdminReply::Stats(Box::new(stats)), &form, &context);
        shown(is_large, pass, reply).await
    }

    /// The statistics, page by page, so that others have their turns in between.
    async fn gather(&self, filter: StatsFilter) -> Option<ServerStats> {
        let mut all = ServerStats::default();
        let mut next = Some(StatsPage::Topics(None));
        while let Some(page) = next {
            let request = AdminRequest::Stats(StatsFilter { page: Some(page), ..filter });
            let Some(AdminReply::Stats(stats)) = (self.ask)(request, None).await else {
                return None;
            };
            all.append(*stats);
            next = all.next.take();
            if next.is_some() {
                yield_now().await;
            }
        }
        Some(all)
    }

    /// `/debug/freememory`. It may take a tenth of a second for each gigabyte, so no shard does it.
    async fn free_memory(&self) -> HttpReply {
        let Some(free_memory) = self.options.free_memory else {
            return HttpReply::message(404, "NOT_FOUND");
        };
        let pass = self.freeing.pass().await;
        pass.aside(move || {
            free_memory();
            HttpReply::empty()
        })
        .await
    }

    /// `/config`. What is shown changes before the shard is asked, and so in the order of requests.
    ///
    /// `permit` bounds how many changes of a long value wait for room for their answers.
    async fn option(&self, request: &OptionRequest, permit: Option<Permit>) -> PendingReply {
        if let OptionRequest::Show(_) = request {
            return self.answers.make(|| self.shown.borrow_mut().answer(request)).await;
        }
        if let OptionRequest::SetLogLevel(level) = request {
            let Some(set_log_level) = self.options.set_log_level else {
                return HttpReply::message(400, "INVALID_OPTION").into();
            };
            set_log_level(*level);
        }
        let reply = self.shown.borrow_mut().answer(request);
        if let OptionRequest::SetLookupds(addresses) = request {
            let addresses = addresses.clone().unwrap_or_default();
            let done = (self.ask)(AdminRequest::Lookupds(addresses), None).await;
            if done != Some(AdminReply::Done) {
                return HttpReply::message(503, "EXITING").into();
            }
        }
        PendingReply { permit, ..reply.into() }
    }
}

/// Shows statistics, on a thread of its own if it takes long, since this one is a shard's.
async fn shown(
    is_large: bool,
    pass: Pass,
    make: impl FnOnce() -> HttpReply + Send + 'static,
) -> PendingReply {
    let make = || fit(make());
    let reply = if is_large { pass.aside(make).await } else { make() };
    PendingReply { pass: Some(pass), ..reply.into() }
}

/// Whether it takes long to show these.
fn is_large(stats: &ServerStats) -> bool {
    let in_channels = |topic: &TopicStats| {
        let clients = |channel: &ChannelStats| channel.clients.as_ref().map_or(0, Vec::len);
        topic.channels.iter().map(|channel| 1 + clients(channel)).sum::<usize>()
    };
    let topics = stats.topics.iter().map(|topic| 1 + in_channels(topic));
    topics.sum::<usize>() + stats.producers.len() > LARGE_LEN
}

/// Topics, channels and clients that are shown on the shard's own thread: a millisecond at most.
const LARGE_LEN: usize = 256;

impl<A> fmt::Debug for NsqdSite<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NsqdSite").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use core::pin::pin;

    use bytes::Bytes;
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn one_topic_is_shown_while_all_of_them_wait_for_room() {
        let ask = async |_: AdminRequest, _: Option<Permit>| {
            Some(AdminReply::Stats(Box::<ServerStats>::default()))
        };
        let lanes = Arc::new(Lanes::new(1));
        let site = NsqdSite::new(Clock::start(), NsqdOptions::default(), lanes, ask);
        let body = Bytes::new();
        let get = |path, query| HttpRequest { method: "GET", path, query, body: &body };
        let (all, metrics) = (get("/stats", None), get("/metrics", None));
        let one = get("/stats", Some("topic=t"));
        block_on(async {
            // Somebody has made a long answer, and has no room for it.
            let made = site.answer(&all, false, None).await;
            for request in [&all, &metrics] {
                let mut waits = pin!(site.answer(request, false, None));
                assert!(poll_once(waits.as_mut()).await.is_none());
            }
            let one = poll_once(site.answer(&one, false, None)).await.unwrap();
            assert_eq!(one.reply.status, 200);
            drop(made);
            assert!(poll_once(site.answer(&all, false, None)).await.is_some());
        });
    }
}
