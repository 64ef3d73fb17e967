//! The options of `b24 listen`.

use super::HandlerArgs;
use clap::Args;
use std::net::IpAddr;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "b24 help events shows handlers and says what is guaranteed.")]
pub(in crate::cli) struct Listen {
    /// Port; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    pub(in crate::cli) port: u16,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(in crate::cli) address: IpAddr,
    /// The only path that is served; default any
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) path: Option<String>,
    /// Where an application token is: @FILE, or - for standard input; else the environment.
    /// May be given several times: every outgoing webhook has its own
    #[arg(long, value_name = "SOURCE", allow_hyphen_values = true)]
    pub(in crate::cli) application_token: Vec<String>,
    /// Largest body in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1_048_576, value_parser = clap::value_parser!(u32).range(1024..=67_108_864))]
    pub(in crate::cli) body_limit: u32,
    /// Events per second; 0 is no limit
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(in crate::cli) rate: u32,
    /// Events that may come at once
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(in crate::cli) burst: u32,
    /// Deliver events to this address, as a portal does
    #[arg(long, value_name = "URL", conflicts_with = "handler")]
    pub(in crate::cli) forward_to: Option<String>,
    /// Host that may be forwarded to besides this machine: HOST or HOST:PORT
    #[arg(long, value_name = "HOST")]
    pub(in crate::cli) allow_host: Vec<String>,
    /// Forward the application token, too, to a handler on this machine
    #[arg(long, requires = "forward_to")]
    pub(in crate::cli) forward_token: bool,
    #[command(flatten)]
    pub(in crate::cli) handler: HandlerArgs,
    /// Keep the inbox in PATH.d instead of the state folder
    #[arg(long, value_name = "PATH", help_heading = "Inbox")]
    pub(in crate::cli) state_file: Option<PathBuf>,
    /// File of the dead letters; default dead-letters.jsonl beside the inbox
    #[arg(long, value_name = "FILE", help_heading = "Inbox")]
    pub(in crate::cli) dlq_file: Option<PathBuf>,
}
