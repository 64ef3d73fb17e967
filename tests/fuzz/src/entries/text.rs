//! Names, addresses and files of settings.

use super::{Read, folder};
use b24::call::Request;
use b24::catalog::{self, Api};
use b24::credential::{Credential, Sources};
use b24::env::{Env, parse_file};
use b24::ids::{PlanId, Portal, user_id};
use b24::method::{self, Method, Pattern};
use b24::packs::Allowlist;
use b24::queue::EventKey;
use b24::receive::event_name;
use b24::risk::{self, Carrier, Risk};
use b24::store::config::{ConfigDir, ConfigError};
use b24::wire::auth::address_form;
use b24::wire::target::{AllowList, Target};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use url::Url;

/// A method name and a pattern, a line each, and what else is a word.
pub(crate) fn names(bytes: &[u8]) -> Read {
    let Ok(text) = std::str::from_utf8(bytes) else { return Read::Refused };
    let (name, pattern) = text.split_once('\n').unwrap_or((text, text));
    words(name);
    let pattern = Pattern::parse(pattern).ok();
    if let Some(pattern) = &pattern {
        let again = Pattern::parse(pattern.as_str()).expect("a pattern's own text is one");
        assert_eq!(again.as_str(), pattern.as_str());
        for name in ["crm.lead.add", "user.current", "batch", "x"] {
            let method = Method::parse(name).expect("a name");
            assert_eq!(again.matches(&method), pattern.matches(&method));
        }
        assert!(Allowlist::parse("none", pattern.as_str()).is_ok() || pattern.as_str().contains(','));
    }
    let Ok(method) = Method::parse(name) else { return Read::of(pattern.is_some()) };
    let folded = method.as_str();
    assert!(
        folded.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'))
    );
    assert!(![Some("json"), Some("xml")].contains(&folded.rsplit_once('.').map(|(_, end)| end)));
    for spelling in [folded.to_owned(), name.to_ascii_uppercase(), format!("{folded}.json.XML")] {
        assert!(spelling.len() > 200 || Method::parse(&spelling).as_ref() == Ok(&method), "{spelling}");
    }
    let class = catalog::generations(&method).into_iter().flatten().next().map(|entry| entry.class);
    assert!(class.is_some() || risk::rate(&method, class, &json!({"clear": 0}), Carrier::Single).risk == Risk::Destructive);
    let sent = Request::parse(name, json!({}), Api::V2).map(|request| request.wire_name().to_ascii_lowercase());
    assert!(method.is_batch() || sent.as_deref() == Ok(folded));
    if let Some(pattern) = pattern {
        let _ = pattern.matches(&method);
    }
    Read::Taken
}

fn words(text: &str) {
    if let Some(id) = PlanId::parse(text) {
        assert_eq!(PlanId::parse(id.as_str()), Some(id));
    }
    if let Some(key) = EventKey::parse(text) {
        assert_eq!(EventKey::parse(&key.to_string()), Some(key));
    }
    if let Some(name) = event_name(text) {
        assert_eq!(event_name(&name), Some(name));
    }
    assert!(user_id(text).is_none_or(|id| id == text));
    assert!(!method::shown(text).contains(|c: char| c.is_control()));
    let _ = catalog::suggestions(text);
}

/// One address: of a portal, of a webhook, of a handler.
pub(crate) fn address(bytes: &[u8]) -> Read {
    let Ok(text) = std::str::from_utf8(bytes) else { return Read::Refused };
    let (portal, webhook, handler) = (portal(text), webhook(text), handler(text));
    Read::of(portal || webhook || handler)
}

fn portal(text: &str) -> bool {
    let Ok(portal) = Portal::parse(text) else { return false };
    let host = portal.host();
    assert!(!host.contains(['@', '/', '?', '#', '\\', ' ']) && !host.is_empty() && !host.ends_with('.'), "{host}");
    assert_eq!(host, host.to_lowercase());
    assert_eq!(Portal::parse(&portal.origin()).as_ref(), Ok(&portal));
    let sent = Url::parse(&format!("{}/rest/1/x/user.current", portal.origin())).expect("a portal's address is one");
    assert!(sent.scheme() == "https" || portal.is_loopback());
    assert_eq!(Portal::from_url(&sent).as_ref(), Ok(&portal));
    true
}

fn webhook(text: &str) -> bool {
    let env = Env::new([("B24_WEBHOOK_URL".to_owned(), text.to_owned())]);
    let config = ConfigDir::default();
    let find = |env: &Env| {
        Sources { env, cwd: Path::new("/"), config: &config, name: "a", profile: None }.find().map(|(credential, _)| credential)
    };
    let credential = match find(&env) {
        Ok(credential) => credential,
        Err(error) => {
            assert!(!error.to_string().contains("canary"), "{error}");
            return false;
        }
    };
    assert!(!format!("{credential:?}").contains("canary"));
    let Credential::Webhook { portal, user, code } = &credential else { panic!("a webhook") };
    let sent = address_form(&credential, "user.current", Api::V2, code.expose());
    let again = find(&Env::new([("B24_WEBHOOK_URL".to_owned(), sent.clone())]));
    let Ok(Credential::Webhook { portal: p, user: u, code: c }) = again else { panic!("{sent} is no webhook") };
    assert_eq!((&p, &u, c.expose()), (portal, user, code.expose()));
    // Nothing of the address leads elsewhere when it is used.
    let url = Url::parse(&sent).expect("an address");
    assert_eq!(url.path(), format!("/rest/{user}/{}/user.current", code.expose()));
    true
}

fn handler(text: &str) -> bool {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let allow = AllowList { hosts: words(&["handler.example", "acme.bitrix24.com"]), portals: words(&["crm.example", "127.0.0.1:4000"]) };
    let Ok(target) = Target::parse(text, &allow) else { return false };
    let shown = target.shown();
    let url = Url::parse(&shown).expect("an address");
    let host = url.host_str().unwrap_or_default();
    assert!(url.username().is_empty() && url.fragment().is_none() && ["http", "https"].contains(&url.scheme()));
    assert!(!url.path().to_ascii_lowercase().split('/').any(|part| part == "rest"), "{shown}");
    assert!(!host.contains("bitrix24") && url.port() != Some(4000), "{shown} is a portal");
    let is_here = host == "localhost" || host == "[::1]" || host.starts_with("127.");
    assert_eq!(target.is_loopback(), is_here, "{shown}");
    assert!(is_here || host == "handler.example", "{shown} was not allowed");
    assert_eq!(Target::parse(&shown, &allow).expect("what is shown can be used").shown(), shown);
    true
}

/// `config.toml`, a line `%%`, `credentials.toml`.
pub(crate) fn config(bytes: &[u8]) -> Read {
    let text = String::from_utf8_lossy(bytes);
    let (config, credentials) = text.split_once("\n%%\n").unwrap_or((&text, ""));
    let place = folder();
    std::fs::write(place.join("config.toml"), config).expect("a file");
    std::fs::write(place.join("credentials.toml"), credentials).expect("a file");
    for (path, mode) in [(place.join("credentials.toml"), 0o600), (place.join("config.toml"), 0o600), (place.clone(), 0o700)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a file");
    }
    let folder = match ConfigDir::read(place) {
        Ok(folder) => folder,
        Err(error) => {
            assert!(matches!(error, ConfigError::Malformed { .. }) && !error.to_string().contains("canary"), "{error}");
            return Read::Refused;
        }
    };
    let (profile, secrets) = (folder.profile("acme", false), folder.secrets("acme"));
    assert!(!format!("{secrets:?}").contains("canary"));
    assert_eq!(
        folder.profiles().is_ok(),
        folder.profiles().is_ok_and(|profiles| profiles.iter().all(|(name, _)| folder.profile(name, true).is_ok()))
    );
    if let Ok(Some(given)) = &profile {
        let required = folder.profile("acme", true).expect("it is there").expect("it is there");
        assert_eq!(format!("{required:?}"), format!("{given:?}"));
    }
    let packs = folder.packs();
    let enabled = packs.keys().cloned().collect::<Vec<_>>().join(",");
    if let Ok(list) = Allowlist::with_user_packs(&enabled, "", packs) {
        let unknown = packs.values().flat_map(|pack| pack.write.iter().chain(&pack.destructive));
        for method in unknown.filter_map(|name| Method::parse(name).ok()) {
            assert!(list.own_class(&method) != Some(Risk::Read));
        }
    }
    Read::of(profile.is_ok() && secrets.is_ok())
}

/// A file for `--env-file`.
pub(crate) fn env_file(bytes: &[u8]) -> Read {
    let Ok(text) = std::str::from_utf8(bytes) else { return Read::Refused };
    let mut env = Env::new([("B24_PROFILE".to_owned(), "emulator".to_owned())]);
    let Ok(variables) = parse_file(text) else { return Read::Refused };
    let line = |(name, value): &(String, String)| format!("export {name}=\"{value}\"");
    let written = variables.iter().map(line).collect::<Vec<_>>().join("\n");
    // A name that is a comment, or empty words, are read otherwise; the rest stays.
    if variables.iter().all(|(name, _)| !name.is_empty() && !name.starts_with('#') && !name.contains(char::is_whitespace)) {
        assert_eq!(parse_file(&written).as_ref(), Ok(&variables));
    }
    env.add_missing(variables);
    assert_eq!(env.get("B24_PROFILE"), Some("emulator"), "the environment wins");
    assert!(env.all().all(|(name, value)| !name.contains(['=', '\n']) && !value.contains('\n')));
    Read::Taken
}
