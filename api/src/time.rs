//! Times as the API writes them and ages as kubectl prints them. The clock itself is never read here.

use jiff::Timestamp;
use serde_json::Value;

/// `2024-05-01T10:20:30Z`: how `metav1.Time` is written; fractions are cut off.
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2024-05-01T10:20:30.123456Z`: how `metav1.MicroTime` (leases, events) is written.
pub fn rfc3339_micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Reads a time in RFC 3339 with any offset and any fraction; `None` if it is none.
pub fn parse(text: &str) -> Option<Timestamp> {
    // `jiff` takes more than RFC 3339 (a missing offset is refused, a space for `T` is not).
    let separator = text.as_bytes().get(10)?;
    if !matches!(separator, b'T' | b't') {
        return None;
    }
    text.parse().ok()
}

/// The time in a JSON value, if it is one.
pub fn from_value(value: Option<&Value>) -> Option<Timestamp> {
    parse(value?.as_str()?)
}

/// Reads a duration as Go writes it (`1h30m`, `-1.5s`, `0`), in nanoseconds; `None` if it is none.
pub fn go_duration(text: &str) -> Option<i64> {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit_end = rest[number_end..].find(|c: char| c.is_ascii_digit() || c == '.');
        let unit_end = unit_end.map_or(rest.len(), |at| number_end + at);
        let unit = duration_unit(&rest[number_end..unit_end])?;
        nanos += decimal_times(&rest[..number_end], unit)?;
        rest = &rest[unit_end..];
    }
    i64::try_from(if text.starts_with('-') { -nanos } else { nanos }).ok()
}

/// `1.5` times 10 is 15; `None` if it is no number.
fn decimal_times(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || whole.len() > 18 || fraction.contains('.') {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(15)];
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    Some(whole * unit + part * unit / 10_i128.pow(u32::try_from(fraction.len()).ok()?))
}

fn duration_unit(name: &str) -> Option<i128> {
    Some(match name {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3600 * 1_000_000_000,
        _ => return None,
    })
}

/// The time between two instants in kubectl's short form, as in its `AGE` column.
pub fn age(since: Timestamp, now: Timestamp) -> String {
    human_duration(now.as_second() - since.as_second())
}

/// A duration in kubectl's short form: `45s`, `5m30s`, `3d4h`, `2y35d`.
pub fn human_duration(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".into();
    }
    let seconds = seconds.max(0);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match () {
        _ if seconds < 120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => two(days, "d", hours % 24, "h"),
        _ if hours < 24 * 365 * 2 => format!("{days}d"),
        _ if hours < 24 * 365 * 8 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

fn two(big: i64, big_unit: &str, small: i64, small_unit: &str) -> String {
    match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_as_kubectl_does() {
        let (minute, hour, day) = (60, 3600, 86400);
        let table = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (5 * minute + 30, "5m30s"),
            (10 * minute + 30, "10m"),
            (179 * minute, "179m"),
            (3 * hour, "3h"),
            (7 * hour + 59 * minute, "7h59m"),
            (8 * hour + 59 * minute, "8h"),
            (47 * hour, "47h"),
            (3 * day + 4 * hour, "3d4h"),
            (8 * day + hour, "8d"),
            (729 * day, "729d"),
            (730 * day, "2y"),
            (765 * day, "2y35d"),
            (365 * 8 * day + day, "8y"),
        ];
        for (seconds, text) in table {
            assert_eq!(human_duration(seconds), text, "{seconds} s");
        }
    }

    #[test]
    fn times_are_written_in_utc() {
        let time = parse("2024-05-01T12:20:30.123456789+02:00").expect("a time");
        assert_eq!(rfc3339(time), "2024-05-01T10:20:30Z");
        assert_eq!(rfc3339_micros(time), "2024-05-01T10:20:30.123456Z");
        let before_epoch = parse("1969-12-31T23:59:59.25Z").expect("a time");
        assert_eq!(rfc3339_micros(before_epoch), "1969-12-31T23:59:59.250000Z");
    }

    #[test]
    fn only_rfc_3339_is_a_time() {
        for text in
            ["", "now", "2024-05-01", "2024-05-01 10:20:30Z", "2024-05-01T10:20:30", "2024-13-01T10:20:30Z"]
        {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
