//! Small things about text: quantities of time and addresses as people say them, and golden files for tests.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// `1 node`, `3 nodes`
pub fn count(number: usize, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

/// `a`, `a and b`, `a, b and c`
pub fn and(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// `300ms`, `1.5s`, `2m`, `1h30m`, or plain seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is not a time such as 500ms, 1.5s, 2m or 1h30m");
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| wrong());
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let unit_end =
            rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = unit_seconds(&rest[digits..unit_end]).ok_or_else(wrong)?;
        total += Duration::try_from_secs_f64(number * unit).map_err(|_| wrong())?;
        rest = &rest[unit_end..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// `127.0.0.1:6443`
pub fn parse_socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(address) => format!("the port is missing, as in {}", SocketAddr::new(address, 6443)),
        Err(_) => "it is no IP address with a port, such as 127.0.0.1:6443 or [::1]:6443".to_owned(),
    })
}

fn unit_seconds(unit: &str) -> Option<f64> {
    match unit {
        "ms" => Some(0.001),
        "s" => Some(1.0),
        "m" => Some(60.0),
        "h" => Some(3600.0),
        _ => None,
    }
}

/// `0.42 s`, `12.3 s`, `140 s`
pub fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        _ if seconds < 10.0 => format!("{seconds:.2} s"),
        _ if seconds < 100.0 => format!("{seconds:.1} s"),
        _ => format!("{seconds:.0} s"),
    }
}

/// Files of test cases: blocks of input, a line `----`, the expected output, and an empty line.
#[cfg(test)]
pub mod golden {
    use std::path::{Path, PathBuf};

    /// Runs every block of a file of `testdata/` and compares; `UPDATE=1` rewrites the file instead.
    pub fn check(file: &str, run: impl Fn(&str) -> String) {
        let text = std::fs::read_to_string(path(file)).expect("the file of cases is readable");
        let blocks: Vec<&str> = text.trim_end().split("\n\n\n").collect();
        let actual: Vec<String> = blocks.iter().map(|block| rerun(block, &run)).collect();
        if updating() {
            return write(file, &(actual.join("\n\n\n") + "\n"));
        }
        for (expected, actual) in blocks.iter().zip(&actual) {
            assert!(
                expected == actual,
                "{file} differs; UPDATE=1 rewrites it\n{expected}\n--- now ---\n{actual}"
            );
        }
    }

    /// Compares with a whole file of `testdata/`; `UPDATE=1` rewrites it instead.
    pub fn check_file(file: &str, actual: &str) {
        if updating() {
            return write(file, actual);
        }
        let expected = std::fs::read_to_string(path(file)).expect("the golden file is readable");
        assert!(
            expected == actual,
            "{file} differs; UPDATE=1 rewrites it\n{expected}\n--- now ---\n{actual}"
        );
    }

    /// A file of this crate.
    pub fn path(file: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
    }

    fn updating() -> bool {
        std::env::var_os("UPDATE").is_some()
    }

    fn write(file: &str, text: &str) {
        std::fs::write(path(file), text).expect("the golden file is writable");
    }

    /// A block keeps its comment lines (`#`) and input and gets its output anew.
    fn rerun(block: &str, run: impl Fn(&str) -> String) -> String {
        let input = block.split("\n----").next().expect("split yields at least one part").trim_end();
        let plain: Vec<&str> =
            input.lines().filter(|line| !line.starts_with("# ") && !line.is_empty()).collect();
        format!("{input}\n----\n{}", run(&plain.join("\n"))).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units() {
        let table =
            [("500ms", 500), ("1.5s", 1500), ("2m", 120_000), ("1h30m", 5_400_000), ("3", 3000), ("0s", 0)];
        for (text, millis) in table {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "1x", "-1s", "1.2.3s", "5 s", "NaN"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_missing_port_is_named() {
        assert_eq!(parse_socket_address("[::1]:1"), Ok(SocketAddr::new([0, 0, 0, 0, 0, 0, 0, 1].into(), 1)));
        let why = |text| parse_socket_address(text).expect_err("no address with a port");
        assert_eq!(why("10.0.0.1"), "the port is missing, as in 10.0.0.1:6443");
        assert_eq!(why("::1"), "the port is missing, as in [::1]:6443");
        assert!(why("localhost:1").starts_with("it is no IP address with a port"));
    }

    #[test]
    fn words_are_joined_as_one_says_them() {
        let words = |n: usize| ["a", "b", "c"][..n].iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            [and(&words(0)), and(&words(1)), and(&words(2)), and(&words(3))],
            ["", "a", "a and b", "a, b and c"]
        );
        assert_eq!([count(1, "node"), count(0, "node")], ["1 node", "0 nodes"]);
    }
}
