//! How a connection begins: dial, IDENTIFY, TLS, compression, AUTH. Blocking, before anything is
//! measured.

use core::net::SocketAddr;
use core::time::Duration;
use std::io::ErrorKind;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Instant;

use mio::net::TcpStream as Socket;
use sansq_core::client::ConnectionOptions;
use sansq_core::protocol::encode;
use sansq_core::protocol::frame::{HEARTBEAT, OK};
use sansq_core::upgrade::{Layer, Tls};
use serde_json::Value;

use super::BenchError;
use super::link::{Filled, Frame, Link};

/// A connection past its handshake.
#[derive(Debug)]
pub(super) struct Opened {
    link: Link<TcpStream>,
    /// The server's version; empty if it does not say.
    pub(super) version: String,
    /// Where the server listens, and where this end is.
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
}

impl Opened {
    /// Connects to `address`, `host:port`, and goes through the handshake that `options` ask for.
    ///
    /// # Errors
    /// [`BenchError`] if the server can't be reached, refuses, or does not grant what is asked for.
    pub(super) fn new(address: &str, options: &ConnectionOptions) -> Result<Self, BenchError> {
        let failed = |error| BenchError::Io("connecting", error);
        let stream = dial(address, options.dial_timeout)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(options.handshake_timeout)).map_err(failed)?;
        stream.set_write_timeout(Some(options.handshake_timeout)).map_err(failed)?;
        let peer = stream.peer_addr().map_err(failed)?;
        let local = stream.local_addr().map_err(failed)?;
        let link = Link::new(stream);
        let mut opened = Self { link, version: String::new(), peer, local };

        let mut hello = Vec::new();
        encode::magic(&mut hello);
        encode::identify(options.identify_body().as_bytes(), &mut hello);
        opened.send(&hello)?;
        let answer = opened.answer()?;
        let granted = serde_json::from_slice(&answer).unwrap_or(Value::Null);
        opened.version = granted["version"].as_str().unwrap_or_default().into();
        opened.climb(address, options, &granted)?;
        if granted["auth_required"] == true {
            let secret = options.auth_secret.as_ref().ok_or(BenchError::AuthRequired)?;
            let mut auth = Vec::new();
            encode::auth(secret.expose().as_bytes(), &mut auth);
            opened.ask(&auth)?;
        }
        Ok(opened)
    }

    /// Puts on the layers that were asked for; a server that does not grant one is not measured.
    fn climb(
        &mut self,
        address: &str,
        options: &ConnectionOptions,
        granted: &Value,
    ) -> Result<(), BenchError> {
        let upgrades = &options.upgrades;
        let layers = [
            ("tls_v1", upgrades.tls.is_some()),
            ("snappy", upgrades.snappy),
            ("deflate", upgrades.deflate.is_some()),
        ];
        if let Some((name, _)) = layers.iter().find(|(name, asked)| *asked && granted[name] != true)
        {
            return Err(BenchError::NotGranted(name));
        }
        if let Some(tls) = &upgrades.tls {
            let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let name = upgrades.tls_server_name.as_deref().unwrap_or(host);
            let tls = Tls::client(tls, name).map_err(|error| BenchError::Layer(error.into()))?;
            // The client begins with TLS, so the server has sent nothing of it yet.
            self.link.raise(|stack, _| stack.push_tls(tls));
            self.expect_ok()?;
        }
        let packing = match upgrades.deflate {
            _ if upgrades.snappy => Some(Layer::Snappy),
            level => level.map(Layer::Deflate),
        };
        if let Some(layer) = packing {
            self.link.raise(|stack, early| stack.push_packing(layer, early));
            self.expect_ok()?;
        }
        Ok(())
    }

    /// Sends a command and waits for the answer, which has to be no error.
    pub(super) fn ask(&mut self, command: &[u8]) -> Result<Vec<u8>, BenchError> {
        self.send(command)?;
        self.answer()
    }

    /// The connection, from now on without blocking.
    pub(super) fn into_link(self) -> Result<Link<Socket>, BenchError> {
        let convert = |stream: TcpStream| {
            stream.set_nonblocking(true)?;
            Ok(Socket::from_std(stream))
        };
        self.link.map(convert).map_err(|error| BenchError::Io("connecting", error))
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<(), BenchError> {
        while !bytes.is_empty() {
            let sent = self.link.send(bytes)?;
            if sent == 0 {
                return Err(BenchError::Stalled);
            }
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    fn expect_ok(&mut self) -> Result<(), BenchError> {
        if self.answer()? == OK { Ok(()) } else { Err(BenchError::Malformed) }
    }

    /// Waits for the answer to the one command that is under way.
    fn answer(&mut self) -> Result<Vec<u8>, BenchError> {
        loop {
            match self.link.next()? {
                // A heartbeat may be left unanswered: the commands that follow say as much.
                Some(Frame::Response(HEARTBEAT)) => continue,
                Some(Frame::Response(answer)) => return Ok(answer.to_vec()),
                Some(Frame::Error(error)) => return Err(BenchError::refused(error)),
                Some(Frame::Message(_)) => return Err(BenchError::Malformed),
                None => {}
            }
            if !self.link.flush()? || self.link.fill()? == Filled::Nothing {
                return Err(BenchError::Stalled);
            }
        }
    }
}

/// Tries each of the host's addresses.
fn dial(address: &str, timeout: Duration) -> Result<TcpStream, BenchError> {
    let failed = |error| BenchError::Io("connecting", error);
    let since = Instant::now();
    let mut last = ErrorKind::NotFound.into();
    for address in address.to_socket_addrs().map_err(failed)? {
        let left = timeout.saturating_sub(since.elapsed());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}
