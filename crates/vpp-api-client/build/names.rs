//! VPP's names as Rust spells them.

/// `memif_create_v2`: `MemifCreateV2`.
pub(crate) fn camel(name: &str) -> String {
    name.split('_')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (first, rest) = part.split_at(1);
            first.to_ascii_uppercase() + &rest.to_ascii_lowercase()
        })
        .collect()
}

/// A field's name, also where Rust has another use for it.
pub(crate) fn field(name: &str) -> String {
    if ["type", "match", "ref", "move", "use", "in", "loop"].contains(&name) {
        format!("r#{name}")
    } else {
        name.into()
    }
}

/// What is left of the names of one enum without the words that all of them begin with.
pub(crate) fn without_common(names: &[&str]) -> Vec<String> {
    let words: Vec<Vec<&str>> = names.iter().map(|name| name.split('_').collect()).collect();
    let shortest = words.iter().map(Vec::len).min().unwrap_or(0);
    let mut common = 0;
    while common + 1 < shortest && words.iter().all(|of| of[common] == words[0][common]) {
        common += 1;
    }
    words
        .iter()
        .map(|of| {
            let rest = of[common..].join("_");
            if rest.starts_with(|first: char| first.is_ascii_digit()) { format!("N{rest}") } else { rest }
        })
        .collect()
}
