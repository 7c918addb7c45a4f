//! Asking servers over HTTP, with threads that wait.

use core::time::Duration;
use std::sync::Arc;

use rustls::crypto::ring;
use sansq_runtime::tls;
use serde::de::DeserializeOwned;
pub use ureq::Agent;
use ureq::config::ConfigBuilder;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::typestate::AgentScope;

/// What asks, for the tools whose flags name no times.
pub fn default_agent() -> Agent {
    agent(CONNECT_TIMEOUT, REQUEST_TIMEOUT)
}

/// What asks: connecting may take `connect`, all of a request `request`.
pub fn agent(connect: Duration, request: Duration) -> Agent {
    config(connect, request).build().into()
}

/// As [`agent`], and speaks TLS: with servers whose certificates are of an authority of the system.
///
/// # Errors
/// If the system has no authorities.
pub fn agent_with_tls(connect: Duration, request: Duration) -> Result<Agent, String> {
    let found = tls::system_authorities().map_err(|error| format!("TLS: {error}"))?;
    let roots: Vec<_> = found.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(roots)));
    Ok(config(connect, request).tls_config(tls.build()).build().into())
}

fn config(connect: Duration, request: Duration) -> ConfigBuilder<AgentScope> {
    Agent::config_builder()
        .timeout_connect(Some(connect))
        .timeout_global(Some(request))
        .http_status_as_error(false)
        .max_idle_connections(IDLE_MAX)
        .max_idle_connections_per_host(IDLE_MAX)
}

/// What `url` answers, or `None` if it answers 404.
///
/// # Errors
/// What failed, or another status, for people.
pub fn get_json<T: DeserializeOwned>(agent: &Agent, url: &str) -> Result<Option<T>, String> {
    let mut answer = agent.get(url).call().map_err(|error| error.to_string())?;
    if answer.status() == 404 {
        return Ok(None);
    }
    if answer.status() != 200 {
        return Err(format!("{url} answered {}", answer.status()));
    }
    let body = answer.body_mut().with_config().limit(ANSWER_LEN_MAX).read_to_vec();
    let body = body.map_err(|error| error.to_string())?;
    serde_json::from_slice(&body).map(Some).map_err(|error| error.to_string())
}

/// `text` as a value in the query of a URL: a blank is a plus, and whatever else is not a letter, a
/// digit or one of `-._~` is written as its bytes.
pub fn escape(text: &[u8]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(*byte));
            }
            b' ' => escaped.push('+'),
            _ => {
                escaped.push('%');
                for digit in [byte >> 4, byte & 15] {
                    escaped.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
                }
            }
        }
    }
    escaped
}

/// How long connecting may take: the reference's default.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long all of a request may take: the reference's default.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that are kept for the next request: as many as there are requests at a time.
const IDLE_MAX: usize = 500;

/// Bytes of an answer: room for tens of thousands of nsqds, or channels.
const ANSWER_LEN_MAX: u64 = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_query_cannot_hold_is_escaped() {
        assert_eq!(escape(b"a.b-c_d#ephemeral"), "a.b-c_d%23ephemeral");
        assert_eq!(escape("ä &/\n".as_bytes()), "%C3%A4+%26%2F%0A");
    }
}
