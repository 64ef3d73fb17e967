//! What the documented events carry: the data of a delivery, for who raises
//! one.
//!
//! The shapes are those of the samples on the events' pages (see the pages in
//! [`events`](super::events); form values, so every plain value is a string).
//! Ids and names are made up, tokens are left out.

use super::events;
use serde_json::Value;

/// One line a shape: event or, with `*` at its end, beginning of events; where
/// the id of the object stands (JSON pointers into the data, `/` for the data
/// as a whole, `-` for nowhere); the data. The first line that fits counts.
pub const TABLE: &str = include_str!("payloads.tsv");

/// What an event carries.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Its data.
    pub data: Value,
    id_places: Vec<&'static str>,
}

impl Shape {
    /// Puts the id of the object where the event has it; false when it has it
    /// nowhere.
    pub fn set_id(&mut self, id: &str) -> bool {
        for place in &self.id_places {
            let pointer = if *place == "/" { "" } else { place };
            if let Some(value) = self.data.pointer_mut(pointer) {
                *value = Value::from(id);
            }
        }
        !self.id_places.is_empty()
    }
}

/// Returns what an event carries; of an unknown one, what most carry.
#[must_use]
pub fn shape(event: &str) -> Shape {
    let (name, entity_type) = events::split_type(event).map_or((event, None), |(name, number)| (name, Some(number)));
    let lines = || TABLE.lines().filter_map(Line::parse);
    let line = lines().find(|line| line.fits(name));
    let mut shape = line.map_or_else(|| Shape { data: Value::Array(Vec::new()), id_places: Vec::new() }, |line| line.shape());
    if let (Some(number), Some(value)) = (entity_type, shape.data.pointer_mut("/FIELDS/ENTITY_TYPE_ID")) {
        *value = Value::from(number);
    }
    shape
}

struct Line {
    pattern: &'static str,
    id_places: &'static str,
    data: &'static str,
}

impl Line {
    fn parse(line: &'static str) -> Option<Line> {
        let mut columns = line.split('\t');
        Some(Line { pattern: columns.next()?, id_places: columns.next()?, data: columns.next()? })
    }

    fn fits(&self, event: &str) -> bool {
        match self.pattern.strip_suffix('*') {
            Some(start) => event.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start)),
            None => event.eq_ignore_ascii_case(self.pattern),
        }
    }

    fn shape(&self) -> Shape {
        let data = serde_json::from_str(self.data).unwrap_or(Value::Null);
        Shape { data, id_places: self.id_places.split(' ').filter(|place| *place != "-").collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn only_strings(value: &Value) -> bool {
        match value {
            Value::Object(members) => members.values().all(only_strings),
            Value::Array(items) => items.iter().all(only_strings),
            Value::String(_) => true,
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }

    #[test]
    fn every_line_is_a_shape_of_some_event() {
        let names: Vec<&str> = events::all().map(|event| event.name).chain(events::SIGNALS.iter().copied()).collect();
        let lines: Vec<Line> = TABLE.lines().map(|line| Line::parse(line).unwrap()).collect();
        for (index, line) in lines.iter().enumerate() {
            let is_first = |name: &&&str| lines.iter().position(|line| line.fits(name)) == Some(index);
            assert!(names.iter().find(is_first).is_some(), "no event has the shape of {}", line.pattern);
            let mut shape = line.shape();
            assert!(only_strings(&shape.data), "{}", line.pattern);
            for place in shape.id_places.clone() {
                let pointer = if place == "/" { "" } else { place };
                assert!(shape.data.pointer(pointer).is_some_and(Value::is_string), "{} {place}", line.pattern);
            }
            assert_eq!(shape.set_id("42"), line.id_places != "-");
            assert!(line.id_places == "-" || shape.data.to_string().contains("\"42\""));
        }
    }

    #[test]
    fn families_have_their_shapes() {
        assert_eq!(shape("ONCRMDEALADD").data, json!({"FIELDS": {"ID": "1"}}));
        assert_eq!(shape("oncrmdynamicitemadd_147").data, json!({"FIELDS": {"ID": "1", "ENTITY_TYPE_ID": "147"}}));
        assert_eq!(shape("OnCalendarEntryAdd").data, json!({"id": "1"}));
        assert_eq!(shape("ONOFFLINEEVENT").data, json!([]));
        assert_eq!(shape("ONTASKUPDATE").data["FIELDS_BEFORE"]["ID"], "1");
        assert_eq!(shape("ONIMCONNECTORLINEDELETE").data, json!("1"));
    }

    #[test]
    fn names_are_known_in_any_case() {
        for name in ["oncrmdealadd", "ONOFFLINEEVENT", "OnAppTest", "catalog.price.on.add", "ONCRMDYNAMICITEMUPDATE_1220"] {
            assert!(events::is_known(name), "{name}");
        }
        for name in ["", "ONCRMDEALADDED", "ONCRMDEALADD_5", "ONCRMDYNAMICITEMADD_", "ONCRMDYNAMICITEMADD_x"] {
            assert!(!events::is_known(name), "{name}");
        }
        assert!(events::suggestions("ONCRMDEALAD").contains(&"ONCRMDEALADD".to_owned()));
    }
}
