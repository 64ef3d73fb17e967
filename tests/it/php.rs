//! PHP as the judge: what it parses of what b24 sends is what b24 checked, or
//! b24 refused; and the emulator's reader reads as PHP does.
//!
//! One PHP process reads all cases, a line each (`tests/clients/parse.php`).
//! A command goes through `parse_url` and `parse_str`, as on a portal.
//! Where there is no PHP, nothing is judged, and a line says so.

use crate::choices::Choices;
use b24::call::Request;
use b24::catalog::Api;
use b24::emulator::php;
use b24::json::{number, parse_strict};
use b24::query_string;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

const TEXTS: usize = 5_000;
const OBJECTS: usize = 3_000;
const DOCUMENTS: usize = 3_000;

/// What PHP read: an array with its keys in order, or the type and the digits of
/// another value.
#[derive(Debug, Clone, PartialEq)]
enum Read {
    Array(Vec<(String, Read)>),
    Scalar(char, String),
}

impl Read {
    fn parse(line: &str) -> Option<Read> {
        let mut root = Read::Array(Vec::new());
        for word in line.split(' ').filter(|word| *word != "-") {
            let (path, value) = word.split_once('=').unwrap();
            let value = match value.split_at(1) {
                ("a", _) => Read::Array(Vec::new()),
                ("s", digits) => Read::Scalar('s', text(digits)),
                (kind, rest) => Read::Scalar(kind.chars().next().unwrap(), rest.to_owned()),
            };
            let keys: Vec<String> = path.split('/').skip(1).map(text).collect();
            root.put(&keys, value);
        }
        (line != "-").then_some(root)
    }

    /// The words come in order: what belongs to an array stands together.
    fn put(&mut self, keys: &[String], value: Read) {
        let Some((first, rest)) = keys.split_first() else {
            *self = value;
            return;
        };
        let Read::Array(entries) = self else { panic!("{first} below a value") };
        if entries.last().is_none_or(|(key, _)| key != first) || rest.is_empty() {
            entries.push((first.clone(), Read::Array(Vec::new())));
        }
        entries.last_mut().unwrap().1.put(rest, value);
    }

    /// As b24 has it: texts, lists as maps.
    fn texts(&self) -> Value {
        match self {
            Read::Array(entries) => entries.iter().map(|(key, entry)| (key.clone(), entry.texts())).collect::<Map<_, _>>().into(),
            Read::Scalar(_, text) => Value::from(text.as_str()),
        }
    }
}

fn text(hex_digits: &str) -> String {
    String::from_utf8_lossy(&hex::decode(hex_digits).unwrap()).into_owned()
}

/// What PHP made of each line; `None` where there is no PHP.
fn judged(lines: &[String]) -> Option<Vec<Option<Read>>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/parse.php");
    // Without configuration: the limits are those that PHP has by itself.
    let spawned = Command::new("php").args(["-n", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = spawned else {
        println!("skipped: no php to judge what b24 sends");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let text = lines.join("\n") + "\n";
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let answers: Vec<Option<Read>> = String::from_utf8(output.stdout).unwrap().lines().map(Read::parse).collect();
    assert_eq!(answers.len(), lines.len(), "PHP ended before the last case");
    Some(answers)
}

fn query_line(query: &str) -> String {
    format!("q{}", hex::encode(query))
}

/// What b24 checked, as texts; lists as maps, also empty ones.
fn checked(value: &Value) -> Value {
    match value {
        Value::Bool(is_set) => json!(if *is_set { "1" } else { "0" }),
        Value::Number(token) => Value::from(number::plain(&token.to_string()).unwrap()),
        Value::Array(items) => items.iter().enumerate().map(|(index, item)| (index.to_string(), checked(item))).collect(),
        Value::Object(members) => members.iter().map(|(name, member)| (name.clone(), checked(member))).collect(),
        Value::Null | Value::String(_) => value.clone(),
    }
}

/// What PHP read of a query, as b24 has it.
fn read(answer: Option<&Read>) -> Value {
    answer.unwrap().texts()
}

/// Bytes that are no UTF-8 may become any number of replacements.
fn replaced_once(value: &Value) -> String {
    let mut text = value.to_string();
    while text.contains("\u{fffd}\u{fffd}") {
        text = text.replace("\u{fffd}\u{fffd}", "\u{fffd}");
    }
    text
}

/// Pieces of queries, valid, odd and hostile.
const PIECES: &[&str] = &[
    "a",
    "fields",
    "filter",
    "0",
    "1",
    "01",
    "-1",
    "-0",
    "9223372036854775807",
    "[",
    "]",
    "[]",
    "[0]",
    "[1]",
    "[a]",
    "[a]",
    "[TITLE]",
    "[ ]",
    "[%20]",
    "[+]",
    "[%09]",
    "[01]",
    "[-5]",
    "[9223372036854775806]",
    "[a.b]",
    "[>=ID]",
    "[a b]",
    "%5B",
    "%5D",
    "%5ba%5d",
    "=",
    "=",
    "=",
    "=1",
    "=x",
    "&",
    "&",
    "&",
    "&&",
    ";",
    "+",
    " ",
    "%20",
    ".",
    "%00",
    "%0a",
    "%ff",
    "%c3%a9",
    "é",
    "%zz",
    "%",
    "%4",
    "#",
    "?",
    "\u{1f600}",
    "_",
    "x",
    "y=2",
    "&a=1",
    "&a[b]=2",
    "&a[]=3",
    "&a[]=4",
    "&z[q][r]=5",
    "$result[a][ID]",
];

fn odd_query(choices: &mut Choices) -> String {
    match choices.next(40) {
        0 => "a[]=1&".repeat(850 + choices.next(300)) + "end=1",
        1 => format!("a=1&a{}=1&b=2", choices.one_of(&["[b]", "[]", "[1]"]).repeat(55 + choices.next(20))),
        2 => "=&".repeat(850 + choices.next(300)) + "end=1",
        3..16 => {
            // In good faith: names, brackets, values.
            let pair = |choices: &mut Choices| {
                let brackets: String =
                    (0..choices.next(3)).map(|_| choices.one_of(&["[a]", "[b]", "[0]", "[1]", "[]", "[>=ID]"])).collect();
                format!("{}{brackets}={}", choices.one_of(&["a", "b", "fields", "é"]), choices.one_of(&["", "1", "x+y", "%26", "%C3%A9"]))
            };
            (0..=choices.next(6)).map(|_| pair(choices)).collect::<Vec<_>>().join("&")
        }
        _ => (0..choices.next(14)).map(|_| choices.one_of(PIECES)).collect(),
    }
}

/// Keys of JSON: at first what can be sent.
const KEYS: &[&str] = &[
    r#""a""#,
    r#""b""#,
    r#""0""#,
    r#""1""#,
    r#""01""#,
    r#""""#,
    r#"" ""#,
    r#""a b""#,
    r#""a.b""#,
    r#""a[b]""#,
    r#""[""#,
    r#""\u0000a""#,
    r#""_empty_""#,
    r#""-5""#,
    r#""é""#,
    r#""%41""#,
    r#""a&b=c""#,
    r#""\ud800""#,
    r#""\n""#,
    r#""fields""#,
    r#""  ""#,
    r#""9223372036854775808""#,
];

/// Values of JSON, valid, odd and hostile.
const SCALARS: &[&str] = &[
    "0",
    "-0",
    "-0.0",
    "5",
    "5.0",
    "5e0",
    "1E+2",
    "10.10",
    "12345678901234567890",
    "9223372036854775807",
    "-9223372036854775808",
    "0.1234567890123456789",
    "1e400",
    "1e-400",
    "01",
    "+1",
    "1.",
    "NaN",
    "true",
    "false",
    "null",
    "True",
    r#""""#,
    r#""x""#,
    r#""é &=+%[]""#,
    r#""\u0000""#,
    r#""\ud83d\ude00""#,
    r#""\ud800""#,
    r#""\udc00x""#,
    "\"\n\"",
    r#""\/""#,
    r#""\x""#,
    r#""1""#,
    r#""$result[a]""#,
    "[]",
    "{}",
    "\u{feff}1",
];

/// Values of JSON that can be sent.
const GOOD: &[&str] =
    &["0", "5", "5.0", "1E+2", "10.10", "12345678901234567890", "true", "false", r#""x""#, r#""é &=+%""#, r#""\ud83d\ude00""#, r#""""#];

/// JSON of parameters, in text: valid, odd and hostile.
fn odd_json(choices: &mut Choices, depth: usize) -> String {
    let is_odd = choices.next(6) == 0;
    match choices.next(if depth == 0 { 3 } else { 7 }) {
        0..3 => if is_odd { choices.one_of(SCALARS) } else { choices.one_of(GOOD) }.to_owned(),
        3..5 => format!("[{}]", (0..=choices.next(3)).map(|_| odd_json(choices, depth - 1)).collect::<Vec<_>>().join(",")),
        _ => {
            let most = if is_odd { KEYS.len() } else { 4 };
            let member = |choices: &mut Choices| format!("{}: {}", choices.one_of(&KEYS[..most]), odd_json(choices, depth - 1));
            format!("{{{}}}", (0..choices.next(4)).map(|_| member(choices)).collect::<Vec<_>>().join(" ,"))
        }
    }
}

fn odd_document(choices: &mut Choices) -> String {
    let depth = choices.next(600);
    match choices.next(60) {
        0 => format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth)),
        1 => r#"{"a":1}{"b":2}"#.to_owned(),
        2 => r#"{"a":1,"a":2}"#.to_owned(),
        _ => {
            let members = (0..choices.next(4)).map(|index| format!(r#""k{index}":{}"#, odd_json(choices, 3)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
    }
}

/// Returns the one command that b24 would send, and what it checked; `None`
/// when it refuses.
fn sent(command: &Value) -> Option<(String, Value)> {
    let request = Request::parse("batch", json!({"cmd": {"x": command}}), Api::V2).ok()?;
    let params = request.calls().next()?.1.params.clone();
    let line = request.body().unwrap()["cmd"]["x"].as_str().unwrap().to_owned();
    Some((line, params))
}

#[test]
fn what_php_parses_of_a_batch_is_what_was_checked() {
    let mut choices = Choices(1);
    let (mut lines, mut cases) = (Vec::new(), Vec::new());
    for _ in 0..TEXTS {
        let written = odd_query(&mut choices);
        let sent = sent(&Value::from(format!("crm.lead.add?{written}")));
        lines.push(query_line(&written));
        lines.push(format!("u{}", hex::encode(sent.as_ref().map_or("crm.lead.add", |(line, _)| line))));
        cases.push((Some(written), sent));
    }
    for _ in 0..OBJECTS {
        let params = parse_strict(&odd_document(&mut choices));
        let sent = params.ok().and_then(|params| sent(&json!(["crm.lead.add", params])));
        lines.push(query_line(""));
        lines.push(format!("u{}", hex::encode(sent.as_ref().map_or("crm.lead.add", |(line, _)| line))));
        cases.push((None, sent));
    }
    let Some(answers) = judged(&lines) else { return };
    let (mut agreed, mut refused) = (0, 0);
    for ((written, sent), answers) in cases.iter().zip(answers.chunks(2)) {
        if let Some(written) = written {
            let own = Value::Object(php::parse_str(written));
            assert_eq!(replaced_once(&checked(&own)), replaced_once(&read(answers[0].as_ref())), "the emulator reads {written:?}");
        }
        let Some((line, params)) = sent else {
            refused += 1;
            continue;
        };
        assert_eq!(read(answers[1].as_ref()), checked(params), "{line:?} of {written:?}");
        let query = line.split_once('?').map_or("", |(_, query)| query);
        assert_eq!(checked(&Value::Object(php::parse_str(query))), checked(params), "the emulator reads {query:?}");
        if let Some(written) = written {
            // What the caller wrote meant the same to PHP.
            assert_eq!(read(answers[0].as_ref()), checked(params), "{written:?}");
        }
        agreed += 1;
    }
    println!("PHP agreed to {agreed} commands; b24 refused {refused}");
    assert!(agreed > 2_500 && refused > 1_000, "{agreed} {refused}");
}

/// Whether a value of PHP is the one that b24 has. A number is what the double
/// nearest to it is.
fn is_same(read: &Read, value: &Value) -> bool {
    match (read, value) {
        (Read::Array(entries), Value::Array(items)) => {
            let is_item =
                |(index, (entry, item)): (usize, (&(String, Read), &Value))| entry.0 == index.to_string() && is_same(&entry.1, item);
            entries.len() == items.len() && entries.iter().zip(items).enumerate().all(is_item)
        }
        (Read::Array(entries), Value::Object(members)) => {
            let is_member = |(entry, (name, member)): (&(String, Read), (&String, &Value))| entry.0 == *name && is_same(&entry.1, member);
            entries.len() == members.len() && entries.iter().zip(members).all(is_member)
        }
        (Read::Scalar('n', _), Value::Null) => true,
        (Read::Scalar('b', digit), Value::Bool(is_set)) => *is_set == (digit == "1"),
        (Read::Scalar('i', digits), Value::Number(token)) => {
            token.to_string().parse::<i64>().is_ok_and(|whole| *digits == whole.to_string())
        }
        (Read::Scalar('f', digits), Value::Number(token)) => {
            let bits = u64::from_str_radix(digits, 16).unwrap();
            token.to_string().parse::<f64>().is_ok_and(|double| double.to_bits() == bits)
        }
        (Read::Scalar('s', text), Value::String(own)) => text == own,
        _ => false,
    }
}

#[test]
fn what_php_decodes_of_a_body_is_what_was_checked() {
    let mut choices = Choices(2);
    let (mut lines, mut cases) = (Vec::new(), Vec::new());
    for _ in 0..DOCUMENTS {
        let written = odd_document(&mut choices);
        let request = parse_strict(&written).ok().and_then(|params| Request::parse("crm.lead.add", params, Api::V2).ok());
        let sent = request.map(|request| request.body().unwrap());
        lines.push(format!("j{}", hex::encode(&written)));
        lines.push(format!("j{}", hex::encode(sent.as_ref().map_or_else(|| "{}".to_owned(), Value::to_string))));
        cases.push((written, sent));
    }
    let Some(answers) = judged(&lines) else { return };
    let (mut agreed, mut refused, mut unread) = (0, 0, 0);
    for ((written, sent), answers) in cases.iter().zip(answers.chunks(2)) {
        let own = php::json_decode(written.as_bytes());
        match (&answers[0], &own) {
            (None, None) => unread += 1,
            // PHP goes to 512 levels, the emulator to 128, b24 to 100.
            (Some(_), None) => assert!(written.matches('{').count() >= 128, "the emulator does not read {written}"),
            (None, Some(own)) => panic!("the emulator reads {written} as {own}"),
            // The emulator keeps the tokens of numbers that PHP has no double for.
            (Some(read), Some(own)) => {
                let is_out_of_range = written.contains("1e400") || written.contains("1e-400");
                assert!(is_out_of_range || is_same(read, own), "the emulator reads {written} as {own}, PHP as {read:?}");
            }
        }
        let Some(body) = sent else {
            refused += 1;
            continue;
        };
        for answer in answers {
            assert!(answer.as_ref().is_some_and(|read| is_same(read, body)), "{body} of {written}: {answer:?}");
        }
        agreed += 1;
    }
    println!("PHP agreed to {agreed} bodies; b24 refused {refused}, of which PHP reads {unread} not at all");
    assert!(agreed > 1_000 && refused > 300, "{agreed} {refused}");
}

#[test]
fn php_has_the_limits_that_commands_are_kept_below() {
    let many = |count: usize| (0..count).map(|number| format!("a[]={number}")).collect::<Vec<_>>().join("&");
    let deep = |levels: usize| format!("a{}=1&z=1", "[b]".repeat(levels));
    let queries = [many(1_000), many(1_001), deep(64), deep(65), format!("{}z=1", "=&".repeat(1_000)), format!("{}z=1", "&".repeat(2_000))];
    let Some(answers) = judged(&queries.iter().map(|query| query_line(query)).collect::<Vec<_>>()) else { return };
    let read = |number: usize| read(answers[number].as_ref());
    let count = |number: usize| read(number)["a"].as_object().map_or(0, Map::len);
    assert_eq!((count(0), count(1), count(2), count(3)), (1_000, 1_000, 1, 0));
    assert_eq!((read(3), read(4), read(5)), (json!({"z": "1"}), json!({}), json!({"z": "1"})));
    const { assert!(query_string::MOST_PAIRS < 1_000 && query_string::MOST_LEVELS < 64) };
}
