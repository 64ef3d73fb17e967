//! Every damage of every file of the state folder, and what puts it right.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// All files of a folder, by their paths below it.
pub(crate) type Tree = BTreeMap<PathBuf, Vec<u8>>;

/// Reads a folder.
pub(crate) fn read(root: &Path) -> Tree {
    fn walk(root: &Path, folder: &Path, tree: &mut Tree) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let below = path.strip_prefix(root).unwrap().to_owned();
            if path.is_dir() {
                walk(root, &path, tree);
            } else {
                tree.insert(below, fs::read(&path).unwrap());
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

fn put(root: &Path, path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let path = root.join(path);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path.parent().unwrap()).unwrap();
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
}

/// One damage of one file.
pub(crate) struct Case {
    pub(crate) path: PathBuf,
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    /// What stands there then; `None` when it is gone.
    pub(crate) left: Option<Vec<u8>>,
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
pub(crate) fn damages(path: &Path, bytes: &[u8], older: &[Vec<u8>], is_long: bool) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |kind: &'static str, detail: String, left: Option<Vec<u8>>| {
        if left.as_deref() != Some(bytes) {
            let name = format!("{} {kind} {detail}", path.display());
            cases.push(Case { path: path.to_owned(), kind, name, left });
        }
    };
    add("removed", String::new(), None);
    for (number, copy) in older.iter().enumerate() {
        add("older copy", number.to_string(), Some(copy.clone()));
    }
    // A second name of a record: what is in it nobody reads.
    if path.iter().any(|part| part == "sent" || part == "open") && path.file_name().unwrap().to_string_lossy().contains('.') {
        return cases;
    }
    add("emptied", String::new(), Some(Vec::new()));
    add("zeroed", String::new(), Some(vec![0; bytes.len()]));
    add("garbage behind", String::new(), Some([bytes, b"garbage\n"].concat()));
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let mut start = 0;
    for (number, line) in lines.iter().enumerate() {
        let (before, after) = (&bytes[..start], &bytes[start + line.len()..]);
        add("cut at line", number.to_string(), Some(before.to_vec()));
        add("cut in line", number.to_string(), Some(bytes[..start + line.len() / 2].to_vec()));
        if lines.len() > 1 {
            add("line removed", number.to_string(), Some([before, after].concat()));
            let zeros = vec![0; line.len()];
            add("line zeroed", number.to_string(), Some([before, &zeros, after].concat()));
        }
        add("line doubled", number.to_string(), Some([before, line, line, after].concat()));
        if let Some(next) = lines.get(number + 1) {
            let behind = &bytes[start + line.len() + next.len()..];
            add("lines swapped", number.to_string(), Some([before, next, line, behind].concat()));
        }
        let places: Vec<usize> = match is_long {
            true => (0..line.len()).collect(),
            false => vec![line.len() / 3, line.len() - 1],
        };
        for place in places {
            let mut flipped = bytes.to_vec();
            flipped[start + place] ^= 1 << (place % 7);
            add("byte flipped", format!("{number}:{place}"), Some(flipped));
        }
        start += line.len();
    }
    cases
}
