//! The statistics as JSON, for programs (http-and-ops.md section 2.8). The order of the members is
//! the reference's.
use alloc::string::String;

use super::json::{Members, push_object};
use super::{Context, StatsForm, health};
use crate::nsqd::latency::LatencyStats;
use crate::nsqd::stats::{ChannelStats, ClientStats, ServerStats, TlsInfo, TopicStats};
use crate::version::NSQ_VERSION;

/// Shows `stats`.
pub(super) fn show(stats: &ServerStats, form: &StatsForm, context: &Context) -> String {
    let mut body = String::new();
    push_object(&mut body, |members| {
        members.text("version", NSQ_VERSION);
        members.text("health", &health(stats.failure.as_deref()));
        members.value("start_time", context.start_time);
        if stats.topic_known {
            members.list("topics", &stats.topics, |members, topic| add_topic(members, topic, form));
        } else {
            members.value("topics", "null");
        }
        if form.has_memory {
            members.object("memory", |members| {
                for (name, figure) in context.memory.unwrap_or_default().figures() {
                    members.value(name, figure);
                }
            });
        }
        if stats.producers.is_empty() {
            members.value("producers", "null");
        } else {
            members.list("producers", &stats.producers, |members, client| {
                add_client(members, client, form);
            });
        }
    });
    body
}

fn add_topic(members: &mut Members<'_>, topic: &TopicStats, form: &StatsForm) {
    members.text("topic_name", &topic.name);
    members.list("channels", &topic.channels, |members, channel| {
        add_channel(members, channel, form);
    });
    members.value("depth", topic.depth);
    members.value("backend_depth", topic.backend_depth);
    members.value("message_count", topic.message_count);
    members.value("message_bytes", topic.message_bytes);
    members.value("paused", topic.paused);
    add_latency(members, &topic.latency);
}

fn add_channel(members: &mut Members<'_>, channel: &ChannelStats, form: &StatsForm) {
    members.text("channel_name", &channel.name);
    members.value("depth", channel.depth);
    members.value("backend_depth", channel.backend_depth);
    members.value("in_flight_count", channel.in_flight_count);
    members.value("deferred_count", channel.deferred_count);
    members.value("message_count", channel.message_count);
    for (name, count) in [
        ("zone_local_msg_count", channel.zone_local_msg_count),
        ("region_local_msg_count", channel.region_local_msg_count),
        ("global_msg_count", channel.global_msg_count),
    ] {
        if count > 0 {
            members.value(name, count);
        }
    }
    members.value("requeue_count", channel.requeue_count);
    members.value("timeout_count", channel.timeout_count);
    members.value("client_count", channel.client_count);
    match &channel.clients {
        Some(clients) => members.list("clients", clients, |members, client| {
            add_client(members, client, form);
        }),
        None => members.value("clients", "null"),
    }
    members.value("paused", channel.paused);
    add_latency(members, &channel.latency);
}

fn add_client(members: &mut Members<'_>, client: &ClientStats, form: &StatsForm) {
    members.text("client_id", &client.client_id);
    members.text("hostname", &client.hostname);
    members.text("version", "V2");
    members.value("remote_address", format_args!("\"{}\"", client.peer));
    members.value("state", client.state);
    members.value("ready_count", client.ready_count);
    members.value("in_flight_count", client.in_flight_count);
    members.value("message_count", client.message_count);
    members.value("finish_count", client.finish_count);
    members.value("requeue_count", client.requeue_count);
    members.value("connect_ts", client.connect_ts);
    members.value("sample_rate", client.sample_rate);
    members.value("deflate", client.deflate);
    members.value("snappy", client.snappy);
    members.text("user_agent", &client.user_agent);
    // The reference leaves these three out if they are false or empty.
    if client.authed {
        members.value("authed", true);
    }
    if !client.auth_identity.is_empty() {
        members.text("auth_identity", &client.auth_identity);
    }
    if !client.auth_identity_url.is_empty() {
        members.text("auth_identity_url", &client.auth_identity_url);
    }
    members.text("topology_zone", &client.topology_zone);
    members.text("topology_region", &client.topology_region);
    if let Some((topic, count)) = form.pub_count(client) {
        members.list("pub_counts", [(topic, count)], |members, (topic, count)| {
            members.text("topic", topic);
            members.value("count", count);
        });
    }
    let tls = client.tls.as_ref();
    members.value("tls", tls.is_some());
    members.text("tls_cipher_suite", &tls.map(TlsInfo::cipher_suite_name).unwrap_or_default());
    members.text("tls_version", tls.map_or("", |tls| tls.version));
    members.text("tls_negotiated_protocol", tls.map_or("", |tls| &tls.protocol));
    members.value("tls_negotiated_protocol_is_mutual", tls.is_some());
}

/// Never null: the reference's nsqadmin ends if it is.
fn add_latency(members: &mut Members<'_>, latency: &LatencyStats) {
    members.object("e2e_processing_latency", |members| {
        members.value("count", latency.count);
        if latency.percentiles.is_empty() {
            return members.value("percentiles", "null");
        }
        members.list("percentiles", &latency.percentiles, |members, (quantile, value)| {
            members.value("quantile", quantile);
            members.value("value", value);
        });
    });
}
