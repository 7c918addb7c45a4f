//! The limit on open files, and what follows from it.

use sansq_runtime::options::{DATA_FILES_MAX, HTTP_CONNECTIONS_MAX};

/// How many connections an nsqd may have, and how many data files open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Connections {
    /// Of clients.
    pub(crate) clients: usize,
    /// To the HTTP API.
    pub(crate) http: usize,
    /// Data files that are open at a time, and as many more that are written or synced.
    pub(crate) data_files: usize,
}

impl Connections {
    /// `chosen` clients, or as many as fit below `limit` open files if that is 0. HTTP has places
    /// of its own, as many as [`http`] says, so that an operator can look at a server that is full,
    /// and so have data files: a server with many queues on disk has places for those who consume
    /// them.
    pub(crate) fn new(chosen: u64, http: u64, limit: Option<u64>, shards: u16) -> Self {
        let http = self::http(http, limit);
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let data_files = (limit / 16).clamp(DATA_FILES_MIN, DATA_FILES_MAX);
        let kept = KEPT + KEPT_PER_SHARD * usize::from(shards) + http + 2 * data_files;
        let clients = match usize::try_from(chosen).unwrap_or(usize::MAX) {
            0 => limit.saturating_sub(kept).max(CLIENTS_MIN),
            chosen => chosen,
        };
        Self { clients, http, data_files }
    }
}

/// `chosen` connections to the HTTP API, or an eighth of `limit` open files if that is 0.
pub(crate) fn http(chosen: u64, limit: Option<u64>) -> usize {
    match usize::try_from(chosen).unwrap_or(usize::MAX) {
        0 => {
            let eighth =
                limit.map_or(usize::MAX, |limit| (limit / 8).try_into().unwrap_or(usize::MAX));
            eighth.clamp(HTTP_MIN, HTTP_CONNECTIONS_MAX)
        }
        chosen => chosen,
    }
}

/// Raises the limit on open files as far as that needs no permission, as every Go program does, and
/// returns it; `None` if there is none.
pub(crate) fn raise_open_files() -> Option<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // It stays as it was if the system does not like that.
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current
}

/// Files that are neither clients' nor HTTP's nor queues': the log, the data path, listeners,
/// connections to nsqlookupds and to auth servers, refused connections that still read why.
const KEPT: usize = 96;

/// What a shard's thread has open to wait with.
const KEPT_PER_SHARD: usize = 8;

/// Clients that are let in although the limit has no room for them: a server for nobody is none.
const CLIENTS_MIN: usize = 16;

/// Connections to the HTTP API, at least.
const HTTP_MIN: usize = 8;

/// Data files, at least.
const DATA_FILES_MIN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_follow_from_the_limit_on_open_files() {
        for (chosen, chosen_http, limit, clients, http, data_files) in [
            (0, 0, Some(1_048_576), 1_048_576 - 96 - 32 - 1024 - 512, 1024, 256),
            (0, 0, Some(1024), 1024 - 96 - 32 - 128 - 128, 128, 64),
            (0, 0, Some(256), 256 - 96 - 32 - 32 - 32, 32, 16),
            (0, 0, Some(64), 16, 8, 4),
            (5, 0, Some(1024), 5, 128, 64),
            (5000, 0, Some(1024), 5000, 128, 64),
            (0, 0, None, usize::MAX - 96 - 32 - 1024 - 512, 1024, 256),
            (0, 300, Some(1024), 1024 - 96 - 32 - 300 - 128, 300, 64),
            (0, 5000, Some(1024), 16, 5000, 64),
        ] {
            let expected = Connections { clients, http, data_files };
            assert_eq!(Connections::new(chosen, chosen_http, limit, 4), expected);
        }
    }
}
