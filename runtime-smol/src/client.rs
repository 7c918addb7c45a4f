//! Clients on the program's own executor.

use sansq_runtime::client::{Consumer, ConsumerConfig, Producer, ProducerConfig, SetupError};

use crate::Executor;

/// Makes a producer whose tasks run on smol's global executor, and connects.
///
/// # Errors
/// [`SetupError`] for what is wrong with the configuration. Whether there is a server shows when
/// something is published.
pub fn producer(config: ProducerConfig) -> Result<Producer, SetupError> {
    producer_on(Executor::default(), config)
}

/// As [`producer`], on the global executor that is chosen.
///
/// # Errors
/// As [`producer`].
pub fn producer_on(executor: Executor, config: ProducerConfig) -> Result<Producer, SetupError> {
    Producer::start(executor, config)
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
    Consumer::start(executor, config)
}
