//! The tables beside the tool: the modules, and the survivors that may live.

use crate::point::Point;
use globset::{Glob, GlobMatcher};
use std::collections::HashMap;
use std::io;
use std::path::Path;

/// A module that mutations are made in.
pub(crate) struct Module {
    pub(crate) name: String,
    sources: Vec<GlobMatcher>,
    /// Modules of the programs' tests that know it best, as `it::once`.
    pub(crate) tests: Vec<String>,
}

impl Module {
    pub(crate) fn holds(&self, file: &str) -> bool {
        self.sources.iter().any(|glob| glob.is_match(file))
    }
}

/// Reads `modules.tsv`.
pub(crate) fn modules(folder: &Path) -> io::Result<Vec<Module>> {
    let mut modules = Vec::new();
    for row in rows(&folder.join("modules.tsv"))? {
        let [name, sources, tests] = row.as_slice() else { return Err(io::Error::other(format!("modules.tsv: {row:?}"))) };
        let globs = sources.split(' ').map(|glob| Glob::new(glob).map(|glob| glob.compile_matcher()));
        modules.push(Module {
            name: name.clone(),
            sources: globs.collect::<Result<_, _>>().map_err(io::Error::other)?,
            tests: tests.split(' ').map(str::to_owned).collect(),
        });
    }
    Ok(modules)
}

/// Reads `accepted.tsv`: for the key of each mutation that may live, why.
pub(crate) fn accepted(folder: &Path, all: &[Point]) -> io::Result<HashMap<String, String>> {
    let mut accepted = HashMap::new();
    for row in rows(&folder.join("accepted.tsv"))? {
        let [file, function, what, reason] = row.as_slice() else { return Err(io::Error::other(format!("accepted.tsv: {row:?}"))) };
        let key = format!("{file}\t{function}\t{what}");
        if !all.iter().any(|point| point.key() == key) {
            return Err(io::Error::other(format!("accepted.tsv: there is no such mutation any more, take the row out: {key}")));
        }
        accepted.insert(key, reason.clone());
    }
    Ok(accepted)
}

fn rows(path: &Path) -> io::Result<Vec<Vec<String>>> {
    let text = std::fs::read_to_string(path)?;
    let rows = text.lines().filter(|line| !line.is_empty() && !line.starts_with("# "));
    Ok(rows.map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}
