//! What auth servers answer: whatever it is, it is judged within its limits, always alike, and what
//! is allowed is no more than the answer as a whole allows.

use sansq_core::name::TopicName;
use sansq_core::nsqd::auth::judge;

/// Checks one answer.
///
/// # Panics
/// If an answer is judged in two ways, or its own text does not count its entries.
pub fn check(data: &[u8]) {
    let topic = |name: &str| TopicName::new(name).expect("a valid name");
    let asked = [
        (topic("t"), ""),
        (topic("t"), "c"),
        (topic("t"), ""),
        (topic("a.b-c_d#ephemeral"), "c#ephemeral"),
    ];
    let first = judge(data, &asked);
    assert_eq!(first, judge(data, &asked));
    let Ok((json, allowed)) = first else { return };
    assert_eq!(allowed.len(), asked.len());
    assert_eq!(allowed[0], allowed[2], "the same question, the same answer");
    let count = json.rsplit(':').next().and_then(|count| count.strip_suffix('}'));
    let count: usize = count.and_then(|count| count.parse().ok()).expect("a count");
    assert!(count > 0 || !allowed.contains(&true), "nothing allows nothing");
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        crate::replay_seeds("auth_answer", super::check);
    }
}
