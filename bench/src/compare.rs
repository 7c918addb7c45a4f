//! Two servers in turn, and the ratios of their figures.

use core::fmt;

use serde_json::{Value, json};

use super::report::{Metric, headline};
use super::{BenchError, BenchOptions, Pair, Report, measure};

/// What two servers did, round by round; its `Display` is the table.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The servers.
    pub pair: Pair,
    /// The reports of each round: of the first server, and of the second.
    pub rounds: Vec<(Report, Report)>,
    /// Each figure that was measured in all rounds.
    pub ratios: Vec<Ratio>,
    options: BenchOptions,
}

/// One figure of both servers.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratio {
    /// What it is, for people.
    pub label: String,
    /// Where it is in a report's JSON, names with dots in between.
    pub key: String,
    /// The median of the first server's rounds, and the second's.
    pub medians: (f64, f64),
    /// Of the ratios of each round, first to second: the median, the least and the greatest.
    pub ratio: (f64, f64, f64),
}

/// Measures two servers as often as the options say, in turn: each round has both, and which of
/// them comes first changes from round to round, so that what changes slowly on the machine does to
/// both the same. Reports `progress` after each run.
///
/// # Errors
/// The address of the server that failed, and how.
pub fn compare(
    options: &BenchOptions,
    pair: &Pair,
    mut progress: impl FnMut(&Report),
) -> Result<Comparison, (String, BenchError)> {
    let mut run = |address: &String, server: usize| {
        let mut options = options.clone();
        options.compare = None;
        options.nsqd_tcp_address.clone_from(address);
        options.pid = options.pid.get(server).copied().into_iter().collect();
        let report = measure(&options).map_err(|error| (address.clone(), error))?;
        progress(&report);
        Ok(report)
    };
    let rounds = (0..options.rounds).map(|round| {
        if round % 2 == 0 {
            let first = run(&pair.first, 0)?;
            Ok((first, run(&pair.second, 1)?))
        } else {
            let second = run(&pair.second, 1)?;
            Ok((run(&pair.first, 0)?, second))
        }
    });
    let rounds = rounds.collect::<Result<Vec<_>, _>>()?;
    let metrics: Vec<_> = rounds.iter().map(|(a, b)| (a.metrics(), b.metrics())).collect();
    let ratios = ratios(&metrics);
    Ok(Comparison { pair: pair.clone(), rounds, ratios, options: options.clone() })
}

impl Comparison {
    /// Why the figures are not what was asked for; `None` if they are.
    pub fn shortfall(&self) -> Option<String> {
        let of = |report: &Report, address: &str| {
            report.shortfall().map(|text| format!("{address}: {text}"))
        };
        self.rounds.iter().find_map(|(first, second)| {
            of(first, &self.pair.first).or_else(|| of(second, &self.pair.second))
        })
    }

    /// The figures as JSON (docs/BENCH.md).
    pub fn to_json(&self) -> Value {
        let ratio = |it: &Ratio| {
            let (median, min, max) = it.ratio;
            json!({
                "figure": it.key,
                "first": it.medians.0,
                "second": it.medians.1,
                "ratio": median,
                "ratio_min": min,
                "ratio_max": max,
            })
        };
        let round = |(first, second): &(Report, Report)| json!({ "first": first.to_json(), "second": second.to_json() });
        json!({
            "first": self.pair.first,
            "second": self.pair.second,
            "ratios": self.ratios.iter().map(ratio).collect::<Vec<_>>(),
            "rounds": self.rounds.iter().map(round).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = |report: Option<&Report>| match report.map(|it| it.server.version.as_str()) {
            None | Some("") => String::new(),
            Some(version) => format!(" (nsqd {version})"),
        };
        let (first, second) = self.rounds.first().map(|(a, b)| (a, b)).unzip();
        writeln!(f, "A: {}{}", self.pair.first, version(first))?;
        writeln!(f, "B: {}{}", self.pair.second, version(second))?;
        let rounds = self.rounds.len();
        writeln!(f, "{}; medians of {rounds} alternating rounds\n", headline(&self.options))?;
        let head = ["", "A", "B", "A / B", "least", "greatest"];
        let [label, a, b, ratio, least, greatest] = head;
        write!(f, "{label:26} {a:>12} {b:>12} {ratio:>9} {least:>9} {greatest:>9}")?;
        for Ratio { label, medians: (a, b), ratio: (median, min, max), .. } in &self.ratios {
            let (a, b) = (figure(*a), figure(*b));
            write!(f, "\n{label:26} {a:>12} {b:>12} {median:>9.2} {min:>9.2} {max:>9.2}")?;
        }
        Ok(())
    }
}

/// Four digits that matter, or all in front of the point.
fn figure(value: f64) -> String {
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        3
    };
    format!("{value:.digits$}")
}

/// The figures that every report of both servers has, in the first one's order.
fn ratios(rounds: &[(Vec<Metric>, Vec<Metric>)]) -> Vec<Ratio> {
    let Some((first, _)) = rounds.first() else { return Vec::new() };
    let of = |metrics: &[Metric], key: &str| {
        metrics.iter().find(|metric| metric.key == key).map(|metric| metric.value)
    };
    let ratio = |metric: &Metric| {
        let pairs = rounds.iter().map(|(a, b)| Some((of(a, &metric.key)?, of(b, &metric.key)?)));
        let pairs = pairs.collect::<Option<Vec<_>>>()?;
        if pairs.iter().any(|(_, second)| *second <= 0.0) {
            return None;
        }
        let (a, b) = pairs.iter().copied().unzip();
        let ratios: Vec<f64> = pairs.iter().map(|(a, b)| a / b).collect();
        let (min, max) = spread(&ratios);
        Some(Ratio {
            label: metric.label.clone(),
            key: metric.key.clone(),
            medians: (median(a)?, median(b)?),
            ratio: (median(ratios)?, min, max),
        })
    };
    first.iter().filter_map(ratio).collect()
}

/// The middle one; of an even number, half-way between the middle two. `None` of none.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

/// The least and the greatest.
fn spread(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), value| {
        (min.min(*value), max.max(*value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(figures: &[(&str, f64)]) -> Vec<Metric> {
        let metric = |(key, value): &(&str, f64)| Metric {
            label: (*key).into(),
            key: (*key).into(),
            value: *value,
        };
        figures.iter().map(metric).collect()
    }

    #[test]
    fn medians_of_odd_and_even_numbers() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn ratios_are_of_rounds_and_not_of_medians() {
        // The machine was slow in the second round, for both.
        let rounds = [
            (metrics(&[("x", 100.0), ("y", 1.0)]), metrics(&[("x", 50.0), ("y", 2.0)])),
            (metrics(&[("x", 30.0), ("y", 1.0)]), metrics(&[("x", 10.0), ("y", 4.0)])),
            (metrics(&[("x", 120.0), ("y", 3.0)]), metrics(&[("x", 60.0), ("y", 3.0)])),
        ];
        let ratios = ratios(&rounds);
        assert_eq!(ratios.len(), 2);
        assert_eq!((ratios[0].medians, ratios[0].ratio), ((100.0, 50.0), (2.0, 2.0, 3.0)));
        assert_eq!((ratios[1].medians, ratios[1].ratio), ((1.0, 3.0), (0.5, 0.25, 1.0)));
    }

    #[test]
    fn what_one_of_them_lacks_is_not_compared() {
        let both = [
            (metrics(&[("x", 1.0), ("y", 1.0)]), metrics(&[("x", 1.0), ("y", 0.0)])),
            (metrics(&[("x", 1.0), ("y", 1.0)]), metrics(&[("y", 1.0)])),
        ];
        assert_eq!(ratios(&both), []);
        assert_eq!(ratios(&[]), []);
    }

    #[test]
    fn figures_have_the_digits_that_matter() {
        let shown = [1234.5, 99.96, 12.34, 0.12345].map(figure);
        assert_eq!(shown, ["1234", "100.0", "12.3", "0.123"]);
    }
}
