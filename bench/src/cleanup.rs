//! The topics that a run has made go with it, also when it is interrupted.

use core::cell::Cell;
use core::sync::atomic::AtomicBool;
use core::time::Duration;
use std::io::{self, Write as _};
use std::rc::Rc;
use std::sync::Arc;

use sansq_toolkit::http;
use serde_json::Value;
use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::unregister;

use super::BenchOptions;
use super::echo::ECHO;

/// Deletes topics when it is dropped.
pub(super) struct Cleanup {
    made: Option<Made>,
    /// Whether there ever was a connection, so that there may be something.
    connected: Rc<Cell<bool>>,
    signals: Vec<SigId>,
}

/// What is to be deleted, and where.
struct Made {
    tcp_address: String,
    /// As it was given.
    http_address: Option<String>,
    topics: Vec<String>,
}

impl Cleanup {
    /// For the topics of a run at `tcp_address`. Those that have a name of the user's are the
    /// user's. SIGINT and SIGTERM set `stop` from now on.
    pub(super) fn new(
        options: &BenchOptions,
        tcp_address: &str,
        topics: &[String],
        (stop, connected): (&Arc<AtomicBool>, &Rc<Cell<bool>>),
    ) -> Self {
        let is_ours = options.topic.is_none() && !options.keep && options.nsqd_tcp_address != ECHO;
        let made = is_ours.then(|| Made {
            tcp_address: tcp_address.to_owned(),
            http_address: options.nsqd_http_address.clone(),
            topics: topics.to_vec(),
        });
        let register = |signal| flag::register(signal, Arc::clone(stop)).ok();
        let signals = [SIGINT, SIGTERM].into_iter().filter_map(register).collect();
        Self { made, connected: Rc::clone(connected), signals }
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        if let Some(made) = self.made.as_ref().filter(|_| self.connected.get())
            && let Err(why) = made.delete()
        {
            let first = made.topics.first().map_or("", String::as_str);
            let more = match made.topics.len().saturating_sub(1) {
                0 => String::from("is"),
                more => format!("and {more} more are"),
            };
            let _ = writeln!(io::stderr(), "the topic {first} {more} left behind: {why}");
        }
        for signal in self.signals.drain(..) {
            unregister(signal);
        }
    }
}

impl Made {
    fn delete(&self) -> Result<(), String> {
        let agent = http::agent(TIMEOUT, TIMEOUT);
        let address = match &self.http_address {
            Some(address) => address.clone(),
            None => self
                .find(&agent)
                .ok_or("its nsqd's HTTP API has to be named by --nsqd-http-address")?,
        };
        self.topics.iter().try_for_each(|topic| {
            let url = format!("http://{address}/topic/delete?topic={topic}");
            match agent.post(&url).send_empty() {
                // One that was never published to is not there.
                Ok(answer) if matches!(answer.status().as_u16(), 200 | 404) => Ok(()),
                Ok(answer) => Err(format!("{url} answered {}", answer.status())),
                Err(error) => Err(format!("{url}: {error}")),
            }
        })
    }

    /// The port above that of clients, if it is the same nsqd's.
    fn find(&self, agent: &http::Agent) -> Option<String> {
        let (host, port) = self.tcp_address.rsplit_once(':')?;
        let port: u16 = port.parse().ok()?;
        let address = format!("{host}:{}", port.checked_add(1)?);
        let info: Value = http::get_json(agent, &format!("http://{address}/info")).ok()??;
        (info["tcp_port"] == port).then_some(address)
    }
}

/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
