//! `b24 help TOPIC` and `b24 packs`.

use super::args::{Cli, Packs};
use super::{Stop, printed};
use crate::emulator::fault_kinds;
use crate::env::VARIABLES;
use crate::error::{Code, Exit, Failure};
use crate::host::Host;
use crate::output;
use crate::packs;
use crate::store::guard::Guard;
use clap::CommandFactory;
use serde_json::json;
use std::fmt::Write;

/// Topics whose text is fixed.
const TOPICS: &[(&str, &str)] = &[
    ("agents", include_str!("help/agents.txt")),
    ("events", include_str!("help/events.txt")),
    ("migrate", include_str!("help/migrate.txt")),
    ("params", include_str!("help/params.txt")),
    ("plans", include_str!("help/plans.txt")),
    ("profiles", include_str!("help/profiles.txt")),
    ("safety", include_str!("help/safety.txt")),
];

pub(super) fn topic(topic: Option<&str>, host: &mut Host) -> Result<(), Stop> {
    let text = match topic {
        None => Cli::command().render_help().to_string(),
        Some("exit-codes") => exit_codes(),
        Some("env") => variables(),
        Some("faults") => faults(),
        Some(name) => match (TOPICS.iter().find(|(topic, _)| *topic == name), Cli::command().find_subcommand_mut(name)) {
            (Some((_, text)), _) => text.replace("GUARDS\n", &guards()),
            (None, Some(command)) => command.render_long_help().to_string(),
            (None, None) => {
                let names: Vec<&str> = TOPICS.iter().map(|(topic, _)| *topic).chain(["env", "exit-codes", "faults"]).collect();
                return Err(Failure::new(Code::Usage, format!("there is no help on {}", crate::method::shown(name)))
                    .hint(format!("Topics: {}", names.join(", ")))
                    .into());
            }
        },
    };
    printed(output::text(host, &text))
}

/// Returns the table of exit codes, as the README has it.
#[must_use]
pub(super) fn exit_codes() -> String {
    let mut text = String::from("| Code | Name | When | Was the portal changed? |\n|--|--|--|--|\n");
    for exit in Exit::ALL {
        let _ = writeln!(text, "| {} | {} | {} | {} |", exit.status(), exit.name(), exit.when(), exit.portal_changed());
    }
    text.push_str("\nKinds of errors (`kind` of the error object):\n\n");
    for code in Code::ALL {
        let _ = writeln!(text, "  {:<22} {:>3}  {}", code.text(), code.exit().status(), code.meaning());
    }
    text
}

fn guards() -> String {
    Guard::ALL.iter().fold(String::new(), |mut text, guard| {
        let _ = writeln!(text, "  {:<22} {}", guard.name(), guard.looser());
        text
    })
}

fn variables() -> String {
    let mut text = String::from("Options win over variables, variables over the profile.\n\n");
    for variable in VARIABLES {
        let _ = writeln!(text, "  {:<28} {}", variable.name, variable.help);
    }
    text
}

fn faults() -> String {
    let mut text = String::from(
        "b24 emulator serve --fault METHOD:KIND[:times=N][:skip=N][:SETTING=VALUE]\nMETHOD may have *; oauth.token is the token endpoint.\n\n",
    );
    for (name, help) in fault_kinds() {
        let _ = writeln!(text, "  {name:<24} {help}");
    }
    text
}

pub(super) fn packs(command: Option<&Packs>, host: &mut Host) -> Result<(), Stop> {
    let packs = packs::built_in();
    let value = match command {
        Some(Packs::Show { name }) => match packs.iter().find(|pack| pack.pack.eq_ignore_ascii_case(name)) {
            Some(pack) => json!({"schema": "b24.pack/1", "pack": pack.pack, "purpose": pack.purpose, "methods": pack.methods}),
            None => return Err(packs::PacksError::Unknown(crate::method::shown(name)).into()),
        },
        Some(Packs::List) | None => {
            let rows: Vec<_> =
                packs.iter().map(|pack| json!({"pack": pack.pack, "purpose": pack.purpose, "methods": pack.methods})).collect();
            json!({"schema": "b24.packs/1", "default": [packs::DEFAULT], "packs": rows})
        }
    };
    printed(output::value(host, &value))
}
