//! TLS by rustls: its connection is a machine already, which takes and gives bytes.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::fmt;
use core::net::Ipv4Addr;
use std::io::{self, BufRead, Write};

use bytes::{Buf, BytesMut};
use rustls::pki_types::ServerName;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, OtherError, ProtocolVersion,
    ServerConfig,
};
use x509_cert::der::{Decode, asn1};
use x509_cert::{Certificate, der::oid::ObjectIdentifier};

use super::UpgradeError;
use super::step::Decoded;
use crate::nsqd::TlsInfo;
use crate::transmit::Transmit;

/// What a server needs to speak TLS: certificate, key, and what it expects of clients.
///
/// Two are equal if they are the same one.
#[derive(Clone, Debug)]
pub struct ServerTls(Arc<ServerConfig>);

impl ServerTls {
    /// Speaks TLS as `config` says.
    pub const fn new(config: Arc<ServerConfig>) -> Self {
        Self(config)
    }

    /// The settings.
    pub const fn config(&self) -> &Arc<ServerConfig> {
        &self.0
    }
}

impl PartialEq for ServerTls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What a client needs to speak TLS: whom it trusts, and its own certificate if it has one.
///
/// Two are equal if they are the same one.
#[derive(Clone, Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    asks_for_name: bool,
}

impl ClientTls {
    /// Speaks TLS as `config` says.
    pub const fn new(config: Arc<ClientConfig>) -> Self {
        Self { config, asks_for_name: true }
    }

    /// Speaks TLS as `config` says, which takes servers whatever they are called.
    pub const fn with_any_name(config: Arc<ClientConfig>) -> Self {
        Self { config, asks_for_name: false }
    }

    /// The settings.
    pub const fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// What the certificate of `server`, a name or an address, has to be for. Without a port.
    ///
    /// # Errors
    /// If no certificate can be for it, and that is asked for.
    pub fn server_name(&self, server: &str) -> Result<ServerName<'static>, TlsError> {
        match ServerName::try_from(server.to_owned()) {
            Ok(name) => Ok(name),
            // Nobody looks at it, and an address is not sent.
            Err(_) if !self.asks_for_name => Ok(Ipv4Addr::UNSPECIFIED.into()),
            Err(_) => Err(TlsError(format!(
                "no certificate can be for the name {server:?}: its labels have to be of letters, \
                 digits and hyphens, hyphens only inside, and the last one not of digits alone; \
                 tls_server_name says what the certificate is for instead"
            ))),
        }
    }
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }
}

impl Eq for ClientTls {}

/// Why TLS can't go on; the text is rustls's, or of whoever verified the peer's certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for TlsError {}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        // rustls shows it as a programmer would want it.
        if let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(why))) = error {
            return Self(format!("invalid peer certificate: {why}"));
        }
        Self(error.to_string())
    }
}

/// One side of a TLS connection.
#[derive(Debug)]
pub struct Tls {
    connection: Box<Connection>,
    is_handshaking: bool,
    peer_has_closed: bool,
}

impl Tls {
    /// The server's side.
    ///
    /// # Errors
    /// If the settings contradict themselves.
    pub fn server(tls: &ServerTls) -> Result<Self, TlsError> {
        let connection = rustls::ServerConnection::new(Arc::clone(&tls.0))?;
        Ok(Self::new(Connection::Server(connection)))
    }

    /// The client's side. `server` is the name or the address that the server's certificate has to
    /// have.
    ///
    /// # Errors
    /// If no certificate can be for `server`, or the settings contradict themselves.
    pub fn client(tls: &ClientTls, server: &str) -> Result<Self, TlsError> {
        let name = tls.server_name(server)?;
        let connection = ClientConnection::new(Arc::clone(&tls.config), name)?;
        Ok(Self::new(Connection::Client(connection)))
    }

    fn new(connection: Connection) -> Self {
        Self { connection: Box::new(connection), is_handshaking: true, peer_has_closed: false }
    }

    pub(super) const fn is_handshaking(&self) -> bool {
        self.is_handshaking
    }

    /// Decrypts; stops when there are plain bytes, and when the handshake is over.
    pub(super) fn decode(
        &mut self,
        wire: &mut BytesMut,
        plain: &mut BytesMut,
    ) -> Result<Decoded, UpgradeError> {
        loop {
            if !self.is_handshaking && self.take_plain(plain) {
                return Ok(Decoded::Some);
            }
            if self.peer_has_closed {
                wire.clear();
                return Ok(Decoded::End);
            }
            if wire.is_empty() {
                return Ok(Decoded::All);
            }
            let read = self.connection.read_tls(&mut &wire[..]);
            // It takes nothing only if it was not emptied above, or holds more than any record has.
            let read = read.map_err(|error| TlsError(error.to_string()))?;
            wire.advance(read);
            let state = self.connection.process_new_packets().map_err(TlsError::from)?;
            self.peer_has_closed = state.peer_has_closed();
            if read == 0 && !self.peer_has_closed && state.plaintext_bytes_to_read() == 0 {
                return Err(TlsError("no progress".into()).into());
            }
            if self.is_handshaking && !self.connection.is_handshaking() {
                self.is_handshaking = false;
                return Ok(Decoded::Handshaken);
            }
        }
    }

    /// Moves what is decrypted to `plain`. Returns whether there was any.
    fn take_plain(&mut self, plain: &mut BytesMut) -> bool {
        let mut reader = self.connection.reader();
        let start = plain.len();
        // An error says that there is nothing now, or nothing any more, which `peer_has_closed`
        // knows.
        while let Ok(part) = reader.fill_buf()
            && !part.is_empty()
        {
            let len = part.len();
            plain.extend_from_slice(part);
            reader.consume(len);
        }
        plain.len() > start
    }

    /// Encrypts everything in `plain`, and appends it and what TLS itself has to say to `wire`.
    pub(super) fn encode(&mut self, plain: &mut Transmit, wire: &mut Transmit) {
        while !plain.is_empty() {
            let mut parts = [&[][..]; PARTS_MAX];
            let count = plain.slices(&mut parts);
            let mut slices = [io::IoSlice::new(&[]); PARTS_MAX];
            for (slice, part) in slices.iter_mut().zip(&parts[..count]) {
                *slice = io::IoSlice::new(part);
            }
            let written = self.connection.writer().write_vectored(&slices[..count]);
            self.flush(wire);
            match written {
                Ok(1..) => plain.advance(written.unwrap_or_default()),
                // Nothing is taken any more: what is owed can't be said.
                Ok(0) | Err(_) => plain.clear(),
            }
        }
        self.flush(wire);
    }

    /// The same for bytes that lie in one piece.
    pub(super) fn encode_slice(&mut self, mut plain: &[u8], wire: &mut Transmit) {
        while !plain.is_empty() {
            let written = self.connection.writer().write(plain).unwrap_or_default();
            self.flush(wire);
            plain = &plain[written..];
            if written == 0 {
                break;
            }
        }
    }

    /// Appends what TLS itself has to say: its part of the handshake, alerts, new keys.
    pub(super) fn flush(&mut self, wire: &mut Transmit) {
        while self.connection.wants_write() {
            if self.connection.write_tls(&mut Sink(wire)).is_err() {
                break;
            }
        }
    }

    /// Says that nothing more comes.
    pub(super) fn finish(&mut self, wire: &mut Transmit) {
        if !self.is_handshaking {
            self.connection.send_close_notify();
            self.flush(wire);
        }
    }

    /// What was agreed on; meaningful behind the handshake.
    pub(super) fn info(&self) -> TlsInfo {
        let connection = &self.connection;
        let suite = connection.negotiated_cipher_suite();
        let protocol = connection.alpn_protocol().unwrap_or_default();
        let certificate = connection.peer_certificates().and_then(|chain| chain.first());
        TlsInfo {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLS1.2",
                Some(ProtocolVersion::TLSv1_3) => "TLS1.3",
                _ => "",
            },
            cipher_suite: suite.map_or(0, |suite| suite.suite().into()),
            protocol: String::from_utf8_lossy(protocol).into_owned(),
            common_name: certificate.and_then(|der| common_name(der)).unwrap_or_default(),
        }
    }
}

/// How many parts of the output are encrypted together.
const PARTS_MAX: usize = 64;

/// The common name of a certificate's subject: of several the last, as the reference has it.
fn common_name(der: &[u8]) -> Option<String> {
    const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
    let certificate = Certificate::from_der(der).ok()?;
    let names = certificate.tbs_certificate.subject.0;
    let mut parts = names.iter().flat_map(|name| name.0.iter());
    let value = &parts.rfind(|part| part.oid == COMMON_NAME)?.value;
    let text = asn1::Utf8StringRef::try_from(value).map(|text| text.as_str().to_owned());
    let text = text.or_else(|_| {
        asn1::PrintableStringRef::try_from(value).map(|text| text.as_str().to_owned())
    });
    let text = text
        .or_else(|_| asn1::TeletexStringRef::try_from(value).map(|text| text.as_str().to_owned()));
    text.or_else(|_| asn1::Ia5StringRef::try_from(value).map(|text| text.as_str().to_owned())).ok()
}

/// Where rustls writes to.
struct Sink<'a>(&'a mut Transmit);

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes);
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        slices.iter().for_each(|slice| self.0.push(slice));
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
