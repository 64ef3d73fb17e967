//! What a run did to its files, as the recorder of test builds wrote it down
//! (`src/crash/recorder.rs`), and how people read it.

use crate::kept::in_process;
use crate::world::{Outcome, World};
use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// One line of a trace. Paths are relative to the home of the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Create { path: String, file: u64 },
    Write { file: u64, at: usize, bytes: Vec<u8> },
    Cut { file: u64, length: usize },
    SyncData { file: u64 },
    SyncAll { file: u64 },
    SyncFolder { path: String },
    Link { path: String, file: u64 },
    Rename { from: String, path: String, file: u64 },
    Remove { path: String },
    Mkdir { path: String },
    Point { name: String, thread: String },
}

impl Op {
    fn of(line: &str, home: &Path) -> Op {
        let row: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let text = |name: &str| row[name].as_str().unwrap_or_else(|| panic!("{name}: {line}")).to_owned();
        let number = |name: &str| row[name].as_u64().unwrap_or_else(|| panic!("{name}: {line}"));
        let path = |name: &str| {
            let path = text(name);
            Path::new(&path).strip_prefix(home).map_or(path.clone(), |path| path.to_str().unwrap().to_owned())
        };
        let size = |name: &str| usize::try_from(number(name)).unwrap();
        match row["op"].as_str().unwrap() {
            "create" => Op::Create { path: path("path"), file: number("file") },
            "write" => Op::Write { file: number("file"), at: size("at"), bytes: hex(&text("bytes")) },
            "cut" => Op::Cut { file: number("file"), length: size("length") },
            "sync_data" => Op::SyncData { file: number("file") },
            "sync_all" => Op::SyncAll { file: number("file") },
            "sync_folder" => Op::SyncFolder { path: path("path") },
            "link" => Op::Link { path: path("path"), file: number("file") },
            "rename" => Op::Rename { from: path("from"), path: path("path"), file: number("file") },
            "remove" => Op::Remove { path: path("path") },
            "mkdir" => Op::Mkdir { path: path("path") },
            "point" => Op::Point { name: text("name"), thread: text("thread") },
            other => panic!("{other} is no operation"),
        }
    }

    /// Whether it waits for the disk.
    pub(crate) fn is_sync(&self) -> bool {
        matches!(self, Op::SyncData { .. } | Op::SyncAll { .. } | Op::SyncFolder { .. })
    }

    /// Whether it is the passing of this point.
    pub(crate) fn is_point(&self, wanted: &str) -> bool {
        matches!(self, Op::Point { name, .. } if name == wanted)
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16).unwrap()).unwrap();
    text.as_bytes().chunks(2).map(|pair| 16 * digit(pair[0]) + digit(pair[1])).collect()
}

/// A file that was there before a trace began.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) path: String,
    pub(crate) file: u64,
    pub(crate) bytes: Vec<u8>,
}

/// What runs did, and what was there before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trace {
    pub(crate) ops: Vec<Op>,
    pub(crate) files: Vec<Kept>,
    pub(crate) folders: Vec<String>,
}

impl Trace {
    /// Notes what is in the state folder, all of which counts as durable.
    pub(crate) fn begin(world: &World) -> Trace {
        let mut trace = Trace::default();
        trace.look(world.home.path(), "state");
        trace
    }

    fn look(&mut self, home: &Path, folder: &str) {
        let Ok(entries) = std::fs::read_dir(home.join(folder)) else { return };
        self.folders.push(folder.to_owned());
        for entry in entries {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            match entry.file_type().unwrap().is_dir() {
                true => self.look(home, &path),
                false => {
                    let (file, bytes) = (entry.metadata().unwrap().ino(), std::fs::read(entry.path()).unwrap());
                    self.files.push(Kept { path, file, bytes });
                }
            }
        }
    }

    /// Reads what was written down since.
    pub(crate) fn read(&mut self, world: &World, name: &str) {
        let text = std::fs::read_to_string(world.home.path().join(name)).unwrap_or_default();
        self.ops = text.lines().map(|line| Op::of(line, world.home.path())).collect();
    }

    /// Runs a command and returns what it did.
    pub(crate) fn of(world: &World, mut command: Command) -> (Outcome, Trace) {
        let mut trace = Trace::begin(world);
        let path = world.home.path().join("disk-trace");
        let _ = std::fs::remove_file(&path);
        let outcome = Outcome::of(command.env("B24_DISK_TRACE", &path));
        trace.read(world, "disk-trace");
        (outcome, trace)
    }

    /// The same trace with what another command does behind it.
    pub(crate) fn then(mut self, world: &World, mut command: Command) -> Trace {
        let _ = Outcome::of(command.env("B24_DISK_TRACE", world.home.path().join("disk-trace")));
        self.read(world, "disk-trace");
        self
    }

    /// Runs a command in this process as a person at a terminal, without the
    /// syncs of a rule, and returns what it did.
    pub(crate) fn of_person(world: &World, command: &Command, skip: Option<&str>) -> (Outcome, Trace) {
        let mut trace = Trace::begin(world);
        let path = world.home.path().join("disk-trace");
        let _ = std::fs::remove_file(&path);
        b24::crash::record_here(Some((path, skip.map(str::to_owned))));
        let outcome = in_process(world, command, true);
        b24::crash::record_here(None);
        trace.read(world, "disk-trace");
        (outcome, trace)
    }

    /// How many syncs it has.
    pub(crate) fn syncs(&self) -> usize {
        self.ops.iter().filter(|op| op.is_sync()).count()
    }
}

/// Which files a trace tells of, by the name that says what they are for.
struct Names(Vec<(u64, String)>);

impl Names {
    fn give(&mut self, file: u64, path: &str) {
        // A file keeps the first name that is not a temporary one.
        self.0.retain(|(other, name)| *other != file || !name.contains("/.tmp"));
        if !self.0.iter().any(|(other, _)| *other == file) {
            self.0.push((file, role(path)));
        }
    }

    fn begin(&mut self, file: u64, path: &str) {
        self.0.retain(|(other, _)| *other != file);
        self.0.push((file, role(path)));
    }

    fn of(&self, file: u64) -> String {
        self.0.iter().find(|(other, _)| *other == file).map_or_else(|| format!("file {file}"), |(_, name)| name.clone())
    }
}

/// Returns a path with words for what differs from run to run.
pub(crate) fn role(path: &str) -> String {
    let part = |part: &str| {
        let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (stem, ending) = part.split_once('.').map_or((part, String::new()), |(stem, ending)| (stem, format!(".{ending}")));
        match part {
            _ if part.starts_with(".tmp-") || (part.starts_with('.') && part.contains('-')) => ".tmp".to_owned(),
            _ if part.starts_with("127.0.0.1") => "PORTAL".to_owned(),
            _ if is_hex(part) && part.len() == 2 => "XX".to_owned(),
            _ if is_hex(part) && part.len() == 62 => "RECORD".to_owned(),
            _ if is_hex(part) && part.len() == 16 => "WORKER".to_owned(),
            _ if is_hex(stem) && stem.len() == 64 => match ending.strip_prefix('.') {
                Some(record) if is_hex(record) && record.len() == 64 => "WRITE.RECORD".to_owned(),
                Some(number) if number.parse::<u32>().is_ok() => format!("RECORD.{number}"),
                Some("json" | "lock") => format!("LINE{ending}"),
                _ => "WRITE".to_owned(),
            },
            _ if stem.len() == 26 => format!("PLAN{ending}"),
            _ => part.to_owned(),
        }
    };
    let path = path.strip_prefix("state").map_or(path, |rest| rest.trim_start_matches('/'));
    if path.is_empty() { ".".to_owned() } else { path.split('/').map(part).collect::<Vec<_>>().join("/") }
}

/// Says what written bytes are: the letters of ledger lines, the types of audit
/// records, the kinds of lines of an inbox.
fn content(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else { return String::new() };
    let kind = |line: &str| -> Option<String> {
        let row: Value = serde_json::from_str(&line[line.find('{')?..]).ok()?;
        let by_name = row["t"].as_str().or(row["b"]["type"].as_str());
        by_name.map(str::to_owned).or_else(|| {
            let keys = row.as_object()?;
            (keys.len() == 1).then(|| keys.keys().next().cloned())?
        })
    };
    text.lines().filter_map(kind).fold(String::new(), |all, kind| format!("{all} {kind}"))
}

/// The trace for people: one line a change, and of the points those that are
/// asked for.
pub(crate) fn story(trace: &Trace, points: &[&str]) -> String {
    let mut names = Names(trace.files.iter().map(|kept| (kept.file, role(&kept.path))).collect());
    let mut lines = Vec::new();
    for op in &trace.ops {
        lines.push(match op {
            Op::Create { path, file } => {
                names.begin(*file, path);
                format!("create {}", role(path))
            }
            Op::Link { path, file } => {
                names.give(*file, path);
                format!("link {}", role(path))
            }
            Op::Rename { from, path, file } => {
                names.give(*file, path);
                format!("rename {} to {}", role(from), role(path))
            }
            Op::Write { file, bytes, .. } => format!("write {}{}", names.of(*file), content(bytes)),
            Op::Cut { file, .. } => format!("cut {}", names.of(*file)),
            Op::SyncData { file } => format!("SYNC {} (data)", names.of(*file)),
            Op::SyncAll { file } => format!("SYNC {} (all)", names.of(*file)),
            Op::SyncFolder { path } => format!("SYNC {}/", role(path)),
            Op::Remove { path } => format!("remove {}", role(path)),
            Op::Mkdir { path } => format!("mkdir {}", role(path)),
            Op::Point { name, .. } if points.contains(&name.as_str()) => format!("--- {name}"),
            Op::Point { .. } => continue,
        });
    }
    lines.join("\n")
}
