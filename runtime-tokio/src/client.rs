//! Clients on the program's own runtime.

use core::future::Future;
use core::net::{IpAddr, SocketAddr};
use core::pin::{Pin, pin};
use core::task::{Context, Poll};
use core::time::Duration;
use std::io::{self, ErrorKind};

use bytes::BytesMut;
use sansq_core::http::call::{Call, CallResult};
use sansq_core::upgrade::ClientTls;
use sansq_runtime::client::{
    Consumer, ConsumerConfig, NetConfig, Producer, ProducerConfig, Runtime, SetupError, Socket,
};
use sansq_runtime::listen::set_options;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::call;

/// Makes a producer whose tasks run on the calling thread's runtime, and connects.
///
/// # Errors
/// [`SetupError`] for what is wrong with the configuration, and if there is no runtime. Whether there is a
/// server shows when something is published.
///
/// # Panics
/// If the runtime was built without I/O or time (`enable_all` has both).
pub fn producer(config: ProducerConfig) -> Result<Producer, SetupError> {
    Producer::start(Tokio::here(&config.net)?, config)
}

/// Makes a consumer whose tasks run on the calling thread's runtime, and connects.
///
/// # Errors
/// As [`producer`].
///
/// # Panics
/// As [`producer`].
pub fn consumer(config: ConsumerConfig) -> Result<Consumer, SetupError> {
    Consumer::start(Tokio::here(&config.net)?, config)
}

#[derive(Clone)]
struct Tokio {
    handle: Handle,
    local_address: Option<IpAddr>,
    tls: Option<ClientTls>,
}

impl Tokio {
    fn here(net: &NetConfig) -> Result<Self, SetupError> {
        let handle = Handle::try_current().map_err(|_| SetupError::NoRuntime)?;
        Ok(Self { handle, local_address: net.local_address, tls: net.http_tls.clone() })
    }
}

impl Runtime for Tokio {
    type Socket = Tcp;

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(task);
    }

    async fn sleep(&self, time: Duration) {
        sleep(time).await;
    }

    async fn connect(&self, address: &str) -> io::Result<Tcp> {
        let mut result = Err(ErrorKind::AddrNotAvailable.into());
        for candidate in lookup_host(address).await? {
            let Some(socket) = open(candidate, self.local_address)? else { continue };
            result = socket.connect(candidate).await;
            if result.is_ok() {
                break;
            }
        }
        let stream = result?;
        set_options(&stream);
        Ok(Tcp(stream))
    }

    async fn call(&self, call: Call) -> CallResult {
        call::carry_out(&call, self.tls.clone()).await
    }
}

/// A socket that comes from `local`; `None` if that is of the other kind of IP.
fn open(target: SocketAddr, local: Option<IpAddr>) -> io::Result<Option<TcpSocket>> {
    if local.is_some_and(|local| local.is_ipv4() != target.is_ipv4()) {
        return Ok(None);
    }
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(local) = local {
        socket.bind(SocketAddr::new(local, 0))?;
    }
    Ok(Some(socket))
}

struct Tcp(TcpStream);

impl Socket for Tcp {
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        input: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        // The future keeps nothing between two polls.
        pin!(self.0.read_buf(input)).poll(context)
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sansq_core::options::NsqdOptions;
    use sansq_runtime::client::{AnswerError, Outcome, PublishError};
    use tokio::runtime::Runtime as TokioRuntime;

    use super::*;
    use crate::{DataPath, Nsqd, ServerHandle};

    #[test]
    fn without_a_runtime_there_is_no_client() {
        let nobody = producer(ProducerConfig::new().nsqd("127.0.0.1:1"));
        assert_eq!(nobody.err(), Some(SetupError::NoRuntime));
        let nobody = consumer(ConsumerConfig::new("t", "c").unwrap().nsqd("127.0.0.1:1"));
        assert_eq!(nobody.err(), Some(SetupError::NoRuntime));
    }

    #[test]
    fn nobody_waits_for_a_client_whose_runtime_is_gone() {
        let gone = TokioRuntime::new().unwrap();
        // Nothing listens there, so the publish is still under way when the runtime goes.
        let (producer, receipt, consumer) = gone.block_on(async {
            let producer = producer(ProducerConfig::new().nsqd("127.0.0.1:1")).unwrap();
            let receipt = producer.enqueue("topic", "body").unwrap();
            let config = ConsumerConfig::new("topic", "channel").unwrap().nsqd("127.0.0.1:1");
            (producer, receipt, consumer(config).unwrap())
        });
        drop(gone);
        TokioRuntime::new().unwrap().block_on(async {
            assert_eq!(receipt.await.unwrap_err().outcome(), Outcome::Unknown);
            assert_eq!(producer.publish("topic", "body").await, Err(PublishError::Closed));
            producer.close().await;
            assert!(consumer.next().await.is_none());
            consumer.stop(Duration::MAX).await;
        });
    }

    /// It would be queued for a connection that nobody writes to any more.
    #[test]
    fn no_answer_is_taken_once_the_runtime_is_gone() {
        let (gone, folder) = (TokioRuntime::new().unwrap(), tempfile::tempdir().unwrap());
        let nsqd = start_nsqd(folder.path());
        let address = nsqd.tcp_addr().socket_addr().unwrap().to_string();
        let (producer, consumer, messages) = gone.block_on(async {
            let producer = producer(ProducerConfig::new().nsqd(&address)).unwrap();
            producer.publish_many("topic", ["a", "b", "c", "d"]).await.unwrap();
            let config = ConsumerConfig::new("topic", "channel").unwrap();
            let consumer = consumer(config.nsqd(&address).max_in_flight(4)).unwrap();
            let mut messages = Vec::new();
            while messages.len() < 4 {
                messages.push(consumer.next().await.unwrap());
            }
            (producer, consumer, messages)
        });
        assert_eq!((producer.stats().connected, consumer.stats().in_flight), (1, 4));
        drop(gone);
        let [a, b, c, d] = messages.try_into().unwrap();
        assert_eq!(a.touch(), Err(AnswerError::ConnectionLost));
        assert_eq!(a.finish(), Err(AnswerError::ConnectionLost));
        assert_eq!(b.requeue(None), Err(AnswerError::ConnectionLost));
        assert_eq!(c.requeue_without_backoff(None), Err(AnswerError::ConnectionLost));
        drop(d);
        let stats = consumer.stats();
        assert_eq!((stats.finished, stats.requeued, stats.touched, stats.in_flight), (0, 0, 0, 0));
        assert!(!stats.connections[0].is_subscribed && !consumer.handle().add_nsqd("a:1"));
        let stats = producer.stats();
        assert_eq!((stats.connected, stats.outstanding), (0, 0));
        assert!(!producer.add_nsqd("a:1"));
        nsqd.shut_down();
        nsqd.join().unwrap();
    }

    fn start_nsqd(folder: &Path) -> ServerHandle {
        let mut options = NsqdOptions::default();
        options.tcp_address = "127.0.0.1:0".into();
        options.http_address = None;
        let data_path = DataPath::open(folder, false).unwrap();
        Nsqd::bind(options, data_path).unwrap().spawn().unwrap()
    }
}
