//! How long tasks have waited for what they need: the kernel's pressure stall information.

use std::fs;
use std::path::Path;

/// A part of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// All of it, in microseconds.
    pub total: u64,
    /// Of the last 10, 60 and 300 seconds, in hundredths of a percent.
    pub averages: [u64; 3],
}

/// What was waited for one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// By one task at least.
    pub some: Stall,
    /// By all at the same time.
    pub full: Stall,
}

/// What was waited for each; `None` where the kernel doesn't count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    /// For a processor.
    pub cpu: Option<Waited>,
    /// For memory.
    pub memory: Option<Waited>,
    /// For disks.
    pub io: Option<Waited>,
}

impl Stalls {
    /// From the files with this ending: `cpu.pressure` and its like in a group, `cpu` in `/proc/pressure`.
    pub fn read(dir: &Path, ending: &str) -> Self {
        let of = |name: &str| parse(&fs::read_to_string(dir.join(format!("{name}{ending}"))).ok()?);
        Self { cpu: of("cpu"), memory: of("memory"), io: of("io") }
    }
}

fn parse(text: &str) -> Option<Waited> {
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).and_then(stall);
    // Older kernels don't tell of all tasks waiting for a processor.
    Some(Waited { some: line("some ")?, full: line("full ").unwrap_or_default() })
}

/// `avg10=0.00 avg60=0.00 avg300=0.00 total=0`
fn stall(line: &str) -> Option<Stall> {
    let field = |name: &str| {
        line.split(' ')
            .find_map(|field| field.strip_prefix(name)?.strip_prefix('=')?.replace('.', "").parse().ok())
    };
    Some(Stall { total: field("total")?, averages: [field("avg10")?, field("avg60")?, field("avg300")?] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        let text = "some avg10=1.25 avg60=0.50 avg300=99.99 total=123456\nfull avg10=0.00 avg60=0.00 avg300=0.01 total=9\n";
        let some = Stall { total: 123_456, averages: [125, 50, 9999] };
        let full = Stall { total: 9, averages: [0, 0, 1] };
        assert_eq!(parse(text), Some(Waited { some, full }));
        let older = text.lines().next().expect("a line");
        assert_eq!(parse(older), Some(Waited { some, full: Stall::default() }));
        assert_eq!(parse(""), None);
    }

    #[test]
    fn what_isnt_counted_is_missing() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("io.pressure"), "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n")
            .expect("write");
        let found = Stalls::read(dir.path(), ".pressure");
        assert_eq!((found.cpu, found.memory, found.io.map(|io| io.some.total)), (None, None, Some(7)));
    }
}
