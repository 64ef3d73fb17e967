//! Building the copy, and dropping the mutations that the compiler refuses.

use crate::point::{Point, digest};
use crate::tree::{Copy, Source};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A test program that was built.
#[derive(Debug, Clone)]
pub(crate) struct Binary {
    /// `lib`, `it` or `emulator`.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// What a complaint of the compiler points at.
struct Complaint {
    code: String,
    /// File and bytes, what is meant first.
    spans: Vec<(String, usize, usize)>,
    text: String,
}

/// Builds the copy with every mutation that compiles; returns the test programs
/// and fills `dropped` with the numbers of the others.
pub(crate) fn build(source: &Source, folder: &Path, points: &[Point], dropped: &mut HashSet<usize>) -> io::Result<Vec<Binary>> {
    let tree = folder.join("tree");
    seed(&source.root, &folder.join("build"))?;
    recall(source, folder, points, dropped);
    for stage in [&["check", "--lib", "--features", "crash-points"][..], &["build", "--tests"][..]] {
        for round in 1.. {
            let copies = source.write(&tree, points, dropped)?;
            let (complaints, binaries) = cargo(&tree, &folder.join("build"), stage)?;
            if complaints.is_empty() {
                if stage[0] == "build" {
                    remember(source, folder, points, dropped)?;
                    return Ok(binaries);
                }
                break;
            }
            let refused = refused(&complaints, &copies, points, dropped);
            eprintln!("cargo {}, round {round}: {} errors, {} mutations do not compile", stage[0], complaints.len(), refused.len());
            if refused.is_empty() {
                return Err(io::Error::other(complaints[0].text.clone()));
            }
            dropped.extend(refused);
        }
    }
    Ok(Vec::new())
}

/// What was compiled for the product's own tests need not be compiled again.
fn seed(root: &Path, build: &Path) -> io::Result<()> {
    let built = root.join("target/debug");
    if build.exists() || !built.exists() {
        return Ok(());
    }
    for part in ["deps", "build", ".fingerprint"] {
        std::fs::create_dir_all(build.join("debug").join(part))?;
        for entry in std::fs::read_dir(built.join(part))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_own = ["b24-", "libb24-", "it-", "emulator-", "call-", "queue-"].iter().any(|own| name.starts_with(own));
            if !is_own {
                let to = build.join("debug").join(part);
                Command::new("cp").arg("-a").arg(entry.path()).arg(to).status()?;
            }
        }
    }
    Ok(())
}

fn cargo(tree: &Path, build: &Path, stage: &[&str]) -> io::Result<(Vec<Complaint>, Vec<Binary>)> {
    let output = Command::new("cargo")
        .args(stage)
        .args(["--quiet", "--message-format=json"])
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", build)
        .env_remove("RUSTFLAGS")
        .stderr(Stdio::piped())
        .output()?;
    let messages = output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let (mut complaints, mut binaries) = (Vec::new(), Vec::new());
    for message in messages {
        match message["reason"].as_str() {
            Some("compiler-message") if message["message"]["level"] == "error" => complaints.extend(complaint(&message["message"])),
            Some("compiler-artifact") if message["profile"]["test"] == true => {
                let kind = message["target"]["kind"][0].as_str().unwrap_or_default();
                let name = if kind == "lib" { "lib" } else { message["target"]["name"].as_str().unwrap_or_default() };
                if let (Some(path), true) = (message["executable"].as_str(), kind == "lib" || kind == "test") {
                    binaries.push(Binary { name: name.to_owned(), path: PathBuf::from(path) });
                }
            }
            _ => {}
        }
    }
    if complaints.is_empty() && !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok((complaints, binaries))
}

fn complaint(message: &Value) -> Option<Complaint> {
    let spans = message["spans"].as_array()?;
    let place = |span: &Value| {
        let mut span = span.clone();
        // Within a macro of somebody else's, what counts is where it was called.
        while !span["file_name"].as_str().is_some_and(|name| name.starts_with("src/")) {
            span = span["expansion"]["span"].clone();
            if span.is_null() {
                return None;
            }
        }
        let byte = |name: &str| usize::try_from(span[name].as_u64()?).ok();
        Some((span["file_name"].as_str()?.to_owned(), byte("byte_start")?, byte("byte_end")?))
    };
    let (first, others): (Vec<&Value>, Vec<&Value>) = spans.iter().partition(|span| span["is_primary"] == true);
    let spans: Vec<_> = first.into_iter().chain(others).filter_map(place).collect();
    if spans.is_empty() {
        return None;
    }
    let text = message["rendered"].as_str().unwrap_or_default().to_owned();
    Some(Complaint { code: message["code"]["code"].as_str().unwrap_or_default().to_owned(), spans, text })
}

/// Returns the mutations that the complaints are about.
fn refused(complaints: &[Complaint], copies: &BTreeMap<String, Copy>, points: &[Point], dropped: &HashSet<usize>) -> HashSet<usize> {
    let mut refused = HashSet::new();
    for complaint in complaints {
        let innermost = complaint.spans.iter().find_map(|(file, from, to)| {
            let around = copies.get(file)?.placed.iter().filter(|placed| placed.from <= *from && *to <= placed.to);
            Some(around.min_by_key(|placed| placed.to - placed.from)?.number)
        });
        if let Some(number) = innermost.filter(|_| complaint.code != "E0004") {
            refused.insert(number);
            continue;
        }
        // Arms that may be passed over are blamed on their `match`, and what
        // stands in a function is blamed on what stands in it.
        let Some((file, from, to)) = complaint.spans.first() else { continue };
        let Some(copy) = copies.get(file) else { continue };
        let original = |at: usize| original(copy, points, at);
        let (from, to) = (original(*from), original(*to));
        let alive = |number: usize| !dropped.contains(&number);
        let own = || {
            points
                .iter()
                .enumerate()
                .map(|(index, point)| (index + 1, point))
                .filter(|(number, point)| point.file == *file && alive(*number))
        };
        let blamed: Vec<usize> = own()
            .filter(|(_, point)| point.what.starts_with("arm ") && point.blamed.is_some_and(|(start, end)| start <= from && to <= end))
            .map(|(number, _)| number)
            .collect();
        if complaint.code == "E0004" && !blamed.is_empty() {
            refused.extend(blamed);
            continue;
        }
        let whole = own()
            .filter_map(|(_, point)| point.blamed.filter(|(start, end)| *start <= from && to <= *end))
            .min_by_key(|(start, end)| end - start);
        let (start, end) = whole.unwrap_or((0, usize::MAX));
        let around: Vec<(usize, &Point)> = own().filter(|(_, point)| start <= point.start && point.end <= end).collect();
        // What is left out changes types and moves; the rest hardly ever does.
        let (likely, unlikely): (Vec<_>, Vec<_>) = around.into_iter().partition(|(_, point)| point.what.contains("left out"));
        let guilty = if likely.is_empty() { unlikely } else { likely };
        refused.extend(guilty.into_iter().map(|(number, _)| number));
        eprintln!("blamed on what is around it: {}", complaint.text.lines().take(3).collect::<Vec<_>>().join(" "));
    }
    refused
}

/// Returns the place in the source of a place in the copy, nearly.
fn original(copy: &Copy, points: &[Point], at: usize) -> usize {
    let mut added = 0;
    for placed in &copy.placed {
        let point = &points[placed.number - 1];
        let before = point.before.replace("{n}", &placed.number.to_string()).len();
        if placed.from + before <= at {
            added += before;
        }
        if placed.to <= at {
            added += point.behind.len();
        }
    }
    at - added.min(at)
}

/// What did not compile will not compile the next time.
fn recall(source: &Source, folder: &Path, points: &[Point], dropped: &mut HashSet<usize>) {
    let text = std::fs::read_to_string(folder.join("dropped.json")).unwrap_or_default();
    let known: BTreeMap<String, Vec<String>> = serde_json::from_str(&text).unwrap_or_default();
    let mut digests: BTreeMap<&str, String> = BTreeMap::new();
    for (index, point) in points.iter().enumerate() {
        let file = digests.entry(&point.file).or_insert_with(|| source.digest_of(&point.file));
        if known.get(file).is_some_and(|known| known.contains(&point.id())) {
            dropped.insert(index + 1);
        }
    }
}

fn remember(source: &Source, folder: &Path, points: &[Point], dropped: &HashSet<usize>) -> io::Result<()> {
    let path = folder.join("dropped.json");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let mut known: BTreeMap<String, Vec<String>> = serde_json::from_str(&text).unwrap_or_default();
    for number in dropped {
        let point = &points[number - 1];
        let of_file = known.entry(source.digest_of(&point.file)).or_default();
        let id = point.id();
        if !of_file.contains(&id) {
            of_file.push(id);
        }
    }
    std::fs::write(path, serde_json::to_string(&known)?)
}

/// What the tests are, so that what lived is judged again when they change.
pub(crate) fn digest_of_tests(root: &Path) -> io::Result<String> {
    let mut all = String::new();
    for folder in ["src", "tests/it", "tests/emulator"] {
        crate::tree::walk(&root.join(folder), &mut |path| {
            all.push_str(&digest(&String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default())));
        })?;
    }
    Ok(digest(&all)[..16].to_owned())
}
