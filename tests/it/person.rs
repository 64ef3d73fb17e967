//! A person who keeps a configuration at home, and an agent that runs b24 as
//! the same user and would like to be bound by less.

use crate::home::living_in;
use crate::world::{Outcome, World};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const WRITE: [&str; 3] = ["crm.lead.add", "fields[TITLE]=x", "--confirm-write"];

/// The person's home, with the profile `ag`.
pub(crate) struct Person {
    pub(crate) world: World,
}

impl Person {
    /// A profile and a row of credentials with further lines.
    pub(crate) fn new(profile: &str, row: &str) -> Person {
        let person = Person { world: World::new() };
        let folder = person.home().join(".config/b24");
        person.write_profile(&folder, "ag", profile);
        person.write_credentials(&folder, row);
        person
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.world.home.path().join("person")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.home().join(".config/b24")
    }

    /// The agent's own folder.
    pub(crate) fn mine(&self) -> PathBuf {
        self.world.home.path().join("mine")
    }

    pub(crate) fn write_profile(&self, folder: &Path, name: &str, lines: &str) {
        std::fs::create_dir_all(folder).unwrap();
        let text = format!("[profiles.{name}]\nportal = '{}'\nuser = 1\n{lines}\n", self.world.emulator.origin());
        std::fs::write(folder.join("config.toml"), text).unwrap();
    }

    pub(crate) fn write_credentials(&self, folder: &Path, lines: &str) {
        std::fs::create_dir_all(folder).unwrap();
        let code = self.code();
        private(&folder.join("credentials.toml"), &format!("[ag]\nwebhook_code = '{code}'\n{lines}\n"));
    }

    pub(crate) fn code(&self) -> String {
        self.world.emulator.access().admin().code.expose().to_owned()
    }

    /// The binary as the agent is meant to run it.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.world.command(args);
        for name in ["B24_WEBHOOK_URL", "B24_RATE_LIMITER_RATE", "B24_RATE_LIMITER_BURST", "B24_STATE_DIR"] {
            command.env_remove(name);
        }
        command.env("HOME", self.home()).env("B24_PROFILE", "ag");
        command
    }

    /// Runs a command in the person's home, as the password database has it.
    pub(crate) fn run(&self, command: &Command) -> Outcome {
        Outcome::of(&mut living_in(&self.home(), command))
    }

    #[track_caller]
    pub(crate) fn refuses(&self, trick: &str, status: i32, command: &Command) {
        let before = self.world.requests().len();
        let outcome = self.run(command);
        let error: serde_json::Value = serde_json::from_str(outcome.stderr.lines().last().unwrap_or_default()).unwrap_or_default();
        let is_refused = outcome.status == status && error["outcome"] == "not_sent" && self.world.requests().len() == before;
        assert!(is_refused, "{trick}: {} instead of {status}\n{}{}", outcome.status, outcome.stdout, outcome.stderr);
    }

    /// Ways to another configuration, in which the agent's file stands under
    /// `folder`.
    pub(crate) fn ways_to(&self, folder: &Path) -> Vec<Way> {
        let base = self.world.home.path().join(format!("base-{}", folder.file_name().unwrap().display()));
        std::fs::create_dir_all(base.join(".config")).unwrap();
        for link in [base.join("b24"), base.join(".config/b24")] {
            if !link.exists() {
                symlink(folder, link).unwrap();
            }
        }
        let (one, two, three, four) = (folder.to_owned(), folder.to_owned(), base.clone(), base);
        vec![
            ("--config", Box::new(move |command| _ = command.arg("--config").arg(&one))),
            ("B24_CONFIG", Box::new(move |command| _ = command.env("B24_CONFIG", &two))),
            ("XDG_CONFIG_HOME", Box::new(move |command| _ = command.env("XDG_CONFIG_HOME", &three))),
            ("HOME", Box::new(move |command| _ = command.env("HOME", &four))),
        ]
    }
}

/// What a way is called, and what it does to a command.
pub(crate) type Way = (&'static str, Box<dyn Fn(&mut Command)>);

/// Writes a file that only its owner can read.
pub(crate) fn private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}
