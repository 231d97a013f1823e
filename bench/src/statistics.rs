//! Samples and what is said about them. Pure.

use std::fmt;
use std::time::Duration;

/// Measurements of one thing, in one unit.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

/// Lowest, middle and highest sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The middle one; of an even number, the mean of the middle two.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Samples {
    /// Adds a measurement.
    pub fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// Adds a duration in milliseconds.
    pub fn push_millis(&mut self, sample: Duration) {
        self.0.push(sample.as_secs_f64() * 1000.0);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Puts the measurements of both together.
    pub fn extend(&mut self, other: Samples) {
        self.0.extend(other.0);
    }

    /// The smallest sample that `share` (0 to 1) of all samples don't exceed; `None` without samples.
    pub fn percentile(&self, share: f64) -> Option<f64> {
        let sorted = self.sorted();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied()
    }

    /// The summary; `None` without samples.
    pub fn summary(&self) -> Option<Summary> {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let median = if sorted.len() % 2 == 1 { upper } else { (sorted[middle - 1] + upper) / 2.0 };
        Some(Summary { median, min: sorted[0], max: sorted[sorted.len() - 1] })
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl fmt::Display for Summary {
    /// `median (min–max)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}–{})", number(self.median), number(self.min), number(self.max))
    }
}

/// Three significant digits; thousands are separated.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => thousands(value.round() as i64),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn thousands(value: i64) -> String {
    let digits = value.abs().to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits")).collect();
    format!("{}{}", if value < 0 { "-" } else { "" }, groups.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        Samples(values.to_vec())
    }

    #[test]
    fn medians_of_odd_and_even_numbers() {
        assert_eq!(samples(&[3.0, 1.0, 2.0]).summary(), Some(Summary { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(samples(&[4.0, 1.0, 2.0, 3.0]).summary().map(|all| all.median), Some(2.5));
        assert_eq!(samples(&[]).summary(), None);
    }

    #[test]
    fn percentiles_are_samples() {
        let hundred = samples(&(1..=100).map(f64::from).collect::<Vec<_>>());
        assert_eq!(hundred.percentile(0.5), Some(50.0));
        assert_eq!(hundred.percentile(0.99), Some(99.0));
        assert_eq!(samples(&[7.0]).percentile(0.99), Some(7.0));
        assert_eq!(samples(&[]).percentile(0.5), None);
    }

    #[test]
    fn numbers_have_three_digits_or_separators() {
        let table = [
            (0.1234, "0.12"),
            (12.345, "12.3"),
            (123.45, "123"),
            (1234.5, "1,235"),
            (1_234_567.0, "1,234,567"),
        ];
        for (value, text) in table {
            assert_eq!(number(value), text);
        }
    }
}
