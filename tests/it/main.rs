//! Tests of the whole program against the emulator.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![allow(clippy::disallowed_methods, reason = "tests read their own switches and measure their own waits")]
#![allow(clippy::print_stdout, reason = "a campaign says what it counted")]

mod answers; // answers that prove nothing
mod audit_size; // the audit log at any length
mod audited; // what the audit says, type by type
mod bypass; // tricks against the gate, by the call itself
mod bypass_setup; // by profile, environment and files
mod call; // what one call does, for its user
mod canary; // looks for secrets where none may be
mod catalog; // the embedded facts are current
mod choices; // choices that one number decides
mod closed_pipes; // readers that go away
mod crashes; // kill -9 at every point and any moment
mod curl; // what --curl prints, run by a shell
mod damage; // damaged state: nothing twice, nothing lost in silence
mod damage_kinds; // every damage of every file
mod damage_old; // state of the last version
mod damage_tokens; // tokens that were lost or changed
mod discover; // what there is, without asking a portal
mod disk; // full, broken and foreign disks
mod disk_model; // what a disk may hold after a loss of power
mod disk_trace; // which sync stands between which points
mod earlier; // what earlier versions recorded
mod faults; // every fault of the portal
#[path = "../fuzz/src/entries/mod.rs"]
mod fuzz; // entry points of everything that is read
mod fuzz_entries; // and what any bytes do to them
mod gate_property; // what holds for every method and spelling
mod given_files; // files and variables that a user names
mod home; // a password database of one's own
mod identity; // what makes two writes the same
mod identity_property; // one call, one fingerprint
mod inbox_damage; // damage to every file of an inbox
mod inbox_damage_listen; // of a receiver, and of those that run
mod kept; // what must hold after everything
mod listen; // online events, end to end
mod listen_crowd; // who says nothing in front of the receiver
mod lock_table; // every guard, and every way to loosen it
mod locks; // what holds although somebody tries
mod marks; // calls that a parameter makes destructive
mod marks_property; // every row of their table, in every spelling
mod oauth; // one refresh for everybody, and no pair lost
mod once; // many processes, one write
mod pace; // the rate that all processes share
mod person; // a configuration at home, and who would like another
mod php; // PHP judges what is sent
mod php_limits; // what PHP would drop in silence
mod plan_shown; // what a person reads of a plan
mod plan_tricks; // tricks with saved plans
mod plans; // saved plans: what they say is sent, once
mod power_inbox; // a loss of power around a worker
mod power_ledger; // a loss of power around one write
mod power_loss; // at every moment, every state of the disk
mod power_rules; // each rule of durability, left out once
mod power_state; // a loss of power around tokens and plans
mod queue_campaign; // ten thousand events, none lost
mod queue_disk; // a full disk under a worker
mod queue_kills; // a worker killed at every point
mod queue_letters; // dead letters, and what a worker leaves behind
mod queue_losses; // lost answers and second deliveries
mod queue_pair; // two workers, and the end of one
mod queue_usage; // how a worker ends
mod queue_world; // its harness
mod readme; // every command of the README runs
mod receive; // events that are delivered to this machine
mod replays; // answers that were not kept
mod secrets; // no secret comes out
mod secrets_spelled; // in whatever spelling
mod secrets_wire; // nor from portals that are not there or repeat it
mod spellings; // one write in every spelling
mod tidy; // rules about the source
mod traced; // what a run did to its files
mod trigger; // events for handlers of one's own
mod unseen; // no character that prints nothing comes out raw
#[path = "../../src/store/waiting.rs"]
mod waiting; // who waits for a lock
mod waits; // how long anything is waited for, and how much is taken
mod wiring; // the parts of the gate and the pipeline ask each other
mod world; // the harness
