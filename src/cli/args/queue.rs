//! The command line of `b24 queue`.

use super::{ConsentArgs, Global};
use crate::settings::Options;
use clap::{ArgGroup, Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Queue {
    /// Work off the portal's offline events; standing consent for exactly that
    Work(Box<QueueWork>),
    /// Show what is in the inbox, offline
    Status(InboxArgs),
    /// Look at dead letters, try them again or drop them
    Dlq {
        #[command(subcommand)]
        command: DeadLetterCommand,
    },
    /// Subscribe to an event
    Bind(Bind),
    /// End a subscription
    Unbind(Bind),
    /// List the events that exist and the ones that are bound
    Events {
        /// `auth_connector` and guards of the calls
        #[command(flatten)]
        guards: QueueGuards,
    },
}

/// Which inbox is meant.
#[derive(Debug, Args, Clone)]
#[command(next_help_heading = "Inbox")]
pub(in crate::cli) struct InboxArgs {
    /// Name of the separate queue; the same as when the events were bound
    #[arg(long, value_name = "LABEL")]
    pub(in crate::cli) auth_connector: Option<String>,
    /// Keep the inbox in PATH.d instead of the state folder
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) state_file: Option<PathBuf>,
    /// File of the dead letters; default dead-letters.jsonl beside the inbox
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) dlq_file: Option<PathBuf>,
    /// Whose events: offline (queue work) or online (listen)
    #[arg(long, value_name = "SOURCE", value_parser = ["offline", "online"], default_value = "offline")]
    pub(in crate::cli) source: String,
}

/// What handles events, and how.
#[derive(Debug, Args, Clone)]
#[command(next_help_heading = "Handler")]
#[command(group = ArgGroup::new("handler").args(["exec", "serve", "jsonl"]).multiple(false))]
pub(in crate::cli) struct HandlerArgs {
    /// Run this command for each event: one JSON object on standard input; exit 0 done, 75 try later, other failed
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub(in crate::cli) exec: Option<String>,
    /// Run this command once: JSON Lines both ways, answers by id
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub(in crate::cli) serve: Option<String>,
    /// Write events to standard output; one is done when its line is written
    #[arg(long)]
    pub(in crate::cli) jsonl: bool,
    /// Events in the handler's hands at once; default 4, with --serve 64
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(in crate::cli) concurrency: Option<u16>,
    /// Seconds that one event may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    pub(in crate::cli) handler_timeout: f64,
    /// Failed attempts after which an event goes to the dead letters
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(in crate::cli) max_retries: u32,
    /// Seconds before the second attempt; doubled each time, up to 5 minutes
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    pub(in crate::cli) retry_delay: f64,
    /// Write measurements for Prometheus to this file
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) metrics_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "b24 help events shows handlers and says what is guaranteed.")]
pub(in crate::cli) struct QueueWork {
    #[command(flatten)]
    pub(in crate::cli) handler: HandlerArgs,
    #[command(flatten)]
    pub(in crate::cli) inbox: InboxArgs,
    /// Poll once, handle what can be handled now, and end
    #[arg(long, conflicts_with = "until_empty")]
    pub(in crate::cli) once: bool,
    /// End when the portal's queue and the inbox are empty
    #[arg(long)]
    pub(in crate::cli) until_empty: bool,
    /// Seconds between two polls that find nothing
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = seconds)]
    pub(in crate::cli) sleep: f64,
    /// Events that one poll takes
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(in crate::cli) batch: u32,
    /// Seconds after which a reservation that nobody works on is taken over
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub(in crate::cli) adopt_after: u64,
    /// Mark dead letters as failed on the portal instead of clearing them there
    #[arg(long)]
    pub(in crate::cli) mark_failed: bool,
    /// Accepted; offline events carry no token, see b24 listen
    #[arg(long, value_name = "@FILE|-", allow_hyphen_values = true)]
    pub(in crate::cli) application_token: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) guards: QueueGuards,
}

/// The options of a call that a worker's calls have, too.
#[derive(Debug, Args, Clone)]
#[command(next_help_heading = "Calls")]
pub(in crate::cli) struct QueueGuards {
    /// Enabled packs, comma-separated, or none
    #[arg(long, value_name = "NAMES")]
    pub(in crate::cli) packs: Option<String>,
    /// Further allowed method patterns, comma-separated
    #[arg(long, value_name = "PATTERNS")]
    pub(in crate::cli) method_allowlist: Option<String>,
    /// Write the audit to this file
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) audit_file: Option<PathBuf>,
    /// Seconds that one request may take
    #[arg(long, value_name = "SECONDS")]
    pub(in crate::cli) timeout: Option<u64>,
    /// Seconds that a request may wait in all
    #[arg(long, value_name = "SECONDS")]
    pub(in crate::cli) max_wait: Option<u64>,
    /// Requests per second; can only slow down
    #[arg(long, value_name = "N")]
    pub(in crate::cli) rate: Option<f64>,
}

impl QueueGuards {
    /// Returns the options that settings are made of.
    pub(in crate::cli) fn options(&self, global: &Global) -> Options {
        Options {
            packs: self.packs.clone(),
            method_allowlist: self.method_allowlist.clone(),
            audit_file: self.audit_file.clone(),
            timeout: self.timeout,
            max_wait: self.max_wait,
            rate: self.rate,
            ..global.options()
        }
    }
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DeadLetterCommand {
    /// Print the dead letters, one JSON object a line
    List(InboxArgs),
    /// Print one dead letter
    Show {
        /// Its id
        id: String,
        #[command(flatten)]
        inbox: InboxArgs,
    },
    /// Put dead letters back into the inbox; a worker handles them
    Retry(Letters),
    /// Give dead letters up; they stay in the file, marked
    Drop {
        #[command(flatten)]
        letters: Letters,
        /// Why
        #[arg(long)]
        reason: String,
        /// Consent to giving these events up
        #[arg(long)]
        confirm_destructive: bool,
    },
    /// Print the dead letters as the Python worker wrote them
    Export(InboxArgs),
    /// Check that no line of the file was changed or removed
    Verify(InboxArgs),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").args(["ids", "all"]).required(true).multiple(false))]
pub(in crate::cli) struct Letters {
    /// Their ids
    #[arg(value_name = "ID")]
    pub(in crate::cli) ids: Vec<String>,
    /// All of them
    #[arg(long)]
    pub(in crate::cli) all: bool,
    #[command(flatten)]
    pub(in crate::cli) inbox: InboxArgs,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("kind").args(["offline", "handler"]).required(true).multiple(false))]
pub(in crate::cli) struct Bind {
    /// The event, for example ONCRMDEALUPDATE
    #[arg(value_name = "EVENT")]
    pub(in crate::cli) event: String,
    /// Into the offline queue
    #[arg(long)]
    pub(in crate::cli) offline: bool,
    /// To a handler at this address
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) handler: Option<String>,
    /// A separate queue; writes with the same label are not queued in it
    #[arg(long, value_name = "LABEL")]
    pub(in crate::cli) auth_connector: Option<String>,
    /// User whose token a handler gets
    #[arg(long, value_name = "USER")]
    pub(in crate::cli) auth_type: Option<u64>,
    /// Seconds between two ONOFFLINEEVENT
    #[arg(long, value_name = "SECONDS")]
    pub(in crate::cli) min_timeout: Option<u64>,
    #[command(flatten)]
    pub(in crate::cli) consent: ConsentArgs,
    #[command(flatten)]
    pub(in crate::cli) guards: QueueGuards,
}

/// Reads a number of seconds, fractions included.
pub(in crate::cli) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("not a number of seconds from 0 to 86400".to_owned()),
    }
}
