//! What a client is made of.

use core::fmt;
use core::future::Future;
use core::hash::{BuildHasher, Hasher};
use core::net::IpAddr;
use core::time::Duration;
use std::hash::RandomState;
use std::sync::Arc;

use sansq_core::address::{AddressError, check_address};
use sansq_core::client::{ConnectionOptions, ConsumerOptions, InvalidOption, PoolOptions};
use sansq_core::http::call::UrlError;
use sansq_core::name::{ChannelName, InvalidName, TopicName};
use sansq_core::upgrade::ClientTls;

use super::config::{Config, ConfigError};
use super::machine::Task;
use super::message::Message;
use crate::host_name;

/// What makes a producer: where it publishes to, and how.
///
/// ```
/// use sansq_runtime::client::ProducerConfig;
///
/// let config = ProducerConfig::new().nsqd("127.0.0.1:4150").nsqd("127.0.0.1:5150");
/// assert_eq!(config.nsqds.len(), 2);
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ProducerConfig {
    /// nsqds to publish to, `host:port` each.
    pub nsqds: Vec<String>,
    /// nsqlookupds to ask for nsqds, `host:port` or a URL each.
    pub nsqlookupds: Vec<String>,
    /// Everything else.
    pub options: PoolOptions,
    /// How sockets are made.
    pub net: NetConfig,
}

/// What makes a consumer: what it consumes, from where, and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConsumerConfig {
    /// The topic.
    pub topic: TopicName,
    /// The channel.
    pub channel: ChannelName,
    /// nsqds to consume from, `host:port` each.
    pub nsqds: Vec<String>,
    /// nsqlookupds to ask for the nsqds that have the topic, `host:port` or a URL each.
    pub nsqlookupds: Vec<String>,
    /// Everything else.
    pub options: ConsumerOptions,
    /// How long messages in flight may take to be answered when the consumer is dropped.
    pub drop_grace: Duration,
    /// What becomes of messages that were attempted too often.
    pub(super) dead_letter: Option<DeadLetter>,
    /// How sockets are made.
    pub net: NetConfig,
}

/// How a client's sockets are made.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct NetConfig {
    /// The address that connections come from; `None`: the system chooses.
    pub local_address: Option<IpAddr>,
    /// How nsqlookupds are asked whose URL says `https`; `None`: not at all.
    pub http_tls: Option<ClientTls>,
    /// What spreads the client's redials and lookups among those of others; `None`: a random
    /// number.
    pub seed: Option<u64>,
}

impl NetConfig {
    pub(super) fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish())
    }
}

/// The core cannot know where it runs.
pub(super) fn fill_in(options: &mut ConnectionOptions) {
    if options.hostname.is_empty() {
        options.hostname = host_name();
    }
}

/// Whether there is somewhere to connect to.
pub(super) fn check_addresses(nsqds: &[String], nsqlookupds: &[String]) -> Result<(), SetupError> {
    if nsqds.is_empty() && nsqlookupds.is_empty() {
        return Err(SetupError::NoAddress);
    }
    nsqds.iter().try_for_each(|nsqd| {
        check_address(nsqd).map_err(|error| SetupError::Nsqd(nsqd.clone(), error))
    })
}

impl ProducerConfig {
    /// One with nowhere to publish to yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Publishes to the nsqd at `host:port`; of several, to whichever has least to do.
    #[must_use]
    pub fn nsqd(mut self, address: impl Into<String>) -> Self {
        self.nsqds.push(address.into());
        self
    }

    /// Asks the nsqlookupd at `host:port`, or a URL, for nsqds.
    #[must_use]
    pub fn nsqlookupd(mut self, address: impl Into<String>) -> Self {
        self.nsqlookupds.push(address.into());
        self
    }

    /// Takes options and how sockets are made from settings under go-nsq's names.
    ///
    /// # Errors
    /// [`ConfigError`] for a setting that is wrong, or whose file can't be read.
    pub fn config(self, config: &Config) -> Result<Self, ConfigError> {
        Ok(self.options(config.pool_options()?).net(config.net_config()?))
    }

    /// Sets the options.
    #[must_use]
    pub fn options(mut self, options: PoolOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets how sockets are made.
    #[must_use]
    pub fn net(mut self, net: NetConfig) -> Self {
        self.net = net;
        self
    }
}

impl ConsumerConfig {
    /// One with nowhere to consume from yet.
    ///
    /// # Errors
    /// If a name is not valid.
    pub fn new(topic: impl AsRef<str>, channel: impl AsRef<str>) -> Result<Self, SetupError> {
        Ok(Self {
            topic: TopicName::new(topic.as_ref()).map_err(SetupError::Topic)?,
            channel: ChannelName::new(channel.as_ref()).map_err(SetupError::Channel)?,
            nsqds: Vec::new(),
            nsqlookupds: Vec::new(),
            options: ConsumerOptions::default(),
            drop_grace: DROP_GRACE,
            dead_letter: None,
            net: NetConfig::default(),
        })
    }

    /// Consumes from the nsqd at `host:port` too.
    #[must_use]
    pub fn nsqd(mut self, address: impl Into<String>) -> Self {
        self.nsqds.push(address.into());
        self
    }

    /// Asks the nsqlookupd at `host:port`, or a URL, for the nsqds that have the topic.
    #[must_use]
    pub fn nsqlookupd(mut self, address: impl Into<String>) -> Self {
        self.nsqlookupds.push(address.into());
        self
    }

    /// Takes options and how sockets are made from settings under go-nsq's names.
    ///
    /// # Errors
    /// [`ConfigError`] for a setting that is wrong, or whose file can't be read.
    pub fn config(self, config: &Config) -> Result<Self, ConfigError> {
        Ok(self.options(config.consumer_options()?).net(config.net_config()?))
    }

    /// Sets the options.
    #[must_use]
    pub fn options(mut self, options: ConsumerOptions) -> Self {
        self.options = options;
        self
    }

    /// How many messages may be in flight on all connections together; 0: paused from the start.
    #[must_use]
    pub const fn max_in_flight(mut self, count: u32) -> Self {
        self.options.max_in_flight = count;
        self
    }

    /// Sets how sockets are made.
    #[must_use]
    pub fn net(mut self, net: NetConfig) -> Self {
        self.net = net;
        self
    }

    /// Has messages that were attempted more than `max_attempts` times given to `hook`, and not to
    /// whoever else consumes. Without a hook the consumer finishes them, and they are gone.
    ///
    /// Each call of the hook is a task of its own. The message is the hook's to answer, as ever:
    /// one that it drops comes again.
    #[must_use]
    pub fn dead_letter<F, R>(mut self, hook: F) -> Self
    where
        F: Fn(Message) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.dead_letter = Some(DeadLetter(Arc::new(move |message| Box::pin(hook(message)))));
        self
    }
}

/// The hook for messages that were attempted too often.
#[derive(Clone)]
pub(super) struct DeadLetter(Arc<dyn Fn(Message) -> Task + Send + Sync>);

impl DeadLetter {
    pub(super) fn start(&self, message: Message) -> Task {
        (self.0)(message)
    }
}

impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeadLetter(..)")
    }
}

/// Why a client could not be made.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SetupError {
    /// The topic's name is not valid.
    Topic(InvalidName),
    /// The channel's name is not valid.
    Channel(InvalidName),
    /// An option is out of its range.
    Option(InvalidOption),
    /// Nothing can be dialled at the address of an nsqd.
    Nsqd(String, AddressError),
    /// The address of an nsqlookupd cannot be asked.
    Nsqlookupd(String, UrlError),
    /// Neither an nsqd nor an nsqlookupd is given.
    NoAddress,
    /// The calling thread is not one of a runtime, which the client's tasks would run on.
    NoRuntime,
    /// The runtime can't wait for sockets, or not for time.
    IncompleteRuntime,
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(error) => write!(f, "invalid topic: {error}"),
            Self::Channel(error) => write!(f, "invalid channel: {error}"),
            Self::Option(error) => error.fmt(f),
            Self::Nsqd(address, error) => write!(f, "nsqd {address:?}: {error}"),
            Self::Nsqlookupd(address, error) => write!(f, "nsqlookupd {address:?}: {error}"),
            Self::NoAddress => f.write_str("neither an nsqd nor an nsqlookupd is given"),
            Self::NoRuntime => f.write_str("there is no runtime to run the client on"),
            Self::IncompleteRuntime => f.write_str(
                "the runtime was built without I/O or without time; \
                 tokio's Builder::enable_all has both",
            ),
        }
    }
}

impl core::error::Error for SetupError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Topic(error) | Self::Channel(error) => Some(error),
            Self::Option(error) => Some(error),
            Self::Nsqd(_, error) => Some(error),
            Self::Nsqlookupd(_, error) => Some(error),
            Self::NoAddress | Self::NoRuntime | Self::IncompleteRuntime => None,
        }
    }
}

impl From<InvalidOption> for SetupError {
    fn from(error: InvalidOption) -> Self {
        Self::Option(error)
    }
}

/// As long as the reference client waits.
const DROP_GRACE: Duration = Duration::from_secs(30);
