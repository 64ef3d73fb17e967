//! Answers that prove nothing: every class of status and every contradiction,
//! for each shape of a request. The portal of these tests has executed what it
//! gives such an answer to, so that a second request would be a second change.

use crate::kept::{assert_kept, plan};
use crate::world::{Outcome, World};
use serde_json::{Value, json};

/// Answers to a single call or to a whole batch that say neither "done" nor
/// "not done". Without a body the true one is sent, which says "done".
const UNSURE: &[&str] = &[
    // Success without its body, a part of it, or one of another kind.
    "status=204",
    "status=205",
    "status=206",
    "status=226",
    "status=200:body=",
    "status=200:body={}",
    "status=200:body=[]",
    "status=200:body=null",
    "status=200:body=<html>",
    // Redirects that tell nothing, and those that would, with a result.
    "status=300",
    "status=303",
    "status=303:body=<html>",
    "status=304",
    "status=305",
    "status=306",
    "status=309",
    "status=399:body=<html>",
    "status=301",
    "status=302",
    "status=307",
    "status=308",
    r#"status=302:body={"error":"X","error_description":"y"}"#,
    r#"status=307:body={"result":1,"result":2}"#,
    // A result with a status of failure.
    "status=400",
    "status=401",
    "status=403",
    "status=404",
    "status=409",
    "status=429",
    "status=500",
    "status=503",
    // Failures without a known code that a server gives on its own.
    "status=400:body=<html>",
    r#"status=400:body={"error_description":"y"}"#,
    r#"status=408:body={"error":"X","error_description":"y"}"#,
    r#"status=425:body={"error":"X","error_description":"y"}"#,
    r#"status=429:body={"error":"X","error_description":"y"}"#,
    "status=451:body=<html>",
    r#"status=500:body={"error":"X","error_description":"y"}"#,
    "status=502:body=<html>",
    r#"status=503:body={"error":"","error_description":"y"}"#,
    "status=504:body=",
    r#"status=511:body={"error":"X","error_description":"y"}"#,
    // Codes that mean "not executed", with a status that does not.
    r#"status=200:body={"error":"QUERY_LIMIT_EXCEEDED","error_description":"y"}"#,
    r#"status=200:body={"error":"OPERATION_TIME_LIMIT","error_description":"y"}"#,
    r#"status=200:body={"error":"expired_token","error_description":"y"}"#,
    r#"status=200:body={"error":"OVERLOAD_LIMIT","error_description":"y"}"#,
    r#"status=200:body={"error":"ERROR_METHOD_NOT_FOUND","error_description":"y"}"#,
    r#"status=201:body={"error":"X"}"#,
    r#"status=206:body={"error":"QUERY_LIMIT_EXCEEDED","error_description":"y"}"#,
    r#"status=500:body={"error":"QUERY_LIMIT_EXCEEDED","error_description":"y"}"#,
    r#"status=500:body={"error":"expired_token","error_description":"y"}"#,
    r#"status=500:body={"error":"ERROR_METHOD_NOT_FOUND","error_description":"y"}"#,
    r#"status=503:body={"error":"ACCESS_DENIED","error_description":"y"}"#,
    r#"status=303:body={"error":"QUERY_LIMIT_EXCEEDED","error_description":"y"}"#,
    // The method ran, and its answer could not be written.
    r#"status=200:body={"error":"WRONG_ENCODING","error_description":"y"}"#,
    // Success and refusal at once.
    r#"status=200:body={"result":1,"error":"X","error_description":"y"}"#,
    r#"status=200:body={"result":1,"error":"QUERY_LIMIT_EXCEEDED"}"#,
    r#"status=503:body={"result":1,"error":"QUERY_LIMIT_EXCEEDED"}"#,
    r#"status=401:body={"error":"expired_token","result":1}"#,
    r#"status=400:body={"result":null,"error":"X"}"#,
    r#"status=200:body={"result":1,"error":""}"#,
    r#"status=200:body={"result":1,"error":{"code":"X","message":"y"}}"#,
    r#"status=200:body={"result":1,"error_description":"y"}"#,
    r#"status=400:body={"result":1,"error":[]}"#,
    // Errors that cannot be read, or in two ways.
    r#"status=503:body={"error":"QUERY_LIMIT_EXCEEDED","error":"X"}"#,
    r#"status=503:body={"error":"X","\u0065rror":"QUERY_LIMIT_EXCEEDED"}"#,
    r#"status=400:body={"error":{"code":"X"},"error_description":"y"}"#,
    r#"status=400:body={"error":["X"]}"#,
    r#"status=400:body={"error":{}}"#,
    r#"status=400:body={"error":true}"#,
    r#"status=503:body={"error":"QUERY_LIMIT_EXCEEDED"}{"result":1}"#,
];

/// The same inside the answer to a v2 batch with the commands `new` and `me`.
const UNSURE_V2: &[&str] = &[
    r#"{"result":{"new":1,"me":{}},"result_error":{"new":{"error":"X","error_description":"y"}}}"#,
    r#"{"result":{"new":1,"me":{}},"result_error":{"new":{"error":"QUERY_LIMIT_EXCEEDED","error_description":"y"}}}"#,
    r#"{"result":{"me":{}},"result_error":{"new":{"error":["X"]}}}"#,
    r#"{"result":{"me":{}},"result_error":{"new":{"error":{"code":"X"},"error_description":"y"}}}"#,
    r#"{"result":{"me":{}},"result_error":{"new":{"error":"X","error":"Y"}}}"#,
    r#"{"result":{"me":{}},"result_error":{"new":null}}"#,
    r#"{"result":{"me":{}},"result_error":{"new":{"error":"WRONG_ENCODING","error_description":"y"}}}"#,
    r#"{"result":{"me":{}},"result_error":{"new":{"error":"X","error_description":"y"},"other":{"error":"X"}}}"#,
    r#"{"result":{"new":1,"me":{},"other":1},"result_error":[]}"#,
    r#"{"result":{"new":1,"new":2,"me":{}},"result_error":[]}"#,
    r#"{"result":{"new":1,"me":{}},"result":{"me":{}},"result_error":[]}"#,
    r#"{"result":{"new":1,"me":{}},"result_error":{},"result_error":{"new":{"error":"X"}}}"#,
    r#"{"result":{"new":1,"me":{}},"result_error":"X"}"#,
    r#"{"result":[1,{}],"result_error":[]}"#,
    r#"{"result":{"me":{}},"result_error":[]}"#,
    r#"{"result_error":{"new":{"error":"X"}}}"#,
    "1",
];

/// The same for a v3 batch with one command, `new`.
const UNSURE_V3: &[&str] = &[
    "[]",
    r#"[{"item":{"id":1}},{"item":{"id":2}}]"#,
    r#"{"other":{"item":{"id":1}}}"#,
    r#"[{"error":{"code":"X","message":"y"}}]"#,
    r#"{"new":{"item":{"id":1}},"new":{"item":{"id":2}}}"#,
    "true",
];

/// A shape of a request with one write in it. `{}` stands for a number that
/// makes it a request of its own.
struct Shape {
    name: &'static str,
    method: &'static str,
    args: &'static [&'static str],
    is_planned: Planned,
}

#[derive(PartialEq)]
enum Planned {
    Yes,
    No,
}

const SHAPES: &[Shape] = &[
    Shape {
        name: "write",
        method: "crm.lead.add",
        args: &["crm.lead.add", "fields[TITLE]=t{}", "--confirm-write"],
        is_planned: Planned::No,
    },
    Shape {
        name: "destructive",
        method: "crm.lead.delete",
        args: &["crm.lead.delete", "id={}", "--confirm-destructive"],
        is_planned: Planned::No,
    },
    Shape {
        name: "batch v2",
        method: "batch",
        args: &["batch", "--params", r#"{"cmd":{"new":"crm.lead.add?fields[TITLE]=t{}","me":"user.current"}}"#, "--confirm-write"],
        is_planned: Planned::No,
    },
    Shape {
        name: "batch v3",
        method: "batch",
        args: &[
            "batch",
            "--params",
            r#"[{"method":"tasks.task.add","as":"new","query":{"fields":{"title":"t{}","creatorId":1,"responsibleId":1}}}]"#,
            "--api",
            "v3",
            "--confirm-write",
        ],
        is_planned: Planned::No,
    },
    Shape {
        name: "plan",
        method: "crm.lead.add",
        args: &["crm.lead.add", "fields[TITLE]=t{}", "--confirm-write"],
        is_planned: Planned::Yes,
    },
];

impl Shape {
    /// A portal with something to delete, whose requests and changes so far do
    /// not count.
    fn world(&self) -> World {
        let world = World::new();
        if self.name == "destructive" {
            for start in [0, 50] {
                let add = |number: usize| (format!("n{number}"), json!(format!("crm.lead.add?fields[TITLE]=old{number}")));
                let cmd: serde_json::Map<String, Value> = (start..start + 50).map(add).collect();
                let params = json!({"cmd": cmd}).to_string();
                let _ = world.run(&["batch", "--params", &params, "--confirm-write"]).body(0);
            }
        }
        world
    }

    fn args(&self, number: usize) -> Vec<String> {
        self.args.iter().map(|arg| arg.replace("{}", &number.to_string())).collect()
    }

    /// Returns the command line that sends the request, now or as its plan.
    fn prepared(&self, world: &World, number: usize) -> Vec<String> {
        let args = self.args(number);
        if self.is_planned == Planned::No {
            return args;
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let id = plan(world, &args);
        ["--execute-plan", &id, "--confirm-write"].map(str::to_owned).to_vec()
    }
}

fn run(world: &World, args: &[String]) -> Outcome {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    world.run(&[&args[..], &["--max-wait", "5"]].concat())
}

/// The answer is taken for what it is, and the write is not sent again: not by
/// itself, and not by who asks for it once more.
#[track_caller]
fn assert_unknown(world: &World, shape: &Shape, number: usize, answer: &str) {
    let args = shape.prepared(world, number);
    let (requests, changes) = (world.requests().len(), world.changes().len());
    world.emulator.clear_faults();
    world.fault(&format!("{}:answer:times=1:{answer}", shape.method));
    let error = run(world, &args).error(8);
    let context = format!("{} {answer}: {error}", shape.name);
    assert_eq!((error["kind"].as_str(), error["outcome"].as_str()), (Some("outcome_unknown"), Some("unknown")), "{context}");
    assert_eq!(error["retry"]["safe"], false, "{context}");
    assert_eq!(run(world, &args).error(8)["sent"], false, "{context}");
    assert_eq!((world.requests().len(), world.changes().len()), (requests + 1, changes + 1), "{context}");
}

fn check_shape(shape: &Shape) -> usize {
    let world = shape.world();
    let inner = match shape.name {
        "batch v2" => UNSURE_V2,
        "batch v3" => UNSURE_V3,
        _ => &[],
    };
    let inner = inner.iter().map(|result| format!(r#"status=200:body={{"result":{result}}}"#));
    let answers: Vec<String> = UNSURE.iter().map(|answer| (*answer).to_owned()).chain(inner).collect();
    for (index, answer) in answers.iter().enumerate() {
        assert_unknown(&world, shape, index + 1, answer);
    }
    assert_kept(&world, shape.name);
    println!("{} answers to a {} that prove nothing", answers.len(), shape.name);
    answers.len()
}

#[test]
fn an_answer_that_proves_nothing_leaves_a_write_unknown() {
    check_shape(&SHAPES[0]);
}

#[test]
fn an_answer_that_proves_nothing_leaves_a_deletion_unknown() {
    check_shape(&SHAPES[1]);
}

#[test]
fn an_answer_that_proves_nothing_leaves_a_batch_unknown() {
    check_shape(&SHAPES[2]);
}

#[test]
fn an_answer_that_proves_nothing_leaves_a_v3_batch_unknown() {
    check_shape(&SHAPES[3]);
}

#[test]
fn an_answer_that_proves_nothing_leaves_a_plan_unknown() {
    check_shape(&SHAPES[4]);
}

#[test]
fn a_redirect_before_execution_is_sent_again_to_who_asks_for_it() {
    for shape in SHAPES {
        let world = shape.world();
        for (index, status) in [301, 302, 307, 308].into_iter().enumerate() {
            let args = shape.prepared(&world, index + 1);
            let (requests, changes) = (world.requests().len(), world.changes().len());
            world.fault(&format!("{}:redirect:status={status}:times=1", shape.method));
            let error = run(&world, &args).error(4);
            assert_eq!((error["kind"].as_str(), error["outcome"].as_str()), (Some("portal_moved"), Some("not_applied")), "{error}");
            assert_eq!((world.requests().len(), world.changes().len()), (requests + 1, changes), "{} {status}", shape.name);
            assert_eq!(run(&world, &args).status, 0, "{} {status}", shape.name);
            assert_eq!((world.requests().len(), world.changes().len()), (requests + 2, changes + 1), "{} {status}", shape.name);
        }
        assert_kept(&world, shape.name);
    }
}

#[test]
fn a_read_that_gets_such_an_answer_fails_and_prints_nothing() {
    let batch = ["batch", "--params", r#"{"cmd":{"new":"user.current","me":"user.current"}}"#, "--retry", "none"];
    let single = ["crm.lead.list", "--retry", "none"];
    let world = World::new();
    for (method, args) in [("crm.lead.list", &single[..]), ("batch", &batch[..])] {
        for answer in UNSURE {
            world.emulator.clear_faults();
            world.fault(&format!("{method}:answer:{answer}"));
            let outcome = world.run(args);
            assert_eq!(outcome.stdout, "", "{method} {answer}");
            assert_eq!(outcome.error(7)["kind"], "temporary", "{method} {answer}");
        }
    }
    for result in UNSURE_V2 {
        world.emulator.clear_faults();
        world.fault(&format!(r#"batch:answer:body={{"result":{result}}}"#));
        let outcome = world.run(&batch);
        // Of an answer that can be read one command has failed, of another one
        // nothing is known.
        let unreadable = [
            "1",
            r#"{"result":[1,{}],"result_error":[]}"#,
            r#"{"result":{"me":{}},"result_error":{"new":{"error":"X","error_description":"y"},"other":{"error":"X"}}}"#,
            r#"{"result":{"new":1,"me":{},"other":1},"result_error":[]}"#,
            r#"{"result":{"new":1,"me":{}},"result":{"me":{}},"result_error":[]}"#,
            r#"{"result":{"new":1,"me":{}},"result_error":"X"}"#,
            r#"{"result":{"new":1,"me":{}},"result_error":{},"result_error":{"new":{"error":"X"}}}"#,
            r#"{"result":{"new":1,"new":2,"me":{}},"result_error":[]}"#,
            r#"{"result_error":{"new":{"error":"X"}}}"#,
        ];
        assert_eq!(outcome.status, if unreadable.contains(result) { 7 } else { 6 }, "{result}: {}", outcome.stderr);
    }
    // A read is repeated, as long as somebody may still answer it.
    world.emulator.clear_faults();
    world.fault("crm.lead.list:answer:status=303:times=1");
    assert_eq!(world.run(&["crm.lead.list"]).status, 0);
    assert!(world.changes().is_empty());
}

#[test]
fn what_a_halt_left_out_can_be_sent_again_and_nothing_else() {
    let args =
        ["batch", "--confirm-write", "--params", r#"{"halt":1,"cmd":{"bad":"crm.lead.get?id=999","new":"crm.lead.add?fields[TITLE]=t"}}"#];
    let world = World::new();
    // The portal says so itself: the first command failed, the second was left out.
    assert_eq!(world.run(&args).status, 6);
    assert_eq!(world.run(&args).status, 6);
    assert!(world.changes().is_empty());
    // Left out, although nothing had failed before it.
    let add = args.map(|arg| arg.replace("crm.lead.get?id=999", "user.current"));
    let add = add.each_ref().map(String::as_str);
    world.fault(r#"batch:answer:body={"result":{"result":{"bad":{}},"result_error":[]}}:times=1"#);
    let _ = world.run(&add).error(8);
    let _ = world.run(&add).error(8);
    assert_eq!(world.changes().len(), 1);
}

#[test]
fn what_a_real_portal_says_is_not_taken_for_a_contradiction() {
    let world = World::new();
    let send = |title: &str, answer: &str| {
        world.emulator.clear_faults();
        world.fault(&format!("crm.lead.add:answer:{answer}:times=1"));
        world.run(&["crm.lead.add", &format!("fields[TITLE]={title}"), "--confirm-write"])
    };
    // Codes that are numbers or empty; a method that gives its refusal back.
    let _ = send("a", r#"status=400:body={"error":422,"error_description":"y"}"#).error(1);
    let _ = send("b", r#"status=400:body={"error":"","error_description":"Not found"}"#).error(5);
    let _ = send("c", r#"status=200:body={"error":"VALIDATION_FIELDS_NOT_PROVIDED","error_description":"y"}"#).error(1);
    let _ = send("d", r#"status=200:body={"error":"ACCESS_DENIED","error_description":"y"}"#).error(4);
    let _ = send("e", r#"status=500:body={"error":"PORTAL_DELETED","error_description":"y"}"#).error(4);
    let _ = send("f", r#"status=201:body={"result":7,"error":null}"#).body(0);
    let _ = send("g", r#"status=200:body={"result":[],"time":{},"signature":"x"}"#).body(0);
}

#[test]
fn a_token_answer_that_says_both_is_no_answer() {
    let tokens = r#""access_token":"a","refresh_token":"b""#;
    for answer in [
        format!(r#"status=200:body={{{tokens},"error":"invalid_grant"}}"#),
        format!("status=400:body={{{tokens}}}"),
        format!("status=303:body={{{tokens}}}"),
        r#"status=302:body={"error":"invalid_grant"}"#.to_owned(),
        r#"status=429:body={"error":"invalid_grant"}"#.to_owned(),
        r#"status=400:body={"error":["invalid_grant"]}"#.to_owned(),
        r#"status=400:body={"error":"x","error":"invalid_grant"}"#.to_owned(),
    ] {
        let world = World::with_expired_token();
        world.fault(&format!("oauth.token:answer:{answer}"));
        let args = ["crm.lead.add", "fields[TITLE]=t", "--confirm-write"];
        let error = Outcome::of(&mut world.oauth_command(&args)).error(7);
        assert_eq!(error["kind"], "refresh_unknown", "{answer}: {error}");
        assert!(world.changes().is_empty(), "{answer}");
    }
}
