//! What the owner of a receiver should know about requests that were turned
//! away, without a flood of them filling memory or a log.

use super::pace::Pace;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Alarms of one kind: this many at once, then one a second.
const BURST: u32 = 3;

/// Why a request was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlarmKind {
    /// There was no application token.
    MissingToken,
    /// The application token was another.
    WrongToken,
    /// The body was larger than the limit.
    TooLarge,
    /// The request was no event, or did not come to its end in time.
    Malformed,
    /// More events came than the limit allows.
    TooFast,
    /// The event could not be stored; the portal does not repeat it.
    Unavailable,
}

impl AlarmKind {
    const ALL: [AlarmKind; 6] = [
        AlarmKind::MissingToken,
        AlarmKind::WrongToken,
        AlarmKind::TooLarge,
        AlarmKind::Malformed,
        AlarmKind::TooFast,
        AlarmKind::Unavailable,
    ];

    /// Returns the word that output uses.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            AlarmKind::MissingToken => "missing_token",
            AlarmKind::WrongToken => "wrong_token",
            AlarmKind::TooLarge => "too_large",
            AlarmKind::Malformed => "malformed",
            AlarmKind::TooFast => "too_fast",
            AlarmKind::Unavailable => "unavailable",
        }
    }
}

/// A request that was turned away. Nothing in it was proved by a token, except
/// where the kind is `TooFast` or `Unavailable`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// Why.
    pub kind: AlarmKind,
    /// The event that it claimed to be, if that looks like one.
    pub event: Option<String>,
    /// The portal that it claimed to come from, if that looks like a host.
    pub domain: Option<String>,
    /// Who sent it; behind a reverse proxy, the proxy.
    pub peer: IpAddr,
    /// How many alarms of this kind were left out before this one.
    pub suppressed: u64,
}

/// Decides which alarms are given.
#[derive(Debug)]
pub(super) struct Alarms(Vec<Line>);

#[derive(Debug)]
struct Line {
    kind: AlarmKind,
    pace: Option<Pace>,
    suppressed: Mutex<u64>,
}

impl Alarms {
    pub(super) fn new() -> Alarms {
        let line = |kind| Line { kind, pace: Pace::new(1.0, BURST), suppressed: Mutex::new(0) };
        Alarms(AlarmKind::ALL.into_iter().map(line).collect())
    }

    /// Gives an alarm to the function unless there were too many of its kind.
    /// The function says whether it could pass it on; if not, it counts as
    /// left out.
    pub(super) fn raise(&self, mut alarm: Alarm, now_ns: u64, pass_on: impl FnOnce(Alarm) -> bool) {
        let Some(line) = self.0.iter().find(|line| line.kind == alarm.kind) else { return };
        let mut suppressed = line.suppressed.lock().unwrap_or_else(PoisonError::into_inner);
        alarm.suppressed = *suppressed;
        let is_due = line.pace.as_ref().is_none_or(|pace| pace.take(now_ns).is_ok());
        *suppressed = if is_due && pass_on(alarm) { 0 } else { suppressed.saturating_add(1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_flood_becomes_a_few_alarms_with_a_count() {
        let alarms = Alarms::new();
        let mut given = Vec::new();
        let mut raise = |kind, now_s: u64| {
            let alarm = Alarm { kind, event: None, domain: None, peer: Ipv4Addr::LOCALHOST.into(), suppressed: 0 };
            alarms.raise(alarm, now_s * 1_000_000_000, |alarm| {
                given.push((alarm.kind, alarm.suppressed));
                true
            });
        };
        (0..100).for_each(|_| raise(AlarmKind::WrongToken, 10));
        raise(AlarmKind::Malformed, 10);
        raise(AlarmKind::WrongToken, 11);
        let expected = [
            (AlarmKind::WrongToken, 0),
            (AlarmKind::WrongToken, 0),
            (AlarmKind::WrongToken, 0),
            (AlarmKind::Malformed, 0),
            (AlarmKind::WrongToken, 97),
        ];
        assert_eq!(given, expected);
    }

    #[test]
    fn an_alarm_that_cannot_be_passed_on_is_counted() {
        let alarms = Alarms::new();
        let alarm = Alarm { kind: AlarmKind::TooFast, event: None, domain: None, peer: Ipv4Addr::LOCALHOST.into(), suppressed: 0 };
        alarms.raise(alarm.clone(), 0, |_| false);
        alarms.raise(alarm, 0, |alarm| {
            assert_eq!(alarm.suppressed, 1);
            true
        });
    }
}
