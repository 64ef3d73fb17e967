//! The options of `b24 trigger`.

use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "The event carries no access token. Example: b24 trigger ONCRMDEALADD 42 --to http://127.0.0.1:8080/handler")]
pub(in crate::cli) struct Trigger {
    /// The event, for example ONCRMDEALADD
    #[arg(value_name = "EVENT")]
    pub(in crate::cli) event: String,
    /// Id of the object, then data[...]=text, auth[...]=text, ts=text
    #[arg(value_name = "ITEM")]
    pub(in crate::cli) items: Vec<String>,
    /// Address of the handler: on this machine, or on an allowed host; without it, with --profile emulator, the built-in portal raises the event
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) to: Option<String>,
    /// Where the application token is: @FILE, or - for standard input; else the environment
    #[arg(long, value_name = "SOURCE", allow_hyphen_values = true)]
    pub(in crate::cli) application_token: Option<String>,
    /// Host that may be delivered to besides this machine: HOST or HOST:PORT
    #[arg(long, value_name = "HOST")]
    pub(in crate::cli) allow_host: Vec<String>,
    /// Deliver it so many times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(in crate::cli) count: u32,
    /// Take an event that is not documented
    #[arg(long)]
    pub(in crate::cli) unlisted: bool,
    /// Print the event; deliver nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
}
