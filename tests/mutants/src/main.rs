//! Mutates b24 and counts what its tests notice. See `README.md`.

mod compile;
mod judge;
mod places;
mod point;
mod process;
mod report;
mod suite;
mod table;
mod touched;
mod tree;

use clap::Parser;
use globset::Glob;
use judge::{Fate, Judge, Kills, Verdict};
use point::{Point, digest};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use suite::{Suite, Watch};
use table::Module;
use tree::Source;

/// Mutates b24 and counts what its tests notice
#[derive(Parser)]
struct Args {
    /// Mutate only files that match (src/gate/*); may be given again
    #[arg(long, value_name = "GLOB")]
    files: Vec<String>,
    /// Mutate only lines that changed since this revision
    #[arg(long, value_name = "REV")]
    since: Option<String>,
    /// Judge this many mutations, spread over the modules, always the same ones
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// Stop after this long, and say what was not got to
    #[arg(long, value_name = "SECONDS")]
    within: Option<u64>,
    /// List the mutations and judge none
    #[arg(long)]
    list: bool,
    /// Run every test that passes a mutation before it counts as alive
    #[arg(long)]
    thorough: bool,
    /// Seconds of tests that a mutation may live through without --thorough
    #[arg(long, value_name = "SECONDS", default_value_t = 90)]
    patience: u64,
    /// Judge again what was judged before
    #[arg(long)]
    fresh: bool,
    /// Judge only what lived when it was judged last
    #[arg(long)]
    survivors: bool,
    /// Only build, and watch the tests
    #[arg(long)]
    prepare: bool,
    /// Threads of a test program
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
    /// Root of the package
    #[arg(long, value_name = "FOLDER", default_value = ".", hide = true)]
    root: PathBuf,
}

fn main() -> ExitCode {
    match work(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("mutants: {error}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether everything that was judged died or may live.
fn work(args: &Args) -> io::Result<bool> {
    let begun = Instant::now();
    let until = args.within.map(|seconds| begun + Duration::from_secs(seconds));
    let root = args.root.canonicalize()?;
    let folder = target(&root).join("mutants");
    process::end_leftovers(&folder)?;
    let source = Source::read(&root)?;
    let tables = root.join("tests/mutants");
    let modules = table::modules(&tables)?;
    let all = source.points(|file| modules.iter().any(|module| module.holds(file)));
    let accepted = table::accepted(&tables, &all)?;
    let touched = args.since.as_deref().map(|rev| touched::lines(&root, rev)).transpose()?;
    let points: Vec<Point> = match &touched {
        Some(touched) => all.into_iter().filter(|point| touched.holds(point)).collect(),
        None => all,
    };
    let wanted = wanted(args, &points, &modules)?;
    if args.list {
        for number in &wanted {
            let point = &points[number - 1];
            println!("{}:{}\t{}\t{}", point.file, point.lines.0, point.function, point.what);
        }
        return Ok(true);
    }
    if wanted.is_empty() {
        println!("skipped: no line of the modules in tests/mutants/modules.tsv was touched");
        return Ok(true);
    }
    let mut dropped = HashSet::new();
    let binaries = compile::build(&source, &folder, &points, &mut dropped)?;
    let alive: Vec<usize> = wanted.into_iter().filter(|number| !dropped.contains(number)).collect();
    eprintln!("{} mutations, {} of them compile; {} chosen", points.len(), points.len() - dropped.len(), alive.len());
    let own_tests = own_tests(&points, &modules, touched.as_ref());
    let suite = Suite::watch(
        binaries,
        &Watch {
            folder: &folder,
            root: &root,
            points: &points,
            digest: digest(&(source.digest() + &points.iter().map(Point::id).collect::<String>())),
            wanted: &|name| touched.is_none() || own_tests.iter().any(|own| name.starts_with(&format!("{own}::"))),
            // Watching must leave time to judge.
            until: args.within.map(|seconds| Instant::now() + Duration::from_secs(seconds) / 2),
            side_by_side: 2 * args.threads,
        },
    )?;
    for test in &suite.unfit {
        eprintln!("judges nothing, since it fails without a mutation: {test}");
    }
    if args.prepare {
        return Ok(true);
    }
    let mut run = Run { args, source: &source, folder: &folder, points: &points, suite: &suite, until, old: Vec::new() };
    run.old = run.recall();
    let (verdicts, left) = run.judge_all(&alive)?;
    let is_clean = report::write(&folder, &modules, &points, &verdicts, &accepted)?;
    if left > 0 {
        println!("{left} mutations were not got to in the time that there was");
    }
    if suite.unwatched > 0 {
        println!("{} tests were not got to either", suite.unwatched);
    }
    Ok(is_clean)
}

/// Where cargo builds.
fn target(root: &Path) -> PathBuf {
    std::env::var_os("B24_MUTANTS_TARGET").map_or_else(|| root.join("target"), PathBuf::from)
}

/// The numbers of the mutations to judge.
fn wanted(args: &Args, points: &[Point], modules: &[Module]) -> io::Result<Vec<usize>> {
    let globs: Vec<_> = args
        .files
        .iter()
        .map(|glob| Glob::new(glob).map(|glob| glob.compile_matcher()))
        .collect::<Result<_, _>>()
        .map_err(io::Error::other)?;
    let is_wanted = |point: &Point| globs.is_empty() || globs.iter().any(|glob| glob.is_match(&point.file));
    let mut numbers: Vec<usize> = (1..=points.len()).filter(|number| is_wanted(&points[number - 1])).collect();
    // In an order of chance that is always the same.
    numbers.sort_by_cached_key(|number| points[number - 1].id());
    let Some(sample) = args.sample else { return Ok(numbers) };
    let mut chosen = Vec::new();
    for module in modules {
        let own: Vec<usize> = numbers.iter().copied().filter(|number| module.holds(&points[number - 1].file)).collect();
        // A tenth more, since not all of them compile.
        let share = (sample * 11 * own.len()).div_ceil(10 * numbers.len().max(1)).max(sample / (2 * modules.len()));
        chosen.extend(own.into_iter().take(share));
    }
    numbers.retain(|number| chosen.contains(number));
    Ok(numbers)
}

/// The modules of tests that know best what was touched, and those that were
/// touched themselves.
fn own_tests(points: &[Point], modules: &[Module], touched: Option<&touched::Touched>) -> Vec<String> {
    let own = modules.iter().filter(|module| points.iter().any(|point| module.holds(&point.file)));
    let mut tests: Vec<String> = own.flat_map(|module| module.tests.clone()).collect();
    tests.extend(touched.into_iter().flat_map(touched::Touched::tests));
    tests
}

struct Run<'a> {
    args: &'a Args,
    source: &'a Source,
    folder: &'a Path,
    points: &'a [Point],
    suite: &'a Suite,
    until: Option<Instant>,
    /// What was judged before, and still holds.
    old: Vec<Verdict>,
}

impl Run<'_> {
    /// A death holds as long as the file does the same and the test is there; a
    /// life, as long as the tests are the same as well.
    fn recall(&self) -> Vec<Verdict> {
        if self.args.fresh {
            return Vec::new();
        }
        let text = std::fs::read_to_string(self.folder.join("results.jsonl")).unwrap_or_default();
        let by_key: BTreeMap<String, Verdict> = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Verdict>(line).ok())
            .map(|verdict| (verdict.key.clone(), verdict))
            .collect();
        by_key.into_values().collect()
    }

    fn judge_all(&self, numbers: &[usize]) -> io::Result<(Vec<Verdict>, usize)> {
        let tests = compile::digest_of_tests(&self.source.root)?;
        let names: HashSet<String> = self.suite.tests.iter().map(|test| self.suite.full_name(test)).collect();
        let old: HashMap<&str, &Verdict> = self.old.iter().map(|verdict| (verdict.key.as_str(), verdict)).collect();
        let mut log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join("results.jsonl"))?;
        let mut kills = Kills::default();
        for verdict in &self.old {
            if let Fate::Killed { by, .. } = &verdict.fate {
                kills.note(&verdict.key, by);
            }
        }
        let patience = if self.args.thorough { Duration::from_secs(1_000_000) } else { Duration::from_secs(self.args.patience) };
        let judge = Judge { folder: self.folder, suite: self.suite, points: self.points, patience, threads: self.args.threads };
        let (mut verdicts, mut left) = (Vec::new(), 0);
        let mut digests: HashMap<&str, String> = HashMap::new();
        for (count, number) in numbers.iter().enumerate() {
            let point = &self.points[number - 1];
            let source = digests.entry(&point.file).or_insert_with(|| self.source.digest_of(&point.file)[..16].to_owned()).clone();
            let key = point.key();
            let known =
                old.get(key.as_str()).filter(|verdict| verdict.source == source && holds(verdict, &tests, &names, self.args.thorough));
            if let Some(known) = known {
                verdicts.push((*known).clone());
                continue;
            }
            let lived = old.get(key.as_str()).is_some_and(|verdict| !matches!(verdict.fate, Fate::Killed { .. }));
            if self.args.survivors && !lived {
                continue;
            }
            if self.until.is_some_and(|until| Instant::now() > until) {
                left += 1;
                continue;
            }
            let begun = Instant::now();
            let fate = judge.judge(*number, &kills)?;
            // Who lives as long as not every test was heard is not judged.
            if !matches!(fate, Fate::Killed { .. }) && self.suite.unwatched > 0 {
                left += 1;
                continue;
            }
            if let Fate::Killed { by, .. } = &fate {
                kills.note(&key, by);
            }
            let seconds = (begun.elapsed().as_secs_f64() * 10.0).round() / 10.0;
            let verdict = Verdict { key, line: point.lines.0, source, tests: tests.clone(), fate, seconds };
            writeln!(log, "{}", serde_json::to_string(&verdict)?)?;
            eprintln!("{}/{} {}", count + 1, numbers.len(), report::line(&verdict));
            verdicts.push(verdict);
            report::write_survivors(self.folder, &verdicts)?;
        }
        Ok((verdicts, left))
    }
}

fn holds(verdict: &Verdict, tests: &str, names: &HashSet<String>, thorough: bool) -> bool {
    match &verdict.fate {
        Fate::Killed { by, .. } => names.contains(by),
        Fate::Lived { ran, of, .. } => verdict.tests == tests && (!thorough || ran == of),
        Fate::NotReached => verdict.tests == tests,
    }
}
