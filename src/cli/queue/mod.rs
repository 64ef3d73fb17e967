//! `b24 queue`: events of the portal, worked off without loss.

mod bind;
mod inspect;
mod owner;
mod work;

use super::args::{Global, InboxArgs, Queue};
use super::connect::{Connected, Role, connect_as};
use super::{Stop, label, notices};
use crate::host::Host;
use crate::json;
use crate::output::ErrorFormat;
use crate::queue::DeadLetters;
use crate::settings::{self, Options};
use crate::store::file_name;
use crate::store::plans::folder_beside;
use std::sync::Arc;

pub(super) use bind::documented;
pub(super) use owner::Owner;
pub(super) use work::{Place, Worker, handler};

pub(super) fn run(command: &Queue, global: &Global, host: &mut Host, format: ErrorFormat) -> Result<(), Stop> {
    match command {
        Queue::Work(args) => work::run(args, global, host, format),
        Queue::Status(inbox) => inspect::status(inbox, global, host, format),
        Queue::Dlq { command } => inspect::dead_letters(command, global, host, format),
        Queue::Bind(bind) => bind::bind(bind, global, host, format),
        Queue::Unbind(bind) => bind::unbind(bind, global, host, format),
        Queue::Events { guards } => bind::events(guards, global, host, format),
    }
}

/// Opens a session in the role that events need.
fn open(options: &Options, host: &mut Host, format: ErrorFormat) -> Result<Connected, Stop> {
    let settings = settings::resolve(options, host)?;
    notices(&settings, host, format);
    connect_as(Role::Application, settings, host)
}

impl InboxArgs {
    /// Returns the options with whether the inbox is another than the usual.
    fn options(&self, options: Options) -> Options {
        Options { moves_inbox: self.state_file.is_some() || self.dlq_file.is_some(), ..options }
    }
}

/// Finds the inbox and the dead letters that the options mean.
pub(super) fn place(args: &InboxArgs, owner: &Owner, host: &Host) -> Place {
    let identity = owner.identity.as_str();
    let base = match &args.state_file {
        Some(path) => folder_beside(&host.cwd.join(path)).join(file_name(identity)),
        None => owner.state.queue(identity),
    };
    let connector = label::given(args.auth_connector.as_ref(), host).filter(|_| args.source == "offline");
    let name = match &connector {
        Some(label) => format!("{}-{}", args.source, label_name(label)),
        None => args.source.clone(),
    };
    let folder = base.join(name);
    let dead_letters = args.dlq_file.as_ref().map_or_else(|| folder.join("dead-letters.jsonl"), |path| host.cwd.join(path));
    Place { folder, dead_letters, connector }
}

/// Returns a label as a part of a file name; two labels never share one.
fn label_name(label: &str) -> String {
    let name = file_name(label);
    match name == label {
        true => name,
        false => format!("{name}-{}", &json::sha256_hex(label)[..8]),
    }
}

fn letters(place: &Place, owner: &Owner, host: &Host) -> DeadLetters {
    DeadLetters::new(place.dead_letters.clone(), owner.identity.clone(), (Arc::clone(&host.clock), Arc::clone(&host.random)))
}
