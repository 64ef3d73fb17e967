//! Why the ledger refuses a write.

use crate::error::{Code, Coded};
use crate::store::locked::StoreError;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Why the ledger refuses a write.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another process is sending it.
    #[error("another process is sending this write now")]
    InProgress(String),
    /// The key stands for another write.
    #[error("the idempotency key was used for another write ({method})")]
    KeyReused {
        /// The record.
        record: String,
        /// The method of the other write.
        method: String,
    },
    /// An attempt may have been executed.
    #[error("an earlier attempt of this write has an unknown outcome")]
    Unknown {
        /// The record.
        record: String,
    },
    /// The same write succeeded a moment ago.
    #[error("the same write succeeded {seconds} s ago and was not sent again")]
    LooksRepeated {
        /// The record.
        record: String,
        /// How long ago.
        seconds: u64,
    },
    /// An operator closed the key.
    #[error("the key was closed as abandoned")]
    Abandoned(String),
    /// The portal refused it before.
    #[error("the portal refused this write under this key before: {text}")]
    RefusedBefore {
        /// The record.
        record: String,
        /// What kind of refusal it was.
        kind: Code,
        /// The portal's code.
        code: String,
        /// The portal's text.
        text: String,
    },
    /// The record is damaged, or gone.
    #[error("the ledger record {} {problem}; its write is not sent", path.display())]
    Damaged {
        /// The record.
        record: String,
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LedgerError {
    /// Says what is wrong with a record.
    pub(super) fn damaged(record: &str, path: &Path, problem: String) -> LedgerError {
        LedgerError::Damaged { record: record.to_owned(), path: path.to_owned(), problem }
    }
}

/// Says how a person ends what b24 must not decide.
fn look_and_resolve(record: &str) -> String {
    format!(
        "Look on the portal whether it happened; then a person runs b24 ledger resolve {} --as executed|not-executed|abandoned --reason TEXT",
        &record[..16]
    )
}

impl Coded for LedgerError {
    fn code(&self) -> Code {
        match self {
            LedgerError::InProgress(_) => Code::InProgress,
            LedgerError::KeyReused { .. } => Code::KeyReused,
            LedgerError::Unknown { .. } => Code::OutcomeUnknown,
            LedgerError::LooksRepeated { .. } => Code::LooksRepeated,
            LedgerError::Abandoned(_) => Code::Abandoned,
            LedgerError::RefusedBefore { kind, .. } => *kind,
            LedgerError::Damaged { .. } => Code::LedgerCorrupt,
            LedgerError::Store(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            LedgerError::InProgress(_) => "Wait for the other process, or use --wait".to_owned(),
            LedgerError::KeyReused { .. } => "Use a new key for a new write".to_owned(),
            LedgerError::Unknown { record } | LedgerError::Damaged { record, .. } => look_and_resolve(record),
            LedgerError::LooksRepeated { .. } => {
                "Ask the user whether the repetition is meant; b24 help safety says how a meant one is sent".to_owned()
            }
            LedgerError::Abandoned(_) => "Use a new key if the write is wanted after all".to_owned(),
            LedgerError::RefusedBefore { .. } => {
                "Correct the call and use a new key or plan; --retry-failed sends the same call again under a key".to_owned()
            }
            LedgerError::Store(error) => return error.hint(),
        })
    }

    fn details(&self) -> Map<String, Value> {
        let record = match self {
            LedgerError::InProgress(record)
            | LedgerError::Abandoned(record)
            | LedgerError::KeyReused { record, .. }
            | LedgerError::Unknown { record }
            | LedgerError::LooksRepeated { record, .. }
            | LedgerError::Damaged { record, .. }
            | LedgerError::RefusedBefore { record, .. } => record,
            LedgerError::Store(_) => return Map::new(),
        };
        let mut details = Map::from_iter([("ledger".to_owned(), Value::from(record.as_str()))]);
        if let LedgerError::RefusedBefore { code, .. } = self {
            details.insert("code".to_owned(), Value::from(code.as_str()));
        }
        details
    }
}
