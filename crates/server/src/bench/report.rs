//! What a benchmark says: one object for machines, a few lines for people.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::time::Duration;

/// The members of section 9 of the design, in its order.
pub struct BenchReport {
    pub scenario: &'static str,
    pub store: &'static str,
    pub seconds: f64,
    pub clients: usize,
    pub throughput_per_s: f64,
    pub latencies: Latencies,
    /// What the throughput is compared with, in words.
    pub limit_name: String,
    pub limit_per_s: f64,
    pub notes: Vec<String>,
    /// What the scenario adds.
    pub more: Map<String, Value>,
}

/// Durations in microseconds, three digits, up to a minute.
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Latencies {
        let range = Histogram::new_with_bounds(1, 60_000_000, 3);
        Latencies(range.expect("the bounds are in order and the digits at most five"))
    }
}

impl Latencies {
    pub fn record(&mut self, took: Duration) {
        // What takes longer than a minute counts as a minute.
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    pub fn add(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// - Input: 0.5 for the median.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        Duration::from_micros(self.0.value_at_quantile(quantile)).as_secs_f64() * 1e3
    }

    /// The three figures that every report shows.
    pub fn shown(&self) -> [(&'static str, f64); 3] {
        [("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999)]
            .map(|(name, quantile)| (name, rounded(self.quantile_ms(quantile), 3)))
    }
}

/// What was done, and the time that it took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub took: Duration,
    pub count: u64,
}

impl Tally {
    pub fn add(&mut self, took: Duration, count: u64) {
        self.took += took;
        self.count += count;
    }

    pub fn rate(&self) -> f64 {
        self.count as f64 / self.took.as_secs_f64()
    }
}

/// Digits that mean nothing are not printed.
pub fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

pub fn cpu_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What this process has used of all cores so far, to a hundredth of a second.
pub fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in parentheses, may hold blanks.
    let after_name = stat.rsplit(')').next().unwrap_or("");
    let ticks = |index| after_name.split_whitespace().nth(index)?.parse::<u64>().ok();
    let used: u64 = [11, 12].into_iter().filter_map(ticks).sum();
    Duration::from_millis(used * 10)
}

/// What this thread has used of a core so far.
pub fn own_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|it| it.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// Names and values of an object, side by side.
fn line_of(value: &Value) -> String {
    match value {
        Value::Object(parts) => {
            let parts = parts.iter().map(|(name, value)| format!("{name} {value}"));
            parts.collect::<Vec<_>>().join("   ")
        }
        other => other.to_string(),
    }
}

impl BenchReport {
    pub fn ratio(&self) -> f64 {
        self.throughput_per_s / self.limit_per_s
    }

    pub fn json(&self) -> Value {
        let mut object = Map::new();
        let mut put = |name: &str, value: Value| object.insert(name.into(), value);
        put("scenario", self.scenario.into());
        put("store", self.store.into());
        put("seconds", rounded(self.seconds, 2).into());
        put("clients", self.clients.into());
        put("throughput_per_s", rounded(self.throughput_per_s, 1).into());
        for (name, value) in self.latencies.shown() {
            put(name, value.into());
        }
        put("limit_name", self.limit_name.clone().into());
        put("limit_per_s", rounded(self.limit_per_s, 1).into());
        put("ratio", rounded(self.ratio(), 3).into());
        put("cpu_cores", cpu_cores().into());
        put("notes", json!(self.notes));
        for (name, value) in &self.more {
            put(name, value.clone());
        }
        Value::Object(object)
    }

    /// A table for people, notes below it.
    pub fn text(&self) -> String {
        let [(_, p50), (_, p99), (_, p999)] = self.latencies.shown();
        let mut rows = vec![
            ("throughput".to_owned(), format!("{:.0} /s", self.throughput_per_s)),
            ("limit".to_owned(), format!("{:.0} /s   {}", self.limit_per_s, self.limit_name)),
            ("ratio".to_owned(), format!("{:.1} % of the limit", self.ratio() * 100.0)),
            ("latency".to_owned(), format!("p50 {p50} ms   p99 {p99} ms   p99.9 {p999} ms")),
        ];
        for (name, value) in &self.more {
            match value {
                Value::Object(_) => rows.push((name.replace('_', " "), line_of(value))),
                Value::Array(lines) => {
                    let name = name.replace('_', " ");
                    rows.extend(lines.iter().map(|it| (name.clone(), line_of(it))));
                }
                other => rows.push((name.replace('_', " "), other.to_string())),
            }
        }
        let width = rows.iter().map(|it| it.0.len()).max().unwrap_or(0);
        let (scenario, store, clients) = (self.scenario, self.store, self.clients);
        let (seconds, cores) = (rounded(self.seconds, 1), cpu_cores());
        let mut text = format!(
            "bench {scenario}: {seconds} s, {clients} clients, store {store}, {cores} cores\n"
        );
        for (name, value) in rows {
            // Writing into a string cannot fail.
            writeln!(text, "  {name:<width$}  {value}").ok();
        }
        for note in &self.notes {
            writeln!(text, "  - {note}").ok();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_has_the_members_that_scripts_rely_on() {
        let mut latencies = Latencies::default();
        (1..=1_000).for_each(|it| latencies.record(Duration::from_micros(it * 10)));
        let mut more = Map::new();
        more.insert("batch_mean".into(), json!(256.5));
        more.insert("stages".into(), json!({ "create_ms": 1.5 }));
        let report = BenchReport {
            scenario: "ledger",
            store: "sqlite",
            seconds: 1.0,
            clients: 64,
            throughput_per_s: 90.0,
            latencies,
            limit_name: "a bare loop".into(),
            limit_per_s: 100.0,
            notes: vec!["One note.".into()],
            more,
        };
        let object = report.json();
        let names: Vec<&String> = object.as_object().unwrap().keys().collect();
        let want = [
            "scenario",
            "store",
            "seconds",
            "clients",
            "throughput_per_s",
            "p50_ms",
            "p99_ms",
            "p999_ms",
            "limit_name",
            "limit_per_s",
            "ratio",
            "cpu_cores",
            "notes",
            "batch_mean",
            "stages",
        ];
        assert_eq!(names, want);
        assert_eq!((&object["ratio"], &object["p50_ms"]), (&json!(0.9), &json!(5.003)));
        let text = report.text();
        assert!(text.contains("90.0 % of the limit") && text.contains("stages      create_ms 1.5"));
    }
}
