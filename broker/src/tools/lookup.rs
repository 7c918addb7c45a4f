//! Finding nsqds through nsqlookupds' HTTP API.

use sansq_core::name::TopicName;
use serde::Deserialize;

use super::http;

/// Which of an nsqd's addresses is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Port {
    /// That of clients.
    Tcp,
    /// That of the HTTP API.
    Http,
}

/// The nsqds that produce `topic`, as `host:port`, from all of `lookupds` that answer; without a topic
/// all nsqds. A topic that is not known yet has none.
///
/// # Errors
/// What the last nsqlookupd failed with, if none answered.
pub(super) fn nsqds(
    agent: &ureq::Agent,
    lookupds: &[String],
    topic: Option<&TopicName>,
    port: Port,
) -> Result<Vec<String>, String> {
    let mut found: Result<Vec<String>, String> = Err("no nsqlookupd is named".into());
    for lookupd in lookupds {
        let url = match topic {
            Some(topic) => format!("http://{lookupd}/lookup?topic={}", topic.replace('#', "%23")),
            None => format!("http://{lookupd}/nodes"),
        };
        match (ask(agent, &url, port), &mut found) {
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

/// The topics that any of `lookupds` knows, by name. Those whose names are not valid are left out.
///
/// # Errors
/// As [`nsqds`].
pub(super) fn topics(agent: &ureq::Agent, lookupds: &[String]) -> Result<Vec<TopicName>, String> {
    let mut found: Result<Vec<TopicName>, String> = Err("no nsqlookupd is named".into());
    for lookupd in lookupds {
        let url = format!("http://{lookupd}/topics");
        let answer = http::get_json(agent, &url).map(|list: Option<Topics>| {
            let names = list.into_iter().flat_map(|list| list.topics);
            names.filter_map(|name| TopicName::new(name).ok()).collect::<Vec<_>>()
        });
        match (answer, &mut found) {
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

#[derive(Debug, Deserialize)]
struct Topics {
    topics: Vec<String>,
}

fn ask(agent: &ureq::Agent, url: &str, port: Port) -> Result<Vec<String>, String> {
    // An unknown topic is one that nobody produces yet.
    let list: Option<Nsqds> = http::get_json(agent, url)?;
    Ok(list.map_or_else(Vec::new, |list| list.addresses(port)))
}

#[derive(Debug, Deserialize)]
struct Nsqds {
    producers: Vec<Nsqd>,
}

#[derive(Debug, Deserialize)]
struct Nsqd {
    broadcast_address: String,
    tcp_port: u16,
    http_port: u16,
}

impl Nsqds {
    fn addresses(self, port: Port) -> Vec<String> {
        let address = |nsqd: Nsqd| {
            let port = match port {
                Port::Tcp => nsqd.tcp_port,
                Port::Http => nsqd.http_port,
            };
            address(&nsqd.broadcast_address, port)
        };
        self.producers.into_iter().map(address).collect()
    }
}

/// Something to connect to; an IPv6 address gets its brackets.
fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
