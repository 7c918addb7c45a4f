//! The host's name, and the node id that follows from it.

use md5::{Digest as _, Md5};

/// The host name as the operating system has it; `localhost` if it has none that is text.
pub fn host_name() -> String {
    os_name().filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".into())
}

#[cfg(unix)]
fn os_name() -> Option<String> {
    rustix::system::uname().nodename().to_str().ok().map(Into::into)
}

#[cfg(not(unix))]
fn os_name() -> Option<String> {
    std::env::var("COMPUTERNAME").ok()
}

/// The default of `--node-id`: CRC-32 (IEEE) of the MD5 of the host name, modulo 1024
/// (http-and-ops.md section 4).
pub fn default_node_id(host: &str) -> i64 {
    i64::from(crc32fast::hash(&Md5::digest(host)) % 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ids_follow_from_the_host() {
        for (host, id) in [("localhost", 16), ("node-17.example", 96)] {
            assert_eq!(default_node_id(host), id, "{host}");
        }
        assert!(!host_name().is_empty());
    }
}
