//! Why the gate refuses: one variant a step, each with its code and hint.

#![deny(clippy::wildcard_enum_match_arm)]

use super::{Decided, effects};
use crate::call::ShapeError;
use crate::catalog::Api;
use crate::error::{Code, Coded};
use crate::risk::Risk;
use crate::schema::Problem;
use crate::store::ledger::LedgerError;
use crate::store::plans::PlanError;
use serde_json::{Map, Value};

/// Why a call is not sent; one variant a step.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request has no shape that b24 sends.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The method is not documented, or not in the generation that is called.
    #[error("{name} is not a documented method{elsewhere}")]
    Unknown {
        /// The name.
        name: String,
        /// Where it is documented instead.
        elsewhere: String,
        /// Names that may have been meant.
        suggestions: Vec<&'static str>,
    },
    /// Neither a pack nor the allowlist admits it.
    #[error("{name} is outside the enabled packs")]
    OutsidePacks {
        /// The method.
        name: String,
        /// Packs that would admit it.
        packs: Vec<String>,
    },
    /// The parameters do not fit the method.
    #[error("the parameters of {name} do not fit: {}", summary(.problems))]
    Params {
        /// The method.
        name: String,
        /// Every problem, with the name of the command.
        problems: Vec<(String, Problem)>,
    },
    /// Only reads are allowed.
    #[error("{name}{} is a {} call and this profile only reads", because(.cause.as_deref()), .risk.text())]
    ReadOnly {
        /// The method.
        name: String,
        /// The generation that is called.
        api: Api,
        /// Its class.
        risk: Risk,
        /// The parameter that made it so, if one did.
        cause: Option<Box<Decided>>,
    },
    /// Changes need a saved plan.
    #[error("{name}{} is a {} call, which must go through a saved plan here", because(.cause.as_deref()), .risk.text())]
    PlanRequired {
        /// The method.
        name: String,
        /// The generation that is called.
        api: Api,
        /// Its class.
        risk: Risk,
        /// The parameter that made it so, if one did.
        cause: Option<Box<Decided>>,
    },
    /// The flag of the class is missing.
    #[error("{name}{} is a {} call and was not confirmed", because(.cause.as_deref()), .risk.text())]
    Unconfirmed {
        /// The method.
        name: String,
        /// The generation that is called.
        api: Api,
        /// Its class.
        risk: Risk,
        /// The parameter that made it so, if one did.
        cause: Option<Box<Decided>>,
    },
    /// The plan cannot be executed.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The ledger says no.
    #[error("{source}")]
    Ledger {
        /// The command of a batch; empty for a single call.
        command: String,
        /// Why.
        source: LedgerError,
    },
    /// Some commands of a batch were executed before, others not.
    #[error("some commands of this batch were executed before: {}", names(.0))]
    PartlyDone(Vec<String>),
}

impl Refusal {
    /// Returns the step that refused, as `--dry-run` and the audit name it.
    #[must_use]
    pub fn step(&self) -> &'static str {
        match self {
            Refusal::Shape(_) => "shape",
            Refusal::Unknown { .. } => "method",
            Refusal::OutsidePacks { .. } => "packs",
            Refusal::Params { .. } => "params",
            Refusal::ReadOnly { .. } => "policy",
            Refusal::PlanRequired { .. } | Refusal::Unconfirmed { .. } => "consent",
            Refusal::Plan(_) => "plan",
            Refusal::Ledger { .. } | Refusal::PartlyDone(_) => "ledger",
        }
    }
}

impl Coded for Refusal {
    fn code(&self) -> Code {
        match self {
            Refusal::Shape(error) => error.code(),
            Refusal::Unknown { .. } => Code::UnknownMethod,
            Refusal::Params { .. } => Code::InvalidParams,
            Refusal::OutsidePacks { .. } | Refusal::ReadOnly { .. } => Code::PolicyDenied,
            Refusal::PlanRequired { .. } => Code::PlanRequired,
            Refusal::Unconfirmed { .. } => Code::ConfirmationRequired,
            Refusal::Plan(error) => error.code(),
            Refusal::Ledger { source, .. } => source.code(),
            Refusal::PartlyDone(_) => Code::LooksRepeated,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Refusal::Shape(error) => return error.hint(),
            Refusal::Unknown { suggestions, .. } if suggestions.is_empty() => "b24 help params shows how a method is named".to_owned(),
            Refusal::Unknown { suggestions, .. } => format!("Did you mean {}?", suggestions.join(", ")),
            Refusal::OutsidePacks { packs, .. } if packs.is_empty() => "No pack covers it; ask the person who keeps the profile".to_owned(),
            Refusal::OutsidePacks { packs, .. } => {
                format!("It is in the pack {}; ask the person who keeps the profile to enable it", packs.join(", "))
            }
            Refusal::Params { name, .. } => format!("b24 describe {name} --full shows what it takes"),
            Refusal::ReadOnly { .. } => "Ask the person who keeps the profile".to_owned(),
            Refusal::PlanRequired { .. } => "Save a plan with --plan-only, show it to the user, then execute it".to_owned(),
            Refusal::Unconfirmed { cause: Some(decided), .. } => {
                format!("It counts so because {}; show the user what will change and ask; the option is named in `gate`", decided.cause.why)
            }
            Refusal::Unconfirmed { cause: None, .. } => "Show the user what will change and ask; the option is named in `gate`".to_owned(),
            Refusal::Plan(error) => return error.hint(),
            Refusal::Ledger { source, .. } => return source.hint(),
            Refusal::PartlyDone(_) => "Send the other commands in a batch of their own".to_owned(),
        })
    }

    fn details(&self) -> Map<String, Value> {
        let mut details = Map::new();
        match self {
            Refusal::Unknown { name, suggestions, .. } => {
                details.insert("method".to_owned(), Value::from(name.as_str()));
                details.insert("suggest".to_owned(), Value::from(suggestions.clone()));
            }
            Refusal::OutsidePacks { name, packs } => {
                details.insert("method".to_owned(), Value::from(name.as_str()));
                details.insert("suggest".to_owned(), Value::from(packs.clone()));
            }
            Refusal::Params { name, problems } => {
                details.insert("method".to_owned(), Value::from(name.as_str()));
                let fields = problems.iter().map(|(command, problem)| {
                    let mut field = problem.to_value();
                    if !command.is_empty() {
                        field["command"] = Value::from(command.as_str());
                    }
                    field
                });
                details.insert("fields".to_owned(), fields.collect());
            }
            Refusal::ReadOnly { name, api, risk, cause }
            | Refusal::PlanRequired { name, api, risk, cause }
            | Refusal::Unconfirmed { name, api, risk, cause } => {
                details.insert("method".to_owned(), Value::from(name.as_str()));
                details.insert("risk".to_owned(), Value::from(risk.text()));
                if let Some(decided) = cause {
                    details.insert("risk_because".to_owned(), decided.to_value());
                }
                details.extend(effects(name, *api));
                let needs_plan = matches!(self, Refusal::PlanRequired { .. });
                details.insert(
                    "gate".to_owned(),
                    serde_json::json!({"needs": risk.text(), "consent": "user", "option": risk.option(), "plan": needs_plan}),
                );
            }
            Refusal::Ledger { command, source } => {
                details = source.details();
                if !command.is_empty() {
                    details.insert("command".to_owned(), Value::from(command.as_str()));
                }
            }
            Refusal::Shape(_) | Refusal::Plan(_) | Refusal::PartlyDone(_) => {}
        }
        details
    }
}

/// Returns names of commands, which are the caller's, for a message.
fn names(commands: &[String]) -> String {
    commands.iter().map(|name| crate::method::shown(name)).collect::<Vec<_>>().join(", ")
}

impl Decided {
    /// Returns the parameter as machines read it.
    fn to_value(&self) -> Value {
        let mut value = serde_json::json!({"param": self.cause.place, "how": self.cause.how.text(), "why": self.cause.why});
        if !self.command.is_empty() {
            value["command"] = Value::from(self.command.as_str());
        }
        value
    }
}

/// Says which parameter made a call what it is.
fn because(decided: Option<&Decided>) -> String {
    decided.map(|decided| format!(" {}", decided.cause)).unwrap_or_default()
}

/// Returns the problems in one line.
fn summary(problems: &[(String, Problem)]) -> String {
    let words = problems.iter().take(3).map(|(command, problem)| {
        let place = if command.is_empty() { String::new() } else { format!("{}: ", crate::method::shown(command)) };
        let path = crate::method::shown(&problem.path);
        match &problem.suggest {
            Some(suggest) => format!("{place}{path} {}, {suggest} is", problem.problem),
            None => format!("{place}{path} {}", problem.problem),
        }
    });
    let line = words.collect::<Vec<_>>().join("; ");
    match problems.len() {
        0..=3 => line,
        more => format!("{line}; and {} more", more - 3),
    }
}
