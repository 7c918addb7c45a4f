//! The client side of protocol V2: the connection that producers and consumers share.

mod backoff;
pub mod connection;
mod error;
pub mod frame;
mod options;

pub use backoff::Backoff;
pub use connection::{Connection, ConnectionOutput, Identity, Negotiated};
pub use error::ConnectionError;
pub use frame::{Frame, FrameError, Received};
pub use options::{ConnectionOptions, InvalidOption, MAX_FRAME_SIZE, Secret, USER_AGENT};
