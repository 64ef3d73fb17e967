//! The error codes of portals: which are documented, for how many methods, and
//! what those that any method may answer with mean.
//!
//! `errors.tsv` holds facts of the official documentation (a test makes it),
//! `system_errors.tsv` our own words.

/// One line a code: code, HTTP statuses, number of methods, some of them.
pub const TABLE: &str = include_str!("errors.tsv");

/// One line a code: code, whether the call may have run, meaning, what to do.
pub const SYSTEM: &str = include_str!("system_errors.tsv");

/// What most codes of REST 3.0 begin with.
const V3_START: &str = "BITRIX_REST_V3_EXCEPTION_";

/// A code and what is known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerError {
    /// The code, as it is documented.
    pub code: &'static str,
    /// The HTTP statuses that come with it.
    pub statuses: Vec<u16>,
    /// How many methods document it.
    pub method_count: usize,
    /// Some of them.
    pub methods: Vec<&'static str>,
    /// What it means for any method.
    pub system: Option<SystemError>,
}

/// A code that any method may answer with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemError {
    /// `no`, `unlikely` or `maybe`.
    pub ran: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What to do.
    pub advice: &'static str,
}

/// Returns what is known of a code. Case does not matter, and the long
/// beginning of the codes of REST 3.0 may be left out.
#[must_use]
pub fn find(text: &str) -> Vec<ServerError> {
    let long = format!("{V3_START}{text}");
    let is_meant = |code: &str| code.eq_ignore_ascii_case(text) || code.eq_ignore_ascii_case(&long);
    let mut found: Vec<ServerError> = documented().filter(|error| is_meant(error.code)).collect();
    let undocumented = system().filter(|(code, _)| is_meant(code) && !found.iter().any(|error| error.code.eq_ignore_ascii_case(code)));
    let undocumented: Vec<ServerError> =
        undocumented.map(|(code, system)| ServerError { code, system: Some(system), ..ServerError::default() }).collect();
    found.extend(undocumented);
    found
}

/// Returns every code, the documented ones first.
pub fn codes() -> impl Iterator<Item = &'static str> {
    let is_documented =
        |code: &str| TABLE.lines().any(|line| line.split('\t').next().is_some_and(|known| known.eq_ignore_ascii_case(code)));
    documented().map(|error| error.code).chain(system().map(|(code, _)| code).filter(move |code| !is_documented(code)))
}

fn documented() -> impl Iterator<Item = ServerError> {
    TABLE.lines().filter_map(|line| {
        let mut columns = line.split('\t');
        let code = columns.next()?;
        let statuses = columns.next()?.split(',').filter_map(|status| status.parse().ok()).collect();
        let method_count = columns.next()?.parse().ok()?;
        let methods = columns.next()?.split(',').collect();
        let meant = system().find(|(known, _)| known.eq_ignore_ascii_case(code)).map(|(_, meant)| meant);
        Some(ServerError { code, statuses, method_count, methods, system: meant })
    })
}

fn system() -> impl Iterator<Item = (&'static str, SystemError)> {
    SYSTEM.lines().filter_map(|line| {
        let mut columns = line.split('\t');
        let code = columns.next()?;
        Some((code, SystemError { ran: columns.next()?, meaning: columns.next()?, advice: columns.next()? }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_can_be_read_and_is_found() {
        assert_eq!(documented().count(), TABLE.lines().count());
        assert_eq!(system().count(), SYSTEM.lines().count());
        assert!(system().count() >= 35);
        for code in codes() {
            assert!(find(&code.to_lowercase()).iter().any(|error| error.code == code), "{code}");
        }
        for (code, error) in system() {
            assert!(["no", "unlikely", "maybe"].contains(&error.ran), "{code}");
        }
    }

    #[test]
    fn the_beginning_of_rest_3_codes_may_be_left_out() {
        assert_eq!(find("accessdeniedexception")[0].code, "BITRIX_REST_V3_EXCEPTION_ACCESSDENIEDEXCEPTION");
        assert_eq!(find("nothing_of_the_kind"), []);
    }
}
