//! What sansq calls itself.

/// The version of NSQ that sansq is compatible with. Clients parse it in IDENTIFY answers and in
/// `/info`, so it stays in NSQ's form (nsqlookupd-protocol.md section 3.2).
pub const NSQ_VERSION: &str = "1.3.0";

/// The version of sansq itself, told in additional members named `sansq_version`.
pub const SANSQ_VERSION: &str = env!("CARGO_PKG_VERSION");
