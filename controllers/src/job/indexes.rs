//! Sets of completion indexes, as `status.completedIndexes` writes them: `0-2,5,7-9`.

use std::{collections::BTreeSet, fmt};

/// Completion indexes of an Indexed Job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indexes(pub BTreeSet<i32>);

impl Indexes {
    /// Reads the text; what isn't a number below `completions` is left out, since completions may shrink.
    pub fn parse(text: &str, completions: i32) -> Indexes {
        let mut indexes = BTreeSet::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
                indexes.extend(first.max(0)..=last.min(completions - 1));
            }
        }
        Indexes(indexes)
    }

    /// How many there are, as statuses count.
    pub fn count(&self) -> i32 {
        i32::try_from(self.0.len()).unwrap_or(i32::MAX)
    }

    /// True if `index` is among them.
    pub fn contains(&self, index: i32) -> bool {
        self.0.contains(&index)
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.iter().copied().peekable();
        let mut comma = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while rest.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                // Upstream writes two neighbours as two numbers.
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Indexes;

    #[test]
    fn texts_and_sets() {
        for text in ["", "0", "0,1", "0-2", "0-2,5,7-9", "1,2,4"] {
            assert_eq!(Indexes::parse(text, 10).to_string(), text);
        }
        assert_eq!(Indexes::parse("0-9,x,3-", 4).to_string(), "0-3", "beyond the completions, and nonsense");
        assert_eq!(Indexes::parse("0-2,5", 10).count(), 4);
    }
}
