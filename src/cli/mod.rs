//! The face for people, agents and CI jobs: it parses, calls the core and
//! prints. It decides nothing.

mod application_token;
mod args;
mod call;
mod connect;
mod describe;
mod emulator;
mod explain;
mod help;
mod inventory;
mod label;
mod listen;
mod params;
mod plans;
mod policy;
mod queue;
mod records;
mod route;
mod search;
mod trigger;

use crate::env::{self, Env};
use crate::error::{Code, Exit, Failure};
use crate::host::Host;
use crate::output::{self, ErrorFormat};
use crate::secret::{Redactor, Secret};
use crate::settings::{OwnFiles, Settings};
use args::{CALL, Cli, Command};
use clap::error::{ContextKind, ErrorKind};
use clap::{CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::path::Path;

/// Variables whose values must never be printed.
const SECRET_VARIABLES: &[&str] =
    &["B24_WEBHOOK_URL", "B24_WEBHOOK_CODE", "B24_ACCESS_TOKEN", "B24_REFRESH_TOKEN", "B24_CLIENT_SECRET", "B24_APPLICATION_TOKEN"];

/// The whole program: parses the arguments, runs the command, prints, and
/// returns the exit status.
pub fn run(args: Vec<OsString>, host: &mut Host) -> u8 {
    let mut redactor = Redactor::default();
    learn_variables(&mut redactor, &host.env);
    let mut format = error_format(None, host);
    let result = readable(&args, host).and_then(|()| parse(args, host)).and_then(|cli| {
        format = error_format(cli.global.error_format.as_deref(), host);
        if let Some(path) = &cli.global.env_file {
            read_env_file(path, host)?;
            learn_variables(&mut redactor, &host.env);
            format = error_format(cli.global.error_format.as_deref(), host);
        }
        dispatch(cli, host, format)
    });
    match result {
        Ok(()) | Err(Stop::Printed) => Exit::Ok.status(),
        Err(Stop::Ended(exit)) => output::status(host, exit, true),
        Err(Stop::Failed(failure)) => output::fail(host, &failure, format, &redactor),
    }
}

/// Reads the parameters of a call as they stand on a command line: the text of
/// `--params` and the items behind it.
pub fn read_params(params: Option<&str>, items: &[String], host: &mut Host) -> Result<serde_json::Value, Failure> {
    params::read(params, items, &OwnFiles::default(), host)
}

/// Why a command ends before its end.
enum Stop {
    /// Help or version was printed, or the reader has gone away.
    Printed,
    /// All was printed, and the status says something too.
    Ended(Exit),
    /// Something is wrong.
    Failed(Box<Failure>),
}

impl<F: Into<Failure>> From<F> for Stop {
    fn from(failure: F) -> Stop {
        Stop::Failed(Box::new(failure.into()))
    }
}

/// Says what the settings have to say.
fn notices(settings: &Settings, host: &mut Host, format: ErrorFormat) {
    let redactor = settings.redactor();
    for text in &settings.notices {
        output::note(host, "notice", "settings", &redactor.redact_text(text), format);
    }
}

fn dispatch(cli: Cli, host: &mut Host, format: ErrorFormat) -> Result<(), Stop> {
    let global = cli.global;
    match cli.command {
        Command::Call(call) => call::run(&call, &global, host, format),
        Command::Search { words, limit } => search::run(&words, limit, host),
        Command::Describe(args) => describe::run(&args, host),
        Command::Explain { code } => explain::run(&code, &global, host),
        Command::Plan { command } => call::plan_command(&command, &global, host, format),
        Command::Ledger { command } => records::ledger(&command, &global, host),
        Command::Audit { command } => records::audit(&command, &global, host, format),
        Command::Limits { action, confirm_write } => records::limits(&action, confirm_write, &global, host),
        Command::Packs { command } => help::packs(command.as_ref(), host),
        Command::Policy { command } => policy::run(&command, &global, host),
        Command::Catalog { command } => inventory::run(&command, &global, host),
        Command::Queue { command } => queue::run(&command, &global, host, format),
        Command::Listen(args) => listen::run(&args, &global, host, format),
        Command::Trigger(args) => trigger::run(&args, &global, host, format),
        Command::Emulator { command } => emulator::run(&command, &global, host, format),
        Command::Help { topic } => help::topic(topic.as_deref(), host),
    }
}

/// Refuses what cannot be read: an argument or variable that is not UTF-8 might
/// be the one that guards. Neither is quoted.
fn readable(args: &[OsString], host: &Host) -> Result<(), Stop> {
    if let Some(name) = host.env.unreadable() {
        let text = format!("the variable {} is not UTF-8", crate::method::shown(name));
        return Err(Failure::new(Code::Usage, text).hint("Unset it, or set it to text; b24 help env lists the variables").into());
    }
    match args.iter().position(|arg| arg.to_str().is_none()) {
        Some(number) => Err(Failure::new(Code::Usage, format!("argument {number} is not UTF-8"))
            .hint("Values of other bytes go into a file as JSON; see b24 help params")
            .into()),
        None => Ok(()),
    }
}

fn parse(args: Vec<OsString>, host: &mut Host) -> Result<Cli, Stop> {
    let args = route::route(args)?;
    let parsed = |tree: clap::Command| tree.try_get_matches_from(&args).and_then(|matches| Cli::from_arg_matches(&matches));
    if args.get(1).is_some_and(|word| word == CALL)
        && let Ok(cli) = parsed(Cli::call_alone())
    {
        return Ok(cli);
    }
    match parsed(Cli::command()) {
        Ok(cli) => Ok(cli),
        Err(error) if !error.use_stderr() => {
            printed(output::text(host, &error.render().to_string()))?;
            Err(Stop::Printed)
        }
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Err(Failure::new(Code::Usage, "no method and no command is given")
                .hint("b24 --help lists the commands; methods look like crm.lead.list")
                .into())
        }
        Err(error) => Err(Failure::new(Code::Usage, misuse(&error))
            .hint(format!("b24 {} --help lists the options", route::called(&args, &Cli::command())))
            .into()),
    }
}

/// Says what is wrong with the command line. Values are not quoted: they may
/// be secrets in the wrong place. Of clap's own text only the first line is
/// used: the rest is advice, which may name the very option that a guard
/// withholds.
fn misuse(error: &clap::Error) -> String {
    let option = error.get(ContextKind::InvalidArg).map(ToString::to_string).unwrap_or_default();
    match error.kind() {
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => format!("the value of {option} cannot be used"),
        ErrorKind::TooManyValues => format!("{option} takes no value"),
        ErrorKind::UnknownArgument if !option.starts_with('-') => "there is a word too many".to_owned(),
        ErrorKind::InvalidSubcommand => "there is no such command".to_owned(),
        _ => {
            let text = error.render().to_string();
            let mut lines = text.lines();
            let first = lines.next().unwrap_or_default().trim_start_matches("error: ").trim_end_matches('.').to_owned();
            // The names that the first line announces.
            let names: Vec<&str> = lines.take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
            if first.ends_with(':') { format!("{first} {}", names.join(", ")) } else { first }
        }
    }
}

/// Takes the result of printing: a reader that went away is not an error.
fn printed<T>(result: std::io::Result<T>) -> Result<T, Stop> {
    match result {
        Ok(value) => Ok(value),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Stop::Printed),
        Err(error) => Err(Failure::new(Code::LocalState, format!("standard output cannot be written: {error}")).into()),
    }
}

fn error_format(option: Option<&str>, host: &Host) -> ErrorFormat {
    match option.or(host.env.get("B24_ERROR_FORMAT")) {
        Some("json") => ErrorFormat::Json,
        Some("text") => ErrorFormat::Text,
        _ if host.err_is_terminal => ErrorFormat::Text,
        _ => ErrorFormat::Json,
    }
}

fn learn_variables(redactor: &mut Redactor, env: &Env) {
    for value in SECRET_VARIABLES.iter().filter_map(|name| env.get(name)) {
        redactor.learn(&Secret::new(value.to_owned()));
        // Of a webhook's address, the code is the secret part.
        for part in value.split('/').filter(|part| part.len() >= 8 && !part.contains('.')) {
            redactor.learn(&Secret::new(part.to_owned()));
        }
    }
}

fn read_env_file(path: &Path, host: &mut Host) -> Result<(), Stop> {
    let path = host.cwd.join(path);
    let text = crate::store::config::read_secret(&path)?;
    let variables = env::parse_file(&text).map_err(|number| {
        let message = format!("entry {number} of {} is not NAME=value", path.display());
        Failure::new(Code::ConfigInvalid, message).hint("b24 help env lists the variables")
    })?;
    host.env.add_missing(variables);
    Ok(())
}
