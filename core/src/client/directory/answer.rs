//! What an nsqlookupd answered (clients.md sections 3.7j to 3.7l and 8.5).

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::de::MapAccess;

use super::FOUND_MAX;
use crate::address::host_and_port;
use crate::http::call::CallAnswer;
use crate::protocol::json::{self, Members, Object};

/// The addresses that an answer lists, and how many more it lists than are taken.
///
/// # Errors
/// Why it is not an answer.
pub(super) fn addresses(answer: &CallAnswer) -> Result<(BTreeSet<String>, usize), String> {
    let body = json::decode::<Body>(&answer.body);
    let is_topic_unknown =
        matches!(&body, Ok(body) if [&body.message, &body.status_txt].contains(&&NOT_FOUND.into()));
    if is_topic_unknown {
        return Ok((BTreeSet::new(), 0));
    }
    if answer.status != 200 {
        let why = match body {
            Ok(body) => [body.message, body.status_txt].concat(),
            Err(_) => String::new(),
        };
        return Err(alloc::format!("status {} {why}", answer.status).trim_end().into());
    }
    let Body { listed, data, status_code, status_txt, .. } =
        body.map_err(|error| error.to_string())?;
    if !matches!(status_code, 0 | 200) {
        return Err(alloc::format!("status {status_code} {status_txt}"));
    }
    let producers = listed.or(data.0.listed).ok_or("the answer lists no producers")?;
    let (mut addresses, mut left_out) = (BTreeSet::new(), 0);
    for address in producers.into_iter().flatten().filter_map(|producer| producer.0.address()) {
        if addresses.len() < FOUND_MAX {
            addresses.insert(address);
        } else if !addresses.contains(&address) {
            left_out += 1;
        }
    }
    Ok((addresses, left_out))
}

/// An answer of today, a legacy one, or a refusal.
#[derive(Default)]
struct Body {
    /// `None` without the member; `null` is an empty list, as it is in Go.
    listed: Option<Producers>,
    data: Object<Data>,
    status_code: i64,
    status_txt: String,
    message: String,
}

type Producers = Vec<Option<Object<Producer>>>;

/// The part of a legacy answer that an answer of today consists of.
#[derive(Debug, Default)]
struct Data {
    listed: Option<Producers>,
}

#[derive(Debug, Default)]
struct Producer {
    broadcast_address: String,
    /// The name before nsqd had a broadcast address.
    address: String,
    tcp_port: i64,
}

impl Members for Body {
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "producers" => json::set(self.listed.get_or_insert_default(), map),
            "data" => json::set(&mut self.data, map),
            "status_code" => json::set(&mut self.status_code, map),
            "status_txt" => json::set(&mut self.status_txt, map),
            "message" => json::set(&mut self.message, map),
            _ => json::skip(map),
        }
    }
}

impl Members for Data {
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "producers" => json::set(self.listed.get_or_insert_default(), map),
            _ => json::skip(map),
        }
    }
}

impl Members for Producer {
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "broadcast_address" => json::set(&mut self.broadcast_address, map),
            "address" => json::set(&mut self.address, map),
            "tcp_port" => json::set(&mut self.tcp_port, map),
            _ => json::skip(map),
        }
    }
}

impl Producer {
    /// Where to dial; `None` if that cannot be.
    fn address(&self) -> Option<String> {
        let own = &self.broadcast_address;
        let host = if own.is_empty() { &self.address } else { own };
        let port = u16::try_from(self.tcp_port).ok().filter(|port| *port > 0)?;
        // It gets into logs and to the resolver, so it looks like a name or an address.
        let is_host = (1..=HOST_LEN_MAX).contains(&host.len())
            && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/@?#".contains(&byte));
        let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        is_host.then(|| host_and_port(in_brackets.unwrap_or(host), port))
    }
}

const NOT_FOUND: &str = "TOPIC_NOT_FOUND";

/// The longest host name, with room for an IPv6 zone.
const HOST_LEN_MAX: usize = 255;
