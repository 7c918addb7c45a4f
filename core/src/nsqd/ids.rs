//! Who is who: shards, requests of the driver's, peers.

use core::fmt;
use core::net::SocketAddr;

/// A shard of a node, counted from 0.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ShardId(pub u16);

/// Names an admin request; the driver's own number, handed back with the reply.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ReplyToken(pub u64);

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Peer {
    /// A TCP socket's remote address.
    Tcp(SocketAddr),
    /// A unix socket, which has no address.
    Unix,
}

impl fmt::Display for Peer {
    /// `ip:port`, or `@` for a unix socket (nsqd-protocol.md section 2).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("@"),
        }
    }
}
