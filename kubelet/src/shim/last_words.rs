//! A container's termination message.

use std::path::Path;

/// The longest termination message (upstream's limit).
const MESSAGE_LIMIT: usize = 4096;
/// How much of the log may stand in for a missing termination message, in lines.
const MESSAGE_LINES: usize = 80;

/// What is in the file, or, if a log may stand in for it, the end of a failed container's.
pub fn read(file: Option<&Path>, log: Option<&Path>, code: i32) -> Option<String> {
    let message = file.and_then(|path| tail(path, MESSAGE_LIMIT)).filter(|text| !text.is_empty());
    let log = log.filter(|_| message.is_none() && code != 0);
    let Some(text) = log.and_then(|path| tail(path, 4 * MESSAGE_LIMIT)) else { return message };
    let lines: Vec<&str> = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    let newest = lines[lines.len().saturating_sub(MESSAGE_LINES)..].join("\n") + "\n";
    let from = newest.len().saturating_sub(MESSAGE_LIMIT);
    Some(newest[newest.ceil_char_boundary(from)..].to_owned())
}

/// The last bytes of a file, as text.
fn tail(path: &Path, limit: usize) -> Option<String> {
    let bytes = std::fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(limit)..]).into_owned())
}
