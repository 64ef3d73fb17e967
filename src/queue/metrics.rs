//! What a worker measures, in the text format of Prometheus.

use super::line::Counters;
use crate::host::{Random, random_hex};
use crate::store::disk;
use crate::store::locked::StoreError;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

/// The file of measurements. It holds no secrets and is made to be read by
/// others: its mode is 0644.
pub struct Metrics {
    path: PathBuf,
    source: String,
    random: Arc<dyn Random>,
}

/// A moment of a worker.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Events still to be handled.
    pub depth: usize,
    /// Events in the hands of this worker's handler.
    pub in_flight: usize,
    /// Age of the oldest unfinished event, in milliseconds.
    pub lag_ms: i64,
    /// When this was measured, in milliseconds since 1970.
    pub at_ms: i64,
}

impl Metrics {
    /// Names the file. `source` tells the measurements of several workers
    /// apart.
    #[must_use]
    pub fn new(path: PathBuf, source: &str, random: Arc<dyn Random>) -> Metrics {
        Metrics { path, source: source.replace(['"', '\\', '\n'], "_"), random }
    }

    /// Writes a sample: whoever reads sees the old file or the new one.
    pub fn write(&self, sample: &Sample, counters: &Counters) -> Result<(), StoreError> {
        let hidden = self.path.with_file_name(format!(".tmp-{}", random_hex(self.random.as_ref(), 8)));
        let written = (|| {
            let file = disk::create(&hidden, 0o644)?;
            disk::write_at(&file, 0, self.text(sample, counters).as_bytes())?;
            disk::rename(&hidden, &self.path)
        })();
        written.map_err(StoreError::io("write", &self.path)).inspect_err(|_| {
            let _ = disk::remove(&hidden);
        })
    }

    fn text(&self, sample: &Sample, counters: &Counters) -> String {
        let mut text = String::new();
        let mut add = |name: &str, kind: &str, help: &str, value: String| {
            let _ = writeln!(text, "# HELP b24_queue_{name} {help}\n# TYPE b24_queue_{name} {kind}");
            let _ = writeln!(text, "b24_queue_{name}{{source=\"{}\"}} {value}", self.source);
        };
        let seconds = |ms: i64| format!("{}.{:03}", ms.max(0) / 1000, ms.max(0) % 1000);
        add("depth", "gauge", "Events that are still to be handled", sample.depth.to_string());
        add("in_flight", "gauge", "Events in the hands of this worker's handler", sample.in_flight.to_string());
        add("lag_seconds", "gauge", "Age of the oldest event that is still to be handled", seconds(sample.lag_ms));
        add("sampled_timestamp_seconds", "gauge", "When this file was written", seconds(sample.at_ms));
        for (name, help, count) in [
            ("received_total", "Events taken in", counters.received),
            ("duplicates_total", "Deliveries of events that were known already", counters.duplicates),
            ("handled_total", "Events that the handler finished", counters.handled),
            ("failed_total", "Attempts that failed", counters.failed),
            ("later_total", "Attempts that the handler put off", counters.later),
            ("dead_total", "Events that went to the dead letters", counters.dead),
            ("interrupted_total", "Attempts broken off by a crash", counters.interrupted),
        ] {
            add(name, "counter", help, count.to_string());
        }
        text
    }
}
