//! Finding nsqds through nsqlookupds' HTTP API.

use core::time::Duration;

use sansq_core::address::host_and_port;
use sansq_core::name::TopicName;
use sansq_toolkit::http;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::together;

/// Which of an nsqd's addresses is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Port {
    /// That of clients.
    Tcp,
    /// That of the HTTP API.
    Http,
}

/// The nsqds that produce `topic`, as `host:port`, from those of `lookupds` that answer; without a
/// topic all nsqds. A topic that is not known yet has none. All are asked side by side, and when
/// one has answered the others have `grace` for it.
///
/// # Errors
/// What an nsqlookupd failed with, if none answered.
pub(super) fn nsqds(
    agent: &ureq::Agent,
    lookupds: &[String],
    topic: Option<&TopicName>,
    port: Port,
    grace: Duration,
) -> Result<Vec<String>, String> {
    let target = match topic {
        Some(topic) => format!("/lookup?topic={}", topic.replace('#', "%23")),
        None => String::from("/nodes"),
    };
    ask_all(agent, lookupds, target, grace, move |list: Nsqds| list.addresses(port))
}

/// The topics that any of `lookupds` knows, by name. Those whose names are not valid are left out.
///
/// # Errors
/// As [`nsqds`].
pub(super) fn topics(agent: &ureq::Agent, lookupds: &[String]) -> Result<Vec<TopicName>, String> {
    ask_all(agent, lookupds, String::from("/topics"), GRACE, |list: Topics| {
        list.topics.into_iter().filter_map(|name| TopicName::new(name).ok()).collect()
    })
}

/// What all that answered know, each once, in order.
fn ask_all<L: DeserializeOwned, T: Ord + Send + 'static>(
    agent: &ureq::Agent,
    lookupds: &[String],
    target: String,
    grace: Duration,
    of: impl Fn(L) -> Vec<T> + Send + Sync + 'static,
) -> Result<Vec<T>, String> {
    let agent = agent.clone();
    let ask = move |lookupd: &str| {
        // What is not known is something that nobody has yet.
        let list: Option<L> = http::get_json(&agent, &format!("http://{lookupd}{target}"))?;
        Ok(list.map_or_else(Vec::new, &of))
    };
    let mut found: Result<Vec<T>, String> = Err("no nsqlookupd is named".into());
    for (lookupd, answer) in together::ask_all(lookupds, grace, ask) {
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

/// How long the others have when one nsqlookupd, or nsqd, has answered: what one asks for is
/// complete where all are well, and nobody waits long for one that is not.
pub(super) const GRACE: Duration = Duration::from_millis(500);

#[derive(Debug, Deserialize)]
struct Topics {
    topics: Vec<String>,
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
            host_and_port(&nsqd.broadcast_address, port)
        };
        self.producers.into_iter().map(address).collect()
    }
}
