//! The two JSON documents of IDENTIFY (nsqlookupd-protocol.md sections 3.1 and 3.2).

use alloc::string::String;

use serde::Serialize;

use crate::address::host_and_port;
use crate::protocol::json::{self, Fields, InvalidJson};
use crate::version::SANSQ_VERSION;

/// What an nsqd tells about itself. The ports are as it says: also negative ones and ones above
/// 65535 are taken over.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct PeerInfo {
    /// The address under which clients find the nsqd; not empty.
    pub broadcast_address: String,
    /// The host's name.
    pub hostname: String,
    /// The port of nsqd's HTTP interface; not 0.
    pub http_port: i64,
    /// The port of nsqd's protocol V2; not 0.
    pub tcp_port: i64,
    /// Where the nsqd is, in the large; empty if not told.
    pub topology_region: String,
    /// Where the nsqd is, in the small; empty if not told.
    pub topology_zone: String,
    /// nsqd's version; not empty.
    pub version: String,
}

impl PeerInfo {
    /// Reads IDENTIFY's body. A `remote_address` in it is ignored: the socket knows better.
    ///
    /// # Errors
    /// [`InvalidJson`] if it is not an object or a field has the wrong type. Missing fields are no
    /// error here, see [`Self::is_complete`].
    pub fn decode(body: &[u8]) -> Result<Self, InvalidJson> {
        let fields = Fields::decode(body)?;
        // Of the wrong type it spoils the body all the same, as in the reference.
        fields.text("remote_address")?;
        Ok(Self {
            broadcast_address: fields.text("broadcast_address")?,
            hostname: fields.text("hostname")?,
            http_port: fields.integer("http_port")?,
            tcp_port: fields.integer("tcp_port")?,
            topology_region: fields.text("topology_region")?,
            topology_zone: fields.text("topology_zone")?,
            version: fields.text("version")?,
        })
    }

    /// Whether the four fields that IDENTIFY needs are there.
    pub fn is_complete(&self) -> bool {
        !self.broadcast_address.is_empty()
            && !self.version.is_empty()
            && self.tcp_port != 0
            && self.http_port != 0
    }

    /// IDENTIFY's body, keys in alphabetical order as the reference's nsqd sends it.
    pub fn to_json(&self) -> String {
        json::encode(self)
    }
}

/// What an nsqlookupd tells about itself in its answer to IDENTIFY.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LookupdInfo {
    /// The address under which its HTTP interface is reached; empty if it does not tell.
    pub broadcast_address: String,
    /// The host's name.
    pub hostname: String,
    /// The port of its HTTP interface.
    pub http_port: i64,
    /// The port of its protocol V1.
    pub tcp_port: i64,
    /// Its version.
    pub version: String,
}

impl LookupdInfo {
    /// Reads the answer to IDENTIFY.
    ///
    /// # Errors
    /// [`InvalidJson`] if it is not an object (an `E_…` text, for example) or a field has the wrong
    /// type.
    pub fn decode(answer: &[u8]) -> Result<Self, InvalidJson> {
        let fields = Fields::decode(answer)?;
        Ok(Self {
            broadcast_address: fields.text("broadcast_address")?,
            hostname: fields.text("hostname")?,
            http_port: fields.integer("http_port")?,
            tcp_port: fields.integer("tcp_port")?,
            version: fields.text("version")?,
        })
    }

    /// Where its HTTP interface is, as `host:port`; `None` if it did not tell its broadcast
    /// address.
    pub fn http_address(&self) -> Option<String> {
        let host = &self.broadcast_address;
        (!host.is_empty()).then(|| host_and_port(host, self.http_port))
    }

    /// The answer of this nsqlookupd, keys in alphabetical order, with sansq's own version in the
    /// additional member `sansq_version`.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Answer<'a> {
            broadcast_address: &'a str,
            hostname: &'a str,
            http_port: i64,
            sansq_version: &'static str,
            tcp_port: i64,
            version: &'a str,
        }
        json::encode(&Answer {
            broadcast_address: &self.broadcast_address,
            hostname: &self.hostname,
            http_port: self.http_port,
            sansq_version: SANSQ_VERSION,
            tcp_port: self.tcp_port,
            version: &self.version,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nsqds_body_is_the_references() {
        let info = PeerInfo {
            broadcast_address: "nsqd.example".into(),
            hostname: "vm".into(),
            http_port: 26191,
            tcp_port: 26190,
            version: "1.3.0".into(),
            ..PeerInfo::default()
        };
        assert_eq!(
            info.to_json(),
            r#"{"broadcast_address":"nsqd.example","hostname":"vm","http_port":26191,"tcp_port":26190,"topology_region":"","topology_zone":"","version":"1.3.0"}"#
        );
        assert!(info.is_complete());
    }

    #[test]
    fn wrong_types_spoil_the_body() {
        for body in [
            r#"{"tcp_port":"1"}"#,
            r#"{"tcp_port":1.0}"#,
            r#"{"version":1}"#,
            r#"{"remote_address":1}"#,
            r#"{"hostname":{}}"#,
            "[]",
            "OK",
            "E_INVALID",
        ] {
            assert_eq!(PeerInfo::decode(body.as_bytes()), Err(InvalidJson), "{body}");
        }
        assert_eq!(LookupdInfo::decode(b"E_INVALID go away"), Err(InvalidJson));
        assert_eq!(LookupdInfo::decode(b"OK"), Err(InvalidJson));
    }

    #[test]
    fn http_addresses() {
        let address = |host: &str| {
            let info = LookupdInfo { broadcast_address: host.into(), ..LookupdInfo::default() };
            LookupdInfo { http_port: 4161, ..info }.http_address()
        };
        assert_eq!(address("l1").as_deref(), Some("l1:4161"));
        assert_eq!(address("::1").as_deref(), Some("[::1]:4161"));
        assert_eq!(address(""), None);
    }

    proptest! {
        #[test]
        fn peer_info_is_read_back(
            texts in prop::array::uniform5(".{0,12}"),
            http_port: i64,
            tcp_port: i64,
        ) {
            let [broadcast_address, hostname, topology_region, topology_zone, version] = texts;
            let info = PeerInfo {
                broadcast_address, hostname, http_port, tcp_port, topology_region, topology_zone,
                version,
            };
            prop_assert_eq!(PeerInfo::decode(info.to_json().as_bytes()), Ok(info));
        }

        #[test]
        fn lookupd_info_is_read_back(
            texts in prop::array::uniform3(".{0,12}"),
            http_port: i64,
            tcp_port: i64,
        ) {
            let [broadcast_address, hostname, version] = texts;
            let info = LookupdInfo { broadcast_address, hostname, http_port, tcp_port, version };
            prop_assert_eq!(LookupdInfo::decode(info.to_json().as_bytes()), Ok(info));
        }
    }
}
