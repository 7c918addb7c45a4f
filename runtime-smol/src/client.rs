//! Clients on the program's own executor.

use core::future::Future;
use core::net::{IpAddr, SocketAddr};
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::io::{self, ErrorKind};
use std::net::TcpStream;

use bytes::BytesMut;
use sansq_core::http::call::{Call, CallResult};
use sansq_core::upgrade::ClientTls;
use sansq_runtime::client::{
    Consumer, ConsumerConfig, NetConfig, Producer, ProducerConfig, Runtime, SetupError, Socket,
};
use sansq_runtime::listen::set_options;
use sansq_runtime::socket::begin_to_connect;
use smol::Async;
use smol::io::{AsyncRead, AsyncWrite};
use smol::net::resolve;

use crate::call;
use crate::net;
use crate::server::Executor;
use crate::time::sleep;

/// Makes a producer whose tasks run on smol's global executor, and connects.
///
/// # Errors
/// [`SetupError`] for what is wrong with the configuration. Whether there is a server shows when something
/// is published.
pub fn producer(config: ProducerConfig) -> Result<Producer, SetupError> {
    producer_on(Executor::default(), config)
}

/// As [`producer`], on the global executor that is chosen.
///
/// # Errors
/// As [`producer`].
pub fn producer_on(executor: Executor, config: ProducerConfig) -> Result<Producer, SetupError> {
    Producer::start(Smol::new(executor, &config.net), config)
}

/// Makes a consumer whose tasks run on smol's global executor, and connects.
///
/// # Errors
/// As [`producer`].
pub fn consumer(config: ConsumerConfig) -> Result<Consumer, SetupError> {
    consumer_on(Executor::default(), config)
}

/// As [`consumer`], on the global executor that is chosen.
///
/// # Errors
/// As [`producer`].
pub fn consumer_on(executor: Executor, config: ConsumerConfig) -> Result<Consumer, SetupError> {
    Consumer::start(Smol::new(executor, &config.net), config)
}

#[derive(Clone)]
struct Smol {
    executor: Executor,
    local_address: Option<IpAddr>,
    tls: Option<ClientTls>,
}

impl Smol {
    fn new(executor: Executor, net: &NetConfig) -> Self {
        Self { executor, local_address: net.local_address, tls: net.http_tls.clone() }
    }
}

impl Runtime for Smol {
    type Socket = Tcp;

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match self.executor {
            Executor::Smol => smol::spawn(task).detach(),
            #[cfg(feature = "async-std")]
            Executor::AsyncStd => drop(async_std::task::spawn(task)),
        }
    }

    async fn sleep(&self, time: Duration) {
        sleep(time).await;
    }

    async fn connect(&self, address: &str) -> io::Result<Tcp> {
        let socket = match self.local_address {
            None => net::connect(address).await?,
            Some(local) => connect_from(local, address).await?,
        };
        set_options(socket.get_ref());
        Ok(Tcp { socket, part: Vec::new() })
    }

    async fn call(&self, call: Call) -> CallResult {
        call::carry_out(&call, self.tls.clone()).await
    }
}

/// As [`net::connect`], from an address of ours.
async fn connect_from(local: IpAddr, address: &str) -> io::Result<Async<TcpStream>> {
    let mut result = Err(ErrorKind::AddrNotAvailable.into());
    for candidate in resolve(address).await? {
        // One of the other kind of IP cannot be reached from there.
        if candidate.is_ipv4() == local.is_ipv4() {
            result = connect_to(candidate, local).await;
            if result.is_ok() {
                break;
            }
        }
    }
    result
}

async fn connect_to(target: SocketAddr, local: IpAddr) -> io::Result<Async<TcpStream>> {
    let socket = Async::new(begin_to_connect(target, local)?)?;
    socket.writable().await?;
    match socket.get_ref().take_error()? {
        Some(error) => Err(error),
        None => Ok(socket),
    }
}

struct Tcp {
    socket: Async<TcpStream>,
    /// Where one read goes to before it is appended; kept only while the connection is busy.
    part: Vec<u8>,
}

impl Socket for Tcp {
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        input: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        self.part.resize(input.capacity() - input.len(), 0);
        let polled = Pin::new(&mut self.socket).poll_read(context, &mut self.part);
        if polled.is_pending() {
            self.part = Vec::new();
        }
        let count = ready!(polled)?;
        input.extend_from_slice(self.part.get(..count).unwrap_or_default());
        Poll::Ready(Ok(count))
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }
}
