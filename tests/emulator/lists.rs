//! Filter, order, select and pages.

use crate::support::World;
use serde_json::{Value, json};

/// Returns a portal with deals 1 to `count`; the sum is 10 times the id.
fn deals(count: u64) -> World {
    let world = World::new();
    for id in 1..=count {
        let fields = json!({"TITLE": format!("Deal number {id}"), "OPPORTUNITY": id * 10, "UF_CRM_1700000000": format!("u{}", id % 3)});
        world.result("crm.deal.add", &json!({"fields": fields}));
    }
    world
}

fn ids(rows: &Value) -> Vec<u64> {
    let id =
        |row: &Value| row.get("ID").or(row.get("id")).map(|id| id.as_str().map_or_else(|| id.as_u64().unwrap(), |id| id.parse().unwrap()));
    rows.as_array().unwrap().iter().map(|row| id(row).unwrap()).collect()
}

#[test]
fn pages_lead_through_120_rows() {
    let world = deals(120);
    let mut seen = Vec::new();
    let mut start = json!(0);
    let mut pages = 0;
    loop {
        let got = world.post("crm.deal.list", &json!({"order": {"ID": "ASC"}, "start": start}));
        assert_eq!(got.body["total"], 120);
        seen.extend(ids(&got.body["result"]));
        pages += 1;
        match got.body.get("next") {
            Some(next) => start = next.clone(),
            None => break,
        }
    }
    assert_eq!((pages, seen), (3, (1..=120).collect()));
    let last = world.post("crm.item.list", &json!({"entityTypeId": 2, "start": 100}));
    assert_eq!((ids(&last.body["result"]["items"]).len(), last.body.get("next")), (20, None));
}

#[test]
fn a_walk_by_id_needs_no_counting() {
    let world = deals(120);
    let (mut last, mut seen): (u64, Vec<u64>) = (0, Vec::new());
    loop {
        let got = world.post("crm.deal.list", &json!({"order": {"ID": "ASC"}, "filter": {">ID": last}, "start": -1}));
        assert!(got.body.get("next").is_none() && got.body.get("total").is_none());
        let page = ids(&got.body["result"]);
        seen.extend(&page);
        if page.len() < 50 {
            break;
        }
        last = *page.last().unwrap();
    }
    assert_eq!(seen, (1..=120).collect::<Vec<_>>());
    let down = world.post("crm.deal.list", &json!({"order": {"ID": "DESC"}, "filter": {"<ID": 71}, "start": -1}));
    assert_eq!(ids(&down.body["result"]), (21..=70).rev().collect::<Vec<_>>());
}

#[test]
fn filters_and_orders_are_numbers_where_values_are() {
    let world = deals(12);
    let list = |filter: Value| ids(&world.result("crm.deal.list", &json!({"filter": filter, "order": {"OPPORTUNITY": "DESC"}})));
    assert_eq!(list(json!({">OPPORTUNITY": 90})), [12, 11, 10]);
    assert_eq!(list(json!({"@ID": [3, 5]})), [5, 3]);
    assert_eq!(list(json!({"ID": ["3", "5"]})), [5, 3]);
    assert_eq!(list(json!({"%TITLE": "NUMBER 1"})), [12, 11, 10, 1]);
    assert_eq!(list(json!({"><OPPORTUNITY": [20, 40]})), [4, 3, 2]);
    assert_eq!(list(json!({"!ID": 1, "<=ID": 3})), [3, 2]);
    assert_eq!(list(json!({"UF_CRM_1700000000": "u0"})), [12, 9, 6, 3]);
    let items = world.result("crm.item.list", &json!({"entityTypeId": 2, "filter": {">=opportunity": 110}, "order": {"id": "desc"}}));
    assert_eq!(ids(&items["items"]), [12, 11]);
}

#[test]
fn select_chooses_columns() {
    let world = deals(1);
    let row = |select: Value| world.result("crm.deal.list", &json!({"select": select}))[0].clone();
    assert_eq!(row(json!(["ID", "OPPORTUNITY"])), json!({"ID": "1", "OPPORTUNITY": "10.00"}));
    assert!(row(json!([])).get("UF_CRM_1700000000").is_none());
    assert!(row(json!(["*"])).get("UF_CRM_1700000000").is_none());
    assert_eq!(row(json!(["*", "UF_*"]))["UF_CRM_1700000000"], "u1");
    let item = world.result("crm.item.list", &json!({"entityTypeId": 2, "select": ["title", "ufCrm_1700000000"]}))["items"][0].clone();
    assert_eq!(item, json!({"id": 1, "title": "Deal number 1", "ufCrm_1700000000": "u1"}));
}

#[test]
fn universal_lists_refuse_what_they_do_not_know() {
    let world = deals(1);
    for (params, code) in [
        (json!({"entityTypeId": 2, "filter": {"nonsense": 1}}), "INVALID_ARG_VALUE"),
        (json!({"entityTypeId": 2, "order": {"nonsense": "ASC"}}), "INVALID_ARG_VALUE"),
        (json!({"entityTypeId": 2, "order": {"id": "UP"}}), "INVALID_ARG_VALUE"),
        (json!({"entityTypeId": 5}), "NOT_FOUND"),
        (json!({}), "100"),
    ] {
        let got = world.post("crm.item.list", &params);
        assert_eq!((got.status, got.body["error"].as_str()), (400, Some(code)), "{params}");
    }
}

#[test]
fn users_are_listed_by_their_own_rules() {
    let world = World::new();
    let got = world.post("user.get", &json!({"SORT": "ID", "ORDER": "DESC"}));
    assert_eq!((ids(&got.body["result"]), &got.body["total"]), (vec![3, 2, 1], &json!(3)));
    assert_eq!(ids(&world.result("user.get", &json!({"ID": 2}))), [2]);
    assert_eq!(ids(&world.result("user.get", &json!({"FILTER": {"NAME": "cleo"}}))), [3]);
}

#[test]
fn ten_thousand_leads_stay_fast() {
    let world = World::new();
    // 200 batches of 50: what counts is that nothing is quadratic.
    let command = |number: usize| format!("crm.lead.add?fields[TITLE]=lead {number}");
    for batch in 0..200 {
        let commands: Vec<String> = (0..50).map(|number| command(batch * 50 + number)).collect();
        let result = world.result("batch", &json!({"cmd": commands}));
        assert_eq!(result["result"].as_array().unwrap().len(), 50);
    }
    assert_eq!(world.result("crm.lead.get", &json!({"id": 10_000}))["TITLE"], "lead 9999");
    let page = world.post("crm.lead.list", &json!({"filter": {">ID": 9_990}, "start": -1}));
    assert_eq!(ids(&page.body["result"]), (9_991..=10_000).collect::<Vec<_>>());
}
