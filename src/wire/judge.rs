//! Whether a call ran: the one place that says so, from status and body.
//!
//! The question is "did it run", never "is it temporary". Only what is in a
//! closed table proves something; all else is "maybe", and a write that may
//! have run is never sent again. Two things must agree before a write counts as
//! done or as not done: the status and the body.
//!
//! | status | body | verdict |
//! |--|--|--|
//! | 200 to 203 | a result and no error | success |
//! | 301, 302, 307, 308 | neither result nor error | not executed: the portal has another address |
//! | one that fits the code | a code of [`TURNED_AWAY`] | not executed |
//! | 200 to 203 | an error of v2 with a description | refused by the method, which may give an error back instead of throwing it |
//! | 4xx but 408, 425, 429 | an error | refused by the method |
//! | all else | all else | maybe |
//!
//! "All else" holds 1xx, 204 to 299, 300, 303 to 306, 309 to 399, 5xx, pages,
//! cut bodies, a key that stands twice, an error that is neither a code nor an
//! object with one, both forms of an error at once, and every body that says
//! success and refusal: the kind is closed by what counts, not by what does not.
//!
//! Sources: b24restdocs `limits.md`, `_includes/system-errors.md`,
//! `api-reference/rest-v3.md`, `settings/oauth/*`; the portal's rest module: an
//! answer has `result` or `error`, never both; limits and credentials are
//! checked before the method is called and answered with 4xx or 503; an answer
//! that cannot be written as JSON becomes `WRONG_ENCODING` after the method ran.

use super::answer::{Answer, Form, Reading, ServerError};
use crate::error::Code;

/// Whether a call ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It ran and succeeded.
    Success,
    /// It surely did not run; what is wrong decides what to do next.
    NotExecuted(Obstacle),
    /// The method itself refused.
    Refused(ServerError),
    /// Nobody knows.
    Maybe(String),
}

/// Why a call was turned away before its method ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// 503 `QUERY_LIMIT_EXCEEDED`, or a limit code with 429.
    QueryLimit,
    /// 429 `OPERATION_TIME_LIMIT`.
    OperatingLimit,
    /// The access token is too old.
    ExpiredToken,
    /// The portal has another address.
    Moved(Option<String>),
    /// Credential, rights, plan or approval.
    Auth(ServerError),
    /// No such method.
    MethodNotFound(ServerError),
    /// A block by Bitrix24's staff.
    Overload(ServerError),
}

/// Codes that turn a call away before its method runs, with the statuses that
/// they come with.
struct Row {
    codes: &'static [&'static str],
    fits: fn(u16) -> bool,
    obstacle: fn(ServerError) -> Obstacle,
}

/// Which codes prove that nothing ran. With another status they prove nothing.
const TURNED_AWAY: &[Row] = &[
    Row { codes: &["QUERY_LIMIT_EXCEEDED"], fits: is_refusal_or_busy, obstacle: |_| Obstacle::QueryLimit },
    Row { codes: &["OPERATION_TIME_LIMIT"], fits: is_refusal_or_busy, obstacle: |_| Obstacle::OperatingLimit },
    Row { codes: &["EXPIRED_TOKEN"], fits: is_refusal, obstacle: |_| Obstacle::ExpiredToken },
    Row { codes: &["OVERLOAD_LIMIT"], fits: is_refusal_or_busy, obstacle: Obstacle::Overload },
    Row { codes: NO_METHOD, fits: is_refusal, obstacle: Obstacle::MethodNotFound },
    Row { codes: &["PORTAL_DELETED"], fits: is_refusal_or_internal, obstacle: Obstacle::Auth },
    Row { codes: AUTH, fits: is_refusal, obstacle: Obstacle::Auth },
];

fn is_refusal(status: u16) -> bool {
    (400..500).contains(&status)
}

fn is_refusal_or_busy(status: u16) -> bool {
    is_refusal(status) || status == 503
}

/// `PORTAL_DELETED` is documented with 500.
fn is_refusal_or_internal(status: u16) -> bool {
    is_refusal(status) || status == 500
}

fn is_success(status: u16) -> bool {
    (200..=203).contains(&status)
}

/// A redirect before anything is executed. What the others mean ("see the
/// result elsewhere", "not modified") tells nothing about a call.
fn is_moved(status: u16) -> bool {
    [301, 302, 307, 308].contains(&status)
}

/// Statuses that a server or a proxy gives on its own, whatever ran.
fn is_undecided(status: u16) -> bool {
    !is_refusal(status) || [408, 425, 429].contains(&status)
}

const NO_METHOD: &[&str] =
    &["ERROR_METHOD_NOT_FOUND", "METHOD_NOT_FOUND", "BITRIX_REST_V3_EXCEPTION_METHODNOTFOUNDEXCEPTION", "ERROR_BATCH_METHOD_NOT_ALLOWED"];
/// Codes that say that something went wrong while, or after, the method ran.
const UNTRUSTED: &[&str] = &[
    "INTERNAL_SERVER_ERROR",
    "ERROR_UNEXPECTED_ANSWER",
    // The method ran, and what it gave back cannot be written as JSON.
    "WRONG_ENCODING",
    "BITRIX_REST_V3_EXCEPTION_INTERNAL_INTERNALEXCEPTION",
    // Our own key with another body: an earlier attempt ran (422).
    "BITRIX_REST_V3_EXCEPTION_IDEMPOTENCYKEYREUSEDEXCEPTION",
];
const AUTH: &[&str] = &[
    "ACCESS_DENIED",
    "ACCESS_ERROR",
    "ALLOWED_ONLY_INTRANET_USER",
    "APPLICATION_NOT_FOUND",
    "AUTHORIZATION_ERROR",
    "AUTHORIZE_ERROR",
    "BITRIX_REST_V3_EXCEPTION_ACCESSDENIEDEXCEPTION",
    "BITRIX_REST_V3_EXCEPTION_INSUFFICIENTSCOPEEXCEPTION",
    "ERROR_OAUTH",
    "INSUFFICIENT_SCOPE",
    "INVALID_CREDENTIALS",
    "INVALID_GRANT",
    "INVALID_REQUEST",
    "INVALID_SCOPE",
    "INVALID_TOKEN",
    "METHOD_CONFIRM_DENIED",
    "METHOD_CONFIRM_WAITING",
    "NOT_INSTALLED",
    "NO_AUTH_FOUND",
    "PAYMENT_REQUIRED",
    "USER_ACCESS_ERROR",
    "VERIFICATION_NEEDED",
    "WRONG_AUTH_TYPE",
];
const NOT_FOUND: &[&str] = &[
    "BITRIX_REST_V3_EXCEPTION_ENTITYNOTFOUNDEXCEPTION",
    "BITRIX_REST_V3_REALISATION_EXCEPTION_FIELDNOTFOUNDEXCEPTION",
    "ERROR_NOT_FOUND",
    "NOT_FOUND",
];

/// Texts by which v2 says "no such object" when its code is empty. The only
/// place where a text is looked at, and only to choose between two exit codes.
const NOT_FOUND_TEXTS: &[&str] = &["not found", "не найден"];

/// Says whether the call ran, from status and reading.
#[must_use]
pub fn judge(answer: &Answer, reading: Option<&Reading>) -> Verdict {
    let status = answer.status;
    let maybe = |what: &str| Verdict::Maybe(format!("{what}, with HTTP status {status}"));
    let Some(reading) = reading else {
        let is_page = !matches!(answer.body.trim_ascii_start().first(), Some(b'{' | b'['));
        return match answer.body.is_empty() {
            _ if is_moved(status) && is_page => Verdict::NotExecuted(Obstacle::Moved(answer.location.clone())),
            true => maybe("an empty answer"),
            false => maybe("an answer that is not one JSON object with each key once"),
        };
    };
    match (reading.contradiction, &reading.error, reading.result) {
        (Some(contradiction), _, _) => maybe(contradiction),
        (None, None, None) if is_moved(status) => Verdict::NotExecuted(Obstacle::Moved(answer.location.clone())),
        (None, None, None) => maybe("an answer without a result"),
        (None, None, Some(_)) if is_success(status) => Verdict::Success,
        (None, None, Some(_)) => maybe("a result"),
        (None, Some(error), _) => judge_error(error, status),
    }
}

/// Says whether a call ran, from its error; `status` is that of the whole
/// answer, or 400 for a command inside a batch.
#[must_use]
pub fn judge_error(error: &ServerError, status: u16) -> Verdict {
    let code = error.code.as_str();
    let row = TURNED_AWAY.iter().find(|row| is_one_of(code, row.codes));
    if let Some(row) = row.filter(|row| (row.fits)(status)) {
        return Verdict::NotExecuted((row.obstacle)(error.clone()));
    }
    // A method may answer that access is denied, or that something is not
    // found, with 200. Limits and tokens are none of its business.
    let is_of_a_method = row.is_none() || is_one_of(code, AUTH);
    let is_told_by_a_method = is_success(status) && is_of_a_method && error.form == Form::Code && !error.text.is_empty();
    if is_one_of(code, UNTRUSTED) || !(is_told_by_a_method || (row.is_none() && !is_undecided(status))) {
        return Verdict::Maybe(format!("the error {}, with HTTP status {status}", crate::method::shown(code)));
    }
    Verdict::Refused(error.clone())
}

fn is_one_of(code: &str, table: &[&str]) -> bool {
    table.iter().any(|known| known.eq_ignore_ascii_case(code))
}

/// Returns the code of the error object for a refusal by the method.
#[must_use]
pub fn refusal_code(error: &ServerError) -> Code {
    let text = error.text.to_lowercase();
    let says_not_found = error.code.is_empty() && NOT_FOUND_TEXTS.iter().any(|known| text.contains(known));
    if is_one_of(&error.code, NOT_FOUND) || says_not_found {
        Code::NotFound
    } else if is_one_of(&error.code, AUTH) {
        Code::Auth
    } else {
        Code::ApiError
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, body: &str) -> Verdict {
        let answer = Answer { status, body: body.into(), retry_after: None, location: None, replayed_by_portal: false };
        judge(&answer, Reading::of(body.as_bytes()).as_ref())
    }

    #[test]
    fn the_code_decides_not_the_status() {
        use Obstacle::{ExpiredToken, OperatingLimit, QueryLimit};
        for (status, body, expected) in [
            (503, r#"{"error":"QUERY_LIMIT_EXCEEDED"}"#, Verdict::NotExecuted(QueryLimit)),
            (429, r#"{"error":"query_limit_exceeded"}"#, Verdict::NotExecuted(QueryLimit)),
            (429, r#"{"error":"OPERATION_TIME_LIMIT"}"#, Verdict::NotExecuted(OperatingLimit)),
            (401, r#"{"error":"expired_token"}"#, Verdict::NotExecuted(ExpiredToken)),
            (200, r#"{"result":null}"#, Verdict::Success),
            (200, r#"{"result":[]}"#, Verdict::Success),
        ] {
            assert_eq!(verdict(status, body), expected, "{body}");
        }
        assert_eq!(verdict(201, r#"{"result":1,"error":null}"#), Verdict::Success);
        assert!(matches!(verdict(503, r#"{"error":"OVERLOAD_LIMIT"}"#), Verdict::NotExecuted(Obstacle::Overload(_))));
        assert!(matches!(verdict(403, r#"{"error":"insufficient_scope"}"#), Verdict::NotExecuted(Obstacle::Auth(_))));
        assert!(matches!(verdict(302, "<html>"), Verdict::NotExecuted(Obstacle::Moved(_))));
    }

    #[test]
    fn what_is_not_certain_is_maybe() {
        for (status, body) in [
            (200, ""),
            (200, "<html>"),
            (200, "{\"result\":tr"),
            (200, "{}"),
            (200, "[]"),
            (502, "<html>"),
            (500, "{\"error\":\"X\"}"),
            (500, "{\"error\":\"INTERNAL_SERVER_ERROR\"}"),
            (200, "{\"error\":\"ERROR_UNEXPECTED_ANSWER\"}"),
            (429, "{\"error\":\"X\"}"),
            (503, "{\"error\":\"\"}"),
            (408, "{\"error\":\"X\"}"),
            (500, "{\"result\":1}"),
            (422, "{\"error\":{\"code\":\"BITRIX_REST_V3_EXCEPTION_IDEMPOTENCYKEYREUSEDEXCEPTION\",\"message\":\"\"}}"),
        ] {
            assert!(matches!(verdict(status, body), Verdict::Maybe(_)), "{status} {body}");
        }
    }

    #[test]
    fn a_missing_object_is_told_by_code_or_by_text_without_code() {
        let error = |code: &str, text: &str| ServerError { code: code.to_owned(), text: text.to_owned(), form: Form::Code };
        assert_eq!(refusal_code(&error("", "Not found")), Code::NotFound);
        assert_eq!(refusal_code(&error("X", "Not found")), Code::ApiError);
        assert_eq!(refusal_code(&error("NOT_FOUND", "")), Code::NotFound);
        let object = ServerError { form: Form::Object, ..error("A", "b") };
        assert_eq!(verdict(400, r#"{"error":{"code":"A","message":"b"}}"#), Verdict::Refused(object));
    }

    #[test]
    fn an_answer_that_is_not_text_is_no_json() {
        let body = b"{\"result\":true,\"note\":\"\x99\"}";
        assert!(Reading::of(body).is_none());
        let answer = Answer { status: 200, body: body.to_vec(), retry_after: None, location: None, replayed_by_portal: false };
        assert!(matches!(judge(&answer, None), Verdict::Maybe(_)));
    }

    #[test]
    fn a_lone_surrogate_breaks_nothing() {
        assert_eq!(verdict(200, r#"{"result":{"TITLE":"\ud800"}}"#), Verdict::Success);
        assert!(matches!(verdict(400, r#"{"error":"X","error_description":"\ud800"}"#), Verdict::Refused(_)));
    }

    #[test]
    fn only_redirects_before_execution_prove_that_nothing_ran() {
        for status in 100..1000 {
            let moved = matches!(verdict(status, "<html>"), Verdict::NotExecuted(Obstacle::Moved(_)));
            assert_eq!(moved, [301, 302, 307, 308].contains(&status), "{status}");
            assert!(moved || matches!(verdict(status, "<html>"), Verdict::Maybe(_)), "{status}");
            for body in [r#"{"result":1}"#, r#"{"error":"X"}"#] {
                assert!(!matches!(verdict(status, body), Verdict::NotExecuted(_)), "{status} {body}");
            }
            let result = verdict(status, r#"{"result":1}"#);
            assert_eq!(result == Verdict::Success, (200..=203).contains(&status), "{status}");
            let refused = matches!(verdict(status, r#"{"error":"X","error_description":"y"}"#), Verdict::Refused(_));
            let told = (200..=203).contains(&status) || ((400..500).contains(&status) && ![408, 425, 429].contains(&status));
            assert_eq!(refused, told, "{status}");
        }
    }

    #[test]
    fn a_code_counts_only_with_a_status_that_fits_it() {
        for code in
            ["QUERY_LIMIT_EXCEEDED", "OPERATION_TIME_LIMIT", "expired_token", "OVERLOAD_LIMIT", "ERROR_METHOD_NOT_FOUND", "NO_AUTH_FOUND"]
        {
            let body = format!(r#"{{"error":"{code}","error_description":"y"}}"#);
            assert!(matches!(verdict(400, &body), Verdict::NotExecuted(_)), "{code}");
            for status in [100, 204, 206, 226, 302, 304, 500, 502, 504, 599, 600] {
                assert!(matches!(verdict(status, &body), Verdict::Maybe(_)), "{status} {code}");
            }
            let is_of_a_method = code == "NO_AUTH_FOUND";
            assert_eq!(matches!(verdict(200, &body), Verdict::Refused(_)), is_of_a_method, "{code}");
            assert_eq!(matches!(verdict(200, &body), Verdict::Maybe(_)), !is_of_a_method, "{code}");
        }
        assert!(matches!(verdict(500, r#"{"error":"PORTAL_DELETED"}"#), Verdict::NotExecuted(Obstacle::Auth(_))));
        assert!(matches!(verdict(500, r#"{"error":"WRONG_ENCODING","error_description":"y"}"#), Verdict::Maybe(_)));
        assert!(matches!(verdict(200, r#"{"error":"WRONG_ENCODING","error_description":"y"}"#), Verdict::Maybe(_)));
        assert_eq!(refusal_code(&ServerError { code: "ACCESS_DENIED".to_owned(), text: "y".to_owned(), form: Form::Code }), Code::Auth);
    }

    #[test]
    fn an_answer_that_says_both_says_nothing() {
        for status in [200, 201, 302, 400, 401, 403, 429, 500, 503] {
            for body in [
                r#"{"result":1,"error":"X","error_description":"y"}"#,
                r#"{"result":1,"error":"QUERY_LIMIT_EXCEEDED"}"#,
                r#"{"result":null,"error":"expired_token"}"#,
                r#"{"error":"ERROR_METHOD_NOT_FOUND","result":[]}"#,
                r#"{"result":1,"error":""}"#,
                r#"{"result":1,"error":[]}"#,
                r#"{"result":1,"error":false}"#,
                r#"{"result":1,"error":{"code":"X","message":"y"}}"#,
                r#"{"result":1,"error_description":"y"}"#,
                r#"{"result":1,"result":2}"#,
                r#"{"error":"QUERY_LIMIT_EXCEEDED","error":"X"}"#,
                r#"{"error":"X","\u0065rror":"QUERY_LIMIT_EXCEEDED"}"#,
                r#"{"error":{"code":"X","code":"QUERY_LIMIT_EXCEEDED"}}"#,
                r#"{"error":{"code":"QUERY_LIMIT_EXCEEDED"},"error_description":"y"}"#,
                r#"{"error":["QUERY_LIMIT_EXCEEDED"]}"#,
                r#"{"error":{}}"#,
                r#"{"error":{"message":"y"}}"#,
                r#"{"error":true}"#,
                r#"{"error":"QUERY_LIMIT_EXCEEDED"}{"result":1}"#,
                r#"[{"error":"QUERY_LIMIT_EXCEEDED"}]"#,
            ] {
                assert!(matches!(verdict(status, body), Verdict::Maybe(_)), "{status} {body}");
            }
        }
    }

    #[test]
    fn what_portals_send_is_understood() {
        let refused = |status: u16, body: &str| matches!(verdict(status, body), Verdict::Refused(_));
        // b24restdocs: booking, crm, biconnector, humanresources.hcmlink.
        assert!(refused(400, r#"{"error":422,"error_description":"y"}"#));
        assert!(refused(400, r#"{"error":"0","error_description":"y"}"#));
        assert!(refused(400, r#"{"error":"","error_description":"Not found"}"#));
        assert!(refused(200, r#"{"error":"VALIDATION_FIELDS_NOT_PROVIDED","error_description":"y"}"#));
        assert!(refused(200, r#"{"error":"ACCESS_DENIED","error_description":"y"}"#));
        assert!(refused(200, r#"{"error":0,"error_description":"y"}"#));
        assert!(refused(400, r#"{"error":"X","error_description":"y","validation":[],"time":{}}"#));
        assert_eq!(verdict(200, r#"{"result":[],"total":0,"time":{},"signature":"x"}"#), Verdict::Success);
    }
}
