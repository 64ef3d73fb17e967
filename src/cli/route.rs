//! What the first word means: a REST method or a command of b24.
//!
//! A word with a dot is a method; so are the few documented methods without
//! one. Every command of b24 has no dot and none of those names, so that a new
//! method can never hide a command nor a command a method; `b24 call NAME`
//! reaches every name.

use super::args::{CALL, Cli};
use crate::catalog;
use crate::error::{Code, Failure};
use clap::{Command, CommandFactory};
use std::cell::LazyCell;
use std::ffi::{OsStr, OsString};

/// Documented methods without a dot.
pub(super) const UNDOTTED: &[&str] = &["batch", "documentation", "events", "methods", "profile", "scope"];

/// Options that stand for a call without a method.
const CALLS_WITHOUT_METHOD: &[&str] = &["--execute-plan", "--list-packs"];

/// Inserts `call` before everything where the first word is a method, so that
/// the options of a call may also stand before the method.
pub(super) fn route(args: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    let Some(index) = first_word(&args, &LazyCell::new(Cli::call_alone))? else {
        let is_call = args.iter().any(|arg| CALLS_WITHOUT_METHOD.iter().any(|option| names_option(arg, option)));
        return Ok(if is_call { with_call(args) } else { args });
    };
    let word = args[index].to_string_lossy().into_owned();
    if word.contains(['.', '/']) || UNDOTTED.contains(&word.to_ascii_lowercase().as_str()) {
        return Ok(with_call(args));
    }
    let command = Cli::command();
    if command.get_subcommands().any(|sub| sub.get_name() == word) {
        return Ok(args);
    }
    let mut suggestions: Vec<String> = catalog::suggestions(&word).into_iter().map(str::to_owned).collect();
    let close = command.get_subcommands().map(Command::get_name).filter(|name| strsim::jaro_winkler(name, &word) > 0.8);
    suggestions.splice(0..0, close.map(str::to_owned));
    suggestions.truncate(3);
    let hint = match suggestions.is_empty() {
        true => "b24 --help lists the commands; methods look like crm.lead.list".to_owned(),
        false => format!("Did you mean {}?", suggestions.join(", ")),
    };
    Err(Failure::new(Code::Usage, format!("{} is neither a command nor a method", crate::method::shown(&word)))
        .hint(hint)
        .with("suggest", suggestions))
}

fn with_call(mut args: Vec<OsString>) -> Vec<OsString> {
    args.insert(1, OsString::from(CALL));
    args
}

fn names_option(arg: &OsStr, option: &str) -> bool {
    let arg = arg.to_string_lossy();
    arg == option || arg.strip_prefix(option).is_some_and(|rest| rest.starts_with('='))
}

/// Returns the index of the first argument that is neither an option nor an
/// option's value. Which options take a value is read from the commands
/// themselves. An unknown option ends the search: the word behind it may be its
/// value, and of `--webhook-code SECRET` the secret must not be quoted.
fn first_word(args: &[OsString], call_alone: &LazyCell<Command>) -> Result<Option<usize>, Failure> {
    let mut index = 1;
    while index < args.len() {
        let arg = args[index].to_string_lossy();
        if arg == "--" {
            return Ok((index + 1 < args.len()).then_some(index + 1));
        }
        if arg.len() < 2 || !arg.starts_with('-') {
            return Ok(Some(index));
        }
        let name = arg.split('=').next().unwrap_or_default();
        let takes_value = takes_value(name, [Some(call_alone), call_alone.find_subcommand(CALL)]).ok_or_else(|| unknown_option(name))?;
        index += if takes_value && !arg.contains('=') { 2 } else { 1 };
    }
    Ok(None)
}

/// Returns the names of the command that is called and of what is below it.
pub(super) fn called(args: &[OsString], command: &Command) -> String {
    let (mut names, mut below, mut index) = (Vec::new(), command, 1);
    while let Some(arg) = args.get(index).map(|arg| arg.to_string_lossy()) {
        index += 1;
        if arg.starts_with('-') {
            let takes_value = !arg.contains('=') && takes_value(&arg, [Some(command), Some(below)]) == Some(true);
            index += usize::from(takes_value);
            continue;
        }
        let Some(found) = below.find_subcommand(arg.as_ref()) else { break };
        names.push(found.get_name());
        below = found;
    }
    if names.is_empty() { "call".to_owned() } else { names.join(" ") }
}

/// Returns whether an option of these commands takes a value; `None` when
/// there is no such option.
fn takes_value(name: &str, commands: [Option<&Command>; 2]) -> Option<bool> {
    if ["--help", "-h", "--version", "-V"].contains(&name) {
        return Some(false);
    }
    let mut options = commands.into_iter().flatten().flat_map(Command::get_arguments);
    let named = options.find(|option| match name.strip_prefix("--") {
        Some(long) => option.get_long() == Some(long),
        None => option.get_short().is_some_and(|short| name.chars().nth(1) == Some(short)),
    });
    named.map(|option| option.get_action().takes_values())
}

fn unknown_option(name: &str) -> Failure {
    Failure::new(Code::Usage, format!("there is no option {}", crate::method::shown(name)))
        .hint("b24 call --help lists the options; secrets are never options, see b24 help env")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(words: &[&str]) -> Result<Vec<String>, Failure> {
        let args = std::iter::once("b24").chain(words.iter().copied()).map(OsString::from).collect();
        let routed = route(args)?;
        Ok(routed.into_iter().skip(1).map(|arg| arg.into_string().unwrap()).collect())
    }

    #[test]
    fn a_dotted_or_known_word_is_a_method_wherever_it_stands() {
        assert_eq!(routed(&["crm.lead.list"]).unwrap(), ["call", "crm.lead.list"]);
        assert_eq!(routed(&["--packs", "core", "crm.lead.list"]).unwrap(), ["call", "--packs", "core", "crm.lead.list"]);
        assert_eq!(routed(&["--packs=core", "--confirm-write", "batch"]).unwrap(), ["call", "--packs=core", "--confirm-write", "batch"]);
        assert_eq!(routed(&["Batch"]).unwrap(), ["call", "Batch"]);
        assert_eq!(routed(&["plan", "list"]).unwrap(), ["plan", "list"]);
        assert_eq!(routed(&["--execute-plan", "X"]).unwrap(), ["call", "--execute-plan", "X"]);
        assert_eq!(routed(&["--list-packs"]).unwrap(), ["call", "--list-packs"]);
    }

    #[test]
    fn any_other_word_is_refused_with_suggestions() {
        assert!(routed(&["ledgr", "list"]).unwrap_err().hint.unwrap().contains("ledger"));
        assert!(routed(&["frobnicate"]).is_err());
        for words in [["--webhook-code", "canary", "crm.lead.list"], ["-p", "canary", "crm.lead.list"], ["--token=canary", "canary", "x"]] {
            let failure = routed(&words).unwrap_err();
            assert!(failure.message.starts_with("there is no option") && !failure.message.contains("canary"), "{}", failure.message);
        }
    }

    #[test]
    fn the_called_command_is_not_taken_from_the_value_of_an_option() {
        for (words, expected) in [
            (&["--profile", "emulator", "queue", "dlq", "export", "--to"][..], "queue dlq export"),
            (&["queue", "work", "--exec", "emulator", "--nope"], "queue work"),
            (&["queue", "--profile=emulator", "dlq", "exprot"], "queue dlq"),
            (&["call", "crm.lead.list", "--nope"], "call"),
            (&["--nope"], "call"),
        ] {
            let args: Vec<OsString> = std::iter::once(&"b24").chain(words).map(OsString::from).collect();
            assert_eq!(called(&args, &Cli::command()), expected);
        }
    }

    #[test]
    fn commands_and_undotted_methods_never_meet() {
        let undotted: Vec<&str> =
            catalog::entries().map(|entry| entry.folded).filter(|name| !name.contains('.')).chain(["batch"]).collect();
        for name in &undotted {
            assert!(UNDOTTED.contains(name), "{name}");
        }
        for command in Cli::command().get_subcommands() {
            assert!(!command.get_name().contains('.') && !undotted.contains(&command.get_name()));
        }
    }
}
