//! What a search must find.

use super::*;

/// What is looked for, and a method that must be among the first ten.
const QUERIES: &[(&str, &str)] = &[
    ("add deal", "crm.deal.add"),
    ("create a new lead", "crm.lead.add"),
    ("list companies", "crm.company.list"),
    ("delete contact", "crm.contact.delete"),
    ("deal fields", "crm.deal.fields"),
    ("deal custom fields", "crm.deal.userfield.list"),
    ("smart process items", "crm.item.list"),
    ("create smart process", "crm.type.add"),
    ("invoice list", "crm.item.list"),
    ("opportunity update", "crm.deal.update"),
    ("pipelines", "crm.category.list"),
    ("kanban stages of tasks", "task.stages.get"),
    ("timeline comment", "crm.timeline.comment.add"),
    ("activities list", "crm.activity.list"),
    ("duplicates", "crm.duplicate.findbycomm"),
    ("send chat message", "im.message.add"),
    ("notification", "im.notify.system.add"),
    ("workgroup create", "sonet_group.create"),
    ("open lines", "imopenlines.config.get"),
    ("open lines config", "imopenlines.config.list.get"),
    ("open channel session", "imopenlines.session.open"),
    ("copilot engine", "ai.engine.list"),
    ("robot", "bizproc.robot.add"),
    ("start workflow", "bizproc.workflow.start"),
    ("upload file to folder", "disk.folder.uploadfile"),
    ("complete task", "tasks.task.complete"),
    ("add task", "tasks.task.add"),
    ("task comments", "task.commentitem.getlist"),
    ("current user", "user.current"),
    ("employees", "user.get"),
    ("departments", "department.get"),
    ("calendar event", "calendar.event.add"),
    ("subscribe to event", "event.bind"),
    ("phone call register", "telephony.externalCall.register"),
    ("order list", "sale.order.list"),
    ("product price", "catalog.price.list"),
    ("warehouse", "catalog.store.list"),
    ("working day open", "timeman.open"),
    ("sms provider", "messageservice.sender.add"),
    ("widget", "placement.bind"),
    ("list pages", "landing.landing.getList"),
    ("news feed post", "log.blogpost.add"),
    ("создать сделку", "crm.deal.add"),
    ("список лидов", "crm.lead.list"),
    ("удалить контакт", "crm.contact.delete"),
    ("добавить задачу", "tasks.task.add"),
    ("отправить сообщение в чат", "im.message.add"),
    ("открытые линии", "imopenlines.config.get"),
    ("рабочая группа", "sonet_group.create"),
    ("робот", "bizproc.robot.add"),
    ("запустить бизнес-процесс", "bizproc.workflow.start"),
    ("список сотрудников", "user.get"),
    ("стадии сделки", "crm.status.list"),
    ("смарт-процесс", "crm.type.list"),
    ("комментарий в таймлайн", "crm.timeline.comment.add"),
    ("воронки", "crm.category.list"),
    ("начать рабочий день", "timeman.open"),
    ("загрузить файл на диск", "disk.folder.uploadfile"),
];

#[test]
fn the_method_that_is_meant_is_among_the_first_ten() {
    let mut lost = Vec::new();
    for (query, wanted) in QUERIES {
        assert!(catalog::entries().any(|entry| entry.name.eq_ignore_ascii_case(wanted)), "{wanted}");
        let found = methods(&words::terms(query));
        let first: Vec<&str> = found.iter().take(10).map(|(entry, _)| entry.name).collect();
        if !first.iter().any(|name| name.eq_ignore_ascii_case(wanted)) {
            lost.push(format!("{query}: {wanted} is not in {first:?}"));
        }
    }
    assert!(lost.is_empty(), "{} of {}\n{}", lost.len(), QUERIES.len(), lost.join("\n"));
}

#[test]
fn events_and_errors_come_only_when_they_fit() {
    assert!(events(&words::terms("lead event")).contains(&"onCrmLeadAdd"));
    assert!(events(&words::terms("удалить сделку")).contains(&"onCrmDealDelete"));
    assert!(events(&words::terms("event")).is_empty());
    assert!(events(&words::terms("warehouse")).is_empty());
    assert_eq!(errors("query_limit_exceeded"), ["QUERY_LIMIT_EXCEEDED"]);
    assert!(errors("access denied").contains(&"ACCESS_DENIED"));
    assert!(errors("add").is_empty());
}
