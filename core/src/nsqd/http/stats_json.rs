//! The statistics as JSON, for programs (http-and-ops.md section 2.8). The order of the members is
//! the reference's.

use alloc::string::String;

use serde::Serialize;

use super::{Context, StatsForm, health};
use crate::nsqd::stats::{ClientStats, Memory, ServerStats, TopicStats};
use crate::protocol::json;
use crate::version::NSQ_VERSION;

#[derive(Serialize)]
struct Shown<'a> {
    version: &'static str,
    health: String,
    start_time: i64,
    topics: Option<&'a [TopicStats]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Memory>,
    producers: Option<&'a [ClientStats]>,
}

/// Shows `stats`.
pub(super) fn show(stats: &ServerStats, form: &StatsForm, context: &Context) -> String {
    json::encode(&Shown {
        version: NSQ_VERSION,
        health: health(stats.failure.as_deref()),
        start_time: context.start_time,
        topics: stats.topic_known.then_some(&stats.topics),
        memory: form.has_memory.then(|| context.memory.unwrap_or_default()),
        producers: Some(&*stats.producers).filter(|producers| !producers.is_empty()),
    })
}
