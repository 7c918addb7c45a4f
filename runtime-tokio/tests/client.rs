//! Clients on runtimes that are missing, incomplete or gone.
#![cfg(test)]

use core::time::Duration;
use std::path::Path;

use sansq_tokio::{
    AnswerError, ConsumerConfig, DataPath, Nsqd, NsqdOptions, Outcome, ProducerConfig,
    PublishError, ServerHandle, SetupError, consumer, producer,
};
use tokio::runtime::{Builder, Runtime};

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
    let gone = Runtime::new().unwrap();
    // Nothing listens there, so the publish is still under way when the runtime goes.
    let (producer, receipt, consumer) = gone.block_on(async {
        let producer = producer(ProducerConfig::new().nsqd("127.0.0.1:1")).unwrap();
        let receipt = producer.enqueue("topic", "body").unwrap();
        let config = ConsumerConfig::new("topic", "channel").unwrap().nsqd("127.0.0.1:1");
        (producer, receipt, consumer(config).unwrap())
    });
    drop(gone);
    Runtime::new().unwrap().block_on(async {
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
    let (gone, folder) = (Runtime::new().unwrap(), tempfile::tempdir().unwrap());
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
