//! The options of the commands that say what there is.

use super::Global;
use crate::catalog::Api;
use crate::settings::Options;
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(in crate::cli) struct Describe {
    /// Its name
    pub(in crate::cli) name: String,
    /// All fields of all parameters
    #[arg(long)]
    pub(in crate::cli) full: bool,
    /// Parameters for --params, with a value for every documented name
    #[arg(long, conflicts_with_all = ["full", "schema"])]
    pub(in crate::cli) skeleton: bool,
    /// The JSON Schema that parameters are checked with
    #[arg(long, conflicts_with = "full")]
    pub(in crate::cli) schema: bool,
    /// Only this generation of the REST API
    #[arg(long, value_name = "API", value_parser = ["v2", "v3"])]
    api: Option<String>,
}

impl Describe {
    /// Returns the generation that the caller chose.
    pub(in crate::cli) fn api(&self) -> Option<Api> {
        self.api.as_deref().and_then(Api::parse)
    }
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Policy {
    /// Check one method without parameters; nothing is sent or written
    Check(PolicyCheck),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyCheck {
    /// The REST method
    pub(in crate::cli) method: String,
    /// Generation of the REST API
    #[arg(long, value_name = "API", value_parser = ["v2", "v3"])]
    api: Option<String>,
    /// Enabled packs, comma-separated, or none
    #[arg(long, value_name = "NAMES")]
    packs: Option<String>,
    /// Further allowed method patterns, comma-separated
    #[arg(long, value_name = "PATTERNS")]
    method_allowlist: Option<String>,
    /// Allow methods outside the packs and unknown ones, which are destructive
    #[arg(long)]
    allow_unlisted: bool,
    /// Send changes through saved plans only
    #[arg(long)]
    require_plan: bool,
}

impl PolicyCheck {
    /// Returns the options that settings are made of.
    pub(in crate::cli) fn options(&self, global: &Global) -> Options {
        Options {
            packs: self.packs.clone(),
            method_allowlist: self.method_allowlist.clone(),
            allow_unlisted: self.allow_unlisted,
            require_plan: self.require_plan,
            ..global.options()
        }
    }

    /// Returns the generation that the caller chose.
    pub(in crate::cli) fn api(&self) -> Option<Api> {
        self.api.as_deref().and_then(Api::parse)
    }
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Catalog {
    /// Count methods, classes, packs, events and error codes
    Info,
    /// Ask the portal which methods it has and print the differences
    Diff {
        /// Every name
        #[arg(long)]
        full: bool,
        /// Exit with 11 when there are differences
        #[arg(long)]
        detailed_exitcode: bool,
    },
}
