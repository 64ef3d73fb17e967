//! Which portal is called, as whom, and with which secret.

use crate::env::Env;
use crate::error::{Code, Coded};
use crate::ids::{Portal, PortalError};
use crate::secret::Secret;
use crate::store::config::{self, ConfigDir, ConfigError, Profile};
use crate::store::tokens::Pair;
use std::path::{Path, PathBuf};
use url::Url;

/// The OAuth server of portals of the western zones. The documentation also
/// names oauth.bitrix24.tech; a setting chooses.
pub const DEFAULT_OAUTH: &str = "https://oauth.bitrix.info";

/// How calls are authorised.
#[derive(Debug, Clone)]
pub enum Credential {
    /// An incoming webhook.
    Webhook {
        /// The portal.
        portal: Portal,
        /// The webhook's user.
        user: String,
        /// The webhook's secret.
        code: Secret,
    },
    /// A user of an application.
    OAuth(OAuth),
}

/// A user of an application.
#[derive(Debug, Clone)]
pub struct OAuth {
    /// The portal.
    pub portal: Portal,
    /// The only server that the client secret is sent to.
    pub server: Portal,
    /// The application.
    pub client_id: Option<String>,
    /// Its secret.
    pub client_secret: Option<Secret>,
    /// The tokens that were given; the store may know newer ones.
    pub given: Pair,
}

impl Credential {
    /// Returns the portal.
    #[must_use]
    pub fn portal(&self) -> &Portal {
        match self {
            Credential::Webhook { portal, .. } => portal,
            Credential::OAuth(oauth) => &oauth.portal,
        }
    }

    /// Returns every secret value, for the redactor.
    #[must_use]
    pub fn secrets(&self) -> Vec<Secret> {
        match self {
            Credential::Webhook { code, .. } => vec![code.clone()],
            Credential::OAuth(oauth) => [Some(&oauth.given.access), oauth.given.refresh.as_ref(), oauth.client_secret.as_ref()]
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
        }
    }
}

/// Where a credential was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Variables, or files that they name.
    Environment,
    /// A row of the configuration in use.
    Row,
}

/// Why there is no usable credential.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// Nothing is configured.
    #[error("no portal is configured")]
    Nothing,
    /// Some parts are missing.
    #[error("the credential is not complete: {0} is missing")]
    Missing(&'static str),
    /// A value cannot be read; never quoted.
    #[error("{name} {problem}")]
    Malformed {
        /// The variable or key.
        name: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// The portal's address is none.
    #[error("{0}")]
    Portal(#[from] PortalError),
    /// A credential is used for another portal or server than its profile names.
    #[error("the credential is used for {env}, but the profile names {profile}")]
    OtherPortal {
        /// For what it would be used.
        env: String,
        /// What the profile names.
        profile: String,
    },
    /// A file.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Coded for CredentialError {
    fn code(&self) -> Code {
        match self {
            CredentialError::Config(error) => error.code(),
            CredentialError::Nothing
            | CredentialError::Missing(_)
            | CredentialError::Malformed { .. }
            | CredentialError::Portal(_)
            | CredentialError::OtherPortal { .. } => Code::Auth,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            CredentialError::Nothing => {
                "Set B24_WEBHOOK_URL (https://PORTAL/rest/USER/CODE/), or try the built-in portal with --profile emulator".to_owned()
            }
            CredentialError::OtherPortal { .. } => "Unset the variables, or use another profile".to_owned(),
            CredentialError::Config(error) => return error.hint(),
            CredentialError::Missing(_) | CredentialError::Malformed { .. } | CredentialError::Portal(_) => {
                "b24 help env lists the variables".to_owned()
            }
        })
    }
}

/// Where a credential is looked for.
pub struct Sources<'a> {
    /// The environment.
    pub env: &'a Env,
    /// The current folder, for relative paths.
    pub cwd: &'a Path,
    /// The configuration folder.
    pub config: &'a ConfigDir,
    /// The profile's name.
    pub name: &'a str,
    /// The profile, if there is one.
    pub profile: Option<&'a Profile>,
}

impl Sources<'_> {
    /// Finds the credential: the environment first, then the profile with its
    /// row in `credentials.toml`. A portal of a profile is never combined with
    /// a secret for another portal.
    pub fn find(&self) -> Result<(Credential, Origin), CredentialError> {
        let from_env = self.in_environment()?.map(|credential| (credential, Origin::Environment));
        let Some(profile) = self.profile else { return from_env.ok_or(CredentialError::Nothing) };
        let Some(host) = &profile.portal else { return from_env.ok_or(CredentialError::Missing("`portal` of the profile")) };
        let portal = Portal::parse(host)?;
        match from_env {
            Some((credential, origin)) if *credential.portal() == portal => Ok((credential, origin)),
            Some((other, _)) => Err(CredentialError::OtherPortal { env: other.portal().to_string(), profile: portal.to_string() }),
            None => self.in_profile(profile, portal).map(|credential| (credential, Origin::Row)),
        }
    }

    fn in_environment(&self) -> Result<Option<Credential>, CredentialError> {
        if let Some(url) = self.secret("B24_WEBHOOK_URL", "B24_WEBHOOK_URL_FILE")? {
            let credential = parse_webhook_url(&url)?;
            return match self.env.get("B24_DOMAIN") {
                Some(domain) if Portal::parse(domain)? != *credential.portal() => {
                    Err(CredentialError::Malformed { name: "B24_DOMAIN", problem: "names another portal than B24_WEBHOOK_URL" })
                }
                _ => Ok(Some(credential)),
            };
        }
        let Some(domain) = self.env.get("B24_DOMAIN") else { return Ok(None) };
        let portal = Portal::parse(domain)?;
        match self.env.get("B24_AUTH_MODE").unwrap_or("webhook").to_ascii_lowercase().as_str() {
            "webhook" => {
                let user = self.env.get("B24_WEBHOOK_USER_ID").ok_or(CredentialError::Missing("B24_WEBHOOK_USER_ID"))?;
                let code = self.secret("B24_WEBHOOK_CODE", "B24_WEBHOOK_CODE_FILE")?.ok_or(CredentialError::Missing("B24_WEBHOOK_CODE"))?;
                webhook(portal, user, &code).map(Some)
            }
            "oauth" => self.oauth_in_environment(portal).map(Some),
            _ => Err(CredentialError::Malformed { name: "B24_AUTH_MODE", problem: "is neither webhook nor oauth" }),
        }
    }

    fn oauth_in_environment(&self, portal: Portal) -> Result<Credential, CredentialError> {
        let access = self.secret("B24_ACCESS_TOKEN", "B24_ACCESS_TOKEN_FILE")?;
        let refresh = self.secret("B24_REFRESH_TOKEN", "B24_REFRESH_TOKEN_FILE")?;
        if access.is_none() && refresh.is_none() {
            return Err(CredentialError::Missing("B24_ACCESS_TOKEN or B24_REFRESH_TOKEN"));
        }
        let of_profile = self.profile.and_then(|profile| profile.oauth_url.as_deref());
        Ok(Credential::OAuth(OAuth {
            portal,
            server: Portal::parse(self.env.get("B24_OAUTH_URL").or(of_profile).unwrap_or(DEFAULT_OAUTH))?,
            client_id: self.env.get("B24_CLIENT_ID").map(str::to_owned),
            client_secret: self.secret("B24_CLIENT_SECRET", "B24_CLIENT_SECRET_FILE")?.map(Secret::new),
            given: pair(access.map(Secret::new), refresh.map(Secret::new)),
        }))
    }

    fn in_profile(&self, profile: &Profile, portal: Portal) -> Result<Credential, CredentialError> {
        let secrets = self.config.secrets(self.name)?;
        match profile.auth.as_deref().unwrap_or("webhook") {
            "webhook" => {
                let user = profile.user.ok_or(CredentialError::Missing("`user` of the profile"))?;
                let code = secrets.webhook_code.ok_or(CredentialError::Missing("`webhook_code` in credentials.toml"))?;
                Ok(Credential::Webhook { portal, user: user.to_string(), code })
            }
            "oauth" if secrets.access_token.is_none() && secrets.refresh_token.is_none() => {
                Err(CredentialError::Missing("`access_token` or `refresh_token` in credentials.toml"))
            }
            // B24_OAUTH_URL belongs to the environment's credential: it must not
            // choose who gets the client secret of a profile.
            "oauth" => Ok(Credential::OAuth(OAuth {
                portal,
                server: Portal::parse(profile.oauth_url.as_deref().unwrap_or(DEFAULT_OAUTH))?,
                client_id: profile.client_id.clone(),
                client_secret: secrets.client_secret,
                given: pair(secrets.access_token, secrets.refresh_token),
            })),
            _ => Err(CredentialError::Malformed { name: "`auth` of the profile", problem: "is neither webhook nor oauth" }),
        }
    }

    /// Returns a secret from its variable, or from the file that the other
    /// variable names.
    fn secret(&self, name: &str, file_name: &'static str) -> Result<Option<String>, CredentialError> {
        if let Some(value) = self.env.get(name) {
            return Ok(Some(value.to_owned()));
        }
        let Some(path) = self.env.get(file_name) else { return Ok(None) };
        let path: PathBuf = self.cwd.join(path);
        match config::read_secret(&path)? {
            text if text.is_empty() => Err(CredentialError::Malformed { name: file_name, problem: "names an empty file" }),
            text => Ok(Some(text)),
        }
    }
}

/// A pair of which one half may be missing: without an access token the first
/// call is answered `expired_token` and refreshes.
fn pair(access: Option<Secret>, refresh: Option<Secret>) -> Pair {
    Pair { access: access.unwrap_or_else(|| Secret::new(String::new())), refresh, user: None, member: None }
}

fn webhook(portal: Portal, user: &str, code: &str) -> Result<Credential, CredentialError> {
    if user.is_empty() || !user.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(CredentialError::Malformed { name: "the webhook's user id", problem: "is not a number" });
    }
    if code.is_empty() || !code.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        return Err(CredentialError::Malformed { name: "the webhook's code", problem: "has characters that no webhook code has" });
    }
    Ok(Credential::Webhook { portal, user: user.to_owned(), code: Secret::new(code.to_owned()) })
}

/// Takes `https://HOST/rest/USER/CODE/` apart; a method behind it and the v3
/// form `/rest/api/USER/CODE/` are accepted.
fn parse_webhook_url(text: &str) -> Result<Credential, CredentialError> {
    let malformed = || CredentialError::Malformed { name: "B24_WEBHOOK_URL", problem: "is not https://PORTAL/rest/USER/CODE/" };
    let url = Url::parse(text).map_err(|_| malformed())?;
    let portal = Portal::from_url(&url)?;
    let parts: Vec<&str> = url.path_segments().into_iter().flatten().filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        ["rest", "api", user, code, ..] | ["rest", user, code, ..] => webhook(portal, user, code),
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(variables: &[(&str, &str)], profile: Option<&Profile>) -> Result<Credential, CredentialError> {
        let env = Env::new(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let folder = tempfile::tempdir().unwrap();
        let config = ConfigDir::read(folder.path().to_owned())?;
        Sources { env: &env, cwd: Path::new("/"), config: &config, name: "acme", profile }.find().map(|(credential, _)| credential)
    }

    #[test]
    fn a_webhook_address_is_taken_apart() {
        for url in [
            "https://acme.example/rest/7/canary1234/",
            "https://ACME.example/rest/7/canary1234",
            "https://acme.example/rest/api/7/canary1234/",
            "https://acme.example//rest/7/canary1234/crm.lead.list.json",
        ] {
            let Ok(Credential::Webhook { portal, user, code }) = find(&[("B24_WEBHOOK_URL", url)], None) else { panic!("{url}") };
            assert_eq!((portal.host(), user.as_str(), code.expose()), ("acme.example", "7", "canary1234"));
        }
    }

    #[test]
    fn two_portals_in_one_environment_are_refused() {
        let url = ("B24_WEBHOOK_URL", "https://acme.example/rest/7/canary1234/");
        assert!(find(&[url, ("B24_DOMAIN", "other.example")], None).is_err());
        assert!(find(&[url, ("B24_DOMAIN", "ACME.example.")], None).is_ok());
    }

    #[test]
    fn a_malformed_secret_is_never_quoted() {
        for url in
            ["https://acme.example/canary1234", "http://acme.example/rest/1/canary1234", "canary1234", "https://a.example/rest/1/canary 1"]
        {
            let error = find(&[("B24_WEBHOOK_URL", url)], None).unwrap_err();
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn a_profile_never_lends_its_portal_to_another_portals_secret() {
        let profile = Profile { portal: Some("other.example".to_owned()), ..Profile::default() };
        let error = find(&[("B24_WEBHOOK_URL", "https://acme.example/rest/7/canary1234/")], Some(&profile)).unwrap_err();
        assert!(matches!(error, CredentialError::OtherPortal { .. }));
    }

    #[test]
    fn the_environment_never_chooses_who_gets_a_profiles_client_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials.toml");
        std::fs::write(&path, "[acme]\naccess_token='a'\nrefresh_token='b'\nclient_secret='c'").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let env = Env::new([("B24_OAUTH_URL".to_owned(), "https://evil.example".to_owned())]);
        let profile = Profile { portal: Some("acme.example".to_owned()), auth: Some("oauth".to_owned()), ..Profile::default() };
        let config = ConfigDir::read(folder.path().to_owned()).unwrap();
        let sources = Sources { env: &env, cwd: Path::new("/"), config: &config, name: "acme", profile: Some(&profile) };
        let Ok((Credential::OAuth(oauth), Origin::Row)) = sources.find() else { panic!() };
        assert_eq!(oauth.server.origin(), DEFAULT_OAUTH);
    }
}
