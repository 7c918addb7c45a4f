use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::name::{ChannelName, TopicName};
use crate::nsqd::latency::LatencyStats;
use crate::nsqd::stats::{ChannelStats, TopicStats};
use crate::nsqd::stats::{StatsPlace, Within};

fn channel(name: &str, count: u64) -> ChannelStats {
    ChannelStats {
        name: ChannelName::new(name).unwrap(),
        depth: 1,
        backend_depth: 2,
        in_flight_count: 3,
        deferred_count: 4,
        message_count: count,
        zone_local_msg_count: 0,
        region_local_msg_count: 0,
        global_msg_count: 0,
        requeue_count: 2 * count,
        timeout_count: 3 * count,
        client_count: 5,
        idle_client_count: 0,
        ready_client_count: 0,
        clients: None,
        paused: false,
        latency: LatencyStats {
            count: 1,
            percentiles: vec![(0.99, 7), (0.999, 8), (0.5, 9)],
            totals: None,
        },
    }
}

fn topic(name: &str, count: u64, channels: Vec<ChannelStats>) -> TopicStats {
    TopicStats {
        name: TopicName::new(name).unwrap(),
        channels,
        depth: 6,
        backend_depth: 7,
        message_count: count,
        message_bytes: 10 * count,
        paused: false,
        latency: LatencyStats::default(),
    }
}

fn stats(count: u64) -> ServerStats {
    let channels = vec![channel("c", count), channel("d#ephemeral", count)];
    let topics = vec![topic("t.one", count, channels), topic("u#ephemeral", count, Vec::new())];
    ServerStats { topics, topic_known: true, ..ServerStats::default() }
}

fn at(millis: u64) -> Now {
    Now::from_millis(millis)
}

/// The lines of the packets among `actions`, and how many packets there are.
fn sent(actions: &[StatsdAction]) -> (Vec<String>, usize) {
    let packets: Vec<_> = actions
        .iter()
        .filter_map(|action| match action {
            StatsdAction::Send(packet) => Some(core::str::from_utf8(packet).unwrap()),
            StatsdAction::Measure | StatsdAction::Begin(_) => None,
        })
        .collect();
    assert!(packets.iter().all(|packet| packet.ends_with('\n')));
    (packets.iter().flat_map(|packet| packet.lines()).map(String::from).collect(), packets.len())
}

fn machine(options: StatsdOptions) -> Statsd {
    let address = String::from("statsd:8125");
    let interval = Duration::from_secs(10);
    Statsd::new(StatsdOptions { address, interval, ..options }, at(0))
}

const FIRST: Option<StatsPage> = Some(StatsPage::Topics(None));

/// The packets of one push.
fn packets(
    options: &StatsdOptions,
    stats: &ServerStats,
    counters: &mut Counters,
    memory: Option<Memory>,
) -> VecDeque<Bytes> {
    let mut text = Text::default();
    text.add_page(stats.clone(), counters, options);
    counters.end_push();
    memory.into_iter().for_each(|memory| text.add_memory(memory, options));
    text.into_packets()
}

/// One push whose packets go out to the last.
fn push(statsd: &mut Statsd, now: u64, count: u64) -> Vec<String> {
    let mut out = Vec::new();
    assert_eq!(statsd.handle_timeout(at(now), &mut out), FIRST);
    assert!(out.is_empty());
    statsd.handle_stats(stats(count), at(now), &mut out);
    if out == [StatsdAction::Measure] {
        out.clear();
        statsd.handle_memory(Memory { heap_objects: 17, ..Memory::default() }, at(now), &mut out);
    }
    assert_eq!(out.first(), Some(&StatsdAction::Begin("statsd:8125".into())));
    statsd.stop(&mut out);
    sent(&out).0
}

#[test]
fn lines_as_the_reference_writes_them() {
    let mut statsd =
        machine(StatsdOptions { prefix: "nsq.h_1.".into(), ..StatsdOptions::default() });
    let first = push(&mut statsd, 10_000, 5);
    let lines = [
        "nsq.h_1.topic.t.one.message_count:5|c",
        "nsq.h_1.topic.t.one.message_bytes:50|c",
        "nsq.h_1.topic.t.one.depth:6|g",
        "nsq.h_1.topic.t.one.backend_depth:7|g",
        "nsq.h_1.topic.t.one.channel.c.message_count:5|c",
        "nsq.h_1.topic.t.one.channel.c.depth:1|g",
        "nsq.h_1.topic.t.one.channel.c.backend_depth:2|g",
        "nsq.h_1.topic.t.one.channel.c.in_flight_count:3|g",
        "nsq.h_1.topic.t.one.channel.c.deferred_count:4|g",
        "nsq.h_1.topic.t.one.channel.c.requeue_count:10|c",
        "nsq.h_1.topic.t.one.channel.c.timeout_count:15|c",
        "nsq.h_1.topic.t.one.channel.c.clients:5|g",
        "nsq.h_1.topic.t.one.channel.c.e2e_processing_latency_99:7|g",
        "nsq.h_1.topic.t.one.channel.c.e2e_processing_latency_100:8|g",
        "nsq.h_1.topic.t.one.channel.c.e2e_processing_latency_50:9|g",
        "nsq.h_1.topic.t.one.channel.d#ephemeral.message_count:5|c",
    ];
    assert_eq!(first[..lines.len()], lines);
    let memory = [
        "nsq.h_1.mem.heap_objects:17|g",
        "nsq.h_1.mem.heap_idle_bytes:0|g",
        "nsq.h_1.mem.heap_in_use_bytes:0|g",
        "nsq.h_1.mem.heap_released_bytes:0|g",
        "nsq.h_1.mem.gc_pause_usec_100:0|g",
        "nsq.h_1.mem.gc_pause_usec_99:0|g",
        "nsq.h_1.mem.gc_pause_usec_95:0|g",
        "nsq.h_1.mem.next_gc_bytes:0|g",
        "nsq.h_1.mem.gc_runs:0|c",
    ];
    assert_eq!(first[first.len() - memory.len()..], memory);
    assert_eq!(first[first.len() - 13], "nsq.h_1.topic.u#ephemeral.message_count:5|c");

    // Counters are differences, also where a topic was deleted and made again.
    let second = push(&mut statsd, 20_000, 7);
    assert_eq!(second[..2], [lines[0].replace(":5", ":2"), lines[1].replace(":50", ":20")]);
    assert_eq!((&second[5], &second[9]), (&first[5], &lines[9].replace(":10", ":4")));
    let third = push(&mut statsd, 30_000, 1);
    assert_eq!(third[0], lines[0].replace(":5", ":-6"));
}

#[test]
fn what_is_not_wanted_is_left_out() {
    let mut statsd = machine(StatsdOptions {
        prefix: String::new(),
        mem_stats: false,
        exclude_ephemeral: true,
        ..StatsdOptions::default()
    });
    let lines = push(&mut statsd, 10_000, 1);
    assert_eq!((lines.len(), lines[0].as_str()), (15, "topic.t.one.message_count:1|c"));
    assert!(!lines.iter().any(|line| line.contains("ephemeral") || line.starts_with("mem")));
}

#[test]
fn packets_are_spread_over_the_interval() {
    let options =
        StatsdOptions { mem_stats: false, udp_packet_size: 200, ..StatsdOptions::default() };
    let mut statsd = machine(options);
    let mut out = Vec::new();
    assert_eq!(statsd.poll_timeout(), Some(at(10_000).instant));
    assert_eq!(statsd.handle_timeout(at(9_999), &mut out), None);
    assert_eq!(statsd.handle_timeout(at(10_000), &mut out), FIRST);
    statsd.handle_stats(stats(1), at(10_500), &mut out);
    assert_eq!((out.len(), sent(&out).1), (2, 1));
    let (mut times, mut now) = (vec![at(10_500).instant], at(10_500));
    while let Some(due) = statsd.poll_timeout().filter(|due| *due < at(20_000).instant) {
        now = now.after(due.saturating_since(now.instant));
        let before = out.len();
        assert_eq!(statsd.handle_timeout(now, &mut out), None);
        assert_eq!(out.len(), before + 1);
        times.push(now.instant);
    }
    let (lines, packets) = sent(&out);
    assert_eq!((lines.len(), packets), (4 + 11 + 11 + 4, times.len()));
    let pause = Duration::from_secs(9) / packets as u32;
    assert!(times.windows(2).all(|pair| pair[1].saturating_since(pair[0]) == pause));
    for action in &out[1..] {
        let StatsdAction::Send(packet) = action else { panic!("{action:?}") };
        assert!(packet.len() <= 200);
    }
    assert_eq!(statsd.handle_timeout(at(20_000), &mut out), FIRST);
}

#[test]
fn a_push_that_is_under_way_is_not_overtaken_and_missed_ones_are_not_made_up_for() {
    let mut statsd = machine(StatsdOptions { udp_packet_size: 9999, ..StatsdOptions::default() });
    let mut out = Vec::new();
    assert_eq!(statsd.handle_timeout(at(10_000), &mut out), FIRST);
    assert_eq!((statsd.handle_timeout(at(20_000), &mut out), statsd.poll_timeout()), (None, None));
    statsd.handle_stats(stats(1), at(20_001), &mut out);
    assert_eq!((statsd.handle_timeout(at(21_000), &mut out), statsd.poll_timeout()), (None, None));
    statsd.handle_memory(Memory::default(), at(21_001), &mut out);
    assert_eq!(sent(&out).1, 1);
    let before = out.len();
    // Neither asked for nor in time.
    statsd.handle_memory(Memory::default(), at(21_001), &mut out);
    statsd.handle_stats(stats(1), at(21_001), &mut out);
    assert_eq!(out.len(), before);
    // The next one is late. It begins at once, and the one behind it when that is due.
    assert_eq!(statsd.poll_timeout(), Some(at(20_000).instant));
    assert_eq!(statsd.handle_timeout(at(21_001), &mut out), FIRST);
    statsd.handle_stats(stats(1), at(21_001), &mut out);
    statsd.handle_memory(Memory::default(), at(21_001), &mut out);
    assert_eq!(statsd.poll_timeout(), Some(at(30_000).instant));
    // Long overdue: one new push.
    assert_eq!(statsd.handle_timeout(at(95_000), &mut out), FIRST);
    statsd.handle_stats(stats(1), at(95_000), &mut out);
    statsd.handle_memory(Memory::default(), at(95_000), &mut out);
    assert_eq!(statsd.poll_timeout(), Some(at(105_000).instant));
    assert_eq!(statsd.handle_timeout(at(104_999), &mut out), None);
}

/// A page in a turn, and all that belongs to the push as a whole once.
#[test]
fn pages_are_gathered_one_by_one() {
    let options = || StatsdOptions { udp_packet_size: 0, ..StatsdOptions::default() };
    let expected = push(&mut machine(options()), 10_000, 1);
    let (mut statsd, mut out) = (machine(options()), Vec::new());
    let ServerStats { topics, .. } = stats(1);
    let last = topics.len() - 1;
    let mut asked = statsd.handle_timeout(at(10_000), &mut out);
    for (n, topic) in topics.into_iter().enumerate() {
        let now = at(10_000 + 10 * n as u64);
        assert_eq!((asked, out.as_slice()), (Some(page_behind(n)), &[][..]));
        let next = (n < last).then(|| page_behind(n + 1));
        let due = next.as_ref().map(|_| now.after(PAUSE).instant);
        let page = ServerStats { topics: vec![topic], next, ..ServerStats::default() };
        statsd.handle_stats(page, now, &mut out);
        // Not in the same turn, and not twice.
        assert_eq!(statsd.handle_timeout(now, &mut out), None);
        assert_eq!(statsd.poll_timeout(), due);
        asked = statsd.handle_timeout(now.after(PAUSE), &mut out);
        assert_eq!(statsd.handle_timeout(now.after(2 * PAUSE), &mut out), None);
    }
    assert_eq!(mem::take(&mut out), [StatsdAction::Measure]);
    let memory = Memory { heap_objects: 17, ..Memory::default() };
    statsd.handle_memory(memory, at(11_000), &mut out);
    statsd.stop(&mut out);
    assert_eq!(sent(&out).0, expected);
}

/// Where the page of number `n` begins, if each has one topic.
fn page_behind(n: usize) -> StatsPage {
    let place = |before: usize| {
        Box::new(StatsPlace { topic: stats(1).topics[before].name, within: Within::End })
    };
    StatsPage::Topics(n.checked_sub(1).map(place))
}

/// Of a topic that is on several pages there are the same lines, and what is of the topic comes
/// once.
#[test]
fn a_page_may_end_within_a_topic() {
    let options = || StatsdOptions { mem_stats: false, ..StatsdOptions::default() };
    let whole = topic("t", 1, vec![channel("a", 1), channel("b", 2), channel("c", 3)]);
    let last = topic("u", 1, vec![channel("a", 1)]);
    let whole_page = ServerStats { topics: vec![whole.clone(), last.clone()], ..stats(1) };
    let mut expected: Vec<_> =
        packets(&options(), &whole_page, &mut Counters::default(), None).into();
    let part = |at: usize, within: Option<Within>| {
        let channels = vec![whole.channels[at].clone()];
        let mut topics = vec![TopicStats { channels, ..whole.clone() }];
        topics.extend((at == 2).then(|| last.clone()));
        let place =
            |within| StatsPage::Topics(Some(Box::new(StatsPlace { topic: whole.name, within })));
        ServerStats { topics, next: within.map(place), ..ServerStats::default() }
    };
    let behind = |name: &str| Some(Within::Channel(ChannelName::new(name).unwrap()));
    let (mut text, mut counters) = (Text::default(), Counters::default());
    for page in [part(0, behind("a")), part(1, behind("b")), part(2, None)] {
        text.add_page(page, &mut counters, &options());
    }
    let mut cut: Vec<_> = text.into_packets().into();
    let lines = |packets: &mut Vec<Bytes>| {
        let text = String::from_utf8(packets.concat()).unwrap();
        let mut lines: Vec<_> = text.lines().map(String::from).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(lines(&mut cut), lines(&mut expected));
}

#[test]
fn a_turn_sends_so_many_packets() {
    let options =
        StatsdOptions { mem_stats: false, udp_packet_size: 1, ..StatsdOptions::default() };
    let mut statsd = machine(options);
    let topics = (0..300).map(|n| topic(&format!("t{n:03}"), 1, Vec::new())).collect();
    let page = ServerStats { topics, ..ServerStats::default() };
    let mut out = Vec::new();
    assert_eq!(statsd.handle_timeout(at(10_000), &mut out), FIRST);
    statsd.handle_stats(page, at(10_000), &mut out);
    let mut counts = vec![sent(&out).1];
    // The process stood still.
    let mut now = at(60_000);
    let mut begins = None;
    while counts.iter().sum::<usize>() < 4 * 300 {
        assert_eq!(begins, None);
        out.clear();
        begins = statsd.handle_timeout(now, &mut out);
        counts.push(sent(&out).1);
        assert!(statsd.poll_timeout().is_none_or(|at| at > now.instant));
        now = now.after(PAUSE);
    }
    // The next one is late.
    assert_eq!(begins, FIRST);
    assert_eq!(counts, [1, 256, 256, 256, 256, 175]);
}

#[test]
fn packets_are_as_large_as_they_may_be() {
    for (size, count, longest) in [(0, 1, 4096), (1, 30, 80), (usize::MAX, 1, 4096)] {
        let options =
            StatsdOptions { mem_stats: false, udp_packet_size: size, ..StatsdOptions::default() };
        let packets = packets(&options, &stats(1), &mut Counters::default(), None);
        assert_eq!(packets.len(), count, "{size}");
        assert!(packets.iter().all(|packet| packet.len() <= longest));
    }
    let nothing = ServerStats::default();
    let options = StatsdOptions::default();
    assert!(packets(&options, &nothing, &mut Counters::default(), None).is_empty());
}

#[test]
fn prefixes() {
    for (pattern, host, port, prefix) in [
        ("nsq.%s", "my.host", 25073, "nsq.my_host_25073."),
        ("%s.%s.", "h", 1, "h_1.h_1."),
        ("x", "h", 1, "x."),
        ("", "h", 1, ""),
        ("%s", "::1", 4151, "[__1]_4151."),
    ] {
        assert_eq!(statsd_prefix(pattern, host, port), prefix);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Pass(u16),
    Due,
    Stats,
    Memory,
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..25_000_u16).prop_map(Step::Pass),
        8 => Just(Step::Due),
        6 => Just(Step::Stats),
        4 => Just(Step::Memory),
        1 => Just(Step::Stop),
    ]
}

fn options() -> impl Strategy<Value = StatsdOptions> {
    let size = prop_oneof![4 => 1..600_usize, 1 => Just(0), 1 => Just(usize::MAX)];
    let fields = (size, "[a-z.]{0,9}", any::<(bool, bool)>());
    fields.prop_map(|(udp_packet_size, prefix, (mem_stats, exclude_ephemeral))| StatsdOptions {
        prefix,
        mem_stats,
        udp_packet_size,
        exclude_ephemeral,
        ..StatsdOptions::default()
    })
}

proptest! {
    /// Packets are the lines of a push in order, as many in each as there is room for; what grows
    /// between pushes adds up, and without ephemeral names just their lines are missing.
    #[test]
    fn packets_hold_every_line(options in options(), counts in prop::collection::vec(0..1_u64 << 60, 1..5)) {
        let limit = match options.udp_packet_size {
            0 => 4096,
            size => size.min(PACKET_LEN_MAX),
        };
        let memory = options.mem_stats.then(Memory::default);
        let all = StatsdOptions {
            udp_packet_size: usize::MAX,
            exclude_ephemeral: false,
            ..options.clone()
        };
        let (mut counters, mut whole_counters) = <(Counters, Counters)>::default();
        let mut sum = 0_i64;
        for count in &counts {
            let stats = stats(*count);
            let cut = packets(&options, &stats, &mut counters, memory);
            let cut: Vec<_> =
                cut.iter().map(|packet| core::str::from_utf8(packet).unwrap()).collect();
            for packet in &cut {
                prop_assert!(packet.len() <= limit || packet.matches('\n').count() == 1);
            }
            for pair in cut.windows(2) {
                let next = pair[1].find('\n').unwrap() + 1;
                prop_assert!(pair[0].len() + next > limit, "there was room");
            }
            let whole = packets(&all, &stats, &mut whole_counters, memory);
            prop_assert_eq!(whole.len(), 1);
            let whole = core::str::from_utf8(&whole[0]).unwrap();
            let wanted = |line: &&str| !(options.exclude_ephemeral && line.contains("#ephemeral"));
            let expected: String = whole.split_inclusive('\n').filter(wanted).collect();
            prop_assert_eq!(cut.concat(), expected);
            for line in whole.lines() {
                let (name, value) = line.rsplit_once(':').unwrap();
                prop_assert!(name.starts_with(&options.prefix));
                let value: i64 = value.trim_end_matches("|c").trim_end_matches("|g").parse().unwrap();
                if name.strip_prefix(&options.prefix) == Some("topic.t.one.channel.c.message_count") {
                    sum += value;
                }
            }
        }
        prop_assert_eq!(Some(&sum.cast_unsigned()), counts.last());
    }

    /// Whatever comes late or not at all: one push at a time, each whole and announced once, never
    /// a deadline that has passed already, and what is asked for is asked for once.
    #[test]
    fn one_push_at_a_time(options in options(), steps in prop::collection::vec(step(), 0..60)) {
        let mut statsd = machine(options);
        let (mut now, mut count, mut counters) = (at(0), 0, Counters::default());
        let (mut is_gathering, mut is_measuring) = (false, false);
        let (mut gathered, mut owed) = <(VecDeque<_>, VecDeque<_>)>::default();
        for step in steps {
            let mut out = Vec::new();
            match step {
                Step::Pass(_) | Step::Due => {
                    now = now.after(if let Step::Pass(millis) = step {
                        Duration::from_millis(millis.into())
                    } else {
                        statsd.poll_timeout().map_or(Duration::ZERO, |due| due.saturating_since(now.instant))
                    });
                    let is_busy = is_gathering || is_measuring;
                    let begins = statsd.handle_timeout(now, &mut out) == FIRST;
                    prop_assert!(!begins || !is_busy);
                    is_gathering |= begins;
                    let is_later = statsd.poll_timeout().is_none_or(|due| due > now.instant);
                    prop_assert!(is_later, "it would be woken again at once");
                }
                Step::Stats | Step::Memory => {
                    let pushes = if matches!(step, Step::Stats) {
                        let is_asked = mem::take(&mut is_gathering);
                        count += u64::from(is_asked);
                        if is_asked {
                            let memory = statsd.options.mem_stats.then(Memory::default);
                            let (options, stats) = (&statsd.options, stats(count));
                            gathered = packets(options, &stats, &mut counters, memory);
                        }
                        statsd.handle_stats(stats(count), now, &mut out);
                        is_measuring |= is_asked && statsd.options.mem_stats;
                        is_asked && !statsd.options.mem_stats
                    } else {
                        statsd.handle_memory(Memory::default(), now, &mut out);
                        mem::take(&mut is_measuring)
                    };
                    if pushes {
                        prop_assert!(owed.is_empty());
                        owed = mem::take(&mut gathered);
                        prop_assert_eq!(out.remove(0), StatsdAction::Begin("statsd:8125".into()));
                        prop_assert!(!out.is_empty(), "the first one goes out at once");
                    } else if is_measuring && matches!(step, Step::Stats) && !out.is_empty() {
                        prop_assert_eq!(out.pop(), Some(StatsdAction::Measure));
                    }
                }
                Step::Stop => {
                    statsd.stop(&mut out);
                    (is_gathering, is_measuring) = (false, false);
                    prop_assert_eq!(out.len(), owed.len());
                }
            }
            for action in out {
                let packet = owed.pop_front().map(StatsdAction::Send);
                prop_assert_eq!(Some(action), packet);
            }
            prop_assert!(owed.is_empty() || !is_gathering, "the next push overtakes this one");
        }
    }

    /// Driven in time, each push is out a second before the next one at the latest.
    #[test]
    fn a_push_is_out_before_the_next(options in options(), delay in 0..900_u64) {
        let mut statsd = machine(options);
        let mut now = at(0);
        for round in 1..4_u64 {
            let (mut out, mut begun) = (Vec::new(), None);
            while begun.is_none() || matches!(statsd.state, State::Sending { .. }) {
                let due = statsd.poll_timeout().unwrap_or(now.instant);
                now = now.after(due.saturating_since(now.instant));
                if statsd.handle_timeout(now, &mut out) == FIRST {
                    prop_assert_eq!(now, at(10_000 * round));
                    begun = Some(now.after(Duration::from_millis(delay)));
                    now = begun.unwrap_or(now);
                    statsd.handle_stats(stats(round), now, &mut out);
                    statsd.handle_memory(Memory::default(), now, &mut out);
                }
            }
            let took = now.instant.saturating_since(at(10_000 * round).instant);
            prop_assert!(took <= Duration::from_secs(9) + Duration::from_millis(delay), "{took:?}");
        }
    }
}
