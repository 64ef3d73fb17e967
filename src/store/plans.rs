//! Saved plans: exactly which calls a later command may send.
//!
//! A plan is one immutable file. Its digest covers the canonical form of
//! everything in it, and its seal (an HMAC with the installation's key) the
//! digest, so that an edited file is told from the saved one. A plan is used
//! once: its id is the ledger key of its write, and it counts as used when
//! that record is dispatched, never before. A refused confirmation therefore
//! burns nothing.
//!
//! What an unsealed file says is neither believed nor shown. The preview is
//! under the seal, too, but what a person reads is made anew from the steps
//! (`pipeline::review`): a plan of an earlier version shows what this one would.

mod error;
mod shelf;

pub use error::PlanError;
pub use shelf::{Cancelled, Kept, Pruned};

use crate::host::{self, Clock, Random};
use crate::ids::PlanId;
use crate::json;
use crate::store::locked::{self, StoreError};
use crate::store::witness::Witness;
use crate::store::{create_folder, temporary_name};
use chrono::{DateTime, Duration, Utc};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Sha256;
use std::path::{Path, PathBuf};

/// Version of the format; another one is refused.
pub const SCHEMA: &str = "b24.plan/1";

/// How far a plan may lie in the future: clocks of one machine differ less.
const CLOCK_TOLERANCE: Duration = Duration::minutes(5);

/// A saved plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`SCHEMA`].
    pub schema: String,
    /// The plan's id, a ULID.
    pub plan_id: String,
    /// When it was made.
    pub created: String,
    /// From when on it is refused.
    pub expires: String,
    /// Version of b24 that made it.
    pub b24: String,
    /// Digest of the method catalog that it was checked against.
    pub catalog: String,
    /// Name of the profile.
    pub profile: String,
    /// Identity of the portal.
    pub portal: String,
    /// User of the portal.
    pub principal: String,
    /// Enabled packs and further patterns, sorted.
    pub packs: Vec<String>,
    /// Folder of the ledger that says whether the plan was used, when it is
    /// not the state folder's: in another ledger it would count as unused.
    pub ledger: Option<String>,
    /// What will be sent.
    pub steps: Vec<Step>,
    /// What a person should know before consenting.
    pub preview: Vec<String>,
    /// State of the object that the plan was made for; not read yet.
    pub precondition: Option<Value>,
    /// Makes two equal plans different.
    pub nonce: String,
    /// SHA-256 of the canonical form of all fields above.
    pub digest: String,
    /// HMAC of the digest with the installation's key.
    pub seal: String,
}

/// One request of a plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The method, `batch` for a batch.
    pub method: String,
    /// The API generation.
    pub api: String,
    /// The parameters, as source tokens in source order.
    pub params: Value,
    /// The class.
    pub risk: String,
}

/// What a plan is made for and checked against.
#[derive(Debug, Clone)]
pub struct Binding {
    /// Name of the profile.
    pub profile: String,
    /// Identity of the portal.
    pub portal: String,
    /// User of the portal.
    pub principal: String,
    /// Enabled packs and further patterns, sorted.
    pub packs: Vec<String>,
    /// Folder of the ledger, when it is not the state folder's.
    pub ledger: Option<String>,
}

/// The folder of plans.
pub struct Plans {
    folder: PathBuf,
    key: [u8; 32],
}

impl Plans {
    /// Opens the folder; nothing is created yet.
    #[must_use]
    pub fn new(folder: PathBuf, install_key: [u8; 32]) -> Plans {
        Plans { folder, key: install_key }
    }

    /// Saves a plan.
    pub fn create(
        &self,
        binding: &Binding,
        (steps, preview): (Vec<Step>, Vec<String>),
        ttl: Duration,
        (clock, random): (&dyn Clock, &dyn Random),
    ) -> Result<Plan, StoreError> {
        create_folder(&self.folder)?;
        let now = clock.now();
        let mut bytes = [0; 16];
        random.fill(&mut bytes);
        let id = PlanId::new(host::unix_ms(clock), u128::from_be_bytes(bytes));
        let mut plan = Plan {
            schema: SCHEMA.to_owned(),
            plan_id: id.to_string(),
            created: host::timestamp(now),
            expires: host::timestamp(now + ttl),
            b24: env!("CARGO_PKG_VERSION").to_owned(),
            catalog: catalog_digest(),
            profile: binding.profile.clone(),
            portal: binding.portal.clone(),
            principal: binding.principal.clone(),
            packs: binding.packs.clone(),
            ledger: binding.ledger.clone(),
            preview,
            steps,
            precondition: None,
            nonce: host::random_hex(random, 16),
            digest: String::new(),
            seal: String::new(),
        };
        plan.digest = digest(&serde_json::to_value(&plan).unwrap_or_default());
        plan.seal = self.seal(&plan.digest);
        let text = serde_json::to_string_pretty(&plan).unwrap_or_default();
        locked::create_durable(&self.path(&id), text.as_bytes(), &temporary_name(random))?;
        Ok(plan)
    }

    /// Reads a plan that may be executed: the one that was saved, and not
    /// cancelled.
    pub fn load(&self, text: &str) -> Result<(PlanId, Plan), PlanError> {
        let id = PlanId::parse(text).ok_or_else(|| PlanError::NotAnId(crate::method::shown(text)))?;
        let plan = Plans::understand(&id, self.sealed(&id)?)?;
        match self.is_cancelled(&id)? {
            true => Err(PlanError::Cancelled(id)),
            false => Ok((id, plan)),
        }
    }

    fn understand(id: &PlanId, sealed: Value) -> Result<Plan, PlanError> {
        let changed = |problem| PlanError::Changed { plan: id.clone(), problem };
        if !is_of_this_version(&sealed) {
            return Err(changed("it was made by another version of b24"));
        }
        serde_json::from_value(sealed).map_err(|_| changed("its fields are not those of a plan"))
    }

    /// Reads a file once and checks that it is the one that was saved under
    /// this id. Nothing of a file may be believed or shown before.
    fn sealed(&self, id: &PlanId) -> Result<Value, PlanError> {
        let Some(bytes) = locked::read_if_exists(&self.path(id))? else {
            return Err(match self.is_cancelled(id)? {
                true => PlanError::Cancelled(id.clone()),
                false => PlanError::NotFound(id.clone()),
            });
        };
        let changed = |problem| PlanError::Changed { plan: id.clone(), problem };
        let text = std::str::from_utf8(&bytes).map_err(|_| changed("it is not UTF-8"))?;
        let value = json::parse_strict(text).map_err(|_| changed("it is not JSON"))?;
        let digest = digest(&value);
        if value["digest"] != digest {
            return Err(changed("its digest does not fit"));
        }
        let seal = value["seal"].as_str().and_then(|seal| hex::decode(seal).ok()).unwrap_or_default();
        self.mac(&digest).verify_slice(&seal).map_err(|_| changed("its seal does not fit"))?;
        match value["plan_id"] == id.as_str() {
            true => Ok(value),
            false => Err(changed("it bears another id")),
        }
    }

    fn path(&self, id: &PlanId) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    fn cancelled_path(&self, id: &PlanId) -> PathBuf {
        self.folder.join(format!("{id}.cancelled"))
    }

    /// The second mark of a cancelled plan: the loss of an empty file must not
    /// make the plan one that can be executed.
    fn cancelled_witness(&self, id: &PlanId) -> Witness {
        Witness::at(self.folder.join(".cancelled").join(id.as_str()))
    }

    /// A mark that cannot be looked at is an error, not a mark that is missing.
    fn is_cancelled(&self, id: &PlanId) -> Result<bool, StoreError> {
        Ok(locked::read_if_exists(&self.cancelled_path(id))?.is_some() || self.cancelled_witness(id).is_there()?)
    }

    fn mac(&self, digest: &str) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        mac.update(b"b24-plan-v1\0");
        mac.update(digest.as_bytes());
        mac
    }

    fn seal(&self, digest: &str) -> String {
        hex::encode(self.mac(digest).finalize().into_bytes())
    }
}

impl Plan {
    /// Checks that the plan may be executed now, for this portal and user.
    pub fn check(&self, id: &PlanId, binding: &Binding, now: DateTime<Utc>) -> Result<(), PlanError> {
        let foreign = |what, planned: &str, actual: &str| PlanError::Foreign {
            plan: id.clone(),
            what,
            planned: planned.to_owned(),
            actual: actual.to_owned(),
        };
        for (what, planned, actual) in [
            ("portal", &self.portal, &binding.portal),
            ("profile", &self.profile, &binding.profile),
            ("user", &self.principal, &binding.principal),
        ] {
            if planned != actual {
                return Err(foreign(what, planned, actual));
            }
        }
        if self.packs != binding.packs {
            return Err(foreign("packs", &self.packs.join(","), &binding.packs.join(",")));
        }
        if self.ledger != binding.ledger {
            let place = |ledger: &Option<String>| ledger.clone().unwrap_or_else(|| "of the state folder".to_owned());
            return Err(foreign("ledger", &place(&self.ledger), &place(&binding.ledger)));
        }
        let expired = || PlanError::Expired { plan: id.clone(), expires: self.expires.clone() };
        let created = parse_time(&self.created).ok_or_else(expired)?;
        if created > now + CLOCK_TOLERANCE {
            return Err(PlanError::FromFuture { plan: id.clone(), created: self.created.clone() });
        }
        match parse_time(&self.expires) {
            Some(expires) if now < expires => Ok(()),
            _ => Err(expired()),
        }
    }
}

/// A version may read the plans of those that differ in the last number only.
fn is_of_this_version(sealed: &Value) -> bool {
    let made_by = sealed["b24"].as_str().unwrap_or_default();
    sealed["schema"] == SCHEMA && made_by.split('.').take(2).eq(env!("CARGO_PKG_VERSION").split('.').take(2))
}

fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}

/// Returns the digest of all fields but digest and seal.
fn digest(plan: &Value) -> String {
    let mut value = plan.clone();
    if let Some(fields) = value.as_object_mut() {
        fields.shift_remove("digest");
        fields.shift_remove("seal");
    }
    json::sha256_hex(json::canonical(&value))
}

/// Returns the digest of the embedded catalog.
#[must_use]
pub fn catalog_digest() -> String {
    json::sha256_hex(crate::catalog::TABLE)
}

/// Returns the folder that holds the plans when `--plan-file PATH` was given.
#[must_use]
pub fn folder_beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".d");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{SystemClock, SystemRandom};
    use serde_json::json;

    fn binding() -> Binding {
        Binding {
            profile: "p".to_owned(),
            portal: "a.example".to_owned(),
            principal: "webhook:1".to_owned(),
            packs: vec!["core".to_owned()],
            ledger: None,
        }
    }

    fn saved(folder: &Path) -> (Plans, Plan) {
        let plans = Plans::new(folder.to_owned(), [7; 32]);
        let step =
            Step { method: "crm.lead.add".to_owned(), api: "v2".to_owned(), params: json!({"b": 1, "a": 2}), risk: "write".to_owned() };
        let plan = plans.create(&binding(), (vec![step], Vec::new()), Duration::minutes(30), (&SystemClock, &SystemRandom)).unwrap();
        (plans, plan)
    }

    #[test]
    fn a_saved_plan_is_read_back_and_keeps_the_order_of_its_parameters() {
        let folder = tempfile::tempdir().unwrap();
        let (plans, plan) = saved(folder.path());
        let (id, loaded) = plans.load(&plan.plan_id.to_lowercase()).unwrap();
        loaded.check(&id, &binding(), SystemClock.now()).unwrap();
        assert_eq!(loaded.steps[0].params.to_string(), r#"{"b":1,"a":2}"#);
    }

    #[test]
    fn every_edit_of_the_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (plans, plan) = saved(folder.path());
        let path = folder.path().join(format!("{}.json", plan.plan_id));
        let text = std::fs::read_to_string(&path).unwrap();
        for (from, to) in [
            ("\"b\": 1", "\"b\": 2"),
            ("crm.lead.add", "crm.lead.del"),
            ("webhook:1", "webhook:2"),
            ("{", "{\"x\": 1,"),
            ("core", "core,sites"),
        ] {
            assert!(text.contains(from));
            std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
            assert!(matches!(plans.load(&plan.plan_id), Err(PlanError::Changed { .. })), "{from}");
        }
        // An attacker who recomputes the digest still lacks the key.
        let mut forged: Plan = serde_json::from_str(&text).unwrap();
        forged.steps[0].method = "crm.lead.delete".to_owned();
        forged.digest = digest(&serde_json::to_value(&forged).unwrap());
        std::fs::write(&path, serde_json::to_string(&forged).unwrap()).unwrap();
        assert!(matches!(plans.load(&plan.plan_id), Err(PlanError::Changed { .. })));
    }

    #[test]
    fn a_plan_is_good_for_its_binding_and_its_time_only() {
        let folder = tempfile::tempdir().unwrap();
        let (plans, plan) = saved(folder.path());
        let (id, plan) = plans.load(&plan.plan_id).unwrap();
        let now = SystemClock.now();
        assert!(matches!(plan.check(&id, &binding(), now + Duration::minutes(31)), Err(PlanError::Expired { .. })));
        assert!(matches!(plan.check(&id, &binding(), now - Duration::minutes(6)), Err(PlanError::FromFuture { .. })));
        for change in [
            |b: &mut Binding| b.portal.push('x'),
            |b: &mut Binding| b.profile.push('x'),
            |b: &mut Binding| b.principal.push('x'),
            |b: &mut Binding| b.packs.push("sites".to_owned()),
            |b: &mut Binding| b.ledger = Some("/elsewhere".to_owned()),
        ] {
            let mut other = binding();
            change(&mut other);
            assert!(matches!(plan.check(&id, &other, now), Err(PlanError::Foreign { .. })));
        }
    }

    #[test]
    fn a_sealed_plan_of_another_format_or_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (plans, plan) = saved(folder.path());
        let path = folder.path().join(format!("{}.json", plan.plan_id));
        let text = std::fs::read_to_string(&path).unwrap();
        let own = env!("CARGO_PKG_VERSION");
        let (major_minor, _) = own.rsplit_once('.').unwrap();
        for (field, value, is_good) in [
            ("schema", SCHEMA.to_owned(), true),
            ("schema", "b24.plan/2".to_owned(), false),
            ("schema", String::new(), false),
            ("b24", format!("{major_minor}.999"), true),
            ("b24", "999.0.0".to_owned(), false),
            ("b24", format!("{}.999.0", major_minor.split('.').next().unwrap()), false),
            ("plan_id", "01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned(), false),
        ] {
            let mut value_of: Value = serde_json::from_str(&text).unwrap();
            value_of[field] = Value::from(value.as_str());
            let digest = digest(&value_of);
            value_of["seal"] = Value::from(plans.seal(&digest));
            value_of["digest"] = Value::from(digest);
            std::fs::write(&path, value_of.to_string()).unwrap();
            assert_eq!(plans.load(&plan.plan_id).is_ok(), is_good, "{field} {value}");
        }
    }

    #[test]
    fn a_plan_is_good_on_one_side_of_each_border_of_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let (plans, plan) = saved(folder.path());
        let (id, plan) = plans.load(&plan.plan_id).unwrap();
        let time = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().to_utc();
        let (created, expires) = (time(&plan.created), time(&plan.expires));
        let check = |now| plan.check(&id, &binding(), now);
        assert_eq!(expires - created, Duration::minutes(30));
        assert!(check(created).is_ok() && check(expires - Duration::milliseconds(1)).is_ok());
        assert!(matches!(check(expires + Duration::milliseconds(1)), Err(PlanError::Expired { .. })));
        assert!(check(created - CLOCK_TOLERANCE).is_ok());
        assert!(matches!(check(created - CLOCK_TOLERANCE - Duration::milliseconds(1)), Err(PlanError::FromFuture { .. })));
    }
}
