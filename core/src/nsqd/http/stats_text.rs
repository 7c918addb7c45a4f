//! The statistics as text, for people (http-and-ops.md section 2.8).
//!
//! Columns are as wide as the reference's: text that is longer pushes what follows to the right.
//! What clients say of themselves is shown on one line, so that none of them forges another's.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::time::Duration;

use super::{Context, StatsForm, health};
use crate::duration::go_duration;
use crate::log::OneLine;
use crate::nsqd::ids::Peer;
use crate::nsqd::latency::LatencyStats;
use crate::nsqd::stats::{ChannelStats, ClientStats, ServerStats, TopicStats};
use crate::version::{NSQ_VERSION, SANSQ_VERSION};

/// Shows `stats`.
pub(super) fn show(stats: &ServerStats, form: &StatsForm, context: &Context) -> String {
    let mut text = String::new();
    write(&mut text, stats, form, context).expect("a String takes all text");
    text
}

fn write(
    out: &mut impl fmt::Write,
    stats: &ServerStats,
    form: &StatsForm,
    context: &Context,
) -> fmt::Result {
    writeln!(out, "nsqd v{NSQ_VERSION} (built w/sansq-{SANSQ_VERSION})")?;
    writeln!(out, "start_time {}", Rfc3339(context.start_time, context.utc_offset))?;
    writeln!(out, "uptime {}", go_duration(context.uptime))?;
    writeln!(out, "\nHealth: {}", health(stats.failure.as_deref()))?;
    if form.has_memory {
        out.write_str("\nMemory:\n")?;
        for (name, figure) in context.memory.unwrap_or_default().figures() {
            writeln!(out, "   {name:<25}\t{figure}")?;
        }
    }
    if stats.topics.is_empty() {
        out.write_str("\nTopics: None\n")?;
    } else {
        // The line ends with the empty line in front of the first topic.
        out.write_str("\nTopics:")?;
    }
    for topic in &stats.topics {
        write_topic(out, topic)?;
        for channel in &topic.channels {
            write_channel(out, channel)?;
            for client in channel.clients.iter().flatten() {
                out.write_str("        ")?;
                write_consumer(out, client, context)?;
            }
        }
    }
    if stats.producers.is_empty() {
        return out.write_str("\nProducers: None\n");
    }
    out.write_str("\nProducers:\n")?;
    for client in &stats.producers {
        out.write_str("   ")?;
        match client.pub_counts.first() {
            Some((topic, count)) => {
                write_client(out, client)?;
                let connected = Connected(client, context);
                writeln!(out, "msgs: {count:<8} topics: {topic}={count} connected: {connected}")?;
            }
            None => write_consumer(out, client, context)?,
        }
    }
    Ok(())
}

fn write_topic(out: &mut impl fmt::Write, topic: &TopicStats) -> fmt::Result {
    writeln!(
        out,
        "\n{}[{:<15}] depth: {:<5} be-depth: {:<5} msgs: {:<8} e2e%: {}",
        pause_mark(topic.paused),
        topic.name,
        topic.depth,
        topic.backend_depth,
        topic.message_count,
        Latency(&topic.latency),
    )
}

fn write_channel(out: &mut impl fmt::Write, channel: &ChannelStats) -> fmt::Result {
    write!(out, "   {}[{:<25}] ", pause_mark(channel.paused), channel.name)?;
    write!(out, "depth: {:<5} be-depth: {:<5} ", channel.depth, channel.backend_depth)?;
    write!(out, "inflt: {:<4} def: {:<4} ", channel.in_flight_count, channel.deferred_count)?;
    write!(out, "re-q: {:<5} timeout: {:<5} ", channel.requeue_count, channel.timeout_count)?;
    writeln!(out, "msgs: {:<8} e2e%: {}", channel.message_count, Latency(&channel.latency))
}

/// The percentiles in the largest unit of which there is more than one.
struct Latency<'a>(&'a LatencyStats);

impl fmt::Display for Latency<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (_, nanos)) in self.0.percentiles.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            let nanos = *nanos as f64;
            let units = [(1e9, "s"), (1e6, "ms"), (1e3, "us")];
            let unit = units.into_iter().find(|(size, _)| nanos > *size);
            let (size, unit) = unit.unwrap_or((1.0, "ns"));
            write!(f, "{:.1}{unit}", nanos / size)?;
        }
        Ok(())
    }
}

fn write_consumer(
    out: &mut impl fmt::Write,
    client: &ClientStats,
    context: &Context,
) -> fmt::Result {
    write_client(out, client)?;
    let (in_flight, ready) = (client.in_flight_count, client.ready_count);
    write!(out, "state: {} inflt: {in_flight:<4} rdy: {ready:<4} ", client.state)?;
    write!(out, "fin: {:<8} re-q: {:<8} ", client.finish_count, client.requeue_count)?;
    writeln!(out, "msgs: {:<8} connected: {}", client.message_count, Connected(client, context))
}

/// The bracket in front of a client. A unix socket has no port.
fn write_client(out: &mut impl fmt::Write, client: &ClientStats) -> fmt::Result {
    let (hostname, agent) = (OneLine(&client.hostname), OneLine(&client.user_agent));
    let name = match client.peer {
        Peer::Tcp(address) => format!("{hostname}:{} {agent}", address.port()),
        Peer::Unix => format!("{hostname}: {agent}"),
    };
    write!(out, "[V2 {name:<21}] ")
}

/// What stands in front of the bracket of a topic or channel.
const fn pause_mark(paused: bool) -> &'static str {
    if paused { "*P " } else { "   " }
}

/// How long a client has been connected, in whole seconds.
struct Connected<'a>(&'a ClientStats, &'a Context);

impl fmt::Display for Connected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.1.now.unix.as_secs().saturating_sub(self.0.connect_ts);
        // The wall clock may have been set back.
        let seconds = u64::try_from(seconds).unwrap_or(0);
        fmt::Display::fmt(&go_duration(Duration::from_secs(seconds)), f)
    }
}

/// Seconds since the Unix epoch, shown as date and time of a zone so many seconds ahead of UTC.
struct Rfc3339(i64, i32);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(unix, offset) = *self;
        let local = unix.saturating_add(i64::from(offset));
        let (year, month, day) = date(local.div_euclid(86_400));
        let second = local.rem_euclid(86_400);
        write!(f, "{year:04}-{month:02}-{day:02}T")?;
        write!(f, "{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)?;
        if offset == 0 {
            return f.write_str("Z");
        }
        let (sign, minutes) = (if offset < 0 { '-' } else { '+' }, offset.unsigned_abs() / 60);
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

/// Year, month and day of a day counted from the Unix epoch, in the Gregorian calendar.
///
/// Years are counted from 1 March, so that the leap day is a year's last, and in cycles of 400
/// years, which have 146097 days. Day 0 is then 719468 days after 1 March of the year 0.
const fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (cycle, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months from March have 31, 30, 31, 30, 31 days, over and over: 153 in five of them.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (cycle * 400 + year + next_year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (unix, offset, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (1_795_350_450, 0, "2026-11-22T12:27:30Z"),
            (1_795_350_450, 3600, "2026-11-22T13:27:30+01:00"),
            (1_795_350_450, -12_600, "2026-11-22T08:57:30-03:30"),
            (951_782_399, 0, "2000-02-28T23:59:59Z"),
            (951_782_400, 0, "2000-02-29T00:00:00Z"),
            (951_868_800, 0, "2000-03-01T00:00:00Z"),
            (978_307_199, 0, "2000-12-31T23:59:59Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00Z"),
            (-1, 0, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(format!("{}", Rfc3339(unix, offset)), text);
        }
    }

    /// Day by day through more than a cycle of the calendar.
    #[test]
    fn days_follow_each_other() {
        let mut expected = (1969, 12, 31);
        for days in 0..150_000 {
            let (year, month, day) = expected;
            let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match month {
                2 if is_leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, day) if day == last => (year, month + 1, 1),
                (_, day) => (year, month, day + 1),
            };
            assert_eq!(date(days), expected);
        }
        // The ends of the range are far off but do not overflow.
        for unix in [i64::MIN, i64::MAX] {
            assert!(!format!("{}", Rfc3339(unix, i32::MIN)).is_empty());
        }
    }
}
