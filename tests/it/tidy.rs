//! Rules about the source that the compiler does not know.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The modules from the lowest to the highest: each may use those before it.
const LAYERS: &[&str] = &[
    "error",
    "secret",
    "method",
    "ids",
    "json",
    "query_string",
    "crash",
    "env",
    "host",
    "risk",
    "catalog",
    "packs",
    "schema",
    "call",
    "store",
    "credential",
    "settings",
    "gate",
    "wire",
    "session",
    "output",
    "interrupt",
    "pipeline",
    "receive",
    "queue",
    "emulator",
    "cli",
];

/// Where each third-party crate may be used, so that it can be judged, swapped
/// or dropped in one place.
const HOMES: &[(&str, &[&str])] = &[
    ("aho_corasick", &["secret.rs"]),
    ("base64", &["secret.rs"]),
    ("chrono", &["host.rs", "store/", "settings", "emulator/"]),
    ("clap", &["cli/"]),
    ("crc32c", &["store/", "queue/line.rs"]),
    ("directories", &["store/home.rs"]),
    ("fs2", &["store/locked.rs"]),
    ("getrandom", &["host.rs"]),
    ("globset", &["method.rs"]),
    ("hmac", &["store/"]),
    ("hyper", &["emulator/", "receive/"]),
    ("hyper_util", &["emulator/", "receive/"]),
    ("icu_properties", &["json/unseen.rs"]),
    ("jsonschema", &["schema.rs"]),
    ("reqwest", &["wire/"]),
    ("memchr", &["secret.rs"]),
    ("nix", &["store/home.rs"]),
    ("rustls", &["wire/client.rs"]),
    ("secrecy", &["secret.rs"]),
    ("signal_hook", &["interrupt.rs"]),
    ("strsim", &["catalog.rs", "cli/route.rs", "schema.rs"]),
    ("subtle", &["secret.rs"]),
    ("tokio", &["emulator/", "receive/", "wire/client.rs", "queue/handler/"]),
    ("toml", &["store/config.rs"]),
    ("ulid", &["ids.rs"]),
    ("uuid", &["host.rs"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every source file with its path below `src/` and its text without tests.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, files) } else { files.push(path) }
        }
    }
    let base = root().join("src");
    let mut files = Vec::new();
    walk(&base, &mut files);
    let mut sources: Vec<(String, String)> = files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter(|path| !path.file_stem().unwrap().to_string_lossy().ends_with("tests"))
        .map(|path| {
            let name = path.strip_prefix(&base).unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    sources.sort();
    sources
}

/// The code of a file without comments and without its tests.
fn code(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Whether a path stands in the code, and not only the end of a longer one.
fn names(code: &str, path: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.match_indices(path).any(|(index, _)| !code[..index].ends_with(is_part))
}

#[test]
fn no_file_uses_a_layer_above_it() {
    let rank = |module: &str| LAYERS.iter().position(|layer| *layer == module);
    for (name, text) in sources() {
        let module = name.split(['/', '.']).next().unwrap();
        let Some(own) = rank(module) else {
            assert!(["lib", "main"].contains(&module), "{name} is in no layer");
            continue;
        };
        for (index, _) in code(&text).match_indices("crate::") {
            let code = code(&text);
            let rest = &code[index + "crate::".len()..];
            let used: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if let Some(other) = rank(&used) {
                assert!(other <= own, "{name} uses {used}, which is above it");
            }
        }
    }
}

#[test]
fn third_party_crates_stay_at_home() {
    for (name, text) in sources() {
        let code = code(&text);
        for (library, homes) in HOMES {
            let is_used = names(&code, &format!("{library}::")) || code.contains(&format!("use {library};"));
            assert!(!is_used || homes.iter().any(|home| name.starts_with(home)), "{name} uses {library}, whose home is {homes:?}");
        }
    }
}

#[test]
fn every_dependency_has_a_use() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let all: String = sources().iter().map(|(_, text)| code(text)).collect();
    for line in section.lines().filter(|line| line.contains('=') && !line.starts_with('#')) {
        let library = line.split('=').next().unwrap().trim().replace('-', "_");
        assert!(all.contains(&format!("{library}::")), "{library} is not used");
    }
}

#[test]
fn secrets_are_exposed_in_few_places() {
    let allowed = ["wire/", "secret.rs", "store/tokens.rs", "emulator/"];
    for (name, text) in sources() {
        assert!(!code(&text).contains(".expose()") || allowed.iter().any(|home| name.starts_with(home)), "{name} exposes a secret");
    }
}

/// What reaches a reader passes `output.rs`, which shows characters that print
/// nothing. The others: the object of a signal, which is made there; event lines
/// for a program; and what a handler says of itself.
#[test]
fn everything_is_printed_in_few_places() {
    let homes = ["host.rs", "output.rs", "interrupt.rs", "queue/engine.rs", "queue/handler/"];
    // Handed on to the engine, whose notes pass `output::note_to`.
    let handed_on = ["cli/queue/work.rs"];
    for (name, text) in sources() {
        let code = code(&text);
        let touches = ["host.out", "host.err", ".out, \"", "streams.out", "io::stdout", "io::stderr", "print!(", "println!("];
        let touches = touches.iter().any(|way| code.replace("host.out_is", "").replace("host.err_is", "").contains(way));
        assert!(!touches || homes.iter().chain(&handed_on).any(|home| name.starts_with(home)), "{name} prints past output.rs");
    }
}

/// What stands behind a name may be a pipe, a device, or larger than memory:
/// only two helpers read files, one for those of the state folder, one for
/// those that a user names.
#[test]
fn files_are_read_in_few_places() {
    // The system's own answers, the switch of the crash tests, and who waits for a lock.
    let allowed = [
        "store/locked.rs",
        "store/given.rs",
        "store/trust.rs",
        "store/disk.rs",
        "store/waiting.rs",
        "host.rs",
        "crash.rs",
        "crash/recorder.rs",
    ];
    for (name, text) in sources() {
        let code = code(&text);
        let reads = ["fs::read(", "fs::read_to_string(", "File::open(", "OpenOptions::new("].iter().any(|call| code.contains(call));
        assert!(!reads || allowed.contains(&name.as_str()) || name.contains("/tests/"), "{name} opens files by itself");
    }
}

/// What changes files is written down for the model of a loss of power
/// (`power_loss.rs`); a change past `store/disk.rs` would be missing there. The
/// emulator's data need not survive one.
#[test]
fn files_are_changed_in_one_place() {
    let homes = ["store/disk.rs", "crash.rs", "crash/recorder.rs"];
    let ways = [
        "fs::rename(",
        "fs::remove_file(",
        "fs::remove_dir",
        "fs::hard_link(",
        "fs::create_dir",
        "fs::write(",
        "fs::copy(",
        "fs::set_permissions(",
        "DirBuilder",
        ".set_len(",
        ".write_all_at(",
        "File::create",
        "fs::linkat(",
        "fs::unlinkat(",
        "fs::renameat",
        "fs::mkdirat(",
        ".append(true)",
        ".create(true)",
        ".create_new(true)",
        ".sync_all(",
    ];
    for (name, text) in sources().into_iter().filter(|(name, _)| !name.starts_with("emulator/") && !name.contains("/tests/")) {
        let code = code(&text);
        let way = ways.iter().find(|way| code.contains(**way));
        assert!(way.is_none() || homes.contains(&name.as_str()), "{name} changes files past store/disk.rs: {}", way.unwrap());
    }
}

#[test]
fn a_permit_is_spent_and_taken_back_in_one_place_each() {
    for (call, home) in
        [(".take_off()", "wire/transport.rs"), (".land_unexecuted(", "pipeline/attempt.rs"), (".depart(", "pipeline/attempt.rs")]
    {
        let users: Vec<String> = sources().into_iter().filter(|(_, text)| code(text).contains(call)).map(|(name, _)| name).collect();
        assert_eq!(users, [home], "{call}");
    }
}

#[test]
fn every_file_says_what_it_is_and_is_short() {
    for (name, text) in sources() {
        assert!(text.starts_with("//!"), "{name} does not begin with a module comment");
        let lines = code(&text).lines().count();
        assert!(lines <= 500, "{name} has {lines} lines of code; split it by concept");
    }
}

#[test]
fn the_example_environment_is_complete() {
    let example = std::fs::read_to_string(root().join(".env.example")).unwrap_or_default();
    if std::env::var("B24_UPDATE").is_ok() {
        std::fs::write(root().join(".env.example"), b24::env::example()).unwrap();
    }
    assert!(example == b24::env::example(), ".env.example is not what b24 reads; run this test with B24_UPDATE=1");
    let known: BTreeSet<&str> = b24::env::VARIABLES.iter().map(|variable| variable.name).collect();
    for (name, text) in sources().into_iter().filter(|(name, _)| !["crash.rs", "crash/recorder.rs", "env.rs"].contains(&name.as_str())) {
        for part in code(&text).split('"').filter(|part| part.starts_with("B24_")) {
            let variable: String = part.chars().take_while(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == '_').collect();
            assert!(known.contains(variable.as_str()), "{name} names {variable}, which env.rs does not list");
        }
    }
}

#[test]
fn every_variable_has_an_effect_or_says_that_it_has_none() {
    let all: String = sources().iter().filter(|(name, _)| name != "env.rs").map(|(_, text)| code(text)).collect();
    for variable in b24::env::VARIABLES {
        assert!(all.contains(variable.name) || variable.help.contains("without effect"), "{} is read nowhere", variable.name);
    }
}

#[test]
fn the_packs_that_ship_are_the_files_of_the_folder() {
    let files: BTreeSet<String> = std::fs::read_dir(root().join("packs"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let table: BTreeSet<String> = b24::packs::BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(files, table);
}
