//! Clients on the program's own runtime.

use sansq_runtime::client::{Consumer, ConsumerConfig, Producer, ProducerConfig, SetupError};

use crate::Tokio;

/// Makes a producer whose tasks run on the calling thread's runtime, and connects.
///
/// # Errors
/// [`SetupError`] for what is wrong with the configuration, and if there is no runtime, or one that
/// was built without I/O or time (`enable_all` has both; tokio says so by a panic, which is caught
/// but may be logged). Whether there is a server shows when something is published.
///
/// # The runtime
/// All that the client does happens on that runtime, so nothing happens while nobody drives it: a
/// runtime of the kind `current_thread` has to be within a `block_on`. Not even a time limit ends
/// then, since it is the runtime that would notice; from outside nobody can tell such a runtime
/// from one that is about to be driven. Limits are about real time. While tokio's time is paused,
/// as in some tests, they stand still until something else happens, and questions to nsqlookupds
/// time out at once: real sockets need real time.
pub fn producer(config: ProducerConfig) -> Result<Producer, SetupError> {
    Producer::start(Tokio::here()?, config)
}

/// Makes a consumer whose tasks run on the calling thread's runtime, and connects.
///
/// # Errors
/// As [`producer`], which also says what is expected of the runtime.
pub fn consumer(config: ConsumerConfig) -> Result<Consumer, SetupError> {
    Consumer::start(Tokio::here()?, config)
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::path::Path;

    use sansq_runtime::client::{AnswerError, Outcome, PublishError};
    use sansq_runtime::options::NsqdOptions;
    use tokio::runtime::{Builder, Runtime as TokioRuntime};

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
    fn a_runtime_without_io_or_time_is_refused_at_once() {
        let build = |set: fn(&mut Builder) -> &mut Builder| {
            set(&mut Builder::new_current_thread()).build().unwrap()
        };
        for (runtime, expected) in [
            (build(|builder| builder), Some(SetupError::IncompleteRuntime)),
            (build(Builder::enable_time), Some(SetupError::IncompleteRuntime)),
            (build(Builder::enable_io), Some(SetupError::IncompleteRuntime)),
            (build(Builder::enable_all), None),
        ] {
            let _entered = runtime.enter();
            assert_eq!(producer(ProducerConfig::new().nsqd("127.0.0.1:1")).err(), expected);
            let config = ConsumerConfig::new("t", "c").unwrap().nsqd("127.0.0.1:1");
            assert_eq!(consumer(config).err(), expected);
        }
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
        let options = NsqdOptions {
            tcp_address: "127.0.0.1:0".into(),
            http_address: None,
            ..NsqdOptions::default()
        };
        let data_path = DataPath::open(folder, false).unwrap();
        Nsqd::bind(options, data_path).unwrap().spawn().unwrap()
    }
}
