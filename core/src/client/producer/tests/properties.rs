//! What holds for a producer whatever the world does.

use super::*;
use proptest::prelude::*;

/// One thing that happens to a producer.
#[derive(Clone, Debug)]
enum Step {
    Publish,
    Write,
    Connected,
    DialFailed,
    Ok,
    Error,
    Heartbeat,
    Message,
    Nonsense,
    Closed,
    Elapse(u64),
    /// Jump to the next deadline.
    Timeout,
    Stop,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => Just(Step::Publish),
        6 => Just(Step::Write),
        4 => Just(Step::Connected),
        1 => Just(Step::DialFailed),
        8 => Just(Step::Ok),
        2 => Just(Step::Error),
        2 => Just(Step::Heartbeat),
        1 => Just(Step::Message),
        1 => Just(Step::Nonsense),
        1 => Just(Step::Closed),
        2 => (0_u64..20_000).prop_map(Step::Elapse),
        3 => Just(Step::Timeout),
        1 => Just(Step::Stop),
    ];
    proptest::collection::vec(step, 0..120)
}

/// Does `step` with a driver that does what it is told to.
fn apply(rig: &mut Rig, step: &Step, taken: &mut u64) {
    if !rig.out.net.dial.is_empty() {
        rig.take_dial();
    }
    rig.out.net.close.clear();
    let now = rig.now;
    match (step, rig.dial) {
        (Step::Publish, _) => match rig.publish("body") {
            Ok(id) => {
                assert_eq!(id.0, *taken);
                *taken += 1;
            }
            Err(PublishError::Full | PublishError::Closed) => {}
            Err(error) => panic!("{error}"),
        },
        (Step::Write, _) => rig.write(),
        (Step::Connected, Some(id)) if !rig.producer.is_connected() => {
            rig.producer.handle_connected(id, now, &mut rig.out);
            rig.response(ANSWER);
        }
        (Step::DialFailed, Some(id)) => {
            rig.producer.handle_connect_failed(id, "no", now, &mut rig.out);
        }
        (Step::Ok, Some(_)) => rig.response(OK),
        (Step::Error, Some(_)) => rig.error("E_PUB_FAILED PUB failed exiting"),
        (Step::Heartbeat, Some(_)) => rig.response(HEARTBEAT),
        (Step::Message, Some(_)) => rig.input(&frame(2, &[0; 40])),
        (Step::Nonsense, Some(_)) => rig.input(&frame(9, b"")),
        (Step::Closed, Some(_)) => rig.closed(),
        (Step::Elapse(millis), _) => {
            rig.now = now.after(Duration::from_millis(*millis));
            rig.producer.handle_timeout(rig.now, &mut rig.out);
        }
        (Step::Timeout, _) => {
            if let Some(at) = rig.producer.poll_timeout() {
                rig.now = now.after(at.saturating_since(now.instant));
                rig.producer.handle_timeout(rig.now, &mut rig.out);
                assert!(
                    rig.producer.poll_timeout().is_none_or(|next| next > rig.now.instant),
                    "a deadline that has passed is done with"
                );
            }
        }
        (Step::Stop, _) => rig.producer.close(now, &mut rig.out),
        (_, _) => {}
    }
}

proptest! {
    /// Whatever happens, each publish completes exactly once and in order, and a closed producer
    /// stops.
    #[test]
    fn every_publish_completes_exactly_once_in_order(steps in steps()) {
        let options = ProducerOptions {
            max_outstanding: 20, max_outstanding_bytes: 60, ..ProducerOptions::default()
        };
        let mut rig = Rig::new(options);
        let mut taken = 0;
        for step in &steps {
            apply(&mut rig, step, &mut taken);
            let completed = rig.out.completed.len() as u64;
            prop_assert_eq!(rig.producer.outstanding() as u64, taken - completed);
            prop_assert_eq!(rig.producer.outstanding_bytes() as u64, 4 * (taken - completed));
            prop_assert!(rig.producer.outstanding_bytes() <= 60);
        }
        rig.producer.close(rig.now, &mut rig.out);
        for _ in 0..200 {
            apply(&mut rig, &Step::Timeout, &mut taken);
        }
        prop_assert!(rig.producer.is_stopped());
        prop_assert_eq!(rig.producer.poll_timeout(), None);
        let ids: Vec<u64> = rig.completed().into_iter().map(|(id, _)| id).collect();
        prop_assert_eq!(ids, (0..taken).collect::<Vec<_>>());
    }

    /// The same steps give the same bytes, actions and deadlines.
    #[test]
    fn same_inputs_same_outputs(steps in steps()) {
        let (mut one, mut two) = (Rig::open(), Rig::open());
        let mut taken = [0, 0];
        for step in &steps {
            apply(&mut one, step, &mut taken[0]);
            apply(&mut two, step, &mut taken[1]);
            prop_assert_eq!(one.producer.poll_timeout(), two.producer.poll_timeout());
        }
        prop_assert_eq!(&one.socket, &two.socket);
        prop_assert_eq!(one.completed(), two.completed());
        prop_assert_eq!(one.events(), two.events());
    }

    /// However the network cuts the broker's bytes, the outcome is the same.
    #[test]
    fn any_split_of_the_input_gives_the_same_completions(
        frames in proptest::collection::vec((0_u8..4, 0_usize..6), 0..12),
        cuts in proptest::collection::vec(1_usize..30, 1..20),
    ) {
        // Mostly answers, a few of everything else, in one stream behind the answer to IDENTIFY.
        let mut bytes = Vec::new();
        for (kind, which) in frames {
            bytes.extend(match (kind, which) {
                (0, 0) => frame(1, b"E_PUB_FAILED PUB failed exiting"),
                (0, 1) => frame(2, &[b'0'; 400]),
                (0, 2) => frame(0, b"WHATEVER"),
                (0, 3) => frame(5, b""),
                (1, _) => frame(0, HEARTBEAT),
                _ => frame(0, OK),
            });
        }
        let run = |cuts: &mut dyn Iterator<Item = usize>| {
            let mut rig = Rig::open();
            for _ in 0..10 {
                rig.publish("a").unwrap();
            }
            rig.write();
            let id = rig.dial.unwrap();
            let mut input = BytesMut::new();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (part, behind) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                input.extend_from_slice(part);
                rig.producer.handle_input(id, &mut input, rig.now, &mut rig.out);
                rest = behind;
            }
            (rig.completed(), rig.events(), rig.out.net.close, rig.producer.poll_timeout())
        };
        let whole = run(&mut core::iter::repeat(usize::MAX));
        prop_assert_eq!(&run(&mut core::iter::repeat(1)), &whole);
        prop_assert_eq!(&run(&mut cuts.iter().copied().cycle()), &whole);
    }
}
