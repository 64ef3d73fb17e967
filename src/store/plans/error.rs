//! Why a plan cannot be used.

use crate::error::{Code, Coded};
use crate::ids::PlanId;
use crate::store::locked::StoreError;

/// Why a plan cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Not an id.
    #[error("{0} is not a plan id")]
    NotAnId(String),
    /// No such plan.
    #[error("there is no plan {0}")]
    NotFound(PlanId),
    /// The file was changed.
    #[error("the file of plan {plan} is not the one that was saved: {problem}")]
    Changed {
        /// The plan.
        plan: PlanId,
        /// What is wrong.
        problem: &'static str,
    },
    /// Too old.
    #[error("plan {plan} expired at {expires}")]
    Expired {
        /// The plan.
        plan: PlanId,
        /// When.
        expires: String,
    },
    /// Made in the future.
    #[error("plan {plan} was made at {created}, which is in the future; check the clock")]
    FromFuture {
        /// The plan.
        plan: PlanId,
        /// When.
        created: String,
    },
    /// Made for something else.
    #[error("plan {plan} was made for the {what} {planned}, not {actual}")]
    Foreign {
        /// The plan.
        plan: PlanId,
        /// What differs.
        what: &'static str,
        /// In the plan.
        planned: String,
        /// Now.
        actual: String,
    },
    /// Executed before.
    #[error("plan {0} was executed already")]
    Used(PlanId),
    /// Cancelled.
    #[error("plan {0} was cancelled")]
    Cancelled(PlanId),
    /// A file could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Coded for PlanError {
    fn code(&self) -> Code {
        match self {
            PlanError::NotAnId(_) => Code::Usage,
            PlanError::NotFound(_) => Code::PlanNotFound,
            PlanError::Changed { .. } => Code::PlanChanged,
            PlanError::Expired { .. } | PlanError::FromFuture { .. } => Code::PlanExpired,
            PlanError::Foreign { .. } => Code::PlanForeign,
            PlanError::Used(_) => Code::PlanUsed,
            PlanError::Cancelled(_) => Code::PlanCancelled,
            PlanError::Store(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            PlanError::NotAnId(_) | PlanError::NotFound(_) => "b24 plan list shows the plans".to_owned(),
            PlanError::Used(id) => format!("b24 ledger show {id} prints what came of it"),
            PlanError::Changed { .. }
            | PlanError::Expired { .. }
            | PlanError::FromFuture { .. }
            | PlanError::Foreign { .. }
            | PlanError::Cancelled(_) => "Make a new plan with --plan-only".to_owned(),
            PlanError::Store(error) => return error.hint(),
        })
    }
}
