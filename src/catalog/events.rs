//! The documented events that an application can subscribe to.

/// One line an event: name and page of the official documentation.
pub const TABLE: &str = include_str!("events.tsv");

/// An event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Its name, as it is documented; portals ignore the case.
    pub name: &'static str,
    /// The page of the official documentation.
    pub doc: &'static str,
}

/// Returns every event, sorted by name without case.
pub fn all() -> impl Iterator<Item = Event> {
    TABLE.lines().filter_map(|line| {
        let (name, doc) = line.split_once('\t')?;
        Some(Event { name, doc })
    })
}

/// Looks an event up, whatever the case of its name.
#[must_use]
pub fn find(name: &str) -> Option<Event> {
    all().find(|event| event.name.eq_ignore_ascii_case(name))
}

/// Events without a line in the table: the test call of an application and the
/// signal of the offline queue
/// (b24restdocs: api-reference/events/test-handler.md, on-offline-event.md).
pub const SIGNALS: &[&str] = &["ONAPPTEST", "ONOFFLINEEVENT"];

/// Returns whether an event is documented, whatever the case of its name.
#[must_use]
pub fn is_known(name: &str) -> bool {
    let name = split_type(name).map_or(name, |(name, _)| name);
    find(name).is_some() || SIGNALS.iter().any(|signal| signal.eq_ignore_ascii_case(name))
}

/// Splits the name of an event of one type of smart process, which ends with
/// its number: `ONCRMDYNAMICITEMADD_147`
/// (b24restdocs: api-reference/events/events.md).
#[must_use]
pub fn split_type(name: &str) -> Option<(&str, &str)> {
    let (name, number) = name.rsplit_once('_')?;
    let is_number = (1..10).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    let is_dynamic = name.get(..16).is_some_and(|start| start.eq_ignore_ascii_case("onCrmDynamicItem"));
    (is_number && is_dynamic && name.len() > 16).then_some((name, number))
}

/// Returns up to three names of events that are like the text, best first.
#[must_use]
pub fn suggestions(text: &str) -> Vec<String> {
    let names: Vec<&str> = all().map(|event| event.name).chain(SIGNALS.iter().copied()).collect();
    super::closest(text, names.into_iter()).into_iter().map(str::to_ascii_uppercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_event_is_found() {
        let names: Vec<String> = all().map(|event| event.name.to_lowercase()).collect();
        assert!(names.len() > 150 && names.is_sorted());
        for event in all() {
            assert_eq!(find(&event.name.to_uppercase()), Some(event));
            assert!(event.doc.starts_with("api-reference/"));
        }
        assert_eq!(find("onNothing"), None);
        assert!(is_known("onofflineevent") && is_known("OnCrmDynamicItemAdd_147"));
        assert!(!is_known("ONCRMDEALADD_1") && !is_known("ONNOTHING_1"));
        assert_eq!(suggestions("oncrmdealad")[0], "ONCRMDEALADD");
    }
}
