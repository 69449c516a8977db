//! The address of key sets, in which `{{name}}` stands for what a group of the issuer's or audience's pattern matched:
//! a provider with many tenants has a set for each.

use std::collections::HashMap;

use regex::Regex;

use crate::auth::problem::KeyProblem;

/// Bytes of a text that stands for a group.
const VALUE_BYTES_MAX: usize = 128;

/// The texts of groups, by their names.
#[derive(Debug, Default)]
pub(in crate::auth) struct Groups(HashMap<String, String>);

impl Groups {
    /// Adds what the groups of a pattern matched in the first of these texts that it matches.
    pub(in crate::auth) fn add(&mut self, pattern: &Regex, texts: &[String]) {
        let Some(captures) = texts.iter().find_map(|text| pattern.captures(text)) else { return };
        for name in pattern.capture_names().flatten() {
            if let Some(group) = captures.name(name) {
                self.0.insert(name.to_owned(), group.as_str().to_owned());
            }
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Group(String),
}

impl Template {
    pub(super) fn new(text: &str, patterns: &[&Regex]) -> Result<Self, KeyProblem> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) = after.split_once("}}").ok_or(KeyProblem::OpenGroup)?;
            if !patterns.iter().any(|pattern| pattern.capture_names().flatten().any(|group| group == name)) {
                return Err(KeyProblem::NoGroup(name.to_owned()));
            }
            parts.extend([Part::Text(before.to_owned()), Part::Group(name.to_owned())]);
            rest = after;
        }
        let host_and_path = text.split_once("://").map_or(text, |(_, rest)| rest);
        if host_and_path.split('/').next().is_some_and(|host| host.contains("{{")) {
            return Err(KeyProblem::GroupInHost);
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// Returns an address of this form.
    pub(super) fn example(&self) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Group(_) => "x".to_owned(),
        };
        self.0.iter().map(part).collect()
    }

    /// Returns the address if it needs no token.
    pub(super) fn fixed(&self) -> Option<&str> {
        match &self.0[..] {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Returns the address for the texts of groups. `None` if one is missing, or could mean more than a name in a path.
    pub(super) fn fill(&self, groups: &Groups) -> Option<String> {
        let mut url = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => url.push_str(text),
                Part::Group(name) => url.push_str(groups.0.get(name).filter(|value| is_name(value))?),
            }
        }
        Some(url)
    }
}

fn is_name(value: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    value.len() <= VALUE_BYTES_MAX && value.bytes().all(is_plain) && value.bytes().any(|byte| byte != b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATTERN: &str = "^https://id.example/(?P<tenant>[^/]*)/(?P<realm>.*)$";

    fn template(text: &str) -> Result<Template, KeyProblem> {
        Template::new(text, &[&Regex::new(PATTERN).unwrap()])
    }

    #[test]
    fn groups_are_filled_in() {
        let filled = |text: &str, issuer: &str| {
            let mut groups = Groups::default();
            groups.add(&Regex::new(PATTERN).unwrap(), &["elsewhere".into(), issuer.into()]);
            template(text).unwrap().fill(&groups)
        };
        let (keys, both) = ("https://id.example/{{realm}}/keys", "https://id.example/{{tenant}}/{{realm}}");
        assert_eq!(filled(keys, "https://id.example/t/acme").unwrap(), "https://id.example/acme/keys");
        assert_eq!(filled(both, "https://id.example/a.b/main").unwrap(), "https://id.example/a.b/main");
        let long = "x".repeat(VALUE_BYTES_MAX + 1);
        for strange in ["", ".", "..", "a/b", "a?b", "a#b", "a%2f", "a b", "ä", "@host", &long] {
            assert_eq!(filled(keys, &format!("https://id.example/t/{strange}")), None, "{strange}");
        }
        assert_eq!(filled(keys, "https://other.example/t/acme"), None);
    }

    #[test]
    fn an_address_without_groups_is_fixed() {
        assert_eq!(template("https://id.example/keys").unwrap().fixed(), Some("https://id.example/keys"));
        assert_eq!(template("https://id.example/{{tenant}}").unwrap().fixed(), None);
    }

    #[test]
    fn mistakes_are_found_at_start() {
        for (text, error) in [
            ("https://id.example/{{tenant", KeyProblem::OpenGroup),
            ("https://id.example/{{other}}", KeyProblem::NoGroup("other".into())),
            ("https://{{tenant}}.example/keys", KeyProblem::GroupInHost),
            ("https://{{tenant}}", KeyProblem::GroupInHost),
        ] {
            assert_eq!(template(text).map(|_| ()), Err(error), "{text}");
        }
    }
}
