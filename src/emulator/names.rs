//! Spellings of field names: `ASSIGNED_BY_ID` in rows, `assignedById` in the
//! universal methods and in task answers.

/// Turns `CREATED_DATE` into `createdDate`. In custom fields a last part of
/// digits keeps its underscore (`ufCrm_1700000000000`).
pub(super) fn camel(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let parts: Vec<&str> = name.split('_').collect();
    for (index, part) in parts.iter().enumerate() {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if digits && name.starts_with("UF_") && index + 1 == parts.len() {
            text.push('_');
        }
        let lower = part.to_lowercase();
        let mut letters = lower.chars();
        match letters.next() {
            Some(first) if index > 0 => {
                text.extend(first.to_uppercase());
                text.push_str(letters.as_str());
            }
            _ => text.push_str(&lower),
        }
    }
    text
}

/// Turns `createdDate` into `CREATED_DATE`; a name in upper case stays.
pub(super) fn upper(name: &str) -> String {
    if !name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return name.to_owned();
    }
    let mut text = String::with_capacity(name.len() + 4);
    let mut previous = '_';
    for letter in name.chars() {
        let boundary = letter.is_uppercase() || (letter.is_ascii_digit() && previous.is_ascii_lowercase());
        if boundary && previous != '_' {
            text.push('_');
        }
        text.extend(letter.to_uppercase());
        previous = letter;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_lead_back_to_each_other() {
        for (classic, modern) in [
            ("ID", "id"),
            ("ASSIGNED_BY_ID", "assignedById"),
            ("UF_CRM_1721244707107", "ufCrm_1721244707107"),
            ("PARENT_ID_1220", "parentId1220"),
            ("UF_CRM_5_1700", "ufCrm5_1700"),
        ] {
            assert_eq!(camel(classic), modern);
            assert_eq!(upper(modern), classic);
        }
        assert_eq!(upper("TITLE"), "TITLE");
    }
}
