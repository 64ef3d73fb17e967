//! The fingerprint by which versions before the present one recorded writes:
//! over the caller's tokens.
//!
//! Such records still count: a write whose outcome is unknown blocks for ever,
//! and a done one for as long as it is kept. It is only computed to look them
//! up; no record is written under it any more.

use super::{Batch, Call};
use crate::json;

pub(super) fn of_call(call: &Call) -> String {
    json::sha256_hex(format!("b24-fp-v1\0{}\0{}\0{}", call.method, call.api.text(), json::canonical(&call.params)))
}

pub(super) fn of_batch(batch: &Batch) -> Vec<String> {
    let mut fingerprints: Vec<String> = Vec::new();
    for (index, command) in batch.commands.iter().enumerate() {
        let mut form = of_call(&command.call);
        let text = command.call.params.to_string();
        if text.contains("$result") || text.contains("$ref") {
            for (earlier, fingerprint) in batch.commands[..index].iter().zip(&fingerprints) {
                if text.contains(earlier.name.as_str()) {
                    form.push_str(fingerprint);
                }
            }
            form = json::sha256_hex(&form);
        }
        fingerprints.push(form);
    }
    fingerprints
}
