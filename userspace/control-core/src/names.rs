//! Names of nodes: DNS labels made from what hosts call themselves, unique in the network.

/// The longest DNS label (RFC 1035 section 2.3.4).
const LONGEST: usize = 63;

/// What a node without a usable name is called.
const UNNAMED: &str = "node";

/// The first DNS label of `hostname`, lower-case, everything that may not stand in one turned into dashes
/// (tailscale `util/dnsname.SanitizeHostname`).
pub fn label(hostname: &str) -> String {
    let first = hostname.trim().split('.').next().unwrap_or_default();
    let dash = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let mut name: String = first.chars().map(dash).take(LONGEST).collect();
    name.truncate(name.trim_end_matches('-').len());
    let name = name.trim_start_matches('-');
    if name.is_empty() { UNNAMED.to_owned() } else { name.to_owned() }
}

/// Whether `name` already is a label as [`label`] makes them.
pub fn is_label(name: &str) -> bool {
    !name.is_empty() && label(name) == name
}

/// `wish`, or `wish-1`, `wish-2`, ... when it is taken.
pub fn unique(wish: &str, taken: impl Fn(&str) -> bool) -> String {
    if !taken(wish) {
        return wish.to_owned();
    }
    let numbered = |number: u32| {
        let suffix = format!("-{number}");
        let stem = &wish[..wish.len().min(LONGEST - suffix.len())];
        format!("{}{suffix}", stem.trim_end_matches('-'))
    };
    (1..).map(numbered).find(|name| !taken(name)).unwrap_or_else(|| wish.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_becomes_a_label() {
        for (hostname, wanted) in [
            ("gw-1", "gw-1"),
            ("Laptop.local", "laptop"),
            ("Bob's  phone", "bob-s--phone"),
            ("--x--", "x"),
            ("", "node"),
            ("日本", "node"),
        ] {
            assert_eq!(label(hostname), wanted, "{hostname}");
        }
        assert_eq!(label(&"a".repeat(80)).len(), 63);
        assert!(is_label("gw-1") && !is_label("Gw") && !is_label("a.b") && !is_label(""));
    }

    #[test]
    fn collisions_get_numbers() {
        assert_eq!(unique("gw", |_| false), "gw");
        assert_eq!(unique("gw", |name| name == "gw"), "gw-1");
        assert_eq!(unique("gw", |name| ["gw", "gw-1"].contains(&name)), "gw-2");
        let long = "a".repeat(63);
        assert_eq!(unique(&long, |name| name == long).len(), 63);
    }
}
