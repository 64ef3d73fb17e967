//! One write in every spelling is one write: what the portal would see decides.

use crate::kept::{is_replay, made};
use crate::world::{Outcome, World};
use serde_json::{Value, json};
use std::process::Command;

/// A name and the arguments of a call; `{file}` is replaced by a path.
type Spelling = (&'static str, &'static [&'static str]);

const FIRST: &[&str] = &["crm.lead.add", "fields[TITLE]=t", "fields[OPPORTUNITY]:=5", "fields[OPENED]:=true"];

/// The lead of [`FIRST`], as it can be written otherwise.
const SPELLINGS: &[Spelling] = &[
    ("the same", FIRST),
    ("a text for a number", &["crm.lead.add", "fields[TITLE]=t", "fields[OPPORTUNITY]=5", "fields[OPENED]:=true"]),
    ("one for true", &["crm.lead.add", "fields[TITLE]=t", "fields[OPPORTUNITY]:=5", "fields[OPENED]:=1"]),
    ("one as a text", &["crm.lead.add", "fields[TITLE]=t", "fields[OPPORTUNITY]:=5", "fields[OPENED]=1"]),
    ("a fraction of nothing", &["crm.lead.add", "fields[TITLE]=t", "fields[OPPORTUNITY]:=5.0", "fields[OPENED]:=true"]),
    ("an exponent", &["crm.lead.add", "fields[TITLE]=t", "fields[OPPORTUNITY]:=50E-1", "fields[OPENED]:=true"]),
    ("a sum in a text", &["crm.lead.add", "fields[TITLE]=t", "fields[OPPORTUNITY]=5.00", "fields[OPENED]:=true"]),
    ("another order", &["crm.lead.add", "fields[OPENED]=1", "fields[OPPORTUNITY]=5", "fields[TITLE]=t"]),
    ("a map", &["crm.lead.add", "fields:={\"OPENED\":1,\"TITLE\":\"t\",\"OPPORTUNITY\":5}"]),
    ("params", &["crm.lead.add", "--params", r#"{"fields":{"TITLE":"\u0074","OPPORTUNITY":"5","OPENED":true}}"#]),
    ("a file", &["crm.lead.add", "--params", "@{file}"]),
    ("paging", &["crm.lead.add", "fields[TITLE]=t", "fields[OPPORTUNITY]=5", "fields[OPENED]=1", "start=0"]),
    ("paging of another kind", &["crm.lead.add", "fields[TITLE]=t", "fields[OPPORTUNITY]=5", "fields[OPENED]=1", "start:=-1", "limit=9"]),
    ("null", &["crm.lead.add", "fields[TITLE]=t", "fields[OPPORTUNITY]=5", "fields[OPENED]=1", "fields[NAME]:=null"]),
    ("empty lists", &["crm.lead.add", "fields[TITLE]=t", "fields[OPPORTUNITY]=5", "fields[OPENED]=1", "fields[PHONE]:=[]", "params:={}"]),
    ("a label", &["crm.lead.add", "fields[TITLE]=t", "fields[OPPORTUNITY]=5", "fields[OPENED]=1", "--auth-connector", "own"]),
    ("capitals", &["CRM.LEAD.ADD", "fields[TITLE]=t", "fields[OPPORTUNITY]=5", "fields[OPENED]=1"]),
    ("a suffix", &["crm.lead.add.json", "fields[TITLE]=t", "fields[OPPORTUNITY]=5", "fields[OPENED]=1"]),
    ("two suffixes", &["Crm.Lead.Add.xml.JSON", "fields[TITLE]=t", "fields[OPPORTUNITY]=5", "fields[OPENED]=1"]),
    ("the word call", &["call", "crm.lead.add", "fields[TITLE]=t", "fields[OPPORTUNITY]=5", "fields[OPENED]=1"]),
    ("the generation", &["crm.lead.add", "--api", "v2", "fields[TITLE]=t", "fields[OPPORTUNITY]=5", "fields[OPENED]=1"]),
    ("another key", &["crm.lead.add", "fields[TITLE]=t", "fields[OPPORTUNITY]=5", "fields[OPENED]=1", "--idempotency-key", "k"]),
    ("no key", &["crm.lead.add", "fields[TITLE]=t", "fields[OPPORTUNITY]=5", "fields[OPENED]=1", "--no-idempotency"]),
    ("a command", &["batch", "cmd[a]=crm.lead.add?fields[TITLE]=t&fields[OPPORTUNITY]=5&fields[OPENED]=1"]),
    (
        "a command in percent signs",
        &["batch", "cmd[]=CRM.Lead.Add.json?fields%5BTITLE%5D=%74&fields[OPENED]=1&&fields[OPPORTUNITY]=5&start=0"],
    ),
    (
        "a command as a map",
        &["batch", r#"cmd:={"x":{"method":"crm.lead.add","params":{"fields":{"TITLE":"t","OPPORTUNITY":5.0,"OPENED":true}}}}"#],
    ),
    ("a command as a list", &["batch", r#"cmd:=[["crm.lead.add",{"fields":{"OPENED":1,"OPPORTUNITY":"5","TITLE":"t"}}]]"#]),
    (
        "a command among others",
        &["batch", r#"cmd:={"me":"user.current","x":"crm.lead.add?fields[OPENED]=1&fields[TITLE]=t&fields[OPPORTUNITY]=5"}"#],
    ),
    (
        "a labelled command",
        &["batch", "--auth-connector", "own", "cmd[a]=crm.lead.add?fields[TITLE]=t&fields[OPPORTUNITY]=5&fields[OPENED]=1"],
    ),
];

const FILE: &str = r#" { "fields" : { "OPENED":"1", "OPPORTUNITY" : 5.00, "TITLE":"t" } } "#;

fn command(world: &World, args: &[&str]) -> Command {
    let path = world.home.path().join("params.json");
    std::fs::write(&path, FILE).unwrap();
    let args: Vec<String> = args.iter().map(|arg| arg.replace("{file}", path.to_str().unwrap())).collect();
    let mut command = world.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    command.arg("--confirm-write");
    command
}

fn planned(world: &World, args: &[&str]) -> Outcome {
    let plan = world.run(&[args, &["--plan-only"]].concat()).body(0);
    world.run(&["--execute-plan", plan["plan"]["plan_id"].as_str().unwrap(), "--confirm-write"])
}

#[test]
fn a_lead_whose_answer_was_lost_is_not_sent_again_in_any_spelling() {
    let world = World::new();
    world.fault("crm.lead.add:execute-then-drop:times=1");
    let record = Outcome::of(&mut command(&world, FIRST)).error(8)["ledger"].clone();
    for (name, args) in SPELLINGS {
        let error = Outcome::of(&mut command(&world, args)).error(8);
        assert_eq!((&error["sent"], &error["ledger"]), (&json!(false), &record), "{name}: {error}");
    }
    for args in [FIRST, SPELLINGS[23].1] {
        assert_eq!(planned(&world, args).error(8)["sent"], false);
    }
    assert_eq!((made(&world, "t"), world.requests().len()), (1, 1));
    println!("{} spellings of a lost lead, one lead", SPELLINGS.len() + 2);
}

#[test]
fn whatever_the_first_spelling_was_the_others_are_the_same() {
    for (name, args) in SPELLINGS {
        let world = World::new();
        world.fault("crm.lead.add:execute-then-drop:times=1");
        world.fault("batch:execute-then-drop:times=1");
        assert_eq!(Outcome::of(&mut command(&world, args)).status, 8, "{name}");
        assert_eq!(Outcome::of(&mut command(&world, FIRST)).error(8)["sent"], false, "{name}");
        assert_eq!(made(&world, "t"), 1, "{name}");
    }
}

#[test]
fn a_lead_that_was_just_made_is_not_made_again_in_another_spelling() {
    let world = World::new();
    assert_eq!(Outcome::of(&mut command(&world, FIRST)).status, 0);
    for (name, args) in SPELLINGS.iter().filter(|(name, _)| !["another key", "no key"].contains(name)) {
        assert_eq!(Outcome::of(&mut command(&world, args)).error(9)["kind"], "looks_repeated", "{name}");
    }
    assert_eq!((made(&world, "t"), world.requests().len()), (1, 1));
    // Under one key it is a replay in every spelling.
    for (number, (name, args)) in SPELLINGS.iter().filter(|(_, args)| args[0] != "batch" && !args.contains(&"k")).enumerate() {
        let outcome = Outcome::of(command(&world, args).args(["--idempotency-key", "one", "--again"]));
        let is_skipped = args.contains(&"--no-idempotency");
        assert_eq!((outcome.status, is_replay(&outcome)), (0, number > 0 && !is_skipped), "{name}: {}", outcome.stderr);
    }
}

/// What is another write than the first, however little is different.
const OTHERS: &[Spelling] = &[
    ("another title", &["crm.lead.add", "fields[TITLE]=t ", "fields[OPPORTUNITY]:=5", "fields[OPENED]:=true"]),
    ("another sum", &["crm.lead.add", "fields[TITLE]=t", "fields[OPPORTUNITY]:=5.1", "fields[OPENED]:=true"]),
    ("false", &["crm.lead.add", "fields[TITLE]=t", "fields[OPPORTUNITY]:=5", "fields[OPENED]:=false"]),
    ("an empty field", &["crm.lead.add", "fields[TITLE]=t", "fields[OPPORTUNITY]:=5", "fields[OPENED]:=true", "fields[NAME]="]),
    (
        "a parameter",
        &["crm.lead.add", "fields[TITLE]=t", "fields[OPPORTUNITY]:=5", "fields[OPENED]:=true", "params[REGISTER_SONET_EVENT]=N"],
    ),
    ("a command", &["batch", "cmd[a]=crm.lead.add?fields[TITLE]=t&fields[OPPORTUNITY]=5"]),
    (
        "a reference",
        &["batch", "cmd[a]=user.current", "cmd[b]=crm.lead.add?fields[TITLE]=t&fields[OPPORTUNITY]=5&fields[OPENED]=$result[a][ID]"],
    ),
];

#[test]
fn another_write_is_sent_beside_a_lost_one() {
    let world = World::new();
    world.fault("crm.lead.add:execute-then-drop:times=1");
    assert_eq!(Outcome::of(&mut command(&world, FIRST)).status, 8);
    for (name, args) in OTHERS {
        assert_eq!(Outcome::of(&mut command(&world, args)).status, 0, "{name}");
    }
    assert_eq!(world.requests().len(), 1 + OTHERS.len());
}

#[test]
fn a_command_that_refers_is_found_again_by_what_it_refers_to() {
    let world = World::new();
    let batch = |name: &str, title: &str| {
        json!({"cmd": {name: format!("crm.company.add?fields[TITLE]={title}"), "x": format!("crm.deal.add?fields[TITLE]=d&fields[COMPANY_ID]=$result[{name}]")}}).to_string()
    };
    let run = |params: &str| world.run(&["batch", "--params", params, "--confirm-write"]);
    world.fault("batch:execute-then-drop:times=1");
    assert_eq!(run(&batch("c", "one")).status, 8);
    assert_eq!(run(&batch("company", "one")).error(8)["sent"], false);
    assert_eq!(run(&batch("c", "two")).status, 0);
    assert_eq!((made(&world, "one"), made(&world, "two"), made(&world, "d")), (1, 1, 2));
}

#[test]
fn a_batch_sends_a_number_as_it_arrives_from_a_call_of_its_own() {
    let world = World::new();
    let cmd = r#"cmd:=[["crm.lead.add",{"fields":{"TITLE":"a","OPPORTUNITY":10.10,"UF_CRM_1":12345678901234567890,"COMMENTS":"10.10","OPENED":false}}]]"#;
    assert_eq!(world.run(&["batch", cmd, "--confirm-write"]).status, 0);
    let sent = world.requests()[0].params["cmd"][0].as_str().unwrap().to_owned();
    assert_eq!(
        sent,
        "crm.lead.add?fields[TITLE]=a&fields[OPPORTUNITY]=10.1&fields[UF_CRM_1]=12345678901234567890&fields[COMMENTS]=10.10&fields[OPENED]=0"
    );
    let fields = |world: &World| -> Value { json!(world.changes()[0].fields) };
    assert_eq!((&fields(&world)["COMMENTS"], &fields(&world)["UF_CRM_1"]), (&json!("10.10"), &json!("12345678901234567890")));
}
