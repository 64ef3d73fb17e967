//! The command line as clap knows it.

mod discovery;
mod listen;
mod queue;
mod trigger;

use crate::catalog::Api;
use crate::gate::Consent;
use crate::settings::Options;
use clap::{Args, Parser, Subcommand};
pub(super) use discovery::{Catalog, Describe, Policy};
pub(super) use listen::Listen;
pub(super) use queue::{Bind, DeadLetterCommand, HandlerArgs, InboxArgs, Queue, QueueGuards, QueueWork};
use std::path::PathBuf;
pub(super) use trigger::Trigger;

/// Safety-gated command line for the Bitrix24 REST API
#[derive(Debug, Parser)]
#[command(name = "b24", version, disable_help_subcommand = true, subcommand_required = true, arg_required_else_help = true)]
#[command(override_usage = "b24 METHOD [ITEM...] [OPTIONS]\n       b24 COMMAND [OPTIONS]")]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

impl Cli {
    /// Returns the tree with nothing in it but `call`. A run makes its tree
    /// anew, and that of all commands takes a tenth of a read. What this one
    /// takes, the whole one takes as well; what it refuses must be put to the
    /// whole one, which knows what to say.
    pub(super) fn call_alone() -> clap::Command {
        Global::augment_args(clap::Command::new("b24")).subcommand(Call::augment_args(clap::Command::new(CALL)))
    }
}

/// The command that a method stands for.
pub(super) const CALL: &str = "call";

#[derive(Debug, Args)]
pub(super) struct Global {
    /// Profile of config.toml, or `emulator` for the built-in portal
    #[arg(long, global = true, value_name = "NAME", help_heading = "Profile")]
    pub(super) profile: Option<String>,
    /// Folder of config.toml and credentials.toml
    #[arg(long, global = true, value_name = "DIR", help_heading = "Profile")]
    pub(super) config: Option<PathBuf>,
    /// Read further variables from a file; the environment wins
    #[arg(long, global = true, value_name = "FILE", help_heading = "Profile")]
    pub(super) env_file: Option<PathBuf>,
    /// Form of errors: auto, json or text
    #[arg(long, global = true, value_name = "FORM", value_parser = ["auto", "json", "text"], help_heading = "Output")]
    pub(super) error_format: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Call a REST method; `b24 METHOD` is the short form
    Call(Box<Call>),
    /// Find methods, events and error codes by words, offline
    Search {
        /// Words of a name or purpose, English or Russian
        words: Vec<String>,
        /// How many to show
        #[arg(long, default_value_t = 10)]
        limit: usize,
    },
    /// Describe a method, an event or a pack, offline
    Describe(Describe),
    /// Say what an error code, exit status, plan id or ledger key means, offline
    Explain {
        /// The code
        #[arg(allow_hyphen_values = true)]
        code: String,
    },
    /// List, show, execute or cancel saved plans
    Plan {
        #[command(subcommand)]
        command: Plan,
    },
    /// Look at idempotency records and settle unknown outcomes
    Ledger {
        #[command(subcommand)]
        command: Ledger,
    },
    /// Read and verify the audit log
    Audit {
        #[command(subcommand)]
        command: Audit,
    },
    /// Show the rate limit and operating times of this portal
    Limits {
        /// What to do
        #[arg(value_parser = ["status", "reset"], default_value = "status")]
        action: String,
        /// Consent to a reset
        #[arg(long)]
        confirm_write: bool,
    },
    /// Say whether a method may be called here, and why not, offline
    Policy {
        #[command(subcommand)]
        command: Policy,
    },
    /// Count what b24 knows, or compare it with the portal
    Catalog {
        #[command(subcommand)]
        command: Catalog,
    },
    /// List the packs, or show one
    Packs {
        #[command(subcommand)]
        command: Option<Packs>,
    },
    /// Work off events without loss, look at dead letters, subscribe
    Queue {
        #[command(subcommand)]
        command: Queue,
    },
    /// Receive online events and outgoing webhooks, and hand them to a handler
    Listen(Box<Listen>),
    /// Deliver an event to a handler of yours, as a portal does
    Trigger(Trigger),
    /// Run the built-in portal for other clients
    Emulator {
        #[command(subcommand)]
        command: Emulator,
    },
    /// Explain a topic: agents, env, events, exit-codes, faults, migrate, params, plans, profiles, safety
    Help {
        /// The topic or command
        topic: Option<String>,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "b24 help params shows how items are written, b24 help safety what the flags mean.")]
pub(super) struct Call {
    /// The REST method, for example crm.lead.list
    #[arg(value_name = "METHOD")]
    pub(super) method: Option<String>,
    /// Parameters: key[sub]=text, key:=json, key[]=text, key@file, key:=@file
    #[arg(value_name = "ITEM")]
    pub(super) items: Vec<String>,
    #[command(flatten)]
    pub(super) request: RequestArgs,
    #[command(flatten)]
    pub(super) consent: ConsentArgs,
    #[command(flatten)]
    pub(super) plans: PlanArgs,
    #[command(flatten)]
    pub(super) guards: GuardArgs,
    #[command(flatten)]
    pub(super) repeat: RepeatArgs,
    #[command(flatten)]
    pub(super) limits: LimitArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Request")]
pub(super) struct RequestArgs {
    /// Parameters as JSON, from a file (@FILE) or from standard input (-)
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    pub(super) params: Option<String>,
    /// Generation of the REST API
    #[arg(long, value_name = "API", value_parser = ["v2", "v3", "auto"])]
    pub(super) api: Option<String>,
    /// The same as --api v3
    #[arg(long)]
    pub(super) rest_v3: bool,
    /// Label of this change: it is not queued as an event under the same label
    #[arg(long, value_name = "LABEL")]
    pub(super) auth_connector: Option<String>,
    /// Show the request and the gates; send nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print a curl command with the secret as a variable; send nothing
    #[arg(long)]
    pub(super) curl: bool,
    /// Always add `_b24` to the answer
    #[arg(long)]
    pub(super) meta: bool,
    /// Do not print warnings
    #[arg(long, short)]
    pub(super) quiet: bool,
}

#[derive(Debug, Args, Clone)]
#[command(next_help_heading = "Consent")]
pub(super) struct ConsentArgs {
    /// Consent to a call that creates or changes
    #[arg(long)]
    pub(super) confirm_write: bool,
    /// Consent to a call that deletes, or of an unknown kind
    #[arg(long)]
    pub(super) confirm_destructive: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Plans")]
pub(super) struct PlanArgs {
    /// Save a plan of the call; send nothing
    #[arg(long, conflicts_with = "execute_plan")]
    pub(super) plan_only: bool,
    /// Execute a saved plan
    #[arg(long, value_name = "ID")]
    pub(super) execute_plan: Option<String>,
    /// Keep plans in PATH.d instead of the state folder
    #[arg(long, value_name = "PATH")]
    pub(super) plan_file: Option<PathBuf>,
    /// Life of a plan in seconds, 60 to 86400
    #[arg(long, value_name = "SECONDS")]
    pub(super) plan_ttl_sec: Option<u64>,
    /// Send changes through saved plans only
    #[arg(long)]
    pub(super) require_plan: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Guards")]
pub(super) struct GuardArgs {
    /// Enabled packs, comma-separated, or none
    #[arg(long, value_name = "NAMES")]
    pub(super) packs: Option<String>,
    /// List the packs
    #[arg(long)]
    pub(super) list_packs: bool,
    /// Further allowed method patterns, comma-separated
    #[arg(long, value_name = "PATTERNS")]
    pub(super) method_allowlist: Option<String>,
    /// Allow methods outside the packs and unknown ones, which are destructive
    #[arg(long)]
    pub(super) allow_unlisted: bool,
    /// Send parameters that are not documented but look like a typo
    #[arg(long)]
    pub(super) allow_unknown_params: bool,
    /// Write the audit to this file
    #[arg(long, value_name = "FILE")]
    pub(super) audit_file: Option<PathBuf>,
    /// Do not audit reads
    #[arg(long)]
    pub(super) no_audit: bool,
    /// Mask secrets in the output; always on for b24's own
    #[arg(long, overrides_with = "no_mask_secrets")]
    pub(super) mask_secrets: bool,
    /// Show secret-looking values of the portal's data
    #[arg(long)]
    pub(super) no_mask_secrets: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Repetition")]
pub(super) struct RepeatArgs {
    /// Send under this key once; a repetition is answered from the ledger
    #[arg(long, value_name = "KEY")]
    pub(super) idempotency_key: Option<String>,
    /// Keep the ledger in PATH.d instead of the state folder
    #[arg(long, value_name = "PATH")]
    pub(super) idempotency_file: Option<PathBuf>,
    /// With --auto-key: how long an equal write is answered from the ledger
    #[arg(long, value_name = "SECONDS")]
    pub(super) idempotency_ttl_sec: Option<u64>,
    /// Neither replay nor refuse an equal write; unknown outcomes still block
    #[arg(long)]
    pub(super) no_idempotency: bool,
    /// Answer an equal write from the ledger
    #[arg(long)]
    pub(super) auto_key: bool,
    /// Repeat a write that just succeeded
    #[arg(long)]
    pub(super) again: bool,
    /// Send again what the portal refused under this key
    #[arg(long)]
    pub(super) retry_failed: bool,
    /// Wait for another process that is sending the same write
    #[arg(long)]
    pub(super) wait: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// Seconds that one attempt may take
    #[arg(long, value_name = "SECONDS")]
    pub(super) timeout: Option<u64>,
    /// Seconds that the call may wait in all, for slots, locks and retries
    #[arg(long, value_name = "SECONDS")]
    pub(super) max_wait: Option<u64>,
    /// Largest answer that is taken, for example 64MB
    #[arg(long, value_name = "SIZE")]
    pub(super) max_answer: Option<String>,
    /// Attempts at most, the first included
    #[arg(long, value_name = "N")]
    pub(super) max_attempts: Option<u32>,
    /// Which failures are repeated
    #[arg(long, value_name = "WHICH", value_parser = ["safe", "none"])]
    pub(super) retry: Option<String>,
    /// Requests per second; can only slow down
    #[arg(long, value_name = "N")]
    pub(super) rate: Option<f64>,
    /// Accepted; an expired token is renewed when that is possible
    #[arg(long)]
    pub(super) auto_refresh: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Plan {
    /// List the saved plans
    List,
    /// Show a plan
    Show {
        /// The plan's id
        id: String,
    },
    /// Execute a plan, like --execute-plan
    Execute {
        /// The plan's id
        id: String,
        #[command(flatten)]
        consent: ConsentArgs,
    },
    /// Keep a plan from being executed; remove a file that is no plan
    Cancel {
        /// The plan's id
        id: String,
    },
    /// Delete expired plans
    Prune,
}

#[derive(Debug, Subcommand)]
pub(super) enum Ledger {
    /// List writes whose outcome is unknown or pending
    List {
        /// List every record
        #[arg(long)]
        all: bool,
    },
    /// Show a record with its history
    Show {
        /// A key, auto:..., or at least 8 digits of the record
        key: String,
    },
    /// Say what became of a write whose outcome is unknown or whose record is
    /// damaged or missing; for a person at a terminal, which a program with a
    /// pseudo terminal of its own can pass for
    Resolve {
        /// A key, auto:..., or at least 8 digits of the record
        key: String,
        /// What happened
        #[arg(long = "as", value_name = "VERDICT", value_parser = ["executed", "not-executed", "abandoned"])]
        verdict: String,
        /// How you know
        #[arg(long)]
        reason: String,
    },
    /// Delete a record whose outcome is known: the same write can then run again
    Forget {
        /// A key, auto:..., or at least 8 digits of the record
        key: String,
        /// Consent to it
        #[arg(long)]
        confirm_destructive: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Print the last records, one JSON object a line
    Tail {
        /// How many
        #[arg(long, short = 'n', default_value_t = 20)]
        lines: usize,
    },
    /// Check that no record was changed, removed or reordered
    Verify,
}

#[derive(Debug, Subcommand)]
pub(super) enum Packs {
    /// List the packs
    List,
    /// Show a pack
    Show {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Emulator {
    /// Serve the portal on 127.0.0.1 until stopped
    Serve(EmulatorServe),
    /// Print every change that was made, one JSON object a line
    Log {
        /// Folder of the data; default: that of the emulator profile
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(super) struct EmulatorServe {
    /// Port; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    pub(super) port: u16,
    /// Folder of the data; default: that of the emulator profile
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// Enforce the limits of a cloud portal
    #[arg(long)]
    pub(super) limits: bool,
    /// Requests per second that leak from the bucket (with --limits)
    #[arg(long, value_name = "N", requires = "limits")]
    pub(super) rate: Option<f64>,
    /// Size of the bucket (with --limits)
    #[arg(long, value_name = "N", requires = "limits")]
    pub(super) threshold: Option<f64>,
    /// Life of an access token in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub(super) token_ttl: u64,
    /// Delay of every answer in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(super) latency: u64,
    /// A fault: METHOD:KIND[:times=N][:skip=N]; b24 help faults lists the kinds
    #[arg(long, value_name = "RULE")]
    pub(super) fault: Vec<String>,
}

impl ConsentArgs {
    pub(super) fn consent(&self) -> Consent {
        Consent { write: self.confirm_write, destructive: self.confirm_destructive }
    }
}

impl Global {
    pub(super) fn options(&self) -> Options {
        Options { profile: self.profile.clone(), config: self.config.clone(), env_file: self.env_file.clone(), ..Options::default() }
    }
}

impl Call {
    /// Returns the options that settings are made of.
    pub(super) fn options(&self, global: &Global) -> Options {
        Options {
            packs: self.guards.packs.clone(),
            method_allowlist: self.guards.method_allowlist.clone(),
            allow_unlisted: self.guards.allow_unlisted,
            allow_unknown_params: self.guards.allow_unknown_params,
            require_plan: self.plans.require_plan,
            plan_file: self.plans.plan_file.clone(),
            plan_ttl_sec: self.plans.plan_ttl_sec,
            audit_file: self.guards.audit_file.clone(),
            no_audit: self.guards.no_audit,
            idempotency_file: self.repeat.idempotency_file.clone(),
            idempotency_ttl_sec: self.repeat.idempotency_ttl_sec,
            no_idempotency: self.repeat.no_idempotency,
            auto_key: self.repeat.auto_key,
            again: self.repeat.again,
            no_mask_secrets: self.guards.no_mask_secrets,
            rate: self.limits.rate,
            timeout: self.limits.timeout,
            max_wait: self.limits.max_wait,
            max_answer: self.limits.max_answer.clone(),
            max_attempts: self.limits.max_attempts,
            no_retry: self.limits.retry.as_deref() == Some("none"),
            api: self.api(),
            ..global.options()
        }
    }

    /// Returns the generation that the caller chose.
    pub(super) fn api(&self) -> Option<Api> {
        match self.request.api.as_deref() {
            Some("v2") => Some(Api::V2),
            Some("v3") => Some(Api::V3),
            _ if self.request.rest_v3 => Some(Api::V3),
            _ => None,
        }
    }
}
