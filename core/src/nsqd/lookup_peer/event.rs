//! What a [`super::LookupPeer`] writes into the log (http-and-ops.md section 7, row lookup).

use alloc::string::String;
use core::fmt;
use core::time::Duration;

use super::PeerCommand;
use crate::duration::go_duration;
use crate::log::{Level, OneLine};
use crate::protocol::lookup::{LookupdInfo, Registration};

/// Something worth a line in the log; its `Display` is the line's text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LookupPeerEvent {
    /// The nsqlookupd, as the configuration names it.
    pub address: String,
    /// What has happened.
    pub kind: LookupPeerEventKind,
}

/// What has happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LookupPeerEventKind {
    /// The nsqlookupd is in use from now on.
    Added,
    /// A connection is being made.
    Connecting,
    /// A command, or the connection at that command, failed.
    Failed(PeerCommand, String),
    /// A PING was sent.
    Heartbeat,
    /// The nsqlookupd has told who it is.
    Identified(LookupdInfo),
    /// Its answer names no broadcast address: it cannot be asked for channels.
    NoBroadcastAddress,
    /// The nsqlookupd has no room: the command, its answer, and after how long what was refused is
    /// tried again, together with whatever else is refused until then.
    Refused {
        /// REGISTER, or PING if it has dropped registrations.
        command: PeerCommand,
        /// What it answered.
        reason: String,
        /// Until it is tried again.
        wait: Duration,
    },
    /// A topic or channel is announced.
    Registered(Registration),
    /// The nsqlookupd is not in use any more.
    Removed,
    /// A topic or channel is taken back.
    Unregistered(Registration),
}

impl LookupPeerEvent {
    /// How loud the line is.
    pub const fn level(&self) -> Level {
        match self.kind {
            LookupPeerEventKind::Added
            | LookupPeerEventKind::Connecting
            | LookupPeerEventKind::Identified(_)
            | LookupPeerEventKind::Registered(_)
            | LookupPeerEventKind::Removed
            | LookupPeerEventKind::Unregistered(_) => Level::Info,
            LookupPeerEventKind::Heartbeat => Level::Debug,
            LookupPeerEventKind::Failed(..)
            | LookupPeerEventKind::NoBroadcastAddress
            | LookupPeerEventKind::Refused { .. } => Level::Error,
        }
    }
}

impl fmt::Display for LookupPeerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use LookupPeerEventKind as Kind;
        let address = &self.address;
        match &self.kind {
            Kind::Added => write!(f, "LOOKUP({address}): adding peer"),
            Kind::Connecting => write!(f, "LOOKUP connecting to {address}"),
            Kind::Failed(command, reason) => {
                write!(f, "LOOKUPD({address}): {command} - {}", OneLine(reason))
            }
            Kind::Heartbeat => write!(f, "LOOKUPD({address}): sending heartbeat"),
            Kind::Identified(info) => {
                let LookupdInfo { tcp_port, http_port, .. } = info;
                let (version, name) = (OneLine(&info.version), OneLine(&info.broadcast_address));
                write!(
                    f,
                    "LOOKUPD({address}): peer info {{TCPPort:{tcp_port} HTTPPort:{http_port} \
                     Version:{version} BroadcastAddress:{name}}}"
                )
            }
            Kind::NoBroadcastAddress => write!(f, "LOOKUPD({address}): no broadcast address"),
            Kind::Refused { command, reason, wait } => write!(
                f,
                "LOOKUPD({address}): {command} - {}; consumers may not find all topics there, \
                 what was refused is tried again in {}",
                OneLine(reason),
                go_duration(*wait)
            ),
            Kind::Registered(what) => {
                write!(f, "LOOKUPD({address}): {} REGISTER {what}", category(what))
            }
            Kind::Removed => write!(f, "LOOKUP({address}): removing peer"),
            Kind::Unregistered(what) => {
                write!(f, "LOOKUPD({address}): {} UNREGISTER {what}", category(what))
            }
        }
    }
}

impl fmt::Display for PeerCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Identify => f.write_str("IDENTIFY"),
            Self::Idle => f.write_str("connection"),
            Self::Ping => f.write_str("PING"),
            Self::Register(what) => write!(f, "REGISTER {what}"),
            Self::Unregister(what) => write!(f, "UNREGISTER {what}"),
        }
    }
}

fn category(registration: &Registration) -> &'static str {
    if registration.channel.is_some() { "channel" } else { "topic" }
}
