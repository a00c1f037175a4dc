//! Selector values that are taken from the client's labels: `{{ .podName }}`, `{{ index . "app.kubernetes.io/name" }}`.
//!
//! The two forms of Go's text/template that network services use, and no other: everything else is an error that says so.
//! A label that the client has not makes the selector fit nothing; it never becomes an empty string.

use std::collections::BTreeMap;

/// A selector's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Label(String),
}

/// Not a template that is understood here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("text with {{{{ .label }}}} or {{{{ index . \"odd-label\" }}}} in it: {0}")]
pub struct Malformed(String);

/// The client lacks a label that a selector's value is made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the client has no label {0}")]
pub struct Missing(pub String);

impl Template {
    /// Reads a selector's value.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let (action, after) = after.split_once("}}").ok_or_else(|| Malformed("{{ without }}".to_owned()))?;
            pieces.push(Piece::Label(label(action.trim())?));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    /// The value for a client with these labels.
    pub fn render(&self, labels: &BTreeMap<String, String>) -> Result<String, Missing> {
        self.0.iter().try_fold(String::new(), |mut value, piece| {
            value.push_str(match piece {
                Piece::Text(text) => text,
                Piece::Label(key) => labels.get(key).ok_or_else(|| Missing(key.clone()))?,
            });
            Ok(value)
        })
    }
}

/// The label that an action between the braces names.
fn label(action: &str) -> Result<String, Malformed> {
    let malformed = || Malformed(format!("{{{{ {action} }}}} is neither"));
    if let Some(key) = action.strip_prefix('.') {
        let word = key.chars().all(|c| c.is_alphanumeric() || c == '_') && !key.starts_with(|c: char| c.is_numeric());
        return if !key.is_empty() && word { Ok(key.to_owned()) } else { Err(malformed()) };
    }
    let mut words = action.splitn(3, char::is_whitespace);
    match (words.next(), words.next(), words.next().map(str::trim)) {
        (Some("index"), Some("."), Some(quoted)) => quoted
            .strip_prefix('"')
            .and_then(|key| key.strip_suffix('"'))
            .filter(|key| !key.is_empty() && !key.contains(['"', '\\']))
            .map(str::to_owned)
            .ok_or_else(malformed),
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str) -> Result<String, String> {
        let labels = [("podName", "web-0"), ("app.kubernetes.io/name", "shop")];
        let labels = labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        Template::parse(text).map_err(|e| e.to_string())?.render(&labels).map_err(|e| e.to_string())
    }

    #[test]
    fn labels_are_put_in() {
        assert_eq!(render("plain"), Ok("plain".into()));
        assert_eq!(render("{{.podName}}"), Ok("web-0".into()));
        assert_eq!(render("a-{{ .podName }}-b"), Ok("a-web-0-b".into()));
        assert_eq!(render("{{ index . \"app.kubernetes.io/name\" }}"), Ok("shop".into()));
        assert_eq!(render("{{index .  \"podName\"}}"), Ok("web-0".into()));
    }

    #[test]
    fn an_absent_label_is_no_empty_string() {
        assert_eq!(render("{{ .nodeName }}"), Err("the client has no label nodeName".into()));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["{{", "{{ .a", "{{ }}", "{{ . }}", "{{ .a.b }}", "{{ if .a }}", "{{ index . a }}", "{{ index . \"\" }}"]
        {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
