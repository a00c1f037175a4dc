//! As much of Helm's template language as the chart uses.
//!
//! In a line: `{{ PATH }}`, `{{ PATH | quote }}`, `{{ PATH | default PATH }}`, `{{ PATH | join "," }}`. Alone on a line:
//! `{{- toYaml PATH | nindent N }}`, `{{- if PATH }}` and its `{{- end }}`.

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// The text of a template with these values.
pub(crate) fn render(template: &str, scope: &Value) -> anyhow::Result<String> {
    let mut out = String::new();
    // For each `if` that is open: whether what is in it is taken.
    let mut taken: Vec<bool> = Vec::new();
    for line in template.lines() {
        let block = line.trim().strip_prefix("{{- ").and_then(|rest| rest.strip_suffix(" }}"));
        match block.map(|block| block.split(' ').collect::<Vec<_>>()).as_deref() {
            Some(["if", path]) => {
                let truth = taken.last().is_none_or(|taken| *taken) && !is_empty(value(path, scope)?);
                taken.push(truth);
            }
            Some(["end"]) => drop(taken.pop().context("an end without its if")?),
            _ if taken.contains(&false) => {}
            Some(["toYaml", path, "|", "nindent", columns]) => {
                let columns: usize = columns.parse().with_context(|| format!("nindent {columns}"))?;
                let yaml = serde_saphyr::to_string(value(path, scope)?).with_context(|| format!("{path} as YAML"))?;
                yaml.lines().for_each(|line| out.extend([" ".repeat(columns).as_str(), line, "\n"]));
            }
            Some(other) => bail!("{}: not rendered here", other.join(" ")),
            None => {
                out.push_str(&inline(line, scope)?);
                out.push('\n');
            }
        }
    }
    ensure!(taken.is_empty(), "an if without its end");
    Ok(out)
}

fn inline(line: &str, scope: &Value) -> anyhow::Result<String> {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, from)) = rest.split_once("{{") {
        let (expression, after) = from.split_once("}}").with_context(|| format!("{line:?}: no end of {{{{"))?;
        out.push_str(before);
        let words: Vec<&str> = expression.split_whitespace().collect();
        let rendered = match words.as_slice() {
            [path] => text(value(path, scope)?)?,
            [path, "|", "quote"] => format!("{:?}", text(value(path, scope)?)?),
            [path, "|", "default", other] => match value(path, scope)? {
                given if is_empty(given) => text(value(other, scope)?)?,
                given => text(given)?,
            },
            [path, "|", "join", "\",\""] => {
                let list = value(path, scope)?.as_array().with_context(|| format!("{path}: expected a list"))?;
                list.iter().map(text).collect::<anyhow::Result<Vec<_>>>()?.join(",")
            }
            _ => bail!("{expression:?}: not rendered here"),
        };
        out.push_str(&rendered);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// `.Values.a.b`: what is not there is a mistake.
fn value<'a>(path: &str, scope: &'a Value) -> anyhow::Result<&'a Value> {
    let path = path.strip_prefix('.').with_context(|| format!("{path:?}: expected .Values.NAME"))?;
    path.split('.').try_fold(scope, |value, key| value.get(key)).with_context(|| format!(".{path} is not there"))
}

/// As Go's templates see it.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(object) => object.is_empty(),
    }
}

fn text(value: &Value) -> anyhow::Result<String> {
    Ok(match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        other => bail!("{other}: expected a text or a number"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn renders_what_the_chart_uses_and_refuses_the_rest() {
        let scope =
            json!({"Values": {"a": "x", "n": 7, "off": false, "none": "", "list": [{"k": "v"}], "texts": ["x", 7]}});
        let of = |template: &str| render(template, &scope);
        assert_eq!(of("k: {{ .Values.a }}:{{ .Values.n }}").unwrap(), "k: x:7\n");
        assert_eq!(of("k: {{ .Values.a | quote }}").unwrap(), "k: \"x\"\n");
        assert_eq!(of("k: {{ .Values.none | default .Values.n }}").unwrap(), "k: 7\n");
        assert_eq!(of("k: {{ .Values.texts | join \",\" }}").unwrap(), "k: x,7\n");
        let blocks = "a:\n  {{- toYaml .Values.list | nindent 2 }}\n{{- if .Values.off }}\nb: 1\n{{- end }}\nc: 2";
        let rendered = of(blocks).unwrap();
        let read: Value = serde_saphyr::from_str(&rendered).unwrap();
        assert_eq!(read, json!({"a": [{"k": "v"}], "c": 2}), "{rendered}");
        for wrong in [
            "{{ .Values.b }}",
            "{{ include \"x\" . }}",
            "{{- range .Values.list }}",
            "{{- if .Values.a }}",
            "{{ .Values.a",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
