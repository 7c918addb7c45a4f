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
