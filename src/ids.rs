//! The names of things: portals, users, plans, keys.

use std::fmt;
use url::{Host, Url};

/// Where a portal is and what it is called in every record.
///
/// Invariant: `https`, or `http` to a loopback address; host in lower case and
/// IDNA form, without a trailing dot; a port only when it is not the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portal {
    scheme: &'static str,
    host: String,
}

/// Why a text is not a portal's address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PortalError {
    /// Not an address at all.
    #[error("the portal's address cannot be read; give a host such as acme.bitrix24.com")]
    Unreadable,
    /// A user name or password stands in it.
    #[error("the portal's address must not contain a user name or password")]
    UserInfo,
    /// Plain HTTP to another machine.
    #[error("the portal's address must be https; http is for loopback addresses only")]
    Insecure,
}

impl Portal {
    /// Parses `acme.bitrix24.com`, `https://acme.bitrix24.com/…` and other
    /// spellings of one address. A path is ignored.
    pub fn parse(text: &str) -> Result<Portal, PortalError> {
        let text = text.trim();
        let url = if text.contains("://") { Url::parse(text) } else { Url::parse(&format!("https://{text}")) }
            .map_err(|_| PortalError::Unreadable)?;
        Portal::from_url(&url)
    }

    /// Takes the portal out of a full address.
    pub fn from_url(url: &Url) -> Result<Portal, PortalError> {
        if !url.username().is_empty() || url.password().is_some() {
            return Err(PortalError::UserInfo);
        }
        let (name, loopback) = match url.host().ok_or(PortalError::Unreadable)? {
            Host::Domain(name) => {
                let name = host_name(name).ok_or(PortalError::Unreadable)?;
                let loopback = name == "localhost";
                (name, loopback)
            }
            Host::Ipv4(address) => (address.to_string(), address.is_loopback()),
            Host::Ipv6(address) => (format!("[{address}]"), address.is_loopback()),
        };
        let scheme = match url.scheme() {
            "https" => "https",
            "http" if loopback => "http",
            "http" => return Err(PortalError::Insecure),
            _ => return Err(PortalError::Unreadable),
        };
        let host = match url.port() {
            Some(port) => format!("{name}:{port}"),
            None => name,
        };
        Ok(Portal { scheme, host })
    }

    /// Returns host and port, the portal's name in messages and records.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns scheme, host and port.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.host)
    }

    /// Returns whether the portal is on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_this_machine(&self.host)
    }

    /// Returns what the portal is called in every record: its host, and for one
    /// on this machine one name, whatever address it is reached at.
    #[must_use]
    pub fn identity(&self) -> String {
        identity_of(&self.host)
    }
}

/// Returns the identity of the portal with this host and port.
#[must_use]
pub fn identity_of(host: &str) -> String {
    if !is_this_machine(host) {
        return host.to_owned();
    }
    let behind = host.rsplit(']').next().unwrap_or_default();
    behind.rsplit_once(':').map_or_else(|| "127.0.0.1".to_owned(), |(_, port)| format!("127.0.0.1:{port}"))
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.starts_with("localhost:") || host == "[::1]" || host.starts_with("[::1]:") || {
        let name = host.split(':').next().unwrap_or_default();
        name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
    }
}

/// Returns a domain in lower case and without the dot at its end; `None` when
/// a part of it is empty. Without its dots such a name could be another host:
/// `4..` is a name, `4` an address.
pub(crate) fn host_name(domain: &str) -> Option<String> {
    let name = domain.strip_suffix('.').unwrap_or(domain);
    name.split('.').all(|part| !part.is_empty()).then(|| name.to_ascii_lowercase())
}

impl fmt::Display for Portal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)
    }
}

/// Who acts on the portal: part of every ledger key, so that two users of one
/// portal never answer for each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// The owner of an incoming webhook.
    Webhook {
        /// The user id in the webhook's address.
        user: String,
    },
    /// A user of an application.
    OAuth {
        /// The application, `-` when it is not known.
        client: String,
        /// The user id, as `profile` told it.
        user: String,
    },
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::Webhook { user } => write!(f, "webhook:{user}"),
            Principal::OAuth { client, user } => write!(f, "oauth:{client}:{user}"),
        }
    }
}

/// Returns a user id as a server told it, if it is one. It becomes part of
/// ledger keys, plans and audit records, so nothing but a number will do.
#[must_use]
pub fn user_id(text: &str) -> Option<String> {
    let is_number = (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.to_owned())
}

/// The id of a saved plan: a ULID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanId(String);

impl PlanId {
    /// Parses a plan id; case does not matter.
    #[must_use]
    pub fn parse(text: &str) -> Option<PlanId> {
        ulid::Ulid::from_string(text).ok().map(|id| PlanId(id.to_string()))
    }

    /// Makes a new id.
    #[must_use]
    pub fn new(unix_ms: u64, random: u128) -> PlanId {
        PlanId(ulid::Ulid::from_parts(unix_ms, random).to_string())
    }

    /// Returns the id in its canonical spelling.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_portal_are_one_portal() {
        for spelling in ["acme.bitrix24.ru", "ACME.bitrix24.ru.", "https://acme.bitrix24.ru:443/", " https://Acme.Bitrix24.ru/rest/1/x/ "] {
            assert_eq!(Portal::parse(spelling).unwrap().origin(), "https://acme.bitrix24.ru");
        }
        assert_eq!(Portal::parse("http://127.1:8080").unwrap().origin(), "http://127.0.0.1:8080");
        assert_eq!(Portal::parse("пример.рф").unwrap().host(), "xn--e1afmkfd.xn--p1ai");
    }

    #[test]
    fn a_portal_on_this_machine_has_one_identity() {
        for host in ["localhost:80", "LOCALHOST.:80", "127.0.0.1:80", "127.1:80", "[::1]:80", "[0:0:0:0:0:0:0:1]:80", "127.0.0.2:80"] {
            assert_eq!(Portal::parse(&format!("https://{host}")).unwrap().identity(), "127.0.0.1:80", "{host}");
            assert_ne!(Portal::parse(&format!("https://{host}81")).unwrap().identity(), "127.0.0.1:80", "{host}");
        }
        for host in ["localhost", "[::1]", "127.0.0.1:443"] {
            assert_eq!(Portal::parse(host).unwrap().identity(), "127.0.0.1", "{host}");
        }
        for host in ["127.0.0.1.example", "localhost.example:80", "[::2]:80", "acme.bitrix24.ru"] {
            assert_eq!(Portal::parse(host).unwrap().identity(), host);
        }
    }

    #[test]
    fn a_user_id_is_a_number() {
        assert_eq!(user_id("67").as_deref(), Some("67"));
        for text in ["", "-1", "6 7", "canary7f3e9b21c4", "1.0", "\u{661}", "123456789012345678901"] {
            assert_eq!(user_id(text), None, "{text}");
        }
    }

    #[test]
    fn addresses_that_could_lead_elsewhere_are_refused() {
        assert_eq!(Portal::parse("http://acme.bitrix24.ru"), Err(PortalError::Insecure));
        assert_eq!(Portal::parse("https://acme.bitrix24.ru@evil.example"), Err(PortalError::UserInfo));
        assert_eq!(Portal::parse("http://127.0.0.1.evil.example"), Err(PortalError::Insecure));
        assert_eq!(Portal::parse("ftp://acme.bitrix24.ru"), Err(PortalError::Unreadable));
        for text in ["", ".", "acme..example", "https://acme.example..", "4..", "https://127.0.0.1..:4000"] {
            assert_eq!(Portal::parse(text), Err(PortalError::Unreadable), "{text}");
        }
    }
}
