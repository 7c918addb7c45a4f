//! Finding nsqds through nsqlookupds' HTTP API.

use core::time::Duration;

use sansq_core::name::TopicName;
use serde::Deserialize;

/// The nsqds that produce `topic`, as `host:port`, from all of `lookupds` that answer; without a topic
/// all nsqds. A topic that is not known yet has none.
///
/// # Errors
/// What the last nsqlookupd failed with, if none answered.
pub(super) fn nsqds(lookupds: &[String], topic: Option<&TopicName>) -> Result<Vec<String>, String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .build()
        .into();
    let mut found: Result<Vec<String>, String> = Err("no nsqlookupd is named".into());
    for lookupd in lookupds {
        let url = match topic {
            Some(topic) => format!("http://{lookupd}/lookup?topic={}", topic.replace('#', "%23")),
            None => format!("http://{lookupd}/nodes"),
        };
        match (ask(&agent, &url), &mut found) {
            (Ok(more), Ok(all)) => all.extend(more),
            (Ok(more), Err(_)) => found = Ok(more),
            (Err(error), Err(last)) => *last = format!("nsqlookupd at {lookupd}: {error}"),
            (Err(_), Ok(_)) => {}
        }
    }
    let mut found = found?;
    found.sort();
    found.dedup();
    Ok(found)
}

fn ask(agent: &ureq::Agent, url: &str) -> Result<Vec<String>, String> {
    let mut answer = agent.get(url).call().map_err(|error| error.to_string())?;
    // An unknown topic is one that nobody produces yet.
    if answer.status() == 404 {
        return Ok(Vec::new());
    }
    if answer.status() != 200 {
        return Err(format!("{url} answered {}", answer.status()));
    }
    let body = answer.body_mut().with_config().limit(ANSWER_LEN_MAX).read_to_vec();
    let body = body.map_err(|error| error.to_string())?;
    let list: Nsqds = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    Ok(list.producers.into_iter().map(|nsqd| nsqd.address()).collect())
}

#[derive(Debug, Deserialize)]
struct Nsqds {
    producers: Vec<Nsqd>,
}

#[derive(Debug, Deserialize)]
struct Nsqd {
    broadcast_address: String,
    tcp_port: u16,
}

impl Nsqd {
    /// As something to connect to; an IPv6 address gets its brackets.
    fn address(&self) -> String {
        let Self { broadcast_address: host, tcp_port } = self;
        if host.contains(':') {
            format!("[{host}]:{tcp_port}")
        } else {
            format!("{host}:{tcp_port}")
        }
    }
}

/// How long one nsqlookupd may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an answer: room for tens of thousands of nsqds.
const ANSWER_LEN_MAX: u64 = 16 * 1024 * 1024;
