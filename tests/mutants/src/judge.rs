//! Whether a test dies of a mutation.

use crate::point::Point;
use crate::process::{Ended, run};
use crate::suite::{Suite, Test};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// What became of a mutation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) key: String,
    pub(crate) line: usize,
    /// What the file does, and what the tests are, when it was judged.
    pub(crate) source: String,
    pub(crate) tests: String,
    pub(crate) fate: Fate,
    pub(crate) seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fate {
    /// A test failed, died or hung.
    Killed { by: String, how: String },
    /// None of the tests that pass it failed.
    Lived { ran: usize, of: usize, reached_by: Vec<String> },
    /// No test passes it.
    NotReached,
}

/// How many were killed by a test, by function and by file.
#[derive(Default)]
pub(crate) struct Kills(HashMap<(String, String), usize>);

impl Kills {
    pub(crate) fn note(&mut self, key: &str, by: &str) {
        for part in places(key) {
            *self.0.entry((part, by.to_owned())).or_default() += 1;
        }
    }

    fn of(&self, key: &str, by: &str) -> usize {
        let [function, file] = places(key);
        let count = |part: String| self.0.get(&(part, by.to_owned())).copied().unwrap_or(0);
        100 * count(function) + count(file)
    }
}

fn places(key: &str) -> [String; 2] {
    let mut parts = key.split('\t');
    let (file, function) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    [format!("{file}\t{function}"), file.to_owned()]
}

pub(crate) struct Judge<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) suite: &'a Suite,
    pub(crate) points: &'a [Point],
    /// How many seconds of tests a mutation may live through.
    pub(crate) patience: Duration,
    pub(crate) threads: usize,
}

impl Judge<'_> {
    /// Runs the tests that pass the place, the likeliest first.
    pub(crate) fn judge(&self, number: usize, kills: &Kills) -> io::Result<Fate> {
        let point = &self.points[number - 1];
        let mut tests: Vec<&Test> = self.suite.tests.iter().filter(|test| test.passes.contains(&number)).collect();
        if tests.is_empty() {
            return Ok(Fate::NotReached);
        }
        self.order(&mut tests, point, kills);
        std::fs::write(self.folder.join("on"), number.to_string())?;
        let fate = self.run_all(&tests);
        std::fs::remove_file(self.folder.join("on"))?;
        fate
    }

    fn order(&self, tests: &mut [&Test], point: &Point, kills: &Kills) {
        let key = point.key();
        let own: Vec<usize> = (1..=self.points.len()).filter(|number| self.points[number - 1].file == point.file).collect();
        let rank = |test: &Test| {
            let share = own.iter().filter(|number| test.passes.contains(number)).count();
            let is_quick_unit = self.suite.binaries[test.binary].name == "lib" && test.takes < Duration::from_millis(500);
            let killed = kills.of(&key, &self.suite.full_name(test));
            let worth = share as f64 / (test.takes.as_secs_f64() + 0.3);
            (!is_quick_unit, std::cmp::Reverse(killed), std::cmp::Reverse((worth * 1000.0) as u64))
        };
        tests.sort_by_cached_key(|test| rank(test));
    }

    fn run_all(&self, tests: &[&Test]) -> io::Result<Fate> {
        let mut spent = Duration::ZERO;
        let mut ran = 0;
        let mut flaky: Vec<&str> = Vec::new();
        let mut waiting: Vec<&Test> = tests.to_vec();
        let mut size = Duration::from_secs(3);
        while !waiting.is_empty() && (ran == 0 || spent < self.patience) {
            let batch = take(&mut waiting, size);
            size = (size * 3).min(Duration::from_secs(60));
            let takes: Duration = batch.iter().map(|test| test.takes).sum();
            let names: Vec<&str> = batch.iter().map(|test| test.name.as_str()).filter(|name| !flaky.contains(name)).collect();
            let binary = &self.suite.binaries[batch[0].binary];
            match run(self.folder, &binary.path, &names, self.threads, takes * 4 + Duration::from_secs(30))?.0 {
                Ended::Passed => ran += batch.len(),
                Ended::Failed(name) => {
                    if self.fails_again(&binary.path, &name, &names)? {
                        return Ok(Fate::Killed { by: format!("{}::{name}", binary.name), how: "failed".to_owned() });
                    }
                    // It failed of something else: the others are heard.
                    flaky.push(&batch.iter().find(|test| test.name == name).unwrap_or(&batch[0]).name);
                    waiting.splice(0..0, batch.iter().copied().filter(|test| !flaky.contains(&test.name.as_str())));
                }
                Ended::Died => return Ok(Fate::Killed { by: format!("{}::{}", binary.name, names[0]), how: "died".to_owned() }),
                Ended::Hung => return Ok(Fate::Killed { by: format!("{}::{}", binary.name, names[0]), how: "hung".to_owned() }),
            }
            spent += takes;
        }
        let reached_by = tests.iter().take(8).map(|test| self.suite.full_name(test)).collect();
        Ok(Fate::Lived { ran, of: tests.len(), reached_by })
    }

    /// A test that fails once on a busy machine proves nothing.
    fn fails_again(&self, program: &Path, name: &str, names: &[&str]) -> io::Result<bool> {
        let names: Vec<&str> = if name == "?" { names.to_vec() } else { vec![name] };
        for _ in 0..2 {
            let begun = Instant::now();
            if run(self.folder, program, &names, self.threads, Duration::from_secs(300))?.0 != Ended::Passed {
                return Ok(true);
            }
            if begun.elapsed() > Duration::from_secs(100) {
                break;
            }
        }
        Ok(false)
    }
}

/// Takes tests of one program from the front, for about this long.
fn take<'a>(waiting: &mut Vec<&'a Test>, size: Duration) -> Vec<&'a Test> {
    let binary = waiting[0].binary;
    let mut batch: Vec<&Test> = Vec::new();
    let mut takes = Duration::ZERO;
    waiting.retain(|test| {
        let fits = test.binary == binary && (batch.is_empty() || takes + test.takes <= size);
        if fits {
            batch.push(test);
            takes += test.takes;
        }
        !fits
    });
    batch
}
