//! What a client says in IDENTIFY (nsqd-protocol.md section 8).

use alloc::string::String;

use super::error::{ErrorCode, ProtocolError};
use super::json::{Fields, InvalidJson};

/// What a client said in IDENTIFY, well-typed and not yet judged. Absent fields are empty, 0 or
/// false.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Identify {
    /// For the statistics.
    pub client_id: String,
    /// For the statistics.
    pub hostname: String,
    /// For the statistics.
    pub user_agent: String,
    /// For the statistics and topology-aware delivery.
    pub topology_region: String,
    /// For the statistics and topology-aware delivery.
    pub topology_zone: String,
    /// Whether to answer with JSON, and upgrade.
    pub feature_negotiation: bool,
    /// Milliseconds; 0 keeps, -1 switches off.
    pub heartbeat_interval: i64,
    /// Bytes; 0 keeps, -1 for none.
    pub output_buffer_size: i64,
    /// Milliseconds; 0 keeps, -1 for none.
    pub output_buffer_timeout: i64,
    /// Percent; 0 for all messages.
    pub sample_rate: i64,
    /// Milliseconds; 0 keeps.
    pub msg_timeout: i64,
    /// Asks for TLS.
    pub tls_v1: bool,
    /// Asks for Snappy.
    pub snappy: bool,
    /// Asks for Deflate.
    pub deflate: bool,
    /// The level for Deflate.
    pub deflate_level: i64,
}

impl Identify {
    /// Reads the JSON of an IDENTIFY.
    ///
    /// # Errors
    /// `E_BAD_BODY IDENTIFY failed to decode JSON body`.
    pub fn decode(body: &[u8]) -> Result<Self, ProtocolError> {
        Self::read(body).map_err(|InvalidJson| {
            ProtocolError::new(ErrorCode::BadBody, *b"IDENTIFY failed to decode JSON body")
        })
    }

    fn read(body: &[u8]) -> Result<Self, InvalidJson> {
        let fields = Fields::decode(body)?;
        let sample_rate = fields.integer("sample_rate")?;
        i32::try_from(sample_rate).map_err(|_| InvalidJson)?;
        Ok(Self {
            client_id: fields.text("client_id")?,
            hostname: fields.text("hostname")?,
            user_agent: fields.text("user_agent")?,
            topology_region: fields.text("topology_region")?,
            topology_zone: fields.text("topology_zone")?,
            feature_negotiation: fields.boolean("feature_negotiation")?,
            heartbeat_interval: fields.integer("heartbeat_interval")?,
            output_buffer_size: fields.integer("output_buffer_size")?,
            output_buffer_timeout: fields.integer("output_buffer_timeout")?,
            sample_rate,
            msg_timeout: fields.integer("msg_timeout")?,
            tls_v1: fields.boolean("tls_v1")?,
            snappy: fields.boolean("snappy")?,
            deflate: fields.boolean("deflate")?,
            deflate_level: fields.integer("deflate_level")?,
        })
    }
}
