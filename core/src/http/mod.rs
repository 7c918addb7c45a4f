//! What the HTTP interfaces of nsqd and nsqlookupd share, as pure functions: no socket, no parser
//! of HTTP itself. An adapter makes an [`HttpRequest`] of what its HTTP library read, a [`Router`]
//! finds the handler, the handler answers with an [`HttpReply`] (http-and-ops.md section 1).
//!
//! The reply's rules: everything but plain answers, redirects and OPTIONS carries
//! `X-Nsq-Content-Type: nsq; version=1.0`; clients take an answer without it for one of the time
//! before 1.0. An empty body has no `Content-Type`. The adapter adds `Content-Length` and `Date`.

pub mod call;
mod query;
mod reply;
mod router;

pub use query::{InvalidQuery, QUERY_PARAMS_MAX, Query};
pub use reply::{AccessLine, HttpReply};
pub use router::{Route, Routed, Router};

use bytes::Bytes;

/// One request, as far as NSQ looks at it.
#[derive(Clone, Copy, Debug)]
pub struct HttpRequest<'a> {
    /// `GET`, `POST`, …, in capitals as the request line has it.
    pub method: &'a str,
    /// The request target up to the `?`, still percent-encoded.
    pub path: &'a str,
    /// What stands behind the `?`, still percent-encoded; `None` without a `?`.
    pub query: Option<&'a str>,
    /// The whole body. The adapter has kept to a limit while it read it.
    pub body: &'a Bytes,
}

impl HttpRequest<'_> {
    /// The query's parameters.
    ///
    /// # Errors
    /// [`InvalidQuery`], to be answered with 400 `INVALID_REQUEST`.
    pub fn parameters(&self) -> Result<Query, InvalidQuery> {
        Query::parse(self.query.unwrap_or_default())
    }
}
