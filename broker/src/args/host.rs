//! The node id that follows from the host's name.

use md5::{Digest as _, Md5};

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
    }
}
