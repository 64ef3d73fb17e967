//! The permits: a call that was cleared, one that departs, one in flight.
//!
//! They are made by the gate alone, cannot be copied, and are spent by value:
//! a call that may have run cannot be sent again, because nobody holds it.

use crate::call::Request;
use crate::catalog::Api;
use crate::risk::Risk;
use crate::store::audit::Receipt;
use crate::store::ledger::{Claim, Settlement};
use crate::store::limiter::Slot;
use crate::store::locked::StoreError;

/// The permission to send one request, once. Only [`Reviewed::claim`] makes
/// one, after every step; it cannot be copied.
#[must_use = "send it, or drop it and with it the claim"]
pub struct ClearedCall {
    pub(super) request: Request,
    pub(super) risks: Vec<Risk>,
    pub(super) claims: Vec<Option<Claim>>,
}

/// A request whose intent is recorded and whose slot is taken: it may leave.
#[must_use = "send it"]
pub struct Departure {
    call: ClearedCall,
    request_id: String,
    _slot: Slot,
}

/// A request that left, or may have left. Only proof that it was not executed
/// turns it back into a permission.
#[must_use = "settle it"]
pub struct Flight(ClearedCall);

/// Why a cleared call did not depart.
#[derive(Debug, thiserror::Error)]
pub enum NotDeparted {
    /// The barrier could not be made durable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A write without a durable audit intent: a bug.
    #[error("a write has no audit intent")]
    NoIntent,
}

impl ClearedCall {
    /// Returns the strictest class.
    #[must_use]
    pub fn risk(&self) -> Risk {
        self.risks.iter().copied().max().unwrap_or(Risk::Destructive)
    }

    /// Returns the request.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Returns the names of the ledger records, by command.
    #[must_use]
    pub fn records(&self) -> Vec<String> {
        self.claims.iter().flatten().map(|claim| claim.record().to_owned()).collect()
    }

    /// Returns the key by which REST v3 deduplicates a single write.
    #[must_use]
    pub fn idempotency_header(&self) -> Option<String> {
        match (&self.request, self.claims.as_slice()) {
            (Request::Single(call), [Some(claim)]) if call.api == Api::V3 => Some(claim.header()),
            _ => None,
        }
    }

    /// Passes the dispatch barrier: the intent is durable (its receipt says
    /// so), the slot is spent, and every write's `D` line is on disk.
    pub fn depart(mut self, request_id: &str, slot: Slot, intent: Option<&Receipt>) -> Result<Departure, NotDeparted> {
        if intent.is_none() && self.claims.iter().any(Option::is_some) {
            return Err(NotDeparted::NoIntent);
        }
        let dispatched = self.claims.iter_mut().flatten().try_for_each(|claim| claim.dispatch(request_id));
        if let Err(error) = dispatched {
            // Nothing was sent; say so where it can still be said.
            let _ = self.withdraw("the dispatch could not be recorded");
            return Err(error.into());
        }
        Ok(Departure { call: self, request_id: request_id.to_owned(), _slot: slot })
    }

    /// Gives the claims back unused, marked as not executed.
    pub fn withdraw(mut self, why: &str) -> Result<(), StoreError> {
        self.mark_unexecuted(why)
    }

    /// One record that cannot be written must not keep the others from being
    /// written.
    fn mark_unexecuted(&mut self, why: &str) -> Result<(), StoreError> {
        let mut result = Ok(());
        for claim in self.claims.iter_mut().flatten() {
            result = result.and(claim.withdraw(why));
        }
        result
    }
}

impl Departure {
    /// Returns what to send.
    pub fn call(&self) -> &ClearedCall {
        &self.call
    }

    /// Returns the id that the portal's log and the audit share.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Marks the moment from which on a byte may have left.
    pub(crate) fn take_off(self) -> Flight {
        Flight(self.call)
    }
}

impl Flight {
    /// Returns the class of each call, in order.
    #[must_use]
    pub fn risks(&self) -> &[Risk] {
        &self.0.risks
    }

    /// Returns the request.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.0.request
    }

    /// Returns the names of the ledger records.
    #[must_use]
    pub fn records(&self) -> Vec<String> {
        self.0.records()
    }

    /// Turns the flight back into a permission. For the transport alone, which
    /// calls it when the request surely was not executed, or only reads.
    pub(crate) fn land_unexecuted(mut self, why: &str) -> Result<ClearedCall, StoreError> {
        self.0.mark_unexecuted(why)?;
        Ok(self.0)
    }

    /// Writes how each write ended; `settlements` has one entry a call.
    pub fn settle(self, settlements: Vec<Option<Settlement>>) -> Result<(), StoreError> {
        let mut result = Ok(());
        for (claim, settlement) in self.0.claims.into_iter().zip(settlements) {
            if let (Some(claim), Some(settlement)) = (claim, settlement) {
                // As for `mark_unexecuted`: every record gets its line.
                result = result.and(claim.settle(settlement));
            }
        }
        result
    }
}
