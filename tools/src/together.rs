//! Asking many servers side by side, and going on without those that do not answer.

use core::time::Duration;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

/// What each server answered.
pub(super) type PerServer<T> = Vec<(String, Result<T, String>)>;

/// Asks each of `servers` on a thread of its own. When the first good answer is there, the others
/// have `grace` for theirs; whoever has not answered then failed, and is not waited for. Without a
/// good answer it lasts as long as `ask` does.
pub(super) fn ask_all<T: Send + 'static>(
    servers: &[String],
    grace: Duration,
    ask: impl Fn(&str) -> Result<T, String> + Send + Sync + 'static,
) -> PerServer<T> {
    let ask = Arc::new(ask);
    let mut answers: PerServer<T> = Vec::with_capacity(servers.len());
    // So many at a time: a cluster may have hundreds.
    for some in servers.chunks(THREADS_MAX) {
        ask_some(some, grace, &ask, &mut answers);
    }
    answers
}

fn ask_some<T: Send + 'static>(
    servers: &[String],
    grace: Duration,
    ask: &Arc<impl Fn(&str) -> Result<T, String> + Send + Sync + 'static>,
    answers: &mut PerServer<T>,
) {
    let (sender, inbox) = mpsc::channel();
    for (n, server) in servers.iter().enumerate() {
        let (ask, address, answered) = (Arc::clone(ask), server.clone(), sender.clone());
        let asking = thread::Builder::new().name(format!("ask {server}")).spawn(move || {
            // Whoever asked may be content already.
            let _ = answered.send((n, ask(&address)));
        });
        if let Err(error) = asking {
            let _ = sender.send((n, Err(error.to_string())));
        }
    }
    drop(sender);
    let mut found: Vec<Option<Result<T, String>>> = servers.iter().map(|_| None).collect();
    let mut until = None;
    // Ends when all have answered, or the time for that is over.
    while let Some((n, answer)) = match until {
        None => inbox.recv().ok(),
        Some(until) => {
            inbox.recv_timeout(Instant::saturating_duration_since(&until, Instant::now())).ok()
        }
    } {
        if answer.is_ok() {
            until.get_or_insert_with(|| Instant::now() + grace);
        }
        if let Some(place) = found.get_mut(n) {
            *place = Some(answer);
        }
    }
    let silent = || Err(String::from("no answer yet"));
    answers
        .extend(servers.iter().cloned().zip(found.into_iter().map(|it| it.unwrap_or_else(silent))));
}

/// Threads that ask at a time.
const THREADS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn servers(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn whoever_hangs_is_left_out_when_another_has_answered() {
        // The one that hangs does so until the test is over.
        let (keep, hangs) = mpsc::channel::<()>();
        let hangs = Mutex::new(hangs);
        let answers =
            ask_all(&servers(&["hung", "good", "bad"]), Duration::ZERO, move |name| match name {
                "hung" => {
                    let _ = hangs.lock().unwrap().recv();
                    Ok(0)
                }
                "good" => Ok(1),
                _ => Err(String::from("refused")),
            });
        assert_eq!(answers[0], (String::from("hung"), Err(String::from("no answer yet"))));
        assert_eq!(answers[1], (String::from("good"), Ok(1)));
        drop(keep);
    }

    #[test]
    fn all_answers_are_waited_for_if_none_is_good_or_there_is_time() {
        let hour = Duration::from_secs(3600);
        let all = ask_all(&servers(&["a", "b", "c"]), hour, |name| Ok(name.to_owned()));
        assert!(all.iter().all(|(server, answer)| answer.as_ref() == Ok(server)));
        let none = ask_all(&servers(&["a", "b"]), Duration::ZERO, |_| Err::<(), _>("no".into()));
        assert!(none.iter().all(|(_, answer)| answer == &Err(String::from("no"))));
        assert!(ask_all(&[], hour, |_| Ok(())).is_empty());
    }
}
