//! Aligned columns, JSON and YAML.

use std::io::{self, Write};

use serde_json::Value;

/// Rows under headings, each column as wide as its widest cell.
pub(crate) fn table(headings: Option<&[&str]>, rows: &[Vec<String>], out: &mut impl Write) -> io::Result<()> {
    wide_table(&[], headings, rows, out)
}

/// The same, with columns of at least these widths: those of tables that follow each other then agree.
pub(crate) fn wide_table(
    least: &[usize],
    headings: Option<&[&str]>,
    rows: &[Vec<String>],
    out: &mut impl Write,
) -> io::Result<()> {
    let headings: Option<Vec<String>> = headings.map(|all| all.iter().map(ToString::to_string).collect());
    let lines: Vec<&Vec<String>> = headings.iter().chain(rows).collect();
    let columns = lines.iter().map(|line| line.len()).max().unwrap_or(0);
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> =
        (0..columns).map(|column| width(column).unwrap_or(0).max(least.get(column).copied().unwrap_or(0))).collect();
    for line in lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("   ").trim_end())?;
    }
    Ok(())
}

/// Indented JSON, as kubectl writes it.
pub(crate) fn json(value: &Value, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// One YAML document.
pub(crate) fn yaml(value: &Value, out: &mut impl Write) -> io::Result<()> {
    let text = serde_saphyr::to_string(value).map_err(io::Error::other)?;
    writeln!(out, "{}", text.trim_end())
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_aligned_and_lines_end_with_their_text() {
        let mut out = Vec::new();
        let rows = [vec!["a".to_owned(), "long cell".to_owned()], vec!["longer".to_owned(), "b".to_owned()]];
        super::table(Some(&["ONE", "TWO"]), &rows, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "ONE      TWO\na        long cell\nlonger   b\n");
    }

    #[test]
    fn tables_that_follow_each_other_agree() {
        let mut out = Vec::new();
        super::wide_table(&[6], Some(&["ONE", "TWO"]), &[], &mut out).unwrap();
        super::wide_table(&[6], None, &[vec!["longer".to_owned(), "b".to_owned()]], &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "ONE      TWO\nlonger   b\n");
    }
}
