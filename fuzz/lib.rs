//! The checks behind the fuzz targets, so that a normal test replays the seeds on stable Rust.

pub mod lookup_command;

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
