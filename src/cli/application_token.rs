//! Where the application token of a command comes from: a file, standard
//! input, or the environment; never an argument, which other users can read.

use crate::error::{Code, Failure};
use crate::host::Host;
use crate::secret::{Redactor, Secret};
use crate::store::config::read_secret;
use std::io::Read;

/// Longest application token that is taken for one; documented ones have 32.
const LONGEST: usize = 128;

/// Refuses a token that stands in the arguments.
pub(super) fn refuse_literal(option: Option<&str>) -> Result<(), Failure> {
    match option {
        None | Some("-") => Ok(()),
        Some(source) if source.len() > 1 && source.starts_with('@') => Ok(()),
        Some(_) => Err(usage("--application-token takes @FILE or -, never the token itself")
            .hint("Other users can read arguments; put the token in a file of mode 0600 or in B24_APPLICATION_TOKEN")),
    }
}

/// Reads the token from where the option says. Another secret of ours, out of
/// a file that was named by mistake or on purpose, is none.
pub(super) fn read(option: &str, ours: &Redactor, host: &mut Host) -> Result<Secret, Failure> {
    refuse_literal(Some(option))?;
    let text = match option {
        "-" if host.stdin_is_terminal => return Err(usage("--application-token - reads standard input, which is a terminal")),
        "-" => {
            let mut text = String::new();
            let read = host.stdin.by_ref().take(4096).read_to_string(&mut text);
            read.map_err(|error| usage(&format!("standard input cannot be read: {error}")))?;
            text.trim().to_owned()
        }
        source => read_secret(&host.cwd.join(source.trim_start_matches('@')))?,
    };
    if ours.finds(text.as_bytes()) {
        return Err(Failure::new(Code::CredentialInParams, "the application token is another secret of b24"));
    }
    checked(text)
}

/// Reads the token from the environment.
pub(super) fn from_env(host: &Host) -> Result<Option<Secret>, Failure> {
    host.env.get("B24_APPLICATION_TOKEN").map(|text| checked(text.to_owned())).transpose()
}

/// What is no token may be another secret, out of a file named by mistake.
fn checked(text: String) -> Result<Secret, Failure> {
    let is_token = (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    match is_token {
        true => Ok(Secret::new(text)),
        false => Err(usage("the application token is not one word of letters and digits")),
    }
}

fn usage(message: &str) -> Failure {
    Failure::new(Code::Usage, message)
}
