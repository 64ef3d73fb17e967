//! What a disk may hold after a loss of power: a model of the least that POSIX
//! promises, driven by a trace.
//!
//! Data that was written and not synchronised may be there, missing, or torn: a
//! part of the bytes, and the length with or without them (the rest is zeroes).
//! Names that were made, changed or taken away, and whose folder was not
//! synchronised, may be as before or as after, each for itself and in any
//! order. A sync of a file makes its data durable and not its name; a folder
//! whose own name is not durable takes everything in it away.
//!
//! Assumed, because no file system that b24 runs on does otherwise:
//!
//! 1. A renaming within a folder happens as a whole.
//! 2. A sector (512 bytes, aligned) of data that was on disk is overwritten as
//!    a whole or not at all. What is behind the old end may be cut anywhere.
//! 3. Bytes that a file got and that did not reach the disk are zeroes, not
//!    those of another file.
//! 4. Of the hidden names of temporary files all or none survive: nothing reads
//!    them.

use crate::traced::{Op, Trace};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// The smallest piece of a disk that is written as a whole.
const SECTOR: usize = 512;

/// How many states are looked at in one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Breadth {
    /// Up to so many combinations all are taken.
    pub(crate) all_up_to: usize,
    /// Above it: everything old, everything new, and so many by chance.
    pub(crate) by_chance: usize,
    /// And each single thing in each of its ways, with all others old and with
    /// all others new.
    pub(crate) single: bool,
    /// Into how many pieces a write is cut.
    pub(crate) cuts: usize,
}

impl Breadth {
    /// Nothing but the two ends.
    pub(crate) const ENDS: Breadth = Breadth { all_up_to: 2, by_chance: 0, cuts: 1, single: false };
    pub(crate) const SHORT: Breadth = Breadth { all_up_to: 16, by_chance: 4, cuts: 1, single: true };
    pub(crate) const LONG: Breadth = Breadth { all_up_to: 1024, by_chance: 128, cuts: 24, single: true };
}

/// A disk, and what of it is certain.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    files: Vec<File>,
    /// A number may be given again when its file is gone.
    numbers: HashMap<u64, usize>,
    folders: BTreeMap<String, Folder>,
}

#[derive(Debug, Clone, Default)]
struct File {
    durable: Arc<Vec<u8>>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Cut { length: usize },
}

#[derive(Debug, Clone, Default)]
struct Folder {
    durable: BTreeMap<String, Node>,
    pending: Vec<NameChange>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    File(usize),
    Folder,
}

#[derive(Debug, Clone)]
enum NameChange {
    Put(String, Node),
    Take(String),
    Move(String, String, Node),
}

/// One state in which the disk may be found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) folders: BTreeSet<String>,
    /// Path, which file it is, and what is in it.
    pub(crate) files: BTreeMap<String, (usize, Arc<Vec<u8>>)>,
}

/// Something that may be one way or another.
enum Doubt {
    Name(String, usize),
    Hidden,
    Data(usize, Vec<Arc<Vec<u8>>>),
}

impl Doubt {
    fn ways(&self) -> usize {
        match self {
            Doubt::Name(..) | Doubt::Hidden => 2,
            Doubt::Data(_, ways) => ways.len(),
        }
    }
}

impl Disk {
    /// The disk on which everything that was there is durable.
    pub(crate) fn before(trace: &Trace) -> Disk {
        let mut disk = Disk::default();
        disk.folders.insert(String::new(), Folder::default());
        for folder in &trace.folders {
            disk.folders.insert(folder.clone(), Folder::default());
            disk.put(folder, Node::Folder);
        }
        for kept in &trace.files {
            let known = disk.numbers.get(&kept.file).copied();
            let file = known.unwrap_or_else(|| disk.begin(kept.file));
            disk.files[file].durable = Arc::new(kept.bytes.clone());
            disk.put(&kept.path, Node::File(file));
        }
        disk.folders.values_mut().for_each(Folder::sync);
        disk
    }

    fn begin(&mut self, number: u64) -> usize {
        self.files.push(File::default());
        self.numbers.insert(number, self.files.len() - 1);
        self.files.len() - 1
    }

    fn file(&mut self, number: u64) -> &mut File {
        let index = *self.numbers.get(&number).unwrap_or_else(|| panic!("the file {number} was never made"));
        &mut self.files[index]
    }

    fn change_names(&mut self, path: &str, change: impl FnOnce(String) -> NameChange) {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let folder = self.folders.get_mut(folder).unwrap_or_else(|| panic!("the folder of {path} was never made"));
        folder.pending.push(change(name.to_owned()));
    }

    fn put(&mut self, path: &str, node: Node) {
        self.change_names(path, |name| NameChange::Put(name, node));
    }

    /// Takes over what was done.
    pub(crate) fn apply(&mut self, op: &Op) {
        match op {
            Op::Create { path, file } => {
                let file = self.begin(*file);
                self.put(path, Node::File(file));
            }
            Op::Mkdir { path } => {
                self.folders.insert(path.clone(), Folder::default());
                self.put(path, Node::Folder);
            }
            Op::Write { file, at, bytes } => self.file(*file).pending.push(Change::Write { at: *at, bytes: bytes.clone() }),
            Op::Cut { file, length } => self.file(*file).pending.push(Change::Cut { length: *length }),
            Op::SyncData { file } | Op::SyncAll { file } => self.file(*file).sync(),
            Op::SyncFolder { path } => {
                self.folders.get_mut(path).map(Folder::sync).unwrap_or_default();
            }
            Op::Link { path, file } => {
                let file = self.numbers[file];
                self.put(path, Node::File(file));
            }
            Op::Rename { from, path, file } => {
                let (old, node) = (name_of(from), Node::File(self.numbers[file]));
                assert_eq!(parent_of(from), parent_of(path), "files are renamed within their folder");
                self.change_names(path, |name| NameChange::Move(old, name, node));
            }
            Op::Remove { path } => self.change_names(path, NameChange::Take),
            Op::Point { .. } => {}
        }
    }

    /// Returns the states in which the disk may be found, each once. The same
    /// seed chooses the same.
    pub(crate) fn states(&self, breadth: Breadth, seed: u64) -> Vec<State> {
        let doubts = self.doubts(breadth);
        let ways: Vec<usize> = doubts.iter().map(Doubt::ways).collect();
        let mut seen = HashSet::new();
        let chosen = choices(&ways, breadth, seed).into_iter().map(|choice| self.state(&doubts, &choice));
        chosen.filter(|state| seen.insert(state.clone())).collect()
    }

    fn doubts(&self, breadth: Breadth) -> Vec<Doubt> {
        let (mut doubts, mut has_hidden, mut named) = (Vec::new(), false, BTreeSet::new());
        for (path, folder) in &self.folders {
            let pending = folder.pending.iter().filter_map(|change| match change {
                NameChange::Put(_, node) | NameChange::Move(_, _, node) => Some(*node),
                NameChange::Take(_) => None,
            });
            named.extend(folder.durable.values().copied().chain(pending).filter_map(|node| match node {
                Node::File(file) => Some(file),
                Node::Folder => None,
            }));
            for (index, change) in folder.pending.iter().enumerate() {
                match change.is_hidden() {
                    true => has_hidden = true,
                    false => doubts.push(Doubt::Name(path.clone(), index)),
                }
            }
        }
        if has_hidden {
            doubts.push(Doubt::Hidden);
        }
        for (index, file) in self.files.iter().enumerate().filter(|(index, _)| named.contains(index)) {
            let ways = file.ways(breadth.cuts);
            if ways.len() > 1 {
                doubts.push(Doubt::Data(index, ways));
            }
        }
        doubts
    }

    /// Builds the state of a choice: of each doubt, the first way is the old
    /// one, the last the new one.
    fn state(&self, doubts: &[Doubt], choice: &[usize]) -> State {
        let (mut names, mut data, mut hidden) = (HashSet::new(), HashMap::new(), false);
        for (doubt, way) in doubts.iter().zip(choice) {
            match doubt {
                Doubt::Name(path, index) if *way == 1 => drop(names.insert((path.as_str(), *index))),
                Doubt::Name(..) => {}
                Doubt::Hidden => hidden = *way == 1,
                Doubt::Data(file, ways) => drop(data.insert(*file, ways[*way].clone())),
            }
        }
        let mut state = State::default();
        let mut folders = vec![String::new()];
        while let Some(path) = folders.pop() {
            let folder = &self.folders[&path];
            let mut entries = folder.durable.clone();
            for (index, change) in folder.pending.iter().enumerate() {
                if (change.is_hidden() && hidden) || names.contains(&(path.as_str(), index)) {
                    change.apply(&mut entries);
                }
            }
            for (name, node) in entries {
                let place = if path.is_empty() { name } else { format!("{path}/{name}") };
                match node {
                    Node::Folder => {
                        state.folders.insert(place.clone());
                        folders.push(place);
                    }
                    Node::File(file) => {
                        let bytes = data.get(&file).unwrap_or(&self.files[file].durable).clone();
                        state.files.insert(place, (file, bytes));
                    }
                }
            }
        }
        state
    }
}

fn name_of(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl NameChange {
    fn is_hidden(&self) -> bool {
        matches!(self, NameChange::Put(name, _) | NameChange::Take(name) if name.starts_with('.') && name.contains('-'))
    }

    fn apply(&self, entries: &mut BTreeMap<String, Node>) {
        match self {
            NameChange::Put(name, node) => drop(entries.insert(name.clone(), *node)),
            NameChange::Take(name) => drop(entries.remove(name)),
            NameChange::Move(from, to, node) => {
                entries.remove(from);
                entries.insert(to.clone(), *node);
            }
        }
    }
}

impl Folder {
    fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            change.apply(&mut self.durable);
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Cut { length } => bytes.resize(*length, 0),
            Change::Write { at, bytes: new } => {
                if bytes.len() < at + new.len() {
                    bytes.resize(at + new.len(), 0);
                }
                bytes[*at..at + new.len()].copy_from_slice(new);
            }
        }
    }

    /// What half of it may leave of a content.
    fn torn(&self, before: &[u8], cuts: usize) -> Vec<Vec<u8>> {
        let Change::Write { at, bytes } = self else { return Vec::new() };
        let (at, end) = (*at, at + bytes.len());
        let old = before.len();
        let mut torn = Vec::new();
        let mut add = |until: usize, length: usize| {
            let mut content = before.to_vec();
            content.resize(length.max(old), 0);
            content[at..until].copy_from_slice(&bytes[..until - at]);
            torn.push(content);
        };
        // Inside of what was there: whole sectors only.
        (at..end.min(old)).filter(|position| position % SECTOR == 0 && *position > at).for_each(|sector| add(sector, old));
        let begin = at.max(old).min(end);
        let steps = (0..cuts).map(|cut| begin + (end - begin) * cut / cuts).chain(end.checked_sub(1));
        for until in steps.filter(|until| (begin..end).contains(until)) {
            add(until, until);
            add(until, end);
        }
        torn
    }
}

impl File {
    fn sync(&mut self) {
        let mut bytes = self.durable.to_vec();
        std::mem::take(&mut self.pending).iter().for_each(|change| change.apply(&mut bytes));
        self.durable = Arc::new(bytes);
    }

    /// What may be in the file: the old content first, the new one last.
    fn ways(&self, cuts: usize) -> Vec<Arc<Vec<u8>>> {
        // What it was behind each change.
        let mut versions = vec![self.durable.to_vec()];
        let mut ways = Vec::new();
        for change in &self.pending {
            let before = versions.last().unwrap();
            ways.extend(change.torn(before, cuts));
            let mut after = before.clone();
            change.apply(&mut after);
            versions.push(after);
        }
        let new = versions.pop().unwrap();
        for old in &versions {
            ways.push(old.clone());
            // New data under the old length.
            let mut content = new.clone();
            content.resize(old.len(), 0);
            ways.push(content);
            // One sector is old and all others are new, or the other way round.
            let mut long = old.clone();
            long.resize(new.len(), 0);
            for begin in (0..new.len()).step_by(SECTOR) {
                let sector = begin..(begin + SECTOR).min(new.len());
                if long[sector.clone()] != new[sector.clone()] {
                    for (most, one) in [(&new, &long), (&long, &new)] {
                        let mut content = most.clone();
                        content[sector.clone()].copy_from_slice(&one[sector.clone()]);
                        ways.push(content);
                    }
                }
            }
        }
        ways.insert(0, self.durable.to_vec());
        let mut seen = HashSet::from([new.clone()]);
        ways.retain(|way| seen.insert(way.clone()));
        ways.push(new);
        ways.into_iter().map(Arc::new).collect()
    }
}

/// Returns which ways of each doubt are combined.
fn choices(ways: &[usize], breadth: Breadth, seed: u64) -> Vec<Vec<usize>> {
    let all = ways.iter().try_fold(1_usize, |product, ways| product.checked_mul(*ways).filter(|product| *product <= breadth.all_up_to));
    if let Some(all) = all {
        let digits = |mut number: usize| {
            ways.iter().map(move |ways| {
                let digit = number % ways;
                number /= ways;
                digit
            })
        };
        return (0..all).map(|number| digits(number).collect()).collect();
    }
    let (old, new): (Vec<usize>, Vec<usize>) = ways.iter().map(|ways| (0, ways - 1)).unzip();
    let mut chosen = vec![old.clone(), new.clone()];
    for (index, ways) in ways.iter().enumerate().filter(|_| breadth.single) {
        for way in 0..*ways {
            for mut choice in [old.clone(), new.clone()] {
                choice[index] = way;
                chosen.push(choice);
            }
        }
    }
    let mut random = seed;
    let mut next = |ways: usize| {
        // A linear congruential generator: the tests repeat themselves.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % ways
    };
    chosen.extend((0..breadth.by_chance).map(|_| ways.iter().map(|ways| next(*ways)).collect::<Vec<_>>()));
    chosen
}

impl State {
    /// Makes the state in a folder, which must not have it yet.
    pub(crate) fn make(&self, home: &Path) {
        for folder in &self.folders {
            let path = home.join(folder);
            if !path.is_dir() {
                std::fs::DirBuilder::new().mode(0o700).create(path).unwrap();
            }
        }
        let mut first: HashMap<usize, &String> = HashMap::new();
        for (path, (file, bytes)) in &self.files {
            match first.get(file) {
                Some(other) => std::fs::hard_link(home.join(other), home.join(path)).unwrap(),
                None => {
                    let mut options = std::fs::OpenOptions::new();
                    let mut made = options.write(true).create_new(true).mode(0o600).open(home.join(path)).unwrap();
                    std::io::Write::write_all(&mut made, bytes).unwrap();
                    first.insert(*file, path);
                }
            }
        }
    }

    /// A number that two states do not share.
    pub(crate) fn number(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(ops: &[Op]) -> Disk {
        let mut disk = Disk::before(&Trace::default());
        ops.iter().for_each(|op| disk.apply(op));
        disk
    }

    fn create(path: &str, file: u64) -> Op {
        Op::Create { path: path.to_owned(), file }
    }

    fn write(file: u64, at: usize, text: &str) -> Op {
        Op::Write { file, at, bytes: text.as_bytes().to_vec() }
    }

    fn sync(path: &str) -> Op {
        Op::SyncFolder { path: path.to_owned() }
    }

    /// What may be in a file, or that it is not there.
    fn found(disk: &Disk, path: &str) -> BTreeSet<Option<String>> {
        let text = |state: State| state.files.get(path).map(|(_, bytes)| String::from_utf8_lossy(bytes).replace('\0', "0"));
        disk.states(Breadth::LONG, 1).into_iter().map(text).collect()
    }

    fn set(texts: &[Option<&str>]) -> BTreeSet<Option<String>> {
        texts.iter().map(|text| text.map(str::to_owned)).collect()
    }

    #[test]
    fn data_that_was_not_synchronised_is_there_missing_or_torn() {
        let base = [create("f", 1), sync(""), write(1, 0, "ab"), Op::SyncData { file: 1 }];
        assert_eq!(found(&disk(&base), "f"), set(&[Some("ab")]));
        let more = [&base[..], &[write(1, 2, "cd")]].concat();
        assert_eq!(found(&disk(&more), "f"), set(&[Some("ab"), Some("ab00"), Some("abc"), Some("abc0"), Some("abcd")]));
        // A sync counts for what was written before it, and not for more.
        let synced = [&more[..], &[Op::SyncAll { file: 1 }, write(1, 4, "e")]].concat();
        assert_eq!(found(&disk(&synced), "f"), set(&[Some("abcd"), Some("abcd0"), Some("abcde")]));
    }

    #[test]
    fn later_data_may_be_there_without_earlier_data() {
        let (first, second) = ("a".repeat(600), "b".repeat(600));
        let ops = [create("f", 1), sync(""), write(1, 0, &first), write(1, 600, &second)];
        let found = found(&disk(&ops), "f");
        // The sector in which they meet is written as a whole.
        let hole = format!("{}{}{second}", "0".repeat(512), "a".repeat(88));
        assert!(found.contains(&Some(hole)));
        assert!(!found.contains(&Some(format!("{}{second}", "0".repeat(600)))));
    }

    #[test]
    fn a_length_may_be_the_old_one() {
        let ops =
            [create("f", 1), sync(""), write(1, 0, "abc"), Op::SyncData { file: 1 }, Op::Cut { file: 1, length: 1 }, write(1, 1, "x")];
        assert_eq!(found(&disk(&ops), "f"), set(&[Some("abc"), Some("ab"), Some("a"), Some("a0"), Some("ax"), Some("ax0")]));
    }

    #[test]
    fn a_sector_that_is_there_is_overwritten_as_a_whole() {
        let old = "o".repeat(600);
        let ops = [create("f", 1), sync(""), write(1, 0, &old), Op::SyncData { file: 1 }];
        let small = [&ops[..], &[write(1, 10, "new")]].concat();
        assert_eq!(found(&disk(&small), "f").len(), 2);
        let large = [&ops[..], &[write(1, 510, "new")]].concat();
        let torn = format!("{}ne{}", &old[..510], &old[512..]);
        assert!(found(&disk(&large), "f").contains(&Some(torn)));
    }

    #[test]
    fn a_synchronised_file_has_no_name_before_its_folder_is_synchronised() {
        let ops = [create("f", 1), write(1, 0, "a"), Op::SyncAll { file: 1 }];
        assert_eq!(found(&disk(&ops), "f"), set(&[None, Some("a")]));
        assert_eq!(found(&disk(&[&ops[..], &[sync("")]].concat()), "f"), set(&[Some("a")]));
    }

    #[test]
    fn a_folder_without_a_name_takes_all_in_it_away() {
        let mkdir = Op::Mkdir { path: "d".to_owned() };
        let ops = [mkdir, create("d/f", 1), write(1, 0, "a"), Op::SyncAll { file: 1 }, sync("d")];
        assert_eq!(found(&disk(&ops), "d/f"), set(&[None, Some("a")]));
        assert_eq!(found(&disk(&[&ops[..], &[sync("")]].concat()), "d/f"), set(&[Some("a")]));
    }

    #[test]
    fn a_renaming_is_old_or_new_and_nothing_else() {
        let ops = [create("f", 1), write(1, 0, "old"), Op::SyncAll { file: 1 }, sync("")];
        let rename = Op::Rename { from: ".tmp-1".to_owned(), path: "f".to_owned(), file: 2 };
        let renamed = [create(".tmp-1", 2), write(2, 0, "new"), Op::SyncAll { file: 2 }, rename];
        let all = [&ops[..], &renamed].concat();
        assert_eq!(found(&disk(&all), "f"), set(&[Some("old"), Some("new")]));
        let unsynced: Vec<Op> = all.into_iter().filter(|op| *op != Op::SyncAll { file: 2 }).collect();
        assert!(found(&disk(&unsynced), "f").contains(&Some(String::new())), "a name before its data");
    }

    #[test]
    fn names_come_and_go_each_for_itself() {
        let remove = |path: &str| Op::Remove { path: path.to_owned() };
        let ops = [create("a", 1), create("b", 2), sync(""), remove("a"), remove("b")];
        let left: BTreeSet<Vec<String>> =
            disk(&ops).states(Breadth::LONG, 1).into_iter().map(|state| state.files.into_keys().collect()).collect();
        assert_eq!(left.len(), 4);
        // Both names of one file lead to the same data.
        let link = Op::Link { path: "b".to_owned(), file: 1 };
        let states = disk(&[create("a", 1), link, sync(""), write(1, 0, "x")]).states(Breadth::LONG, 1);
        assert!(states.iter().all(|state| state.files["a"] == state.files["b"]));
    }

    #[test]
    fn where_there_is_too_much_each_thing_is_alone_old_and_alone_new() {
        let names: Vec<String> = (0..40).map(|number| format!("f{number:02}")).collect();
        let ops: Vec<Op> = names.iter().zip(1..).map(|(name, file)| create(name, file)).collect();
        let states = disk(&ops).states(Breadth::SHORT, 1);
        let sizes: Vec<usize> = states.iter().map(|state| state.files.len()).collect();
        assert!(sizes.contains(&0) && sizes.contains(&40));
        assert_eq!(sizes.iter().filter(|size| **size == 1).count(), 40);
        assert_eq!(sizes.iter().filter(|size| **size == 39).count(), 40);
        assert_eq!(states, disk(&ops).states(Breadth::SHORT, 1));
    }

    #[test]
    fn a_number_is_a_file_until_it_is_given_again() {
        let ops = [create("a", 1), write(1, 0, "one"), Op::SyncAll { file: 1 }, sync(""), Op::Remove { path: "a".to_owned() }];
        let again = [&ops[..], &[create("b", 1), write(1, 0, "two"), Op::SyncAll { file: 1 }]].concat();
        assert_eq!(found(&disk(&again), "a"), set(&[None, Some("one")]));
        assert_eq!(found(&disk(&again), "b"), set(&[None, Some("two")]));
    }

    #[test]
    fn a_state_is_made_as_it_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let ops = [Op::Mkdir { path: "d".to_owned() }, create("d/a", 1), Op::Link { path: "d/b".to_owned(), file: 1 }, write(1, 0, "x")];
        let mut all = disk(&[&ops[..], &[sync(""), sync("d"), Op::SyncData { file: 1 }]].concat()).states(Breadth::LONG, 1);
        let state = all.pop().unwrap();
        assert!(all.is_empty());
        state.make(folder.path());
        std::fs::write(folder.path().join("d/a"), "y").unwrap();
        assert_eq!(std::fs::read(folder.path().join("d/b")).unwrap(), b"y");
    }
}
