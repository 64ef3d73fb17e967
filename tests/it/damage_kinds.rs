//! Every damage of every file of the state folder, and what puts it right.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A file or a symbolic link of the state folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entry {
    File(Vec<u8>),
    Link(PathBuf),
}

/// All files of a folder, by their paths below it.
pub(crate) type Tree = BTreeMap<PathBuf, Entry>;

/// Reads a folder.
pub(crate) fn read(root: &Path) -> Tree {
    fn walk(root: &Path, folder: &Path, tree: &mut Tree) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            let below = path.strip_prefix(root).unwrap().to_owned();
            if kind.is_dir() {
                walk(root, &path, tree);
            } else if kind.is_symlink() {
                tree.insert(below, Entry::Link(fs::read_link(&path).unwrap()));
            } else {
                tree.insert(below, Entry::File(fs::read(&path).unwrap()));
            }
        }
    }
    let mut tree = Tree::new();
    walk(root, root, &mut tree);
    tree
}

/// Makes a folder what it was: writes what differs, deletes what is new.
pub(crate) fn restore(root: &Path, wanted: &Tree) {
    let found = read(root);
    for path in found.keys().filter(|path| found.get(*path) != wanted.get(*path)) {
        fs::remove_file(root.join(path)).unwrap();
    }
    for (path, entry) in wanted.iter().filter(|(path, entry)| found.get(*path) != Some(entry)) {
        put(root, path, entry);
    }
}

fn put(root: &Path, path: &Path, entry: &Entry) {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let path = root.join(path);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path.parent().unwrap()).unwrap();
    match entry {
        Entry::File(bytes) => {
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
            std::io::Write::write_all(&mut file, bytes).unwrap();
        }
        Entry::Link(text) => symlink(text, path).unwrap(),
    }
}

/// One damage of one file.
pub(crate) struct Case {
    pub(crate) path: PathBuf,
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    /// What stands there then; `None` when it is gone.
    pub(crate) left: Option<Entry>,
}

impl Case {
    pub(crate) fn apply(&self, root: &Path) {
        let _ = fs::remove_file(root.join(&self.path));
        if let Some(left) = &self.left {
            put(root, &self.path, left);
        }
    }
}

/// Returns every damage of a file; `older` is what it held before.
pub(crate) fn damages(path: &Path, entry: &Entry, older: &[Entry], is_long: bool) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |kind: &'static str, detail: String, left: Option<Entry>| {
        if left.as_ref() != Some(entry) {
            let name = format!("{} {kind} {detail}", path.display());
            cases.push(Case { path: path.to_owned(), kind, name, left });
        }
    };
    add("removed", String::new(), None);
    for (number, copy) in older.iter().enumerate() {
        add("older copy", number.to_string(), Some(copy.clone()));
    }
    let Entry::File(bytes) = entry else { return cases };
    // A second name of a record: what is in it nobody reads.
    if path.iter().any(|part| part == "sent" || part == "open") && path.file_name().unwrap().to_string_lossy().contains('.') {
        return cases;
    }
    let file = |bytes: Vec<u8>| Some(Entry::File(bytes));
    add("emptied", String::new(), file(Vec::new()));
    add("zeroed", String::new(), file(vec![0; bytes.len()]));
    add("garbage behind", String::new(), file([bytes.as_slice(), b"garbage\n"].concat()));
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let mut start = 0;
    for (number, line) in lines.iter().enumerate() {
        let (before, after) = (&bytes[..start], &bytes[start + line.len()..]);
        add("cut at line", number.to_string(), file(before.to_vec()));
        add("cut in line", number.to_string(), file(bytes[..start + line.len() / 2].to_vec()));
        if lines.len() > 1 {
            add("line removed", number.to_string(), file([before, after].concat()));
            let zeros = vec![0; line.len()];
            add("line zeroed", number.to_string(), file([before, &zeros, after].concat()));
        }
        add("line doubled", number.to_string(), file([before, line, line, after].concat()));
        if let Some(next) = lines.get(number + 1) {
            let behind = &bytes[start + line.len() + next.len()..];
            add("lines swapped", number.to_string(), file([before, next, line, behind].concat()));
        }
        let places: Vec<usize> = match is_long {
            true => (0..line.len()).collect(),
            false => vec![line.len() / 3, line.len() - 1],
        };
        for place in places {
            let mut flipped = bytes.clone();
            flipped[start + place] ^= 1 << (place % 7);
            add("byte flipped", format!("{number}:{place}"), file(flipped));
        }
        start += line.len();
    }
    cases
}
