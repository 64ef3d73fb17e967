//! A loss of power at every moment: from the trace of a run, every state in
//! which the disk may then be found is made, and what the user does next is done
//! again, on a portal that has executed what was sent and on one that has not.
//!
//! ```text
//! trace of a run -> each line of it: power fails here
//!     -> each state of the disk (disk_model.rs) x portal has executed it, or not
//!     -> the state folder is made, b24 runs again: what did the portal see?
//! ```
//!
//! The short form takes the states that differ most and runs b24 in this
//! process; `B24_LONG_TESTS=1` takes many more, and a part of them through the
//! program. `power_rules.rs` leaves out one sync at a time and shows that this
//! finds it.

use crate::disk_model::{Breadth, Disk, State};
use crate::kept::asked;
use crate::traced::{Op, Trace};
use crate::world::{Outcome, World};
use std::collections::{BTreeMap, HashSet};
use std::process::Command;

/// A promise that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Broken {
    /// The portal was asked to do once more what it has done.
    SecondExecution,
    /// What the caller was told is not known any more.
    LostOutcome,
    /// The portal has done something without an intent in the audit.
    MissingIntent,
    /// The audit does not say how a call ended that its caller was told of.
    LostRecord,
    /// A pair of tokens that was in use is gone.
    LostTokens,
    /// What lies there is taken for damaged, and nothing goes on.
    Stuck,
    /// An event is neither handled nor there.
    LostEvent,
    /// An event was handled again after the portal was told that it is done.
    HandledAgain,
    /// A handler that brought the machine down is not counted.
    Uncounted,
}

/// What was the case when the power failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Moment {
    passed: BTreeMap<String, usize>,
}

impl Moment {
    /// How often a point was passed.
    pub(crate) fn passed(&self, point: &str) -> usize {
        self.passed.get(point).copied().unwrap_or(0)
    }

    /// Whether the caller was told.
    pub(crate) fn is_told(&self) -> bool {
        self.passed("output.before_print") > 0
    }

    /// How many of the requests between these points the portal may have
    /// executed.
    pub(crate) fn executed(&self, before: &str, after: &str) -> std::ops::RangeInclusive<usize> {
        self.passed(after)..=self.passed(before)
    }
}

/// One state to be judged.
pub(crate) struct Found<'a> {
    pub(crate) moment: &'a Moment,
    pub(crate) state: &'a State,
    /// How many of the requests of the run the portal has executed.
    pub(crate) executed: usize,
    /// Where in the trace the power failed.
    pub(crate) at: usize,
    /// A number that is different for each.
    pub(crate) turn: usize,
}

/// What is judged, and how far it is looked for.
pub(crate) struct Search<'a> {
    pub(crate) trace: &'a Trace,
    /// Where in the trace to begin: what is before it is certain.
    pub(crate) from: usize,
    /// The points that make two moments different.
    pub(crate) points: &'a [&'a str],
    /// Between which two points the portal executes.
    pub(crate) sending: (&'a str, &'a str),
    /// The first broken promise ends it, and the end of the trace comes first.
    pub(crate) stops: bool,
    /// How far the short form looks, and at one moment in how many: those
    /// behind a point are always looked at.
    pub(crate) short: (Breadth, usize),
}

/// What a search came to.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) moments: usize,
    pub(crate) states: usize,
    pub(crate) broken: Vec<(Broken, String)>,
}

pub(crate) fn is_long() -> bool {
    std::env::var_os("B24_LONG_TESTS").is_some()
}

impl Search<'_> {
    /// Judges every state once.
    pub(crate) fn run(&self, mut judge: impl FnMut(&Found) -> Result<(), (Broken, String)>) -> Report {
        let breadth = if is_long() { Breadth::LONG } else { self.short.0 };
        let (mut report, mut seen) = (Report::default(), HashSet::new());
        // What shows in many moments shows at their ends.
        for breadth in if self.stops { vec![Breadth::ENDS, self.short.0] } else { vec![breadth] } {
            self.look(breadth, (&mut report, &mut seen), &mut judge);
            if self.stops && !report.broken.is_empty() {
                break;
            }
        }
        report
    }

    fn look(
        &self,
        breadth: Breadth,
        (report, seen): (&mut Report, &mut HashSet<(u64, usize, Moment)>),
        judge: &mut impl FnMut(&Found) -> Result<(), (Broken, String)>,
    ) {
        for (at, disk, moment) in self.moments() {
            let before = report.states;
            for state in disk.states(breadth, at as u64) {
                for executed in moment.executed(self.sending.0, self.sending.1) {
                    if !seen.insert((state.number(), executed, moment.clone())) {
                        continue;
                    }
                    report.states += 1;
                    let found = Found { moment: &moment, state: &state, executed, at, turn: report.states };
                    if let Err((broken, text)) = judge(&found) {
                        let context = format!("{}: executed {executed}, {:?}: {text}", self.place(at), moment.passed);
                        report.broken.push((broken, context));
                        if self.stops {
                            return;
                        }
                    }
                }
            }
            report.moments += usize::from(report.states > before);
        }
    }

    /// Every moment in which something is different from the one before.
    fn moments(&self) -> Vec<(usize, Disk, Moment)> {
        let (mut disk, mut moment) = (Disk::before(self.trace), Moment::default());
        let mut moments = Vec::new();
        for (at, op) in self.trace.ops.iter().enumerate() {
            if at >= self.from {
                moments.push((at, disk.clone(), moment.clone()));
            }
            disk.apply(op);
            if let Op::Point { name, .. } = op
                && self.points.contains(&name.as_str())
            {
                *moment.passed.entry(name.clone()).or_default() += 1;
            }
        }
        moments.push((self.trace.ops.len(), disk, moment));
        if !is_long() {
            let is_point =
                |at: usize| at > 0 && matches!(&self.trace.ops[at - 1], Op::Point { name, .. } if self.points.contains(&name.as_str()));
            moments.retain(|(at, ..)| at % self.short.1 == 0 || is_point(*at) || *at == self.trace.ops.len());
        }
        // The same disk in the same moment needs one look only.
        moments.dedup_by(|later, earlier| {
            later.2 == earlier.2 && self.trace.ops[earlier.0..later.0].iter().all(|op| matches!(op, Op::Point { .. }))
        });
        if self.stops {
            moments.reverse();
        }
        moments
    }

    fn place(&self, at: usize) -> String {
        let last = self.trace.ops[..at].iter().rfind(|op| matches!(op, Op::Point { .. }));
        format!("line {at} of the trace, behind {last:?}")
    }
}

impl Report {
    /// Asserts that no promise was broken, and says what was looked at.
    #[track_caller]
    pub(crate) fn assert_kept(&self, name: &str) {
        let shown: Vec<String> = self.broken.iter().take(5).map(|(broken, text)| format!("{broken:?} {text}")).collect();
        assert!(self.broken.is_empty(), "{name}: {} of {} states:\n{}", self.broken.len(), self.states, shown.join("\n"));
        println!("{name}: {} states at {} moments, nothing is lost", self.states, self.moments);
    }
}

/// A world in which states are tried out.
pub(crate) struct Trial {
    pub(crate) world: World,
    /// What the portal remembered before the run.
    before: Vec<u8>,
    runs: usize,
}

impl Trial {
    pub(crate) fn new(world: World) -> Trial {
        let before = world.memory();
        Trial { world, before, runs: 0 }
    }

    /// Makes a state the state of the user.
    pub(crate) fn make(world: &World, state: &State) {
        let folder = world.state();
        if folder.exists() {
            std::fs::remove_dir_all(&folder).unwrap();
        }
        state.make(world.home.path());
    }

    /// Runs a command on a state. Returns what it said, and how many requests
    /// of a method the portal saw.
    pub(crate) fn run(&mut self, state: &State, command: &Command, method: &str) -> (Outcome, usize) {
        self.runs += 1;
        // The portal's memory and its log of requests grow.
        if self.runs.is_multiple_of(128) {
            let before = self.before.clone();
            self.world.remember(&before);
        }
        let count = |world: &World| world.requests().iter().filter(|request| request.method == method).count();
        let before = count(&self.world);
        // Some go through the program itself.
        let outcome = match is_long() && self.runs.is_multiple_of(16) {
            true => {
                Trial::make(&self.world, state);
                let mut program = Command::new(command.get_program());
                program.args(command.get_args()).env_clear().current_dir(self.world.home.path());
                program.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
                Outcome::of(&mut program)
            }
            false => asked(&self.world, command, || Trial::make(&self.world, state)),
        };
        (outcome, count(&self.world) - before)
    }
}
