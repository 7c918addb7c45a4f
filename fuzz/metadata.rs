//! Any bytes as `nsqd.dat`: what is understood is written in a form that is understood as the same.

use sansq_core::storage::Metadata;

/// Checks one file.
///
/// # Panics
/// If reading or writing is wrong.
pub fn check(data: &[u8]) {
    let parsed = match Metadata::parse(data) {
        Ok(parsed) => parsed,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let mut metadata = parsed.metadata;
    assert!(metadata.topics.is_sorted_by(|a, b| a.name < b.name));
    metadata.topics.retain(|topic| !topic.name.is_ephemeral());
    for topic in &mut metadata.topics {
        assert!(topic.channels.is_sorted_by(|a, b| a.name < b.name));
        topic.channels.retain(|channel| !channel.name.is_ephemeral());
    }
    let again = Metadata::parse(metadata.to_json().as_bytes()).expect("we wrote it");
    assert!(again.skipped.is_empty());
    assert_eq!(again.metadata, metadata);
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        crate::replay_seeds("metadata", super::check);
    }
}
