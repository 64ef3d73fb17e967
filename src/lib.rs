//! b24: one REST call on Bitrix24, through every gate.
//!
//! # The map
//!
//! A file may use those above it in this list, never those below; a test holds
//! that (`tests/it/tidy.rs`).
//!
//! | layer | modules | what |
//! |--|--|--|
//! | words | [`error`] [`secret`] [`method`] [`ids`] [`json`] [`query_string`] | pure values, no I/O |
//! | host | [`crash`] [`env`] [`host`] | the outside world as values |
//! | knowledge | [`risk`] [`catalog`] [`packs`] [`schema`] | embedded, read-only |
//! | request | [`call`] | what the caller asks for, taken apart |
//! | state | [`store`] | durable, locked: ledger, limits, audit, plans, tokens |
//! | choice | [`credential`] [`settings`] | which portal, as whom, under which rules |
//! | gate | [`gate`] | the safety story; the only maker of permits |
//! | wire | [`wire`] | the only HTTP to a portal |
//! | pipeline | [`session`] [`output`] [`interrupt`] [`pipeline`] | one call, start to finish |
//! | events | [`receive`] [`queue`] | what a portal sends, and its way to a handler without loss |
//! | uses | [`emulator`] | a portal on loopback |
//! | faces | [`cli`] | parse and print |
//!
//! # A write, from left to right
//!
//! ```text
//! cli -> gate: shape, method, packs, class, policy, consent, (plan) -> ledger: C
//!     -> limiter: slot -> audit: intent -> ledger: D -> wire: bytes
//!     -> ledger: S | F | N | U -> audit: outcome -> output
//! ```
//!
//! # Invariants, and the tests that hold them
//!
//! 1. Nothing but `wire/` sends HTTP to a portal (`tidy::third_party_crates_stay_at_home`),
//!    and `wire` sends only what `gate` cleared (`gate`'s `compile_fail` examples).
//! 2. No byte of a write leaves before its `D` line and its audit intent are on
//!    disk (`crashes.rs`: a kill at every point).
//! 3. A write that may have run is never sent again by itself, and an answer
//!    proves only what a closed table says (`wire::judge`, `wire::retry::tests`,
//!    `faults.rs`, `answers.rs`).
//! 4. What is sent is rebuilt from what was checked (`call::tests`, `bypass.rs`).
//! 5. No output path prints a secret (`secrets.rs`, `tidy::secrets_are_exposed_in_few_places`).
//!    Nor does one print a character that a reader could not see (`unseen.rs`,
//!    `tidy::everything_is_printed_in_few_places`), or of a plan what its seal
//!    does not cover (`plan_shown.rs`).
//! 6. An event is cleared on the portal only when it is done or its dead letter
//!    is on disk, and nothing is cleared but by id (`queue_crashes.rs`,
//!    `gate::queue_call`).
//! 7. One write is one in every spelling: what the portal would see decides
//!    (`identity_property.rs`, `spellings.rs`), and what PHP parses of it is
//!    what was checked (`php.rs`).
//! 8. Nothing but an answer is waited for longer than `--max-wait` in all, and
//!    no answer and no log takes more memory than its bound
//!    (`store::patience`, `waits.rs`, `audit_size.rs`).
//! 9. Unknown is never read (`risk::tests`, `bypass.rs`).
//! 10. Whatever happens to one file of the state folder, nothing is sent a
//!     second time, and what was lost is said (`damage.rs`, `ledger::model_tests`).
//! 11. An inbox or a file of dead letters that lost lines is told (12), never
//!     taken for a new one (`inbox_damage.rs`).
//! 12. A locked guard is loosened by no option, variable, folder, profile or copy,
//!     and what is loosened without a lock is in the audit (`lock_table.rs`,
//!     `locks.rs`). What this cannot hold is listed in `settings/limits.rs`.
//!
//! # What went wrong elsewhere, and what stops it here
//!
//! | elsewhere | here |
//! |--|--|
//! | a refusal was believed that stood beside a result | `wire::judge` takes what says both for neither |
//! | a create was repeated after a timeout | `wire::retry` gives `Unknown`; only the ledger's operator ends it |
//! | `crm.deal.delete.json` passed as a read | `Method::parse` folds the suffix before anything is decided |
//! | a batch carried what a call could not | `call` takes it apart; each call passes the gate alone |
//! | a lost write was sent again as `=5` instead of `:=5` | `call::identity` compares what the portal sees, not tokens |
//! | a batch command lost its filter behind 1000 values | `query_string` refuses what PHP would drop |
//! | a plan was used up by a refused confirmation | used means dispatched, nothing else |
//! | an error text quoted the webhook's address | `wire/client.rs` is the only place that sees `reqwest::Error` |
//! | a refresh token was spent by two processes | one lock per line of tokens, stored before use |

pub mod call;
pub mod catalog;
pub mod cli;
pub mod crash;
pub mod credential;
pub mod emulator;
pub mod env;
pub mod error;
pub mod gate;
pub mod host;
pub mod ids;
pub mod interrupt;
pub mod json;
pub mod method;
pub mod output;
pub mod packs;
pub mod pipeline;
pub mod query_string;
pub mod queue;
pub mod receive;
pub mod risk;
pub mod schema;
pub mod secret;
pub mod session;
pub mod settings;
pub mod store;
pub mod wire;

use error::Failure;
use host::Host;
use std::ffi::OsString;

/// The whole program: runs one command and returns its exit status.
pub fn run(args: Vec<OsString>, host: &mut Host) -> u8 {
    cli::run(args, host)
}

/// Prints that b24 itself failed and returns the exit status.
pub fn report_bug(host: &mut Host, failure: &Failure) -> u8 {
    let failure = interrupt::with_under_way(failure.clone());
    output::fail(host, &failure, output::ErrorFormat::Json, &secret::Redactor::default())
}
