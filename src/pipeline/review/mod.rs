//! What a person reads before consenting: what each call of a request does,
//! what it acts on, and what it is given.
//!
//! The request was written by a caller who may want to deceive that person.
//! Therefore: what stands first in a block are words of ours, the class and
//! what is lost, which no text of the caller's can push away; every line begins
//! with a word of ours; names, keys and values are quoted and hold no character
//! that prints nothing or turns the line; what is acted on comes before all
//! else that is given; and whatever is left out is counted.
//!
//! A review is made anew from the request whenever it is shown. The seal of a
//! plan covers the text that was saved with it, but that text may be of another
//! version of b24, which showed less.

mod params;

use crate::call::{Call, Request};
use crate::catalog::{self, Api};
use crate::gate;
use crate::json;
use crate::risk::Risk;
use crate::settings::Policy;
use crate::store::plans::Step;
use params::{Given, Room};
use serde_json::{Value, json};

/// Lines of a review that an error object repeats.
const LINES_OF_AN_ERROR: usize = 40;

/// What one request does.
#[derive(Debug)]
pub struct Review {
    /// The class that its plan was made for, or its strictest.
    risk: Risk,
    /// The carrier, if it is a batch.
    batch: Option<Carrier>,
    /// Its calls, in the order in which they are sent.
    calls: Vec<CallReview>,
    /// What a reader must know before all else.
    warning: Option<&'static str>,
}

/// How a batch treats its commands.
#[derive(Debug)]
struct Carrier {
    halts: bool,
}

/// What one call does.
#[derive(Debug)]
struct CallReview {
    /// Its name in the batch, quoted; empty for a single call.
    name: String,
    method: String,
    api: Api,
    risk: Risk,
    /// The class of the method, when parameters made the call stricter.
    raised_from: Option<Risk>,
    purpose: String,
    loses: Option<String>,
    external_effect: Option<String>,
    given: Given,
}

impl Review {
    /// Reviews a request with the class of each of its calls.
    #[must_use]
    pub fn of(request: &Request, risks: &[Risk]) -> Review {
        let batch = match request {
            Request::Single(_) => None,
            Request::Batch(batch) => Some(Carrier { halts: batch.halt }),
        };
        let room = Room::of(request.calls().count());
        let calls = request.calls().zip(risks).map(|((name, call), risk)| CallReview::of(name, call, *risk, room));
        Review { risk: risks.iter().max().copied().unwrap_or(Risk::Destructive), batch, calls: calls.collect(), warning: None }
    }

    /// Reviews a step of a saved plan, as this version of b24 understands it.
    #[must_use]
    pub fn of_step(step: &Step, policy: &Policy) -> Review {
        let planned = Risk::parse(&step.risk).unwrap_or(Risk::Destructive);
        let parsed = Api::parse(&step.api).and_then(|api| Request::parse(&step.method, step.params.clone(), api).ok());
        let Some(request) = parsed else {
            let warning = Some("this version of b24 does not understand the step and will not execute it");
            return Review { risk: planned, batch: None, calls: Vec::new(), warning };
        };
        let review = Review::of(&request, &gate::classes(&request, policy));
        let warning =
            (review.risk != planned).then_some("its class is another one here and now, where it is not executed; make the plan anew");
        Review { risk: review.risk.max(planned), warning, ..review }
    }

    /// Returns the review as lines, a block a call. Each is safe to print, in
    /// any order and wherever it stands.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.warning.iter().map(|warning| format!("warning: {warning}")).collect();
        let count = self.calls.len();
        if let Some(carrier) = &self.batch {
            let of_class = |risk: Risk| (self.calls.iter().filter(|call| call.risk == risk).count(), risk.text());
            let classes = [Risk::Destructive, Risk::Write, Risk::Read].map(of_class);
            let classes: Vec<String> =
                classes.iter().filter(|(count, _)| *count > 0).map(|(count, class)| format!("{count} {class}")).collect();
            let after = if carrier.halts { "the portal stops at the first error" } else { "an error does not stop the others" };
            lines.push(format!("{}: batch, commands: {count} ({}); {after}", self.risk.text(), classes.join(", ")));
        } else if self.calls.is_empty() {
            lines.push(self.risk.text().to_owned());
        }
        for (index, call) in self.calls.iter().enumerate() {
            let (head, indent) = match &self.batch {
                Some(_) => (format!("command {} of {count}: ", index + 1), "  "),
                None => (String::new(), ""),
            };
            let [first, rest @ ..] = &call.lines()[..] else { continue };
            lines.push(format!("{head}{first}"));
            lines.extend(rest.iter().map(|line| format!("{indent}{line}")));
        }
        lines
    }

    /// Returns the lines as an error object repeats them.
    #[must_use]
    pub fn short_lines(&self) -> Vec<String> {
        let mut lines = self.lines();
        if lines.len() > LINES_OF_AN_ERROR {
            let more = lines.len() - LINES_OF_AN_ERROR;
            lines.truncate(LINES_OF_AN_ERROR);
            lines.push(format!("{more} more lines; --dry-run or --plan-only prints all"));
        }
        lines
    }

    /// Returns the review as data.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let calls: Vec<Value> = self.calls.iter().map(CallReview::to_value).collect();
        let mut value = json!({"risk": self.risk.text(), "count": calls.len(), "calls": calls});
        if let Some(carrier) = &self.batch {
            value["halts_at_error"] = json!(carrier.halts);
        }
        if let Some(warning) = self.warning {
            value["warning"] = json!(warning);
        }
        value
    }
}

impl CallReview {
    fn of(name: &str, call: &Call, risk: Risk, room: Room) -> CallReview {
        let entry = catalog::find(&call.method, call.api);
        let details = entry.and_then(|entry| entry.details());
        let mut effects = gate::effects(&call.name, call.api);
        let mut effect = |key: &str| match effects.shift_remove(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        CallReview {
            name: if name.is_empty() { String::new() } else { params::name(name) },
            method: call.name.clone(),
            api: call.api,
            risk,
            raised_from: entry.map(|entry| entry.class).filter(|class| *class < risk),
            purpose: effect("purpose").unwrap_or_else(|| "not documented, so nothing is known of what it does".to_owned()),
            loses: effect("loses"),
            external_effect: effect("external_effect"),
            given: Given::of(&call.params, details.as_ref(), room),
        }
    }

    fn lines(&self) -> Vec<String> {
        let loses = self.loses.as_ref().map_or_else(String::new, |loses| format!("; loses: {loses}"));
        let mut lines = vec![format!("{}: {} ({}): {}{loses}", self.risk.text(), self.method, self.api.text(), self.purpose)];
        lines
            .extend(self.raised_from.map(|class| format!("its class: {} by what it is given, {} without", self.risk.text(), class.text())));
        lines.extend(self.external_effect.iter().map(|effect| format!("reaches beyond the portal: {effect}")));
        if !self.name.is_empty() {
            lines.push(format!("its name: {}", self.name));
        }
        lines.extend(self.given.lines());
        lines
    }

    fn to_value(&self) -> Value {
        let mut value = json!({"method": self.method, "api": self.api.text(), "risk": self.risk.text(), "purpose": self.purpose});
        if let Some(class) = self.raised_from {
            value["risk_without_params"] = json!(class.text());
        }
        for (key, text) in [("loses", &self.loses), ("external_effect", &self.external_effect)] {
            if let Some(text) = text {
                value[key] = json!(text);
            }
        }
        if !self.name.is_empty() {
            value["command"] = json!(self.name);
        }
        self.given.add_to(&mut value);
        value
    }
}

/// Returns a text of a caller's in quotes, with nothing unseen in it.
fn quoted(text: &str) -> String {
    json::escape_deceptive(&Value::from(text).to_string())
}

#[cfg(test)]
mod tests;
