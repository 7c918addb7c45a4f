//! Protocol V1, between nsqd and nsqlookupd, in both directions (nsqlookupd-protocol.md sections 1
//! to 5).
//!
//! ```text
//! nsqd                                   nsqlookupd
//!   "  V1"                           ->
//!   IDENTIFY LF, int32, JSON         ->
//!                                    <-  int32, JSON
//!   REGISTER topic [channel] LF      ->
//!   UNREGISTER topic [channel] LF    ->
//!   PING LF                          ->
//!                                    <-  int32, "OK" or "E_..." (and the end) for each
//! ```
//!
//! | side | takes apart | puts together |
//! |---|---|---|
//! | nsqlookupd | [`CommandDecoder`] | [`encode_reply`], [`LookupProtocolError::encode`] |
//! | nsqd | [`ReplyDecoder`] | [`MAGIC`], [`LookupCommand::encode`] |
//!
//! Limits: [`LINE_LEN_MAX`], [`IDENTIFY_LEN_MAX`], and the reply length that a [`ReplyDecoder`] is
//! given. What is above them ends the connection.

mod command;
mod error;
mod peer_info;
mod reply;

pub(crate) use command::encode_identify;
pub use command::{
    CommandDecoder, IDENTIFY_LEN_MAX, LINE_LEN_MAX, LookupCommand, MAGIC, Registration,
};
pub use error::{LookupProtocolError, Verb};
pub use peer_info::{LookupdInfo, PeerInfo};
pub use reply::{OK, ReplyDecoder, ReplyLenError, encode_reply};
