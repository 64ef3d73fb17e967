//! Runs one entry point under AFL++, or over files: `b24-fuzz NAME [FILE…]`.

#![expect(clippy::print_stdout, reason = "this is what it says")]
#![expect(clippy::disallowed_methods, reason = "it measures how long an input takes")]

mod entries;

use entries::{ENTRIES, Entry};
use peak_alloc::PeakAlloc;
use std::process::ExitCode;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What an entry point may need besides what grows with its input.
const MEMORY_AT_ONCE: usize = 16 << 20;

/// What it may need for each byte of its input.
const MEMORY_A_BYTE: usize = 4_096;

/// What may be kept from one input to the next: the tables that are made at
/// first use. More is a leak.
const MEMORY_KEPT: usize = 64 << 20;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let Some(entry) = ENTRIES.iter().find(|entry| entry.name == name) else {
        ENTRIES.iter().for_each(|entry| println!("{}", entry.name));
        return ExitCode::from(u8::from(!name.is_empty()));
    };
    let files: Vec<String> = arguments.collect();
    for file in &files {
        let bytes = std::fs::read(file).expect("the file can be read");
        let start = std::time::Instant::now();
        println!("{file}: {:?} in {:?}", measured(entry, &bytes), start.elapsed());
    }
    if files.is_empty() {
        afl::fuzz!(|bytes: &[u8]| {
            measured(entry, bytes);
        });
    }
    ExitCode::SUCCESS
}

/// Runs an entry point and holds it to its memory.
fn measured(entry: &Entry, bytes: &[u8]) -> entries::Read {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let read = (entry.run)(bytes);
    let used = MEMORY.peak_usage().saturating_sub(before);
    assert!(used <= MEMORY_AT_ONCE + MEMORY_A_BYTE * bytes.len(), "{} bytes took {used} bytes of memory", bytes.len());
    assert!(MEMORY.current_usage() <= MEMORY_KEPT, "{} bytes are kept", MEMORY.current_usage());
    read
}
