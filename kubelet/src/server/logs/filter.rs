//! From entries of the log file to the bytes a reader sees.

use jiff::Timestamp;

use crate::server::logs::LogOptions;

/// One reader's view: fed bytes of the files in order, gives the text.
#[derive(Debug)]
pub struct LogFilter {
    timestamps: bool,
    since: Option<Timestamp>,
    stream: Option<String>,
    /// Bytes that may still be given.
    left: Option<u64>,
    /// The last entry given was a part: the next one of its stream continues its line.
    in_line: bool,
    pending: Vec<u8>,
}

impl LogFilter {
    /// For these options.
    pub fn new(options: &LogOptions) -> Self {
        Self {
            timestamps: options.timestamps,
            since: options.since,
            stream: options.stream.as_ref().map(|stream| stream.to_lowercase()),
            left: options.limit_bytes,
            in_line: false,
            pending: Vec::new(),
        }
    }

    /// The limit is reached: nothing more will be given.
    pub fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    /// Takes bytes as they stand in the file and returns the text of all entries that are complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(bytes);
        let mut out = Vec::new();
        let mut rest = pending.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.entry(&rest[..end], &mut out);
            rest = &rest[end + 1..];
        }
        self.pending = rest.to_vec();
        self.limit(out)
    }

    /// An entry that isn't one (a torn write) is left out.
    fn entry(&mut self, entry: &[u8], out: &mut Vec<u8>) {
        let mut parts = entry.splitn(4, |byte| *byte == b' ');
        let (Some(time), Some(stream), Some(tag)) = (parts.next(), parts.next(), parts.next()) else {
            return;
        };
        let content = parts.next().unwrap_or_default();
        if !self.wants(time, stream) {
            return;
        }
        if self.timestamps && !self.in_line {
            out.extend_from_slice(time);
            out.push(b' ');
        }
        out.extend_from_slice(content);
        self.in_line = tag.starts_with(b"P");
        if !self.in_line {
            out.push(b'\n');
        }
    }

    fn wants(&self, time: &[u8], stream: &[u8]) -> bool {
        let in_time = self.since.is_none_or(|since| {
            let time = std::str::from_utf8(time).ok().and_then(|text| text.parse::<Timestamp>().ok());
            time.is_some_and(|time| time >= since)
        });
        in_time && self.stream.as_ref().is_none_or(|wanted| wanted.as_bytes() == stream)
    }

    fn limit(&mut self, mut out: Vec<u8>) -> Vec<u8> {
        if let Some(left) = &mut self.left {
            out.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= out.len() as u64;
        }
        out
    }
}

/// Where the last `lines` entries begin.
pub fn tail_offset(bytes: &[u8], lines: u64) -> Tail {
    let mut left = lines;
    // An entry ends with its newline; the one before the first entry wanted is its beginning.
    for (at, _) in bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
        if left == 0 {
            return Tail::From(at as u64 + 1);
        }
        left -= 1;
    }
    Tail::More(left)
}

/// What a search for the last entries found in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// They begin at this offset.
    From(u64),
    /// The whole file is wanted, and this many entries of older ones (the first entry of this file is not
    /// counted twice: with none left, its beginning is the beginning).
    More(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "1970-01-01T00:00:01.000000000Z stdout F one\n\
                       1970-01-01T00:00:02.000000000Z stderr F oops\n\
                       1970-01-01T00:00:03.000000000Z stdout P long \n\
                       1970-01-01T00:00:03.500000000Z stdout F line\n\
                       torn\n";

    fn show(options: LogOptions) -> String {
        let mut filter = LogFilter::new(&options);
        // Fed in uneven pieces, as reads deliver them.
        let fed: Vec<u8> = LOG.as_bytes().chunks(7).flat_map(|piece| filter.feed(piece)).collect();
        String::from_utf8(fed).expect("text")
    }

    #[test]
    fn options_select_and_decorate() {
        let all = LogOptions::default();
        assert_eq!(show(all.clone()), "one\noops\nlong line\n");
        assert_eq!(show(LogOptions { limit_bytes: Some(5), ..all.clone() }), "one\no");
        assert_eq!(show(LogOptions { stream: Some("Stderr".to_owned()), ..all.clone() }), "oops\n");
        let since = Some(Timestamp::from_second(3).expect("small"));
        assert_eq!(show(LogOptions { since, ..all.clone() }), "long line\n");
        assert_eq!(
            show(LogOptions { since, timestamps: true, ..all }),
            "1970-01-01T00:00:03.000000000Z long line\n"
        );
    }

    #[test]
    fn tails_count_entries() {
        for (lines, want) in [
            (0, Tail::From(6)),
            (1, Tail::From(4)),
            (2, Tail::From(2)),
            (3, Tail::More(0)),
            (5, Tail::More(2)),
        ] {
            assert_eq!(tail_offset(b"a\nb\nc\n", lines), want, "{lines}");
        }
        assert_eq!(tail_offset(b"", 2), Tail::More(2));
    }
}
