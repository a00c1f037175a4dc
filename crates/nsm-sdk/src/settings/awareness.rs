//! Which network services of a client are aware of each other: `[URL,URL],[URL,URL]`.

use super::ServiceUrl;

/// What is expected.
const FORM: &str = "groups such as [kernel://a/nsm-1,kernel://b/nsm-2],[kernel://c,kernel://d]";

/// Reads `NSM_AWARENESS_GROUPS`: for each group the places of its members among `services`, which it names as they are there.
/// An entry stands for all services that are written the same.
///
/// # Errors
/// No such form, an entry that is none of `services`, or one of two groups.
pub fn awareness_groups(text: &str, services: &[ServiceUrl]) -> Result<Vec<Vec<usize>>, String> {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let form = || format!("expected {FORM}");
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).ok_or_else(form)?;
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for group in inner.split("],[") {
        if group.contains(['[', ']']) {
            return Err(form());
        }
        let mut members = Vec::new();
        for entry in group.split(',') {
            if entry.is_empty() {
                return Err(form());
            }
            let url: ServiceUrl = entry.parse().map_err(|error: super::InvalidServiceUrl| error.to_string())?;
            let places = services.iter().enumerate().filter(|(_, service)| **service == url).map(|(place, _)| place);
            let places: Vec<usize> = places.filter(|place| !members.contains(place)).collect();
            if places.is_empty() && !services.contains(&url) {
                return Err(format!(
                    "{entry} is none of NSM_NETWORK_SERVICES: expected an entry as it is there, labels included"
                ));
            }
            if groups.iter().flatten().any(|known| places.contains(known)) {
                return Err(format!("{entry} is in two groups: expected one"));
            }
            members.extend(places);
        }
        groups.push(members);
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Vec<usize>>, String> {
        let services = ["kernel://a/nsm-1?color=red&x=y", "kernel://b/nsm-2", "kernel://c", "kernel://c"];
        awareness_groups(text, &services.map(|service| service.parse().unwrap()))
    }

    #[test]
    fn groups_are_lists_in_brackets() {
        let one = Ok(vec![vec![0, 1]]);
        assert_eq!(read("[kernel://a/nsm-1?color=red&x=y,kernel://b/nsm-2]"), one);
        assert_eq!(read(" [ kernel://a/nsm-1?x=y&color=red , kernel://b/nsm-2 ] "), one, "labels have no order");
        assert_eq!(read("[kernel://b/nsm-2], [kernel://c]"), Ok(vec![vec![1], vec![2, 3]]));
        assert_eq!((read(""), read(" ")), (Ok(vec![]), Ok(vec![])));
    }

    #[test]
    fn what_is_no_group_is_refused() {
        let b = "kernel://b/nsm-2";
        for wrong in
            [b, "[]", "[", "][", &format!("[{b}"), &format!("[{b}],"), &format!("[{b}][kernel://c]"), "[[kernel://c]]"]
        {
            assert!(read(wrong).unwrap_err().contains("groups such as"), "{wrong}");
        }
        assert!(read(&format!("[{b},,kernel://c]")).unwrap_err().contains("groups such as"));
        assert!(read("[kernel://a/nsm-1]").unwrap_err().contains("none of NSM_NETWORK_SERVICES"));
        assert!(read(&format!("[{b}],[{b}]")).unwrap_err().contains("in two groups"));
        assert!(read("[vfio://b]").unwrap_err().contains("kernel://"));
    }
}
