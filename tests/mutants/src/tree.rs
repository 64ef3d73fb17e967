//! The mutated copy of the source: all mutations at once, each behind a switch.

use crate::places::{self, Enums};
use crate::point::{Point, digest};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

/// What is never copied: what is built, and what is no part of the tests.
const NOT_COPIED: &[&str] = &["target", ".git", ".runtime", "tests/mutants", "tests/fuzz", "proptest-regressions"];

/// The module that every switch asks.
const SWITCH: &str = include_str!("switch.rs.txt");

/// The source, read once.
pub(crate) struct Source {
    pub(crate) root: PathBuf,
    /// Every Rust file below `src/`, by its path from the root.
    files: BTreeMap<String, String>,
    parsed: BTreeMap<String, syn::File>,
    enums: Enums,
}

/// Where a point went in the copy, in bytes.
pub(crate) struct Placed {
    pub(crate) number: usize,
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// The copy of one file.
pub(crate) struct Copy {
    pub(crate) text: String,
    pub(crate) placed: Vec<Placed>,
}

impl Source {
    pub(crate) fn read(root: &Path) -> io::Result<Source> {
        let mut paths = Vec::new();
        walk(&root.join("src"), &mut |path| paths.push(path.to_owned()))?;
        let mut source = Source { root: root.to_owned(), files: BTreeMap::new(), parsed: BTreeMap::new(), enums: Enums::new() };
        for path in paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
            let name = path.strip_prefix(root).expect("it was found below the root").to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path)?;
            let parsed = syn::parse_file(&text).map_err(|error| io::Error::other(format!("{name}: {error}")))?;
            places::collect_enums(&parsed, &mut source.enums);
            source.parsed.insert(name.clone(), parsed);
            source.files.insert(name, text);
        }
        Ok(source)
    }

    /// Every mutation of the files that `wanted` names, in order.
    pub(crate) fn points(&self, wanted: impl Fn(&str) -> bool) -> Vec<Point> {
        let files = self.files.iter().filter(|(name, _)| wanted(name) && !is_test_file(name));
        files.flat_map(|(name, text)| places::points(name, text, &self.parsed[name], &self.enums)).collect()
    }

    /// What one file does, apart from its tests.
    pub(crate) fn digest_of(&self, name: &str) -> String {
        digest(&self.without_tests(name))
    }

    /// What the program does, apart from its tests.
    pub(crate) fn digest(&self) -> String {
        let names = self.files.keys().filter(|name| !is_test_file(name));
        digest(&names.map(|name| self.digest_of(name)).collect::<String>())
    }

    fn without_tests(&self, name: &str) -> String {
        let mut text = self.files[name].clone();
        let mut ranges = places::test_ranges(&self.parsed[name]);
        ranges.sort_unstable();
        for (start, end) in ranges.into_iter().rev() {
            text.replace_range(start..end, "");
        }
        text.trim_end().to_owned()
    }

    /// Writes the copy with the points that are alive; a file that would not
    /// change is left alone, so that the compiler has less to do.
    pub(crate) fn write(&self, tree: &Path, points: &[Point], dropped: &HashSet<usize>) -> io::Result<BTreeMap<String, Copy>> {
        let mut copies = BTreeMap::new();
        let mut kept = HashSet::new();
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&self.root)? {
            let path = entry?.path();
            let name = path.strip_prefix(&self.root).expect("it was found below the root").to_string_lossy().into_owned();
            if !NOT_COPIED.contains(&name.as_str()) {
                if path.is_dir() { walk(&path, &mut |path| paths.push(path.to_owned()))? } else { paths.push(path) }
            }
        }
        for path in paths {
            let name = path.strip_prefix(&self.root).expect("it was found below the root").to_string_lossy().into_owned();
            if NOT_COPIED.iter().any(|folder| name.starts_with(&format!("{folder}/"))) {
                continue;
            }
            let bytes = match name.as_str() {
                "Cargo.toml" => manifest(&std::fs::read_to_string(&path)?).into_bytes(),
                "src/lib.rs" => format!("{}\n#[doc(hidden)]\npub mod mutant;\n", self.files[&name]).into_bytes(),
                _ if self.files.contains_key(&name) => {
                    let copy = emit(&self.files[&name], &name, points, dropped);
                    let bytes = copy.text.clone().into_bytes();
                    copies.insert(name.clone(), copy);
                    bytes
                }
                _ => std::fs::read(&path)?,
            };
            put(&tree.join(&name), &bytes)?;
            kept.insert(tree.join(&name));
        }
        let switch = tree.join("src/mutant.rs");
        put(&switch, SWITCH.replace("COUNT", &(points.len() + 1).to_string()).as_bytes())?;
        kept.insert(switch);
        // What was taken from the source is taken from the copy.
        let mut stale = Vec::new();
        walk(tree, &mut |path| {
            if !kept.contains(path) {
                stale.push(path.to_owned());
            }
        })?;
        stale.iter().filter(|path| path.file_name().is_none_or(|name| name != "Cargo.lock")).try_for_each(std::fs::remove_file)?;
        Ok(copies)
    }
}

/// Whether a file holds nothing but tests.
fn is_test_file(name: &str) -> bool {
    name.ends_with("tests.rs") || name.contains("tests/")
}

/// The manifest without its lints, which a mutation need not please.
fn manifest(text: &str) -> String {
    let mut kept = String::new();
    let mut is_lints = false;
    for line in text.lines() {
        if line.starts_with('[') {
            is_lints = line.starts_with("[lints");
        }
        if !is_lints {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept.push_str(
        "\n[workspace]\n\n[lints.rust]\nwarnings = \"allow\"\narithmetic_overflow = \"allow\"\nunconditional_panic = \"allow\"\n",
    );
    kept
}

fn emit(text: &str, name: &str, points: &[Point], dropped: &HashSet<usize>) -> Copy {
    let mut copy = Copy { text: String::new(), placed: Vec::new() };
    // Numbers begin with 1: nothing is 0.
    let own = points.iter().enumerate().map(|(index, point)| (index + 1, point));
    let own: Vec<(usize, &Point)> = own.filter(|(number, point)| point.file == name && !dropped.contains(number)).collect();
    let mut open: Vec<(usize, &Point, usize)> = Vec::new();
    let mut at = 0;
    // What is put in stands before what begins at the same place.
    let mut own: Vec<(usize, &Point)> = own;
    own.sort_by_key(|(number, point)| (point.start, point.start != point.end, std::cmp::Reverse(point.end), *number));
    let mut next = own.into_iter().peekable();
    loop {
        let closes = open.last().map(|(_, point, _)| point.end);
        let opens = next.peek().map(|(_, point)| point.start);
        let (place, is_close) = match (closes, opens) {
            (Some(close), Some(start)) if close <= start => (close, true),
            (_, Some(start)) => (start, false),
            (Some(close), None) => (close, true),
            (None, None) => break,
        };
        copy.text.push_str(&text[at..place]);
        at = place;
        if is_close {
            let (number, point, from) = open.pop().expect("it was just looked at");
            copy.text.push_str(&point.behind);
            copy.placed.push(Placed { number, from, to: copy.text.len() });
        } else {
            let (number, point) = next.next().expect("it was just looked at");
            let from = copy.text.len();
            copy.text.push_str(&point.before.replace("{n}", &number.to_string()));
            if point.start == point.end {
                copy.placed.push(Placed { number, from, to: copy.text.len() });
            } else {
                open.push((number, point, from));
            }
        }
    }
    copy.text.push_str(&text[at..]);
    copy
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, bytes)
}

/// Calls `each` for every file below a folder.
pub(crate) fn walk(folder: &Path, each: &mut impl FnMut(&Path)) -> io::Result<()> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() { walk(&path, each)? } else { each(&path) }
    }
    Ok(())
}
