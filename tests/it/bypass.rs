//! Tricks against the gate: whatever is tried, the exit status says why it was
//! refused, and the portal sees no request of any kind.

use crate::world::{Outcome, World};
use serde_json::{Value, json};

/// A name, the exit status and the arguments.
type Trick = (&'static str, i32, &'static [&'static str]);

const BOTH: [&str; 2] = ["--confirm-write", "--confirm-destructive"];

/// Plays tricks against one portal and names all that worked.
fn play(tricks: &[Trick], consent: &[&str]) {
    let world = World::new();
    let worked = tricks.iter().filter_map(|(name, status, args)| {
        let args: Vec<&str> = args.iter().chain(consent).copied().collect();
        world.run(&args).refused(&world, name, *status).err()
    });
    let worked: Vec<String> = worked.collect();
    assert!(worked.is_empty(), "{}", worked.join("\n"));
}

#[track_caller]
fn expect(world: &World, name: &str, status: i32, outcome: &Outcome) {
    outcome.refused(world, name, status).unwrap_or_else(|problem| panic!("{problem}"));
}

/// Batches, with both consents given: what is wrong is their shape.
const BATCHES: &[Trick] = &[
    ("nested, string", 2, &["batch", "--params", r#"{"cmd":{"a":"batch?cmd[x]=crm.lead.delete%3Fid%3D1"}}"#]),
    ("nested, capitals", 2, &["batch", "--params", r#"{"cmd":{"a":"BATCH"}}"#]),
    ("nested, suffix", 2, &["batch", "--params", r#"{"cmd":{"a":"batch.json"}}"#]),
    ("nested, doubled suffix", 2, &["batch", "--params", r#"{"cmd":{"a":"Batch.xml.JSON"}}"#]),
    ("nested, object", 2, &["batch", "--params", r#"{"cmd":{"a":{"method":"batch","params":{}}}}"#]),
    ("nested, pair", 2, &["batch", "--params", r#"{"cmd":{"a":["batch",{"cmd":{"x":"user.current"}}]}}"#]),
    ("nested, array", 2, &["batch", "--params", r#"{"cmd":["user.current","batch"]}"#]),
    ("nested, percent", 2, &["batch", "--params", r#"{"cmd":{"a":"%62atch"}}"#]),
    ("nested, v3", 2, &["batch", "--api", "v3", "--params", r#"[{"method":"batch","query":{}}]"#]),
    ("nested, v3, spelling", 2, &["batch", "--api", "v3", "--params", r#"[{"method":"Batch.json","query":[]}]"#]),
    ("nested under another carrier", 2, &["BATCH.json", "--params", r#"{"cmd":{"a":"batch"}}"#]),
    ("space before", 2, &["batch", "--params", r#"{"cmd":{"a":" crm.lead.list"}}"#]),
    ("space behind", 2, &["batch", "--params", r#"{"cmd":{"a":"crm.lead.delete ?id=1"}}"#]),
    ("tab", 2, &["batch", "--params", r#"{"cmd":{"a":"crm.lead.delete\t?id=1"}}"#]),
    ("newline", 2, &["batch", "--params", r#"{"cmd":{"a":"crm.lead.list\ncrm.lead.delete?id=1"}}"#]),
    ("control character", 2, &["batch", "--params", r#"{"cmd":{"a":"crm.lead.\u0001list"}}"#]),
    ("NUL in the method", 2, &["batch", "--params", r#"{"cmd":{"a":"crm.lead.list\u0000.delete"}}"#]),
    ("NUL in a value", 2, &["batch", "--params", r#"{"cmd":{"a":"crm.lead.add?fields[TITLE]=a%00b"}}"#]),
    ("NUL in a key", 2, &["batch", "--params", r#"{"cmd":{"a":"crm.lead.list?filter[%00ID]=1"}}"#]),
    ("NUL in a name", 2, &["batch", "--params", r#"{"cmd":{"a\u0000b":"crm.lead.list"}}"#]),
    ("leading slash", 2, &["batch", "--params", r#"{"cmd":{"a":"/crm.lead.delete?id=1"}}"#]),
    ("address", 2, &["batch", "--params", r#"{"cmd":{"a":"https://x.example/rest/1/c/crm.lead.list"}}"#]),
    ("percent in the method", 2, &["batch", "--params", r#"{"cmd":{"a":"crm.lead%2edelete?id=1"}}"#]),
    ("result as method", 2, &["batch", "--params", r#"{"cmd":{"a":"user.current","b":"$result[a]"}}"#]),
    ("no method", 2, &["batch", "--params", r#"{"cmd":{"a":"?id=1"}}"#]),
    ("empty command", 2, &["batch", "--params", r#"{"cmd":{"a":""}}"#]),
    ("command is a number", 2, &["batch", "--params", r#"{"cmd":{"a":1}}"#]),
    ("command is null", 2, &["batch", "--params", r#"{"cmd":{"a":null}}"#]),
    ("pair of three", 2, &["batch", "--params", r#"{"cmd":{"a":["crm.lead.list",{},"crm.lead.delete"]}}"#]),
    ("object with an extra key", 2, &["batch", "--params", r#"{"cmd":{"a":{"method":"crm.lead.list","Method":"crm.lead.delete"}}}"#]),
    ("method of an object twice", 2, &["batch", "--params", r#"{"cmd":{"a":{"method":"crm.lead.list","method":"crm.lead.add"}}}"#]),
    ("name twice", 2, &["batch", "--params", r#"{"cmd":{"a":"crm.lead.list","a":"crm.lead.delete?id=1"}}"#]),
    ("names that differ in case", 2, &["batch", "--params", r#"{"cmd":{"a":"crm.lead.list","A":"crm.lead.delete?id=1"}}"#]),
    ("CMD", 2, &["batch", "--params", r#"{"CMD":{"a":"crm.lead.list"}}"#]),
    ("cmd and CMD", 2, &["batch", "--params", r#"{"cmd":{"a":"crm.lead.list"},"CMD":{"a":"crm.lead.delete?id=1"}}"#]),
    ("extra key", 2, &["batch", "--params", r#"{"cmd":{"a":"crm.lead.list"},"start":1}"#]),
    ("commands in another batch key", 2, &["batch", "--params", r#"{"cmd":{"a":"crm.lead.list"},"cmd[b]":"crm.lead.delete?id=1"}"#]),
    ("halt is odd", 2, &["batch", "--params", r#"{"cmd":{"a":"crm.lead.list"},"halt":"1&cmd[b]=x"}"#]),
    ("no commands", 2, &["batch", "--params", r#"{"cmd":{}}"#]),
    ("cmd is a string", 2, &["batch", "--params", r#"{"cmd":"crm.lead.delete?id=1"}"#]),
    ("array without v3", 5, &["batch", "--params", r#"[{"method":"crm.lead.delete","query":{"id":1}}]"#]),
    ("v3 with an extra key", 2, &["batch", "--api", "v3", "--params", r#"[{"method":"tasks.task.get","query":{},"params":{"id":1}}]"#]),
    (
        "v3 alias twice",
        2,
        &[
            "batch",
            "--api",
            "v3",
            "--params",
            r#"[{"method":"tasks.task.get","query":{},"as":"a"},{"method":"tasks.task.get","query":{},"as":"A"}]"#,
        ],
    ),
    ("v3 alias is odd", 2, &["batch", "--api", "v3", "--params", r#"[{"method":"tasks.task.get","query":{},"as":"a.b"}]"#]),
    ("auth in a query", 2, &["batch", "--params", r#"{"cmd":{"a":"crm.lead.list?auth=x"}}"#]),
    ("auth in a query, encoded", 2, &["batch", "--params", r#"{"cmd":{"a":"crm.lead.list?%61uth=x"}}"#]),
    ("auth in a query, list", 2, &["batch", "--params", r#"{"cmd":{"a":"crm.lead.list?auth[x]=1"}}"#]),
    ("auth in a query, plus", 2, &["batch", "--params", r#"{"cmd":{"a":"crm.lead.list?+auth=1"}}"#]),
    ("access token with a dot", 2, &["batch", "--params", r#"{"cmd":{"a":"crm.lead.list?access.token=1"}}"#]),
    ("access token, object", 2, &["batch", "--params", r#"{"cmd":{"a":{"method":"crm.lead.list","params":{"access.token":"x"}}}}"#]),
    ("session id, pair", 2, &["batch", "--params", r#"{"cmd":{"a":["crm.lead.list",{"SESSID":"x"}]}}"#]),
    ("auth beside cmd", 2, &["batch", "--params", r#"{"cmd":{"a":"crm.lead.list"},"Auth":"x"}"#]),
    ("auth in a v3 query", 2, &["batch", "--api", "v3", "--params", r#"[{"method":"tasks.task.get","query":{"auth":"x"}}]"#]),
    ("unknown method inside", 5, &["batch", "--params", r#"{"cmd":{"a":"crm.lead.list","b":"crm.lead.wipe?id=1"}}"#]),
    ("method out of packs inside", 3, &["batch", "--params", r#"{"cmd":{"a":"crm.lead.list","b":"disk.file.delete?id=1"}}"#]),
    ("no packs", 3, &["batch", "--packs", "none", "--params", r#"{"cmd":{"a":"crm.lead.list"}}"#]),
    ("v2 method in a v3 batch", 5, &["batch", "--api", "v3", "--params", r#"[{"method":"crm.lead.add","query":{}}]"#]),
];

/// Method names and parameters, with both consents given.
const CALLS: &[Trick] = &[
    ("Cyrillic letter", 2, &["сrm.lead.delete", "id=1"]),
    ("Cyrillic, no Latin letter", 2, &["call", "ваtch"]),
    ("zero-width space", 2, &["crm.lead\u{200b}.list"]),
    ("zero-width joiner at the end", 2, &["crm.lead.list\u{200d}"]),
    ("fullwidth letters", 2, &["crm.lead.ｌist"]),
    ("fullwidth dot", 2, &["call", "crm．lead．list"]),
    ("right-to-left override", 2, &["crm.lead.\u{202e}tsil"]),
    ("dotless i, whose capital is I", 2, &["crm.lead.lıst"]),
    ("Kelvin sign, which folds to k", 2, &["tas\u{212a}s.task.list"]),
    ("parent folder", 2, &["../crm.lead.list"]),
    ("parent folder inside", 2, &["crm.lead.list/../crm.lead.delete", "id=1"]),
    ("query in the method", 2, &["crm.lead.add?auth=1234567890"]),
    ("fragment", 2, &["crm.lead.list#crm.lead.delete"]),
    ("encoded dot", 2, &["crm.lead%2edelete", "id=1"]),
    ("encoded slash", 2, &["crm.lead.list%2f..%2fcrm.lead.delete"]),
    ("semicolon", 2, &["crm.lead.list;crm.lead.delete"]),
    ("address", 2, &["https://x.example/rest/1/c/crm.lead.list"]),
    ("backslash", 2, &["crm.lead.list\\..\\crm.lead.delete"]),
    ("line break", 2, &["crm.lead.list\r\nX-Evil: 1"]),
    ("empty name", 2, &["call", ""]),
    ("dots only", 2, &["..."]),
    ("double dot", 2, &["crm..lead.list"]),
    ("suffix only", 2, &[".json"]),
    ("two spellings of a key", 2, &["crm.lead.get", "id=1", "ID=2"]),
    ("a key twice", 2, &["crm.lead.get", "--params", r#"{"id":1,"id":2}"#]),
    ("a key twice, deep", 2, &["crm.lead.add", "--params", r#"{"fields":{"TITLE":"a","TITLE":"b"}}"#]),
    ("auth", 2, &["crm.lead.list", "auth=x"]),
    ("AUTH", 2, &["crm.lead.list", "AUTH=x"]),
    ("auth behind a space", 2, &["crm.lead.list", " auth=x"]),
    ("auth as a list", 2, &["crm.lead.list", "auth[]=x"]),
    ("auth with a bracket in the key", 2, &["crm.lead.list", "--params", r#"{"auth[x]":"y"}"#]),
    ("auth before a NUL", 2, &["crm.lead.list", "--params", r#"{"auth\u0000":"y"}"#]),
    ("access token", 2, &["crm.lead.list", "access_token=x"]),
    ("access token with a space", 2, &["crm.lead.list", "access token=x"]),
    ("client secret", 2, &["crm.lead.list", "client_secret=x"]),
    ("refresh token", 2, &["crm.lead.list", "Refresh_Token=x"]),
    ("session id", 2, &["crm.lead.list", "sessid=x"]),
    ("auth where a method documents it", 2, &["task.item.add", "auth=x"]),
    ("NUL in a value", 2, &["crm.lead.add", "--params", r#"{"fields":{"TITLE":"a\u0000b"}}"#]),
    ("control character in a key", 2, &["crm.lead.add", "--params", r#"{"fields":{"TI\u0007TLE":"a"}}"#]),
    ("array for an object", 2, &["crm.lead.get", "--params", "[1]"]),
    ("string for an object", 2, &["crm.lead.get", "--params", r#""id=1""#]),
    ("null for an object", 2, &["crm.lead.get", "--params", "null"]),
    ("positional in v3", 2, &["task.item.add", "--api", "v3", "--params", r#"[{"TITLE":"x"}]"#]),
    ("private number of the JSON library", 2, &["crm.lead.get", "--params", r#"{"id":{"$serde_json::private::Number":"1"}}"#]),
    ("two documents", 2, &["crm.lead.get", "--params", r#"{"id":1}{"id":2}"#]),
    ("unknown method", 5, &["crm.lead.wipe"]),
    ("unknown method, suffix", 5, &["crm.lead.wipe.json"]),
    ("method that looks like a read", 5, &["crm.everything.list"]),
    ("unknown before packs", 5, &["crm.lead.wipe", "--packs", "none"]),
    ("no packs", 3, &["crm.lead.list", "--packs", "none"]),
    ("outside the packs", 3, &["disk.file.delete", "id=1"]),
    ("another pack", 3, &["crm.lead.list", "--packs", "content"]),
    ("unknown pack", 2, &["crm.lead.list", "--packs", "all"]),
    ("pattern that is none", 2, &["disk.file.get", "--method-allowlist", "disk.[", "id=1"]),
    ("v2 method as v3", 5, &["crm.lead.add", "--rest-v3"]),
    ("v2 method as v3, read", 5, &["crm.lead.list", "--api", "v3"]),
    ("flag behind the end of options", 2, &["crm.lead.list", "--", "--confirm-write"]),
];

/// Consent that is missing, partial or given in ways that do not exist.
const CONSENT: &[Trick] = &[
    ("write without a flag", 10, &["crm.lead.add", "fields[TITLE]=x"]),
    ("write with the other flag", 10, &["crm.lead.add", "fields[TITLE]=x", "--confirm-destructive"]),
    ("destructive with the other flag", 10, &["crm.lead.delete", "id=1", "--confirm-write"]),
    ("destructive in another spelling", 10, &["CRM.Lead.DELETE.xml.json", "id=1", "--confirm-write"]),
    (
        "write hidden behind reads",
        10,
        &["batch", "--params", r#"{"cmd":{"a":"crm.lead.list","b":"crm.lead.add?fields[TITLE]=x","c":"user.current"}}"#],
    ),
    (
        "destructive hidden behind a write",
        10,
        &[
            "batch",
            "--confirm-write",
            "--params",
            r#"{"cmd":["crm.lead.list","crm.lead.add?fields[TITLE]=x",["crm.lead.delete.JSON",{"id":1}]]}"#,
        ],
    ),
    (
        "write beside a destructive one",
        10,
        &["batch", "--confirm-write", "--params", r#"{"cmd":{"a":"crm.lead.delete?id=1","b":"crm.lead.add"}}"#],
    ),
    (
        "write in a v3 batch",
        10,
        &[
            "batch",
            "--api",
            "v3",
            "--params",
            r#"[{"method":"tasks.task.get","query":{"id":1}},{"method":"tasks.task.delete","query":{"id":1}}]"#,
        ],
    ),
    ("queue that is emptied by reading", 10, &["event.offline.get", "--confirm-write"]),
    ("queue with two meanings of clear", 2, &["event.offline.get", "--confirm-write", "clear=0", "CLEAR=1"]),
    ("queue with a clear of 0.0", 10, &["event.offline.get", "--confirm-write", "clear:=0.0"]),
    ("dismissal in an odd spelling", 10, &["user.update", "--confirm-write", "--allow-unknown-params", "ID=1", "active= "]),
    ("dismissal inside a batch", 10, &["batch", "--confirm-write", "--params", r#"{"cmd":["user.update?ID=1&ACTIVE="]}"#]),
    ("unlisted is destructive", 10, &["crm.lead.wipe", "--allow-unlisted", "--confirm-write"]),
    ("unlisted that looks like a read", 10, &["crm.everything.list", "--allow-unlisted", "--confirm-write"]),
    (
        "unlisted inside a batch",
        10,
        &["batch", "--allow-unlisted", "--confirm-write", "--params", r#"{"cmd":{"a":"crm.everything.list"}}"#],
    ),
    ("v2 method as v3, unlisted", 10, &["crm.lead.list", "--rest-v3", "--allow-unlisted", "--confirm-write"]),
    ("abbreviated flag", 2, &["crm.lead.add", "--confirm-w"]),
    ("abbreviated flag before the method", 2, &["--confirm-writ", "crm.lead.add"]),
    ("flag with a value", 2, &["crm.lead.add", "--confirm-write=true"]),
    ("flag in another case", 2, &["crm.lead.add", "--Confirm-Write"]),
    ("flag with an underscore", 2, &["crm.lead.add", "--confirm_write"]),
    ("yes", 2, &["crm.lead.add", "--yes"]),
    ("force", 2, &["crm.lead.delete", "id=1", "--force"]),
    ("short yes", 2, &["crm.lead.add", "-y"]),
    ("flag as a parameter", 10, &["crm.lead.add", "confirm-write=1", "fields[TITLE]=x"]),
    ("required plan, both flags", 10, &["crm.lead.add", "--require-plan", "--confirm-write", "--confirm-destructive"]),
    ("required plan in a batch", 10, &["batch", "--require-plan", "--confirm-write", "--params", r#"{"cmd":{"a":"crm.lead.add"}}"#]),
    ("abbreviated command", 2, &["pla", "execute", "01ARZ3NDEKTSV4RRFFQ69G5FAV"]),
];

#[test]
fn batches_are_taken_apart_before_anything_else() {
    play(BATCHES, &BOTH);
}

#[test]
fn a_name_or_parameter_that_needs_repair_is_refused() {
    play(CALLS, &BOTH);
}

#[test]
fn consent_is_the_flag_of_this_call_and_nothing_else() {
    play(CONSENT, &[]);
}

#[test]
fn sizes_do_not_help() {
    let world = World::new();
    let stdin = |name: &str, status: i32, args: &[&str], params: &Value| {
        let outcome = Outcome::with_stdin(world.command(args).args(["--params", "-"]).args(BOTH), params.to_string().as_bytes());
        expect(&world, name, status, &outcome);
        assert!(outcome.stderr.len() < 2_000, "{name}: {} bytes", outcome.stderr.len());
    };
    let many: Vec<&str> = std::iter::repeat_n("crm.lead.list", 51).collect();
    stdin("51 commands", 2, &["batch"], &json!({"cmd": many}));
    stdin("51 commands in v3", 2, &["batch", "--api", "v3"], &json!(vec![json!({"method": "tasks.task.get", "query": {"id": 1}}); 51]));
    let long = "a".repeat(1_000_000);
    stdin("a method of 1 MB in a batch", 2, &["batch"], &json!({"cmd": {"a": long}}));
    stdin("a name of 1 MB in a batch", 2, &["batch"], &json!({"cmd": {long.as_str(): "crm.lead.list"}}));
    stdin("an extra key of 1 MB", 2, &["batch"], &json!({"cmd": {"a": "crm.lead.list"}, long.as_str(): 1}));
    stdin("two spellings of 1 MB", 2, &["crm.lead.list"], &json!({long.as_str(): 1, long.to_uppercase(): 2}));
    stdin("a credential key of 1 MB", 2, &["crm.lead.list"], &json!({format!("auth[{long}"): 1}));
    let name = format!("crm.{}", "a".repeat(100_000));
    stdin("a method of 100 kB", 2, &[&name], &json!({}));
    let deep = "[".repeat(100_000);
    let outcome = Outcome::with_stdin(world.command(&["crm.lead.list", "--params", "-"]).args(BOTH), deep.as_bytes());
    expect(&world, "100 000 brackets", 2, &outcome);
}

#[test]
fn consent_does_not_come_from_the_environment() {
    let world = World::new();
    for name in ["B24_CONFIRM_WRITE", "B24_CONFIRM_DESTRUCTIVE", "B24_YES", "B24_FORCE", "B24_CONSENT", "B24_ALLOW_UNLISTED", "CI"] {
        let add = Outcome::of(world.command(&["crm.lead.add", "fields[TITLE]=x"]).env(name, "1"));
        expect(&world, name, 10, &add);
        let unknown = Outcome::of(world.command(&["crm.lead.wipe"]).env(name, "1"));
        expect(&world, name, 5, &unknown);
    }
    // Nor from a terminal that is not there, nor from an answer on a pipe.
    let outcome = Outcome::with_stdin(&mut world.command(&["crm.lead.add"]), b"y\nyes\n");
    expect(&world, "yes on standard input", 10, &outcome);
}

#[test]
fn what_the_portal_takes_for_a_credential_is_no_parameter() {
    // The rest module looks for the first six, in the query and in the body.
    let names =
        ["auth", "access_token", "sessid", "ap", "aplogin", "token", "refresh_token", "client_secret", "AUTH_ID", "REFRESH_ID", "APP_SID"];
    let world = World::new();
    let mut forms = 0;
    for name in names.into_iter().chain(["AP", "Aplogin", "ap[]", "aplogin[x]", "SESSID"]) {
        let member = format!(r#"{{"{name}":"x"}}"#);
        let batch = |cmd: &str| format!(r#"{{"cmd":{{"a":{cmd}}}}}"#);
        let v3 = format!(r#"[{{"method":"tasks.task.get","query":{{"id":1,"{name}":"x"}}}}]"#);
        for args in [
            vec!["crm.lead.list".to_owned(), format!("{name}=x")],
            vec!["crm.lead.list".to_owned(), "--params".to_owned(), member.clone()],
            vec!["crm.lead.add".to_owned(), "fields[TITLE]=t".to_owned(), format!("{name}=x"), "--confirm-write".to_owned()],
            vec!["tasks.task.get".to_owned(), "--api".to_owned(), "v3".to_owned(), "id=1".to_owned(), format!("{name}=x")],
            vec!["batch".to_owned(), "--params".to_owned(), batch(&format!(r#""crm.lead.list?{name}=x""#))],
            vec!["batch".to_owned(), "--params".to_owned(), batch(&format!(r#"["crm.lead.list",{member}]"#))],
            vec!["batch".to_owned(), "--params".to_owned(), format!(r#"{{"cmd":{{"a":"crm.lead.list"}},"{name}":"x"}}"#)],
            vec!["batch".to_owned(), "--api".to_owned(), "v3".to_owned(), "--params".to_owned(), v3],
        ] {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            world.run(&args).refused(&world, &args.join(" "), 2).unwrap();
            forms += 1;
        }
    }
    println!("{forms} ways to name a credential as a parameter");
}
