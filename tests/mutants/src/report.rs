//! What is said of the verdicts.

use crate::judge::{Fate, Verdict};
use crate::point::Point;
use crate::table::Module;
use std::collections::HashMap;
use std::fmt::Write;
use std::io;
use std::path::Path;

/// One line of progress.
pub(crate) fn line(verdict: &Verdict) -> String {
    let place = verdict.key.replace('\t', " ");
    match &verdict.fate {
        Fate::Killed { by, how } => format!("killed ({:.1} s, {how}: {by}) {place}", verdict.seconds),
        Fate::Lived { ran, of, .. } => format!("LIVED ({:.1} s, {ran} of {of} tests) {place}", verdict.seconds),
        Fate::NotReached => format!("LIVED (no test passes it) {place}"),
    }
}

/// Writes those that live, for whoever works them off.
pub(crate) fn write_survivors(folder: &Path, verdicts: &[Verdict]) -> io::Result<()> {
    let mut text = String::from("# Mutations that live\n\n| where | function | mutation | reached by |\n|--|--|--|--|\n");
    let mut alive: Vec<&Verdict> = verdicts.iter().filter(|verdict| !matches!(verdict.fate, Fate::Killed { .. })).collect();
    alive.sort_by_key(|verdict| (verdict.key.split('\t').next().map(str::to_owned), verdict.line));
    for verdict in alive {
        let parts: Vec<&str> = verdict.key.split('\t').collect();
        let reached = match &verdict.fate {
            Fate::Lived { ran, of, reached_by } => format!("{ran} of {of} ran: {}", reached_by.join(", ")),
            _ => "no test".to_owned(),
        };
        let _ = writeln!(text, "| {}:{} | {} | {} | {reached} |", parts[0], verdict.line, parts[1], parts[2].replace('|', "\\|"));
    }
    std::fs::write(folder.join("survivors.md"), text)
}

/// Prints the score; returns whether only those live that may.
pub(crate) fn write(
    folder: &Path,
    modules: &[Module],
    points: &[Point],
    verdicts: &[Verdict],
    accepted: &HashMap<String, String>,
) -> io::Result<bool> {
    write_survivors(folder, verdicts)?;
    let is_killed = |verdict: &&Verdict| matches!(verdict.fate, Fate::Killed { .. });
    let mut is_clean = true;
    println!("| module | killed / judged | live with a reason | live |\n|--|--|--|--|");
    let of = |module: Option<&Module>| {
        let own =
            verdicts.iter().filter(|verdict| module.is_none_or(|module| module.holds(verdict.key.split('\t').next().unwrap_or_default())));
        let own: Vec<&Verdict> = own.collect();
        let killed = own.iter().filter(|verdict| is_killed(verdict)).count();
        let reasoned = own.iter().filter(|verdict| !is_killed(verdict) && accepted.contains_key(&verdict.key)).count();
        let name = module.map_or("all", |module| module.name.as_str());
        (own.len() > 0).then(|| format!("| {name} | {killed} / {} | {reasoned} | {} |", own.len(), own.len() - killed - reasoned))
    };
    modules.iter().map(Some).chain([None]).filter_map(of).for_each(|row| println!("{row}"));
    for verdict in verdicts {
        match (&verdict.fate, accepted.contains_key(&verdict.key)) {
            (Fate::Killed { by, .. }, true) => {
                println!("accepted.tsv: {by} kills it, take the row out: {}", verdict.key);
                is_clean = false;
            }
            (Fate::Lived { .. } | Fate::NotReached, false) => {
                println!("{}", line(verdict));
                is_clean = false;
            }
            _ => {}
        }
    }
    let killed = verdicts.iter().filter(is_killed).count();
    println!(
        "{killed} of {} mutations died ({:.1} %); {} were made in all",
        verdicts.len(),
        100.0 * killed as f64 / verdicts.len().max(1) as f64,
        points.len()
    );
    Ok(is_clean)
}
