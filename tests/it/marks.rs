//! Calls that a parameter makes destructive, through the binary: with consent
//! to a write alone nothing reaches the portal, and the refusal says which
//! parameter it was.

use crate::queue_world::Rig;
use crate::world::{Outcome, World};
use serde_json::{Value, json};

/// A method, its parameters, and the one that decides.
fn siblings() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("userfieldconfig.update", json!({"moduleId": "crm", "id": 1, "field": {"enum": [{"id": 5, "del": "Y"}]}}), "field[enum][0][del]"),
        ("task.item.userfield.update", json!({"ID": 1, "DATA": {"LIST": {"n0": {"del": 1}}}}), "DATA[LIST][n0][del]"),
        ("crm.timeline.comment.update", json!({"id": 1, "fields": {"FILES": []}}), "fields[FILES]"),
        ("entity.item.update", json!({"ENTITY": "e", "ID": 1, "DETAIL_PICTURE": false}), "DETAIL_PICTURE"),
        ("entity.item.update", json!({"ENTITY": "e", "ID": 1, "PREVIEW_PICTURE": "0"}), "PREVIEW_PICTURE"),
        ("entity.section.update", json!({"ENTITY": "e", "ID": 1, "PICTURE": ""}), "PICTURE"),
        ("entity.item.update", json!({"ENTITY": "e", "ID": 1, "PROPERTY_VALUES": {"FILE_DEL": 77}}), "PROPERTY_VALUES[FILE_DEL]"),
        ("catalog.product.update", json!({"id": 1, "fields": {"detailPicture": {"remove": "Y"}}}), "fields[detailPicture]"),
        ("catalog.product.sku.update", json!({"id": 1, "fields": {"property7": [{"value": 1}]}}), "fields[property7]"),
        ("catalog.store.update", json!({"id": 1, "fields": {"imageId": {"remove": "Y"}}}), "fields[imageId][remove]"),
        ("lists.section.update", json!({"IBLOCK_TYPE_ID": "lists", "FIELDS": {"PICTURE": {"remove": "Y"}}}), "FIELDS[PICTURE][remove]"),
        ("im.notify", json!({"USER_ID": 1, "MESSAGE": "x", "TAG": "t"}), "TAG"),
        ("im.notify.personal.add", json!({"USER_ID": 1, "MESSAGE": "x", "tag": "t"}), "tag"),
        ("im.notify.system.add", json!({"USER_ID": 1, "MESSAGE": "x", "TAG": "t"}), "TAG"),
        ("im.message.update", json!({"MESSAGE_ID": 1, "MESSAGE": ""}), "MESSAGE"),
        ("im.message.update", json!({"MESSAGE_ID": 1, "MESSAGE": "x", "ATTACH": "N"}), "ATTACH"),
        ("imbot.v2.Chat.Message.update", json!({"botId": 1, "messageId": 1, "fields": {"keyboard": "N"}}), "fields[keyboard]"),
        ("imbot.v2.Bot.update", json!({"botId": 1, "fields": {"webhookUrl": "https://x.example"}}), "fields[webhookUrl]"),
    ]
}

/// The same, of the CRM, of persons and of tasks.
fn more_siblings() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("crm.contact.update", json!({"id": 1, "fields": {"PHONE": [{"ID": 5, "DELETE": "Y"}]}}), "fields[PHONE][0][VALUE]"),
        (
            "crm.lead.update",
            json!({"id": 1, "fields": {"EMAIL": [{"ID": 5, "VALUE": "a@x.example", "DELETE": "Y"}]}}),
            "fields[EMAIL][0][DELETE]",
        ),
        ("crm.lead.update", json!({"id": 1, "fields": {"PHONE": [{"ID": 5, "VALUE": ""}]}}), "fields[PHONE][0][VALUE]"),
        (
            "crm.item.update",
            json!({"entityTypeId": 3, "id": 1, "fields": {"fm": {"16": {"typeId": "EMAIL", "value": ""}}}}),
            "fields[fm][16][value]",
        ),
        ("crm.item.update", json!({"entityTypeId": 2, "id": 1, "fields": {"ufCrm1": [{"id": 12}]}}), "fields[ufCrm1][0][id]"),
        ("crm.item.update", json!({"entityTypeId": 2, "id": 1, "fields": {"contactIds": [1]}}), "fields[contactIds]"),
        ("crm.deal.update", json!({"id": 1, "fields": {"CONTACT_IDS": [1]}}), "fields[CONTACT_IDS]"),
        (
            "crm.deal.update",
            json!({"id": 1, "fields": {"UF_CRM_FILE": {"fileData": ["a", "b"], "remove": "Y"}}}),
            "fields[UF_CRM_FILE][remove]",
        ),
        ("crm.invoice.update", json!({"id": 1, "fields": {"PRODUCT_ROWS": []}}), "fields[PRODUCT_ROWS]"),
        ("crm.documentgenerator.template.update", json!({"id": 1, "fields": {"users": []}}), "fields[users]"),
        ("sonet_group.update", json!({"GROUP_ID": 1, "IMAGE_FILE_ID": 0}), "IMAGE_FILE_ID"),
        ("sonet_group.update", json!({"GROUP_ID": 1, "OWNER_ID": 2}), "OWNER_ID"),
        ("user.update", json!({"ID": 1, "ACTIVE": "N"}), "ACTIVE"),
        ("user.update", json!({"ID": 1, "PERSONAL_PHOTO": ""}), "PERSONAL_PHOTO"),
        ("tasks.task.update", json!({"taskId": 1, "fields": {"UF_TASK_WEBDAV_FILES": []}}), "fields[UF_TASK_WEBDAV_FILES]"),
        ("task.item.update", json!([1, {"UF_TASK_WEBDAV_FILES": ["n1"]}]), "1[UF_TASK_WEBDAV_FILES]"),
        ("task.checklistitem.update", json!([1, 2, {"MEMBERS": []}]), "2[MEMBERS]"),
        ("tasks.api.scrum.epic.update", json!({"id": 1, "fields": {"files": []}}), "fields[files]"),
        ("tasks.api.scrum.task.update", json!({"id": 1, "fields": {"storyPoints": "3"}}), "fields[entityId]"),
        ("event.offline.get", json!({"process_id": "p"}), "clear"),
        ("event.offline.get", json!({"process_id": "p", "clear": "1"}), "clear"),
        ("landing.site.update", json!({"id": 1, "fields": {"DELETED": "Y"}}), "fields[DELETED]"),
    ]
}

/// Methods that delete a list value by `DEL`.
fn list_values() -> Vec<(&'static str, Value, &'static str)> {
    let list = |del: Value| json!({"id": 1, "fields": {"LIST": [{"ID": 5, "DEL": del}]}});
    let methods = [
        "crm.company.userfield.update",
        "crm.contact.userfield.update",
        "crm.deal.userfield.update",
        "crm.invoice.userfield.update",
        "crm.lead.userfield.update",
        "crm.quote.userfield.update",
        "crm.requisite.userfield.update",
        "user.userfield.update",
    ];
    let marks = [json!("Y"), json!(true)];
    methods.iter().flat_map(|method| marks.iter().map(|mark| (*method, list(mark.clone()), "fields[LIST][0][DEL]"))).collect()
}

#[test]
fn consent_to_a_write_is_none_to_what_a_parameter_takes_away() {
    let world = World::new();
    let siblings = [siblings(), more_siblings(), list_values()].concat();
    for (method, params, place) in &siblings {
        let text = params.to_string();
        let outcome = world.run(&[method, "--method-allowlist=*", "--allow-unknown-params", "--params", &text, "--confirm-write"]);
        outcome.refused(&world, &format!("{method} {text}"), 10).unwrap_or_else(|problem| panic!("{problem}"));
        let error = outcome.error(10);
        assert_eq!((&error["risk"], &error["gate"]["option"]), (&json!("destructive"), &json!("--confirm-destructive")), "{method}");
        assert_eq!(error["risk_because"]["param"], *place, "{method} {error}");
        let (message, hint) = (error["message"].as_str().unwrap(), error["hint"].as_str().unwrap());
        assert!(message.contains(place) && hint.contains(error["risk_because"]["why"].as_str().unwrap()), "{message} {hint}");
        // The other consent lets it through to the portal, which may not know it.
        let passed =
            world.run(&[method, "--method-allowlist=*", "--allow-unknown-params", "--params", &text, "--confirm-destructive", "--dry-run"]);
        assert_eq!(passed.body(0)["request"]["risk"], "destructive", "{method}");
    }
    assert!(world.requests().is_empty());
    println!("{} calls", siblings.len());
}

/// A command, and the parameter that decides; none where its shape is refused.
const REFERENCES: &[(&str, &str)] = &[
    ("im.message.update?MESSAGE_ID=5&MESSAGE=$result[a][COMMENTS]", "MESSAGE"),
    ("im.message.update?MESSAGE_ID=5&MESSAGE=Hello%20$result[a][COMMENTS]", "MESSAGE"),
    ("im.message.update?MESSAGE_ID=5&MESSAGE=%24result%5Ba%5D%5BCOMMENTS%5D", "MESSAGE"),
    ("im.message.update?MESSAGE_ID=5&MESSAGE=$RESULT[a]", "MESSAGE"),
    ("im.message.update?MESSAGE_ID=5&M%45SSAGE=$result[a]", "MESSAGE"),
    ("imbot.message.update?BOT_ID=1&MESSAGE_ID=5&MESSAGE=$result[a]", "MESSAGE"),
    ("user.update?ID=1&ACTIVE=$result[a][ACTIVE]", "ACTIVE"),
    ("user.update?ID=1&ACTIVE=Y$result[a]", "ACTIVE"),
    // Of a kind that the page does not know: refused before the class.
    ("user.update?ID=1&ACTIVE[]=Y", ""),
    ("user.update?ID=1&ACTIVE[x]=Y", ""),
    ("event.offline.get?clear=$result[a]", "clear"),
    ("event.offline.get?clear=0$result[a]", "clear"),
    ("crm.deal.userfield.update?id=1&fields=$result[a]", "fields"),
    ("crm.deal.userfield.update?id=1&fields[LIST]=$result[a]", "fields[LIST]"),
    ("crm.deal.userfield.update?id=1&fields[list][]=$result[a][0]", "fields[list][0]"),
    ("crm.deal.userfield.update?id=1&fields[LIST][7][del]=$result[a]", "fields[LIST][7][del]"),
    ("crm.deal.userfield.update?id=1&fields[$result[a]]=x", ""),
    ("crm.contact.update?id=1&fields=%24result%5ba%5d", "fields"),
    ("crm.contact.update?id=1&fields[PHONE]=$result[a][PHONE]", "fields[PHONE]"),
    ("crm.deal.update?id=1&fields=$result[a]", "fields"),
    ("lists.section.update?IBLOCK_TYPE_ID=lists&FIELDS[PICTURE]=$result[a]", "FIELDS[PICTURE]"),
    ("im.notify?USER_ID=1&MESSAGE=x&TAG=$result[a]", "TAG"),
];

#[test]
fn a_reference_is_the_worst_in_a_batch() {
    let world = World::new();
    for (line, place) in REFERENCES {
        let params = json!({"cmd": {"a": "crm.lead.get?id=1", "b": line}}).to_string();
        let outcome = world.run(&["batch", "--method-allowlist=*", "--allow-unknown-params", "--params", &params, "--confirm-write"]);
        // A key that PHP would read in another way is refused for its shape.
        let status = if place.is_empty() { 2 } else { 10 };
        outcome.refused(&world, line, status).unwrap_or_else(|problem| panic!("{problem}"));
        let error = outcome.error(status);
        if !place.is_empty() {
            assert_eq!((&error["risk_because"]["param"], &error["risk_because"]["command"]), (&json!(place), &json!("b")), "{line}");
        }
    }
}

#[test]
fn a_reference_is_the_worst_in_any_form_of_a_batch_and_a_text_in_a_call() {
    let world = World::new();
    for command in [
        json!(["user.update", {"$result[a]": {"ACTIVE": "N"}, "ID": 1}]),
        json!(["crm.deal.update", {"id": 1, "fields": {"$result": "x"}}]),
        json!({"method": "user.update", "params": {"ID": 1, "ACTIVE": false}}),
        json!({"method": "entity.item.update", "params": {"ENTITY": "e", "ID": 1, "DETAIL_PICTURE": false}}),
    ] {
        let params = json!({"cmd": {"a": "crm.lead.get?id=1", "b": command}}).to_string();
        let outcome = world.run(&["batch", "--method-allowlist=*", "--allow-unknown-params", "--params", &params, "--confirm-write"]);
        // In the name of a parameter it has no shape at all.
        let status = if params.contains("$result[a]") { 2 } else { 10 };
        outcome.refused(&world, &params, status).unwrap_or_else(|problem| panic!("{problem}"));
    }
    for query in [
        json!({"id": {"$ref": "a.item.id"}, "fields": {"$ref": "a.item"}}),
        json!({"id": 1, "fields": {"dependsOn": {"$refArray": "a.id"}}}),
        json!({"id": 1, "fields": {"$refArray": "a.id"}}),
    ] {
        let params = json!([{"method": "tasks.task.get", "query": {"id": 1}, "as": "a"}, {"method": "tasks.task.update", "query": query}]);
        let outcome = world.run(&[
            "batch",
            "--api",
            "v3",
            "--method-allowlist=*",
            "--allow-unknown-params",
            "--params",
            &params.to_string(),
            "--confirm-write",
        ]);
        outcome.refused(&world, &params.to_string(), 10).unwrap_or_else(|problem| panic!("{problem}"));
    }
    let single = world.run(&[
        "im.message.update",
        "--method-allowlist=*",
        "--allow-unknown-params",
        "MESSAGE_ID=5",
        "MESSAGE=$result[a]",
        "--confirm-write",
        "--dry-run",
    ]);
    assert_eq!(single.body(0)["request"]["risk"], "write");
}

/// References where no rule looks go on as they are: most batches have some.
#[test]
fn references_that_decide_nothing_need_no_more_than_before() {
    let world = World::new();
    for (line, risk) in [
        ("crm.deal.add?fields[TITLE]=x&fields[CONTACT_ID]=$result[a]", "write"),
        ("crm.deal.update?id=$result[a]&fields[COMMENTS]=$result[a][COMMENTS]", "write"),
        ("crm.deal.contact.add?id=$result[a]&fields[CONTACT_ID]=$result[a]", "write"),
        ("im.message.add?DIALOG_ID=chat$result[a]&MESSAGE=$result[a][TITLE]", "write"),
        ("tasks.task.add?fields[TITLE]=x&fields[RESPONSIBLE_ID]=$result[a][ID]", "write"),
        ("crm.deal.get?id=$result[a]", "read"),
        ("crm.contact.list?filter[ID]=$result[a]", "read"),
    ] {
        let params = json!({"cmd": {"a": "crm.lead.get?id=1", "b": line}}).to_string();
        let body = world
            .run(&["batch", "--method-allowlist=*", "--allow-unknown-params", "--params", &params, "--confirm-write", "--dry-run"])
            .body(0);
        assert_eq!(body["request"]["risk"], risk, "{line}");
    }
    let params = json!([{"method": "tasks.task.get", "query": {"id": 1}, "as": "a"},
        {"method": "tasks.task.update", "query": {"id": {"$ref": "a.item.id"}, "fields": {"responsibleId": {"$ref": "a.item.creatorId"}}}}]);
    let body = world
        .run(&[
            "batch",
            "--api",
            "v3",
            "--method-allowlist=*",
            "--allow-unknown-params",
            "--params",
            &params.to_string(),
            "--confirm-write",
            "--dry-run",
        ])
        .body(0);
    assert_eq!(body["request"]["risk"], "write");
}

#[test]
fn offline_events_are_deleted_by_a_destructive_call_alone() {
    let rig = Rig::new("");
    (1..=3).for_each(|id| rig.raise("ONCRMDEALUPDATE", id));
    let held = rig.call("event.offline.get", &json!({"clear": 0}));
    let process = held["process_id"].as_str().unwrap().to_owned();
    let message = held["events"][1]["MESSAGE_ID"].as_str().unwrap().to_owned();
    rig.raise("ONCRMDEALUPDATE", 2);
    let before = rig.rows();
    let run = |args: &[&str]| Outcome::of(&mut rig.world.oauth_command(args));
    let named = [format!("process_id={process}"), "process_id=another".to_owned(), format!("message_id[]={message}")];
    for args in [
        &["event.offline.get", &named[0], "--confirm-write"][..],
        &["event.offline.get", &named[0], "clear=1", "--confirm-write"],
        &["event.offline.get", &named[0], "clear:=false", "--confirm-write"],
        &["event.offline.get", &named[0], "CLEAR=0", "--allow-unknown-params", "--confirm-write"],
        &["event.offline.get", "--confirm-write"],
        &["event.offline.error", &named[0], &named[2], "--confirm-write"],
        &["event.offline.error", &named[1], &named[2], "--confirm-write"],
    ] {
        let _ = run(args).error(10);
        assert_eq!(rig.rows(), before, "{args:?}");
    }
    for clear in ["clear=0", "clear:=0"] {
        let body = run(&["event.offline.get", &named[0], clear, "--confirm-write", "--again"]).body(0);
        assert_eq!(body["result"]["events"].as_array().unwrap().len(), 3);
        assert_eq!(rig.rows(), before);
    }
    // What the class is about: another process than that of the rows.
    let marked = run(&["event.offline.error", &named[1], &named[2], "--confirm-destructive"]).body(0);
    assert_eq!((&marked["result"], rig.rows().len()), (&json!(true), 2), "the held row and the waiting one are gone");
    let audit = rig.world.audit();
    assert!(audit.iter().any(|record| record["method"] == "event.offline.error" && record["risk"] == "destructive"), "{audit:?}");
}

#[test]
fn a_worker_marks_under_its_standing_consent_and_the_audit_says_what_it_is() {
    let rig = Rig::new("status=1");
    rig.raise("ONCRMLEADADD", 1);
    let _ = crate::queue_world::run(rig.exec(&["--until-empty", "--mark-failed", "--max-retries", "1"]), 6);
    assert_eq!(rig.rows()[0]["ERROR"], "1");
    let audit = rig.world.audit();
    let marks: Vec<&Value> =
        audit.iter().filter(|record| record["method"] == "event.offline.error" && record["type"] == "intent").collect();
    assert!(!marks.is_empty() && marks.iter().all(|record| record["risk"] == "destructive"), "{marks:?}");
}

#[test]
fn what_decides_a_class_is_said_before_the_call() {
    let world = World::new();
    let body = world.run(&["policy", "check", "crm.contact.update"]).body(0);
    assert_eq!((&body["risk"], &body["risk_depends_on_params"]), (&json!("write"), &json!(true)));
    let rows = body["risk_params"].as_array().unwrap();
    let phone = rows.iter().find(|row| row["param"] == "fields[PHONE][*][DELETE]").unwrap();
    assert_eq!((&phone["risk"], &phone["why"]), (&json!("destructive"), &json!("deletes the row")));
    assert!(rows.last().unwrap()["param"].as_str().unwrap().contains("REMOVE"));
    assert!(world.run(&["policy", "check", "crm.lead.list"]).body(0).get("risk_depends_on_params").is_none());
    let short = world.run(&["describe", "user.update"]).body(0);
    assert_eq!((&short["risk"], &short["risk_params"][0]), (&json!("write"), &json!("ACTIVE")));
    let full = world.run(&["describe", "user.update", "--full"]).body(0);
    let active = &full["risk_params"][0];
    assert_eq!((&active["param"], &active["risk"]), (&json!("ACTIVE"), &json!("destructive")));
    assert_eq!((&active["when"], &active["why"]), (&json!("unless left out, Y, 1 or true"), &json!("dismisses the user")));
    assert!(world.run(&["describe", "crm.lead.list"]).body(0).get("risk_params").is_none());
}
