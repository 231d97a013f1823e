//! Which names and labels are allowed, with upstream's explanations, and how names are generated.
//!
//! Each check returns the first thing that is wrong, in words that name the rule.

/// Longest DNS label, in bytes.
pub const LABEL_MAX: usize = 63;
/// Longest DNS subdomain, in bytes.
pub const SUBDOMAIN_MAX: usize = 253;

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
    start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
    '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
    alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
    validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
    alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
    '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
    used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
    'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const ENV_NAME: &str = "a valid environment variable name must consist only of printable ASCII characters other than \
    '='";

/// What a name check returns: the rule that is broken, in words.
pub type Checked = Result<(), String>;

/// A DNS label: the name of a namespace or a container.
pub fn dns1123_label(name: &str) -> Checked {
    at_most(name, LABEL_MAX)?;
    ensure(is_label(name, is_lower_or_digit), LABEL)
}

/// A DNS subdomain: the name of most objects.
pub fn dns1123_subdomain(name: &str) -> Checked {
    at_most(name, SUBDOMAIN_MAX)?;
    ensure(is_subdomain(name), SUBDOMAIN)
}

/// A DNS label that begins with a letter: the name of a service.
pub fn dns1035_label(name: &str) -> Checked {
    at_most(name, LABEL_MAX)?;
    ensure(is_label(name, |byte| byte.is_ascii_lowercase()), LABEL_1035)
}

/// Anything that fits into one segment of a URL path: the name of a role.
pub fn path_segment(name: &str) -> Checked {
    match name {
        "." => Err("may not be '.'".into()),
        ".." => Err("may not be '..'".into()),
        _ if name.contains('/') => Err("may not contain '/'".into()),
        _ if name.contains('%') => Err("may not contain '%'".into()),
        _ => Ok(()),
    }
}

/// The key of a label, an annotation, a taint, a finalizer: `name` or `prefix/name`.
pub fn qualified_name(name: &str) -> Checked {
    let part = match name.split('/').collect::<Vec<_>>()[..] {
        [part] => part,
        ["", _] => return Err("prefix part must be non-empty".into()),
        [prefix, part] => {
            dns1123_subdomain(prefix).map_err(|why| format!("prefix part {why}"))?;
            part
        }
        _ => {
            let optional = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return Err(format!("a qualified name {QUALIFIED} {optional}"));
        }
    };
    match part {
        "" => Err("name part must be non-empty".into()),
        _ if part.len() > LABEL_MAX => Err(format!("name part must be no more than {LABEL_MAX} bytes")),
        _ => ensure(is_qualified(part), &format!("name part {QUALIFIED}")),
    }
}

/// The value of a label; it may be empty.
pub fn label_value(value: &str) -> Checked {
    at_most(value, LABEL_MAX)?;
    ensure(value.is_empty() || is_qualified(value), LABEL_VALUE)
}

/// A key in a ConfigMap or Secret.
pub fn config_key(key: &str) -> Checked {
    at_most(key, SUBDOMAIN_MAX)?;
    ensure(!key.is_empty() && key.bytes().all(is_name_byte), CONFIG_KEY)?;
    match key {
        "." => Err("must not be '.'".into()),
        ".." => Err("must not be '..'".into()),
        _ if key.starts_with("..") => Err("must not start with '..'".into()),
        _ => Ok(()),
    }
}

/// The name of an environment variable.
pub fn env_name(name: &str) -> Checked {
    ensure(
        !name.is_empty() && name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'='),
        ENV_NAME,
    )
}

/// The name of a port: at most 15 lower-case letters, digits and single dashes, with a letter.
pub fn port_name(name: &str) -> Checked {
    let bytes = name.as_bytes();
    match () {
        _ if name.len() > 15 => Err("must be no more than 15 bytes".into()),
        _ if !bytes.iter().all(|byte| is_lower_or_digit(*byte) || *byte == b'-') || name.is_empty() => {
            Err("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into())
        }
        _ if !bytes.iter().any(u8::is_ascii_lowercase) => {
            Err("must contain at least one letter (a-z)".into())
        }
        _ if name.contains("--") => Err("must not contain consecutive hyphens".into()),
        _ if name.starts_with('-') || name.ends_with('-') => {
            Err("must not begin or end with a hyphen".into())
        }
        _ => Ok(()),
    }
}

/// Appends five characters drawn from `random` to `prefix`, cut so that the whole fits into a DNS label.
///
/// The alphabet has no vowels and no look-alikes, so that no words arise.
pub fn generate_name(prefix: &str, random: u64) -> String {
    let mut name: String = prefix.chars().take(LABEL_MAX - 5).collect();
    let mut rest = random;
    for _ in 0..5 {
        name.push(ALPHABET[(rest % ALPHABET.len() as u64) as usize] as char);
        rest /= ALPHABET.len() as u64;
    }
    name
}

/// The characters of generated names and template hashes.
pub const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

fn ensure(holds: bool, rule: &str) -> Checked {
    if holds { Ok(()) } else { Err(rule.into()) }
}

fn at_most(name: &str, bytes: usize) -> Checked {
    ensure(name.len() <= bytes, &format!("must be no more than {bytes} bytes"))
}

fn is_lower_or_digit(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

fn is_label(name: &str, may_start: impl Fn(u8) -> bool) -> bool {
    match name.as_bytes() {
        [] => false,
        [first, rest @ ..] => {
            may_start(*first)
                && rest.iter().all(|byte| is_lower_or_digit(*byte) || *byte == b'-')
                && rest.last().is_none_or(|last| *last != b'-')
        }
    }
}

/// Whether this is a DNS subdomain, its length aside.
pub fn is_subdomain(name: &str) -> bool {
    name.split('.').all(|label| is_label(label, is_lower_or_digit))
}

fn is_qualified(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.iter().all(|byte| is_name_byte(*byte))
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&str) -> Checked, good: &[&str], bad: &[&str]) {
        for name in good {
            assert_eq!(rule(name), Ok(()), "{name:?}");
        }
        for name in bad {
            assert!(rule(name).is_err(), "{name:?} should be refused");
        }
    }

    #[test]
    fn rules() {
        let long = "a".repeat(64);
        check(dns1123_label, &["a", "0-a", "web-1"], &["", "-a", "a-", "A", "a.b", &long]);
        check(dns1123_subdomain, &["a", "a.b-c.0", &long], &["", "a..b", ".a", "a.", "a_b"]);
        check(dns1035_label, &["a", "a-0"], &["", "0a", "a.b", "a-"]);
        check(path_segment, &["system:node", "a b"], &[".", "..", "a/b", "a%"]);
        check(qualified_name, &["a", "A_b.c", "example.com/x"], &["", "/x", "x/", "a/b/c", "-a", "E.com/x"]);
        check(label_value, &["", "a", "A_b.c-d"], &["-a", "a b", "a/b", &long]);
        check(config_key, &["a.b", ".a", "KEY_1"], &["", ".", "..", "..a", "a/b"]);
        check(env_name, &["A", "a b", "1.x"], &["", "A=B", "ä"]);
        check(port_name, &["http", "a-1"], &["", "1", "-a", "a-", "a--b", "abcdefghijklmnop"]);
    }

    #[test]
    fn generated_names_fit_into_a_label() {
        assert_eq!(generate_name("web-", 0), "web-bbbbb");
        assert_eq!(generate_name("web-", 28), "web-ccbbb");
        assert_eq!(generate_name(&"a".repeat(80), u64::MAX).len(), LABEL_MAX);
    }
}
