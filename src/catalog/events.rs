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
    }
}
