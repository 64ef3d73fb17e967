//! The guards that a run of b24 can loosen, as one closed type.
//!
//! A guard that a profile locks cannot be loosened by anybody who runs b24
//! with that profile; one that is not locked may be, and the audit names it
//! (`loosened`). Whatever can loosen something belongs here: the test that
//! walks every guard and every way (`tests/it/lock_table.rs`) also looks for
//! options and variables that stand neither here nor in its list of harmless
//! ones.

use std::fmt;

/// One guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guard {
    /// A write that just succeeded is not repeated.
    Again,
    /// Parameters that look like a typo are not sent.
    AllowUnknownParams,
    /// Methods outside the packs, and unknown ones, are not called.
    AllowUnlisted,
    /// The audit stands where the profile's state is.
    AuditFile,
    /// An equal write is refused, not answered from the ledger.
    AutoKey,
    /// Only the system's certificate authorities are trusted.
    CaFile,
    /// The configuration is the user's own.
    Config,
    /// The ledger stands where the profile's state is.
    IdempotencyFile,
    /// No further methods are allowed.
    MethodAllowlist,
    /// Reads are audited.
    NoAudit,
    /// The ledger is asked and kept.
    NoIdempotency,
    /// Secret-looking values are masked.
    NoMaskSecrets,
    /// The client secret goes to the profile's OAuth server.
    OauthUrl,
    /// The enabled packs are the profile's.
    Packs,
    /// Plans stand where the profile's state is.
    PlanFile,
    /// A plan expires after half an hour.
    PlanTtl,
    /// Requests go to the portal itself.
    Proxy,
    /// Pace, burst and place of the rate limit are the profile's.
    RateLimiter,
    /// The state folder is the profile's.
    StateDir,
    /// Inbox and dead letters stand where the profile's state is.
    StateFile,
}

/// What there is to know about a guard.
struct Facts {
    name: &'static str,
    /// What is looser without it, for people.
    looser: &'static str,
    options: &'static [&'static str],
    variables: &'static [&'static str],
    commands: &'static [&'static str],
    /// What it guards lies in the state folder, so that another folder would
    /// undo it.
    is_kept_in_state: bool,
}

const NOTHING: Facts = Facts { name: "", looser: "", options: &[], variables: &[], commands: &[], is_kept_in_state: false };

/// The facts, in the order of the variants.
const FACTS: &[Facts] = &[
    Facts { name: "again", looser: "a write that just succeeded is repeated", options: &["--again"], ..NOTHING },
    Facts {
        name: "allow-unknown-params",
        looser: "parameters that look like a typo are sent",
        options: &["--allow-unknown-params"],
        ..NOTHING
    },
    Facts {
        name: "allow-unlisted",
        looser: "methods outside the packs, and unknown ones, may be called",
        options: &["--allow-unlisted"],
        ..NOTHING
    },
    Facts {
        name: "audit-file",
        looser: "the audit is written elsewhere",
        options: &["--audit-file"],
        variables: &["B24_AUDIT_FILE"],
        is_kept_in_state: true,
        ..NOTHING
    },
    Facts {
        name: "auto-key",
        looser: "an equal write is answered from the ledger instead of being refused",
        options: &["--auto-key"],
        variables: &["B24_AUTO_KEY"],
        ..NOTHING
    },
    Facts {
        name: "ca-file",
        looser: "further certificate authorities are trusted",
        variables: &["B24_CA_FILE", "SSL_CERT_FILE", "SSL_CERT_DIR"],
        ..NOTHING
    },
    Facts {
        name: "config",
        looser: "another configuration is used than that of the user's home",
        options: &["--config"],
        variables: &["B24_CONFIG", "XDG_CONFIG_HOME", "HOME"],
        ..NOTHING
    },
    Facts {
        name: "idempotency-file",
        looser: "another ledger is asked, which does not know the writes of this one",
        options: &["--idempotency-file"],
        variables: &["B24_IDEMPOTENCY_FILE"],
        is_kept_in_state: true,
        ..NOTHING
    },
    Facts {
        name: "method-allowlist",
        looser: "further methods may be called",
        options: &["--method-allowlist"],
        variables: &["B24_METHOD_ALLOWLIST"],
        ..NOTHING
    },
    Facts { name: "no-audit", looser: "reads are not audited", options: &["--no-audit"], variables: &["B24_AUDIT_FILE"], ..NOTHING },
    Facts {
        name: "no-idempotency",
        looser: "an equal write is neither replayed nor refused",
        options: &["--no-idempotency"],
        commands: &["ledger forget"],
        is_kept_in_state: true,
        ..NOTHING
    },
    Facts {
        name: "no-mask-secrets",
        looser: "secret-looking values of the portal's data are shown",
        options: &["--no-mask-secrets"],
        ..NOTHING
    },
    Facts { name: "oauth-url", looser: "another server gets the client secret", variables: &["B24_OAUTH_URL"], ..NOTHING },
    Facts { name: "packs", looser: "other packs are enabled", options: &["--packs"], variables: &["B24_PACKS"], ..NOTHING },
    Facts {
        name: "plan-file",
        looser: "plans are kept elsewhere",
        options: &["--plan-file"],
        variables: &["B24_PLAN_FILE"],
        is_kept_in_state: true,
        ..NOTHING
    },
    Facts {
        name: "plan-ttl",
        looser: "a plan can be executed for longer than half an hour",
        options: &["--plan-ttl-sec"],
        variables: &["B24_PLAN_TTL_SEC"],
        ..NOTHING
    },
    Facts {
        name: "proxy",
        looser: "requests go through a proxy",
        variables: &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"],
        ..NOTHING
    },
    Facts {
        name: "rate-limiter",
        looser: "requests go faster, or under another limit",
        variables: &["B24_RATE_LIMITER", "B24_RATE_LIMITER_FILE", "B24_RATE_LIMITER_RATE", "B24_RATE_LIMITER_BURST"],
        commands: &["limits reset"],
        is_kept_in_state: true,
        ..NOTHING
    },
    Facts {
        name: "state-dir",
        looser: "ledger, limits, plans, tokens and audit are kept elsewhere",
        variables: &["B24_STATE_DIR", "XDG_STATE_HOME", "HOME"],
        is_kept_in_state: true,
        ..NOTHING
    },
    Facts {
        name: "state-file",
        looser: "events and dead letters are kept elsewhere",
        options: &["--state-file", "--dlq-file"],
        is_kept_in_state: true,
        ..NOTHING
    },
];

impl Guard {
    /// Every guard, by name.
    pub const ALL: &[Guard] = &[
        Guard::Again,
        Guard::AllowUnknownParams,
        Guard::AllowUnlisted,
        Guard::AuditFile,
        Guard::AutoKey,
        Guard::CaFile,
        Guard::Config,
        Guard::IdempotencyFile,
        Guard::MethodAllowlist,
        Guard::NoAudit,
        Guard::NoIdempotency,
        Guard::NoMaskSecrets,
        Guard::OauthUrl,
        Guard::Packs,
        Guard::PlanFile,
        Guard::PlanTtl,
        Guard::Proxy,
        Guard::RateLimiter,
        Guard::StateDir,
        Guard::StateFile,
    ];

    /// Finds a guard by its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Guard> {
        Guard::ALL.iter().copied().find(|guard| guard.name() == name)
    }

    /// Returns every name, for people.
    #[must_use]
    pub fn names() -> String {
        Guard::ALL.iter().map(|guard| guard.name()).collect::<Vec<_>>().join(", ")
    }

    /// Returns its name, as it stands in `locked` and in the audit.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// Returns what is looser without it.
    #[must_use]
    pub fn looser(self) -> &'static str {
        self.facts().looser
    }

    /// Returns the options that loosen it.
    #[must_use]
    pub fn options(self) -> &'static [&'static str] {
        self.facts().options
    }

    /// Returns the variables that loosen it.
    #[must_use]
    pub fn variables(self) -> &'static [&'static str] {
        self.facts().variables
    }

    /// Returns the commands that loosen it for once.
    #[must_use]
    pub fn commands(self) -> &'static [&'static str] {
        self.facts().commands
    }

    /// Returns whether another state folder would undo it: who locks it locks
    /// the state folder too.
    #[must_use]
    pub fn is_kept_in_state(self) -> bool {
        self.facts().is_kept_in_state
    }

    fn facts(self) -> &'static Facts {
        &FACTS[self as usize]
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_lead_back_to_their_guard() {
        let names: Vec<&str> = Guard::ALL.iter().map(|guard| guard.name()).collect();
        assert!(names.is_sorted(), "{names:?}");
        // A fact in the wrong row would be found by this spelling of its guard.
        for guard in Guard::ALL {
            assert_eq!(format!("{guard:?}").to_lowercase(), guard.name().replace('-', ""));
        }
        assert_eq!(FACTS.len(), Guard::ALL.len());
        for guard in Guard::ALL {
            assert_eq!(Guard::parse(guard.name()), Some(*guard));
            assert!(!guard.looser().is_empty());
            let ways = guard.options().len() + guard.variables().len() + guard.commands().len();
            assert!(ways > 0, "{guard} is loosened by nothing");
        }
    }
}
