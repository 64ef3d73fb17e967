//! Where events may be delivered to, decided on the address as it will be
//! used.
//!
//! A delivery passes no gate, so its address must not be one that a portal
//! would take a call at. The rules, in this order: an address that can be read
//! in one way only; no user name, no fragment; no portal; no path that leads
//! to a REST interface in any spelling; this machine, or a host that the
//! caller named. What this machine is, is decided on the parsed host:
//! `localhost`, `127.0.0.0/8`, `::1`.

use crate::error::{Code, Coded};
use crate::ids;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use std::net::Ipv4Addr;
use url::{Host, Url};

/// An encoding of an encoding of … is looked through this often.
const MOST_LAYERS: usize = 8;

/// What decides besides the address itself.
#[derive(Debug, Clone, Default)]
pub struct AllowList {
    /// Hosts that may be delivered to besides this machine: `HOST` or
    /// `HOST:PORT`.
    pub hosts: Vec<String>,
    /// Portals that are known here, as `HOST` or `HOST:PORT`; never delivered
    /// to, even when they are among the hosts.
    pub portals: Vec<String>,
}

/// The address of a handler.
///
/// Invariant: passed every rule at the head of this file.
#[derive(Debug, Clone)]
pub struct Target {
    url: Url,
    is_loopback: bool,
}

/// Why an address is not one of a handler.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    /// Not an address, or one that can be read in two ways.
    #[error("the handler's address cannot be read; give one such as http://127.0.0.1:8080/handler")]
    Unreadable,
    /// A name to allow is not a host.
    #[error("a host to be allowed cannot be read; give HOST or HOST:PORT")]
    UnreadableHost,
    /// Neither http nor https.
    #[error("the handler's address must be http or https")]
    Scheme,
    /// A user name or password stands in it.
    #[error("the handler's address must not contain a user name or password")]
    UserInfo,
    /// A fragment stands in it.
    #[error("the handler's address must not contain a fragment")]
    Fragment,
    /// It is one of a portal or of its authorization server.
    #[error("the handler's address is one of a portal; events are delivered to handlers of your own")]
    Portal,
    /// It could be one of a REST interface.
    #[error("the handler's address contains `rest` as a part, or signs that could hide it; it could be a call")]
    Rest,
    /// It is another machine that was not named.
    #[error("the handler is not on this machine, and its host {0} is not allowed")]
    NotAllowed(String),
}

impl Coded for TargetError {
    fn code(&self) -> Code {
        match self {
            TargetError::Unreadable | TargetError::UnreadableHost => Code::Usage,
            TargetError::Scheme
            | TargetError::UserInfo
            | TargetError::Fragment
            | TargetError::Portal
            | TargetError::Rest
            | TargetError::NotAllowed(_) => Code::PolicyDenied,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            TargetError::NotAllowed(host) => {
                Some(format!("Ask the user whether events may go to {host}; the help of the command says how such a host is named"))
            }
            TargetError::Portal | TargetError::Rest => Some("Calls go through b24 METHOD, which checks them".to_owned()),
            TargetError::Unreadable | TargetError::UnreadableHost | TargetError::Scheme | TargetError::UserInfo | TargetError::Fragment => {
                None
            }
        }
    }
}

impl Target {
    /// Parses and checks the address of a handler.
    pub fn parse(text: &str, allow: &AllowList) -> Result<Target, TargetError> {
        // The parser drops tabs and line ends, and takes a backslash for a slash.
        if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
            return Err(TargetError::Unreadable);
        }
        let (scheme, rest) = text.split_once("://").ok_or(TargetError::Unreadable)?;
        if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
            return Err(TargetError::Scheme);
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        if end == 0 {
            return Err(TargetError::Unreadable);
        }
        if rest[..end].contains('@') {
            return Err(TargetError::UserInfo);
        }
        let mut url = Url::parse(text).map_err(|_| TargetError::Unreadable)?;
        if url.fragment().is_some() {
            return Err(TargetError::Fragment);
        }
        let place = Place::of(&url).ok_or(TargetError::Unreadable)?;
        if place.is_portal(&allow.portals)? {
            return Err(TargetError::Portal);
        }
        // As it was written and as it will be sent: dot segments are gone there.
        if leads_to_rest(&rest[end..]) || leads_to_rest(url.path()) || url.query().is_some_and(leads_to_rest) {
            return Err(TargetError::Rest);
        }
        if !place.is_loopback && !place.is_among(&allow.hosts)? {
            return Err(TargetError::NotAllowed(crate::method::short(&place.host)));
        }
        // Without a dot at its end, so that the name is the one that is pinned.
        url.set_host(Some(&place.host)).map_err(|_| TargetError::Unreadable)?;
        Ok(Target { url, is_loopback: place.is_loopback })
    }

    /// Returns the address without its query, for output.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.into()
    }

    /// Returns whether it is on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.is_loopback
    }

    pub(super) fn url(&self) -> &str {
        self.url.as_str()
    }
}

/// Host and port of an address.
#[derive(Debug)]
struct Place {
    /// Lower case, IDNA, without a dot at its end.
    host: String,
    port: Option<u16>,
    is_loopback: bool,
}

impl Place {
    fn of(url: &Url) -> Option<Place> {
        let (host, is_loopback) = match url.host()? {
            Host::Domain(name) => {
                let name = ids::host_name(name)?;
                let is_loopback = name == "localhost";
                (name, is_loopback)
            }
            Host::Ipv4(address) => (address.to_string(), address.is_loopback()),
            Host::Ipv6(address) => (format!("[{address}]"), address.is_loopback()),
        };
        Some(Place { host, port: url.port_or_known_default(), is_loopback })
    }

    /// Whether it is a portal: a known one, whatever the address is called by,
    /// or one of the cloud (b24restdocs: settings/cloud-and-on-premise).
    fn is_portal(&self, known: &[String]) -> Result<bool, TargetError> {
        let labels: Vec<&str> = self.host.split('.').collect();
        if labels.contains(&"bitrix24") || labels.ends_with(&["bitrix", "info"]) {
            return Ok(true);
        }
        for portal in known {
            let (portal, port) = parse_host(portal)?;
            // All names and addresses of this machine are one place.
            let is_same_host = portal.host == self.host || (portal.is_loopback && self.is_this_machine());
            if is_same_host && (port.is_none() || port == self.port || !portal.is_loopback) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a connection to it could end on this machine.
    fn is_this_machine(&self) -> bool {
        let inner = self.host.trim_start_matches('[').trim_end_matches(']');
        let is_mapped = inner.parse::<std::net::Ipv6Addr>().ok().is_some_and(|address| {
            let mapped = address.to_ipv4().is_some_and(|address| address.is_loopback() || address.is_unspecified());
            mapped || address.is_unspecified()
        });
        self.is_loopback || is_mapped || inner == Ipv4Addr::UNSPECIFIED.to_string()
    }

    fn is_among(&self, hosts: &[String]) -> Result<bool, TargetError> {
        for allowed in hosts {
            let (allowed, port) = parse_host(allowed)?;
            if allowed.host == self.host && (port.is_none() || port == self.port) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Parses `HOST` or `HOST:PORT`; the port is `None` when none was written.
fn parse_host(text: &str) -> Result<(Place, Option<u16>), TargetError> {
    let is_plain = !text.chars().any(|c| c.is_whitespace() || c.is_control() || "/\\?#@*%".contains(c));
    let url = Url::parse(&format!("https://{text}/")).ok().filter(|_| is_plain).ok_or(TargetError::UnreadableHost)?;
    let place = Place::of(&url).ok_or(TargetError::UnreadableHost)?;
    let behind = text.rsplit(']').next().unwrap_or_default();
    let port = behind.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    Ok((place, port))
}

/// Whether a path or query has `rest` as a part, in any spelling that some
/// server could undo. What cannot be undone with certainty counts as well.
fn leads_to_rest(text: &str) -> bool {
    let mut text = Cow::Borrowed(text);
    for _ in 0..MOST_LAYERS {
        if has_rest_part(&text) {
            return true;
        }
        let decoded = match percent_decode_str(&text).decode_utf8() {
            Ok(decoded) if decoded == text => return false,
            Ok(decoded) => decoded.into_owned(),
            Err(_) => return true,
        };
        text = Cow::Owned(decoded);
    }
    true
}

fn has_rest_part(text: &str) -> bool {
    // Wide and long forms of letters and slashes are folded by some servers.
    if !text.is_ascii() || text.bytes().any(|byte| byte.is_ascii_control()) {
        return true;
    }
    let is_rest = |part: &str| part.trim_matches([' ', '.', '+']).eq_ignore_ascii_case("rest");
    text.split(['/', '\\', '?', '&', '=', ';', ':', '#']).any(is_rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow() -> AllowList {
        let hosts = ["handler.example", "ports.example:8443", "acme.bitrix24.com", "crm.example", "0.0.0.0", "[::ffff:127.0.0.1]"];
        let portals = ["crm.example", "127.0.0.1:4000"];
        AllowList { hosts: hosts.map(str::to_owned).to_vec(), portals: portals.map(str::to_owned).to_vec() }
    }

    fn refused(text: &str) -> TargetError {
        Target::parse(text, &allow()).map(|target| target.url().to_owned()).expect_err(text)
    }

    #[test]
    fn this_machine_and_allowed_hosts_are_handlers() {
        for (text, url) in [
            ("http://127.0.0.1:8080/handler?x=1", "http://127.0.0.1:8080/handler?x=1"),
            ("http://127.9.9.9/", "http://127.9.9.9/"),
            ("http://127.1:81", "http://127.0.0.1:81/"),
            ("http://2130706433/", "http://127.0.0.1/"),
            ("HTTPS://LOCALHOST.:8443/a", "https://localhost:8443/a"),
            ("http://[::1]:8080/", "http://[::1]:8080/"),
            ("http://localhost/restaurant/interest", "http://localhost/restaurant/interest"),
            ("https://Handler.Example:444/hook", "https://handler.example:444/hook"),
            ("https://ports.example:8443/", "https://ports.example:8443/"),
        ] {
            assert_eq!(Target::parse(text, &allow()).map(|target| target.url().to_owned()), Ok(url.to_owned()));
        }
        let target = Target::parse("http://localhost/a?key=canary", &allow()).unwrap();
        assert_eq!((target.shown().as_str(), target.is_loopback()), ("http://localhost/a", true));
        assert!(!Target::parse("https://handler.example", &allow()).unwrap().is_loopback());
    }

    #[test]
    fn other_machines_are_refused_whatever_they_are_called() {
        for text in [
            "http://evil.example/",
            "http://localhost.evil.com/",
            "http://127.0.0.1.nip.io/",
            "http://127.0.0.1.evil.example:4001/",
            "http://app.localhost/",
            "http://localhost6/",
            "http://[::ffff:127.0.0.2]/",
            "http://[::]/",
            "http://[fe80::1]/",
            "http://128.0.0.1/",
            "http://10.0.0.1/",
            "http://169.254.169.254/latest/meta-data",
            "http://handler.example.evil.com/",
            "http://xhandler.example/",
            "https://ports.example/",
            "http://l\u{43e}calhost/",
        ] {
            assert!(matches!(refused(text), TargetError::NotAllowed(_)), "{text}");
        }
    }

    #[test]
    fn portals_are_refused_even_when_they_are_allowed() {
        for text in [
            "https://acme.bitrix24.com/handler",
            "https://ACME.BITRIX24.COM./handler",
            "https://acme.bitrix24.com.br/",
            "https://bitrix24.ru/",
            "https://acme.b%69trix24.com/",
            "https://acme.\u{ff42}itrix24.com/",
            "https://acme.bitrix\u{ad}24.com/",
            "https://oauth.bitrix.info/oauth/token/",
            "https://oauth.bitrix24.tech/",
            "https://bitrix.info/",
            "https://crm.example/hook",
            "https://CRM.example.:8443/hook",
            "http://127.0.0.1:4000/hook",
            "http://localhost:4000/hook",
            "http://[::1]:4000/hook",
            "http://127.8.8.8:4000/hook",
            "http://0.0.0.0:4000/hook",
            "http://[::ffff:127.0.0.1]:4000/hook",
        ] {
            assert_eq!(refused(text), TargetError::Portal, "{text}");
        }
    }

    #[test]
    fn paths_to_a_rest_interface_are_refused_in_every_spelling() {
        for path in [
            "/rest/1/x/crm.deal.delete",
            "/rest",
            "/REST/",
            "/a/../rest/",
            "/rest/../handler",
            "/./rest/",
            "//rest//",
            "/%72est/",
            "/%2572est/",
            "/%252572%2565st",
            "/a%2frest%2f1",
            "/a%252Frest",
            "/a%5crest/",
            "/rest%20/",
            "/rest./",
            "/rest;a=1/",
            "/re%73t?x",
            "/re%00st/",
            "/%c0%afrest/",
            "/\u{ff0f}rest/",
            "/re\u{17f}t/",
            "/bitrix/services/rest/index.php",
            "/bitrix/urlrewrite.php?SEF_APPLICATION_CUR_PAGE_URL=/rest/1/x/",
            "/x?u=%2Frest%2F1",
            "/%25252525252525252572est/",
        ] {
            assert_eq!(refused(&format!("http://127.0.0.1:8080{path}")), TargetError::Rest, "{path}");
        }
    }

    #[test]
    fn addresses_that_can_be_read_in_two_ways_are_refused() {
        for (text, error) in [
            ("", TargetError::Unreadable),
            ("localhost:8080", TargetError::Unreadable),
            ("http:/localhost/", TargetError::Unreadable),
            ("http:///localhost/", TargetError::Unreadable),
            ("http://local host/", TargetError::Unreadable),
            ("http://local\thost/", TargetError::Unreadable),
            ("http://localhost\n/rest/", TargetError::Unreadable),
            ("http:\\\\localhost\\rest", TargetError::Unreadable),
            ("http://localhost\\@evil.example/", TargetError::Unreadable),
            ("http://localhost:99999/", TargetError::Unreadable),
            ("http://localhost../", TargetError::Unreadable),
            ("http://127.0.0.1../", TargetError::Unreadable),
            ("http://handler..example/", TargetError::Unreadable),
            ("ftp://localhost/", TargetError::Scheme),
            ("file:///etc/passwd", TargetError::Scheme),
            ("http://localhost@evil.example/", TargetError::UserInfo),
            ("http://a:b@localhost/", TargetError::UserInfo),
            ("http://@localhost/", TargetError::UserInfo),
            ("http://localhost/#x", TargetError::Fragment),
            ("http://localhost#@evil.example/", TargetError::Fragment),
        ] {
            assert_eq!(refused(text), error, "{text}");
        }
    }

    #[test]
    fn what_is_allowed_is_a_host() {
        for host in ["*", "*.example", "http://a.example", "a.example/x", "a b", "u@a.example", ""] {
            let allow = AllowList { hosts: vec![host.to_owned()], ..AllowList::default() };
            assert_eq!(Target::parse("http://a.example/", &allow).unwrap_err(), TargetError::UnreadableHost, "{host}");
        }
    }
}
