//! Packs: the allowlists that ship with b24, and the check against them.

use crate::error::{Code, Coded};
use crate::method::{Method, MethodError, Pattern, PatternError};
use crate::risk::Risk;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The packs that ship, by name. A test compares the table with the folder.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("apps", include_str!("../packs/apps.json")),
    ("automation", include_str!("../packs/automation.json")),
    ("boards", include_str!("../packs/boards.json")),
    ("collab", include_str!("../packs/collab.json")),
    ("commerce", include_str!("../packs/commerce.json")),
    ("comms", include_str!("../packs/comms.json")),
    ("compliance", include_str!("../packs/compliance.json")),
    ("content", include_str!("../packs/content.json")),
    ("core", include_str!("../packs/core.json")),
    ("diagnostics", include_str!("../packs/diagnostics.json")),
    ("mail", include_str!("../packs/mail.json")),
    ("people", include_str!("../packs/people.json")),
    ("platform", include_str!("../packs/platform.json")),
    ("services", include_str!("../packs/services.json")),
    ("sites", include_str!("../packs/sites.json")),
];

/// The pack that is enabled when nothing is said.
pub const DEFAULT: &str = "core";

/// A named set of method patterns.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pack {
    /// Its name.
    pub pack: String,
    /// What it is for.
    pub purpose: String,
    /// The patterns that it allows.
    pub methods: Vec<String>,
}

/// A pack of the user's own, `[packs.NAME]` in `config.toml`. For a method that
/// is not documented it must say the class, write or destructive; the class of
/// a documented one can only be raised.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserPack {
    /// Names and patterns that it allows.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Names that are writes at least.
    #[serde(default)]
    pub write: Vec<String>,
    /// Names that are destructive.
    #[serde(default)]
    pub destructive: Vec<String>,
}

/// Why packs or an allowlist cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PacksError {
    /// No such pack.
    #[error("there is no pack {0}")]
    Unknown(String),
    /// A pattern cannot be read.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A user's pack bears a name that is taken.
    #[error("the pack {0} of config.toml has the name of a pack that ships")]
    Taken(String),
    /// A name in a user's pack is none.
    #[error("the pack {pack} of config.toml: {source}")]
    Method {
        /// The pack.
        pack: String,
        /// What is wrong.
        source: MethodError,
    },
}

impl Coded for PacksError {
    fn code(&self) -> Code {
        Code::Usage
    }

    fn hint(&self) -> Option<String> {
        let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        Some(format!("Packs: {}, or none", names.join(", ")))
    }
}

/// Returns the packs that ship.
#[must_use]
pub fn built_in() -> Vec<Pack> {
    BUILT_IN.iter().filter_map(|(_, text)| serde_json::from_str(text).ok()).collect()
}

/// What may be called: enabled packs and further patterns.
#[derive(Debug, Default)]
pub struct Allowlist {
    packs: Vec<String>,
    extra: Vec<String>,
    patterns: Vec<Pattern>,
    classes: BTreeMap<Method, Risk>,
    /// What must admit a method as well.
    narrower: Vec<Allowlist>,
}

impl Allowlist {
    /// Lets nothing pass but what another list admits as well, and raises
    /// classes to that list's.
    pub fn narrow(&mut self, other: Allowlist) {
        self.narrower.push(other);
    }

    /// Reads a comma-separated list of packs (empty: `core`; `none`: none) and
    /// a comma-separated list of further patterns.
    pub fn parse(packs: &str, extra: &str) -> Result<Allowlist, PacksError> {
        Allowlist::with_user_packs(packs, extra, &BTreeMap::new())
    }

    /// The same, where the names may also be those of the user's packs.
    pub fn with_user_packs(packs: &str, extra: &str, own: &BTreeMap<String, UserPack>) -> Result<Allowlist, PacksError> {
        if let Some(name) = own.keys().find(|name| BUILT_IN.iter().any(|(taken, _)| taken.eq_ignore_ascii_case(name))) {
            return Err(PacksError::Taken(crate::method::shown(name)));
        }
        let mut allowlist = Allowlist::default();
        for name in enabled(packs) {
            match own.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name)) {
                Some((_, pack)) => allowlist.enable_own(&name, pack)?,
                None => allowlist.enable(&name)?,
            }
        }
        for text in list(extra) {
            let pattern = Pattern::parse(&text)?;
            allowlist.extra.push(pattern.as_str().to_owned());
            allowlist.patterns.push(pattern);
        }
        Ok(allowlist)
    }

    fn enable(&mut self, name: &str) -> Result<(), PacksError> {
        if self.packs.iter().any(|enabled| enabled == name) {
            return Ok(());
        }
        let (_, text) = BUILT_IN.iter().find(|(known, _)| *known == name).ok_or_else(|| PacksError::Unknown(crate::method::shown(name)))?;
        let pack: Pack = serde_json::from_str(text).map_err(|_| PacksError::Unknown(name.to_owned()))?;
        for text in &pack.methods {
            self.patterns.push(Pattern::parse(text)?);
        }
        self.packs.push(pack.pack);
        Ok(())
    }

    fn enable_own(&mut self, name: &str, pack: &UserPack) -> Result<(), PacksError> {
        for text in &pack.methods {
            self.patterns.push(Pattern::parse(text)?);
        }
        for (names, class) in [(&pack.write, Risk::Write), (&pack.destructive, Risk::Destructive)] {
            for text in names {
                let method = Method::parse(text).map_err(|source| PacksError::Method { pack: name.to_owned(), source })?;
                self.patterns.push(Pattern::parse(method.as_str())?);
                let known = self.classes.entry(method).or_insert(class);
                *known = class.max(*known);
            }
        }
        if !self.packs.iter().any(|enabled| enabled == name) {
            self.packs.push(name.to_owned());
        }
        Ok(())
    }

    /// Returns the class that the user's packs give a method.
    #[must_use]
    pub fn own_class(&self, method: &Method) -> Option<Risk> {
        let others = self.narrower.iter().filter_map(|other| other.own_class(method));
        self.classes.get(method).copied().into_iter().chain(others).max()
    }

    /// Returns whether a method may be called.
    #[must_use]
    pub fn admits(&self, method: &Method) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(method)) && self.narrower.iter().all(|other| other.admits(method))
    }

    /// Returns the names of the enabled packs, sorted.
    #[must_use]
    pub fn packs(&self) -> Vec<String> {
        let mut names = self.packs.clone();
        names.sort_unstable();
        names
    }

    /// Returns the further patterns, sorted.
    #[must_use]
    pub fn extra(&self) -> Vec<String> {
        let mut patterns = self.extra.clone();
        patterns.sort_unstable();
        patterns.dedup();
        patterns
    }
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(|part| part.trim().to_ascii_lowercase()).filter(|part| !part.is_empty()).collect()
}

/// Returns the names in a list of packs.
fn enabled(text: &str) -> Vec<String> {
    match list(text) {
        names if names.is_empty() => vec![DEFAULT.to_owned()],
        names if names == ["none"] => Vec::new(),
        names => names,
    }
}

/// Returns the packs that would allow a method, for hints.
#[must_use]
pub fn that_admit(method: &Method) -> Vec<String> {
    built_in()
        .into_iter()
        .filter(|pack| pack.methods.iter().filter_map(|text| Pattern::parse(text).ok()).any(|pattern| pattern.matches(method)))
        .map(|pack| pack.pack)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(name: &str) -> Method {
        Method::parse(name).unwrap()
    }

    #[test]
    fn every_pack_parses_under_its_own_name() {
        assert_eq!(built_in().len(), BUILT_IN.len());
        for (pack, (name, _)) in built_in().iter().zip(BUILT_IN) {
            assert_eq!(pack.pack, *name);
            assert!(!pack.purpose.is_empty());
            for pattern in &pack.methods {
                Pattern::parse(pattern).unwrap();
            }
        }
    }

    #[test]
    fn empty_means_core_and_none_means_none() {
        assert!(Allowlist::parse("", "").unwrap().admits(&method("crm.lead.add")));
        assert!(!Allowlist::parse("none", "").unwrap().admits(&method("crm.lead.add")));
        assert!(Allowlist::parse("none", "crm.lead.*").unwrap().admits(&method("crm.lead.add")));
        assert!(!Allowlist::parse("core", "").unwrap().admits(&method("disk.file.get")));
        assert!(Allowlist::parse("Core, content", "").unwrap().admits(&method("disk.file.get")));
        assert!(matches!(Allowlist::parse("nope", ""), Err(PacksError::Unknown(_))));
        assert!(matches!(Allowlist::parse("none,core", ""), Err(PacksError::Unknown(_))));
    }

    #[test]
    fn a_pack_of_the_users_adds_methods_and_classes() {
        let pack = UserPack {
            methods: vec!["disk.*".to_owned()],
            write: vec!["Acme.Order.sync".to_owned()],
            destructive: vec!["crm.lead.get".to_owned()],
        };
        let own = BTreeMap::from([("mine".to_owned(), pack)]);
        let allowlist = Allowlist::with_user_packs("core,mine", "", &own).unwrap();
        assert_eq!(allowlist.packs(), ["core", "mine"]);
        assert!(allowlist.admits(&method("disk.file.get")) && allowlist.admits(&method("acme.order.sync")));
        assert_eq!(allowlist.own_class(&method("acme.order.sync")), Some(Risk::Write));
        assert_eq!(Allowlist::with_user_packs("core", "", &own).unwrap().own_class(&method("acme.order.sync")), None);
        let taken = BTreeMap::from([("Core".to_owned(), UserPack::default())]);
        assert!(matches!(Allowlist::with_user_packs("", "", &taken), Err(PacksError::Taken(_))));
    }
}
