//! The checks behind the fuzz targets, so that a normal test replays the seeds on stable Rust.

pub mod auth_answer;
pub mod channel;
pub mod command;
pub mod connection;
pub mod consumer;
pub mod directory;
pub mod disk_queue;
pub mod http;
pub mod identify;
pub mod lookup_command;
pub mod lookupd;
pub mod metadata;
pub mod mpub;
mod peer;
pub mod pool;
pub mod record_file;
pub mod shard;
pub mod simulator;

/// Takes an input apart that is a stream and where to cut it: a count, so many pairs of bytes that
/// say where, and the stream. `None` if it is too short.
fn pieces(data: &[u8]) -> Option<Vec<&[u8]>> {
    let (count, rest) = data.split_first()?;
    let (cuts, wire) = rest.split_at_checked(usize::from(count % 8) * 2)?;
    let mut cuts: Vec<usize> = cuts
        .chunks_exact(2)
        .map(|cut| usize::from(u16::from_be_bytes([cut[0], cut[1]])).min(wire.len()))
        .collect();
    cuts.sort_unstable();
    let (mut pieces, mut from) = (Vec::new(), 0);
    for cut in cuts {
        pieces.push(&wire[from..cut]);
        from = cut;
    }
    pieces.push(&wire[from..]);
    Some(pieces)
}

/// Runs `check` on every file of `seeds/<target>`.
#[cfg(test)]
fn replay_seeds(target: &str, check: fn(&[u8])) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let mut replayed = 0;
    for entry in std::fs::read_dir(folder).expect("the seeds are part of the source") {
        let path = entry.expect("the folder can be read").path();
        check(&std::fs::read(path).expect("a seed can be read"));
        replayed += 1;
    }
    assert!(replayed > 0, "{target} has no seeds");
}
