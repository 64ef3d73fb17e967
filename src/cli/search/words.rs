//! The words of a search and what else they may be called in names.

/// Words of the product's screens, in full or their beginning, and the parts of
/// names that stand for them. Of several words all must stand in a row.
const SYNONYMS: &[(&str, &str)] = &[
    ("access right", "rights permission access"),
    ("automation rule", "bizproc.robot"),
    ("business process", "bizproc"),
    ("contact center", "imopenlines imconnector"),
    ("custom field", "userfield userfieldconfig"),
    ("custom section", "automatedsolution"),
    ("digital workplace", "automatedsolution"),
    ("document template", "documentgenerator.template"),
    ("knowledge base", "landing"),
    ("live feed", "log.blogpost"),
    ("news feed", "log.blogpost"),
    ("online store", "sale"),
    ("open channel", "imopenlines imconnector"),
    ("open line", "imopenlines imconnector"),
    ("payment system", "paysystem"),
    ("personal data", "userconsent"),
    ("price type", "pricetype"),
    ("sales funnel", "category"),
    ("smart process", "crm.type crm.item dynamic"),
    ("smart invoice", "crm.item"),
    ("spa", "crm.type crm.item dynamic"),
    ("stage", "status stage"),
    ("time tracking", "timeman elapseditem"),
    ("user field", "userfield userfieldconfig"),
    ("work time", "timeman"),
    ("working day", "timeman"),
    ("бизнес-процесс", "bizproc"),
    ("база знаний", "landing"),
    ("бизнес процесс", "bizproc"),
    ("живая лента", "log.blogpost"),
    ("живой ленты", "log.blogpost"),
    ("контакт-центр", "imopenlines imconnector"),
    ("открытая линия", "imopenlines imconnector"),
    ("открытые линии", "imopenlines imconnector"),
    ("открытых линий", "imopenlines imconnector"),
    ("пользовательские поля", "userfield"),
    ("пользовательское поле", "userfield"),
    ("рабочая группа", "sonet_group"),
    ("рабочее время", "timeman"),
    ("рабочий день", "timeman"),
    ("рабочую группу", "sonet_group"),
    ("смарт-процесс", "crm.type crm.item dynamic"),
    ("учет времени", "timeman elapseditem"),
    ("appointment", "booking calendar"),
    ("bank", "bankdetail"),
    ("basket", "basketitem"),
    ("board", "sonet_group scrum kanban"),
    ("bot", "imbot"),
    ("call", "telephony voximplant call"),
    ("cart", "basketitem"),
    ("chat", "im dialog chat"),
    ("copilot", "ai"),
    ("create", "add create register"),
    ("department", "department humanresources"),
    ("drive", "disk"),
    ("employee", "user humanresources"),
    ("estimate", "quote"),
    ("file", "disk file"),
    ("folder", "disk"),
    ("form", "webform form"),
    ("funnel", "category"),
    ("group", "sonet_group group"),
    ("invite", "user.add"),
    ("invoice", "crm.item invoice"),
    ("kanban", "stage task.stages stages"),
    ("make", "add create"),
    ("meeting", "calendar"),
    ("messenger", "im"),
    ("modify", "update"),
    ("edit", "update"),
    ("change", "update"),
    ("new", "add create"),
    ("notification", "notify"),
    ("openline", "imopenlines"),
    ("opportunity", "deal"),
    ("page", "landing.landing landing page"),
    ("phone", "telephony"),
    ("pipeline", "category"),
    ("post", "blogpost"),
    ("project", "sonet_group scrum"),
    ("quote", "quote"),
    ("remove", "delete remove unbind"),
    ("robot", "bizproc.robot"),
    ("send", "add send"),
    ("show", "list get"),
    ("site", "landing.site site"),
    ("sms", "messageservice"),
    ("sprint", "scrum.sprint"),
    ("store", "store sale catalog"),
    ("structure", "humanresources department"),
    ("subscribe", "bind"),
    ("telephony", "telephony voximplant"),
    ("timeline", "timeline"),
    ("trigger", "automation.trigger"),
    ("upload", "uploadfile upload"),
    ("vacation", "timeman calendar"),
    ("warehouse", "catalog.store store"),
    ("widget", "placement"),
    ("workday", "timeman"),
    ("workflow", "bizproc"),
    ("workgroup", "sonet_group"),
    ("автоматизац", "bizproc.robot automation"),
    ("бот", "imbot"),
    ("бронирован", "booking"),
    ("воронк", "category"),
    ("встреч", "calendar"),
    ("групп", "sonet_group"),
    ("дел", "activity"),
    ("диск", "disk"),
    ("добав", "add"),
    ("документ", "document documentgenerator"),
    ("заверш", "complete"),
    ("запис", "booking record"),
    ("запуст", "start"),
    ("загруз", "uploadfile upload"),
    ("задач", "task"),
    ("заказ", "sale.order"),
    ("звон", "telephony voximplant"),
    ("измен", "update"),
    ("календар", "calendar"),
    ("канбан", "stage stages"),
    ("коммент", "comment"),
    ("компани", "company"),
    ("контакт", "contact"),
    ("копилот", "ai"),
    ("лид", "lead"),
    ("нов", "add create"),
    ("обнов", "update"),
    ("оплат", "payment pay"),
    ("отдел", "department"),
    ("отправ", "add send"),
    ("папк", "disk.folder"),
    ("подпис", "bind"),
    ("показ", "list get"),
    ("получ", "get list"),
    ("пользовател", "user"),
    ("пол", "field"),
    ("почт", "mail"),
    ("прав", "rights permission access"),
    ("предложен", "quote"),
    ("проект", "sonet_group"),
    ("реквизит", "requisite"),
    ("робот", "bizproc.robot"),
    ("сайт", "landing.site site"),
    ("сделк", "deal"),
    ("склад", "catalog.store store"),
    ("созда", "add create"),
    ("сообщен", "message"),
    ("сотрудник", "user"),
    ("событи", "event"),
    ("спис", "list get"),
    ("стади", "status stage"),
    ("счет", "crm.item invoice"),
    ("таймлайн", "timeline"),
    ("телефон", "telephony phone"),
    ("товар", "product"),
    ("уведомлен", "notify"),
    ("удал", "delete"),
    ("файл", "disk file"),
    ("цен", "price"),
    ("чат", "im dialog chat"),
];

/// Words that say nothing about what is looked for.
const EMPTY: &[&str] = &[
    "a", "all", "an", "and", "by", "for", "from", "how", "in", "into", "my", "of", "on", "the", "to", "with", "в", "для", "из", "и", "как",
    "к", "на", "о", "по", "с", "со",
];

/// From this length on a name may begin or go on with a word; shorter ones
/// stand for a whole part: `im` is not in `time`.
const PART_OF_NAME: usize = 4;

/// One word of a search, or several that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Term {
    own: String,
    meant: Vec<&'static str>,
}

/// Takes a search in lower case apart.
pub(super) fn terms(text: &str) -> Vec<Term> {
    let mut rest = format!(" {text} ");
    let mut terms = Vec::new();
    for (said, meant) in SYNONYMS.iter().filter(|(said, _)| said.contains([' ', '-'])) {
        if rest.contains(&format!(" {said}")) {
            rest = rest.replacen(said, " ", 1);
            terms.push(Term { own: (*said).to_owned(), meant: meant.split(' ').collect() });
        }
    }
    let words = rest.split(|c: char| c.is_whitespace() || c == ',' || c == '?').filter(|word| !word.is_empty());
    // What is left of a plural whose singular was taken out.
    let words = words.filter(|word| !EMPTY.contains(word) && *word != "s" && *word != "es");
    terms.extend(words.map(Term::of));
    terms
}

impl Term {
    fn of(word: &str) -> Term {
        let stem = stem(word);
        let is_russian = !word.is_ascii();
        let is_said = |said: &str| if is_russian { word.starts_with(said) } else { stem == said };
        // The longest beginning says most: `отдел` is no `дел`.
        let found = SYNONYMS.iter().filter(|(said, _)| is_said(said)).max_by_key(|(said, _)| said.len());
        let meant = found.map(|(_, meant)| meant.split(' ').collect()).unwrap_or_default();
        Term { own: stem, meant }
    }

    /// Returns whether the word is this one or means it.
    pub(super) fn says(&self, word: &str) -> bool {
        self.own == word || self.meant.contains(&word)
    }

    /// Returns whether a name in lower case has the word, separators aside.
    pub(super) fn is_in(&self, name: &str) -> bool {
        let bare = |word: &str| word.replace(['.', '_', ' ', '-'], "");
        let name = bare(name);
        name.contains(&bare(&self.own)) || self.meant.iter().any(|meant| meant.len() >= 3 && name.contains(&bare(meant)))
    }

    /// Returns how well a method fits.
    pub(super) fn score(&self, folded: &str, purpose: &str) -> i32 {
        let own = if is_part(folded, &self.own) {
            7
        } else if self.own.len() >= PART_OF_NAME && folded.contains(&self.own) {
            4
        } else if self.own.len() >= 3 && purpose.contains(&self.own) {
            3
        } else {
            0
        };
        // The first of the meanings is the most usual one.
        let meant = self.meant.iter().enumerate().map(|(index, meant)| {
            let best = if index == 0 { 6 } else { 4 };
            if is_part(folded, meant) || (meant.contains(['.', '_']) && folded.contains(meant)) {
                best
            } else if meant.len() >= PART_OF_NAME && folded.contains(meant) {
                best - 2
            } else {
                0
            }
        });
        own.max(meant.max().unwrap_or(0))
    }
}

fn is_part(folded: &str, word: &str) -> bool {
    folded.split(['.', '_']).any(|part| part == word || part.strip_suffix('s') == Some(word))
}

/// Takes an English plural back.
fn stem(word: &str) -> String {
    if let Some(start) = word.strip_suffix("ies").filter(|start| start.len() >= 3) {
        return format!("{start}y");
    }
    match word.strip_suffix('s').filter(|start| start.len() >= 3 && !start.ends_with('s') && word != "sms") {
        Some(start) if start.ends_with("sse") || start.ends_with("xe") => start.trim_end_matches('e').to_owned(),
        Some(start) => start.to_owned(),
        None => word.to_owned(),
    }
}
