//! Which lines a change touches.

use crate::point::Point;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::process::Command;

/// The lines of each file, as they are now.
pub(crate) struct Touched(BTreeMap<String, Vec<(usize, usize)>>);

/// Asks git what changed since a revision.
pub(crate) fn lines(root: &Path, since: &str) -> io::Result<Touched> {
    let output = Command::new("git")
        .args(["diff", "-U0", "--no-color", "--no-ext-diff", "--relative", since, "--", "src", "tests"])
        .current_dir(root)
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let mut touched: BTreeMap<String, Vec<(usize, usize)>> = BTreeMap::new();
    let mut file = String::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some(name) = line.strip_prefix("+++ b/") {
            name.clone_into(&mut file);
        } else if let Some(hunk) = line.strip_prefix("@@ ") {
            let Some(added) = hunk.split(' ').find_map(|part| part.strip_prefix('+')) else { continue };
            let (first, count) = added.split_once(',').unwrap_or((added, "1"));
            let (Ok(first), Ok(count)) = (first.parse::<usize>(), count.parse::<usize>()) else { continue };
            // Where something was only taken away, its neighbours are touched.
            let last = if count == 0 { first + 1 } else { first + count - 1 };
            touched.entry(file.clone()).or_default().push((first, last));
        }
    }
    Ok(Touched(touched))
}

impl Touched {
    pub(crate) fn holds(&self, point: &Point) -> bool {
        let (from, to) = point.lines;
        // A long place is touched by its first lines: what stands in it has
        // mutations of its own.
        let to = to.min(from + 5);
        self.0.get(&point.file).is_some_and(|lines| lines.iter().any(|(first, last)| from <= *last && *first <= to))
    }

    /// The modules of tests that were touched, as `it::once`.
    pub(crate) fn tests(&self) -> BTreeSet<String> {
        let names = self.0.keys().filter_map(|name| name.strip_prefix("tests/")?.strip_suffix(".rs"));
        names.filter(|name| name.contains('/')).map(|name| name.replace('/', "::")).collect()
    }
}
