//! The tests, how long each takes, and which places it passes.

use crate::compile::Binary;
use crate::point::{Point, digest};
use crate::process::{Ended, run};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// One test and what is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Test {
    /// The program, an index of [`Suite::binaries`].
    pub(crate) binary: usize,
    /// The name that the program knows it by.
    pub(crate) name: String,
    pub(crate) takes: Duration,
    /// The numbers of the places that it passes.
    pub(crate) passes: HashSet<usize>,
}

/// Every test that may judge a mutation.
pub(crate) struct Suite {
    pub(crate) binaries: Vec<Binary>,
    pub(crate) tests: Vec<Test>,
    /// Tests that fail without a mutation, and judge nothing.
    pub(crate) unfit: Vec<String>,
    /// Tests that there was no time to watch.
    pub(crate) unwatched: usize,
}

/// What was seen of a test, kept from run to run.
#[derive(Serialize, Deserialize)]
struct Seen {
    test: String,
    digest: String,
    ms: u64,
    passes: Vec<String>,
}

/// What to watch, and for how long.
pub(crate) struct Watch<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) root: &'a Path,
    pub(crate) points: &'a [Point],
    /// What the program and its mutations are.
    pub(crate) digest: String,
    /// Whether a test of a program other than the library's is watched.
    pub(crate) wanted: &'a (dyn Fn(&str) -> bool + Sync),
    pub(crate) until: Option<Instant>,
    pub(crate) side_by_side: usize,
}

/// Tests that do not judge: those that read the source instead of running it,
/// and those of the emulated portal.
const NO_JUDGES: &[&str] = &["it::tidy::", "emulator::"];

impl Suite {
    /// Runs every test by itself, a few side by side, and notes what it passes.
    pub(crate) fn watch(mut binaries: Vec<Binary>, watch: &Watch) -> io::Result<Suite> {
        // The library's own tests are the quickest.
        binaries.sort_by_key(|binary| binary.name != "lib");
        let mut suite = Suite { binaries, tests: Vec::new(), unfit: Vec::new(), unwatched: 0 };
        let numbers: HashMap<String, usize> = watch.points.iter().enumerate().map(|(index, point)| (point.id(), index + 1)).collect();
        let known = recall(watch.folder);
        let mut unseen = VecDeque::new();
        for candidate in suite.candidates(watch)? {
            match known.get(&candidate.full) {
                Some(seen) if seen.digest == candidate.digest => {
                    let passes = seen.passes.iter().filter_map(|id| numbers.get(id)).copied().collect();
                    suite.tests.push(candidate.test(seen.ms, passes));
                }
                _ => unseen.push_back(candidate),
            }
        }
        if unseen.is_empty() {
            return Ok(suite);
        }
        eprintln!("{} tests are watched", unseen.len());
        let _ = std::fs::remove_dir_all(watch.folder.join("passed"));
        std::fs::create_dir_all(watch.folder.join("passed"))?;
        std::fs::write(watch.folder.join("on"), "record")?;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(watch.folder.join("tests.jsonl"))?;
        let shared = Mutex::new((unseen, suite, log));
        let result = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..watch.side_by_side).map(|_| scope.spawn(|| work(watch, &shared))).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
        });
        std::fs::remove_file(watch.folder.join("on"))?;
        result?;
        let (unseen, mut suite, _) = shared.into_inner().expect("no worker panicked");
        suite.unwatched = unseen.len();
        Ok(suite)
    }

    fn candidates(&self, watch: &Watch) -> io::Result<Vec<Candidate>> {
        let mut candidates = Vec::new();
        for (index, binary) in self.binaries.iter().enumerate() {
            let is_lib = binary.name == "lib";
            let own = if is_lib { hex::encode(std::fs::read(&binary.path).map(Sha256::digest)?) } else { String::new() };
            for name in list(&binary.path)? {
                let full = format!("{}::{name}", binary.name);
                let is_no_judge = NO_JUDGES.iter().any(|prefix| full.starts_with(prefix));
                if is_no_judge || !(is_lib || (watch.wanted)(&full)) {
                    continue;
                }
                let text = if is_lib { own.clone() } else { module_text(watch.root, &binary.name, &name) };
                let digest = digest(&format!("{}\0{text}", watch.digest))[..16].to_owned();
                candidates.push(Candidate { binary: index, name, full, digest });
            }
        }
        Ok(candidates)
    }

    /// The name of a test with that of its program.
    pub(crate) fn full_name(&self, test: &Test) -> String {
        format!("{}::{}", self.binaries[test.binary].name, test.name)
    }
}

/// A test that may judge.
struct Candidate {
    binary: usize,
    name: String,
    full: String,
    /// What it depends on.
    digest: String,
}

impl Candidate {
    fn test(&self, ms: u64, passes: HashSet<usize>) -> Test {
        Test { binary: self.binary, name: self.name.clone(), takes: Duration::from_millis(ms), passes }
    }
}

/// Watches one test after the other, until there is none or no time.
fn work(watch: &Watch, shared: &Mutex<(VecDeque<Candidate>, Suite, File)>) -> io::Result<()> {
    loop {
        let lock = || shared.lock().expect("no worker panicked");
        if watch.until.is_some_and(|until| Instant::now() > until) {
            return Ok(());
        }
        let (candidate, program) = {
            let (unseen, suite, _) = &mut *lock();
            let Some(candidate) = unseen.pop_front() else { return Ok(()) };
            if unseen.len() % 50 == 0 {
                eprintln!("{} tests are left to watch", unseen.len());
            }
            let program = suite.binaries[candidate.binary].path.clone();
            (candidate, program)
        };
        let seen = observe(watch.folder, &program, &candidate.name)?;
        let (_, suite, log) = &mut *lock();
        let Some((ms, passes)) = seen else {
            suite.unfit.push(candidate.full);
            continue;
        };
        let ids = passes.iter().map(|number| watch.points[number - 1].id()).collect();
        suite.tests.push(candidate.test(ms, passes));
        let line = Seen { test: candidate.full, digest: candidate.digest, ms, passes: ids };
        writeln!(log, "{}", serde_json::to_string(&line)?)?;
    }
}

/// Runs one test; `None` if it fails twice.
fn observe(folder: &Path, program: &Path, name: &str) -> io::Result<Option<(u64, HashSet<usize>)>> {
    for _ in 0..2 {
        let begun = Instant::now();
        let (ended, group) = run(folder, program, &[name], 1, Duration::from_secs(400))?;
        let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let passed = folder.join(format!("passed/{group}"));
        let text = std::fs::read_to_string(&passed).unwrap_or_default();
        let _ = std::fs::remove_file(passed);
        if ended == Ended::Passed {
            return Ok(Some((ms, text.lines().filter_map(|line| line.parse().ok()).collect())));
        }
    }
    Ok(None)
}

fn list(binary: &Path) -> io::Result<Vec<String>> {
    let output = Command::new(binary).args(["--list", "--format", "terse"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// The text of the module that a test stands in.
fn module_text(root: &Path, binary: &str, name: &str) -> String {
    let module = name.split("::").next().unwrap_or_default();
    std::fs::read_to_string(root.join(format!("tests/{binary}/{module}.rs"))).unwrap_or_default()
}

fn recall(folder: &Path) -> BTreeMap<String, Seen> {
    let text = std::fs::read_to_string(folder.join("tests.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str::<Seen>(line).ok()).map(|seen| (seen.test.clone(), seen)).collect()
}
