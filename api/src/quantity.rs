//! Quantities of resources: `500m`, `1.5Gi`, `2e3`.
//!
//! A quantity is an exact number of billionths plus the family of suffixes it was written in. As upstream
//! does, finer fractions are rounded away from zero and larger magnitudes are capped at 2^63 - 1.
//! [`Quantity`]'s `Display` is the canonical form: what the API server stores and sends.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
const CAP: i128 = i64::MAX as i128 * NANO;
/// Digits that can still matter: 2^63 has 19 before the point, and nine follow it.
const MAX_DIGITS: usize = 64;

/// Why a text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Neither a number nor a number with a suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The part behind the number isn't one of the suffixes.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// The family of suffixes in which a quantity is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `Ki`, `Mi`, …
    Binary,
    /// `m`, none, `k`, `M`, …
    #[default]
    Decimal,
    /// `e3`, `e6`, …
    Exponent,
}

/// An amount of a resource.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::Decimal };

    /// Reads a quantity. Errors: [`QuantityError`].
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || fraction.contains('.') {
            return Err(QuantityError::Format);
        }
        let scale = Scale::parse(suffix)?;
        let nanos = scale.nanos(whole, fraction);
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format: scale.format() })
    }

    /// This many whole units, e.g. pods or bytes.
    pub fn from_units(units: i64, format: Format) -> Self {
        Self { nanos: i128::from(units) * NANO, format }
    }

    /// This many thousandths, e.g. millicores.
    pub fn from_milli(milli: i64) -> Self {
        Self { nanos: (i128::from(milli) * 1_000_000).clamp(-CAP, CAP), format: Format::Decimal }
    }

    /// The amount in thousandths, rounded up.
    pub fn as_milli(&self) -> i128 {
        ceil(self.nanos, 1_000_000)
    }

    /// The amount in whole units, rounded up.
    pub fn value(&self) -> i128 {
        ceil(self.nanos, NANO)
    }

    /// The amount in bytes, rounded up; the same as [`Quantity::value`].
    pub fn as_bytes(&self) -> i128 {
        self.value()
    }

    /// The family of suffixes.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether this is nothing.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    pub fn signum(&self) -> i32 {
        self.nanos.signum() as i32
    }

    /// The sum, in the format of `self` unless that is zero.
    #[must_use]
    pub fn add(&self, other: &Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nanos: (self.nanos + other.nanos).clamp(-CAP, CAP), format }
    }

    /// The difference, in the format of `self` unless that is zero.
    #[must_use]
    pub fn sub(&self, other: &Quantity) -> Quantity {
        self.add(&Quantity { nanos: -other.nanos, format: other.format })
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::parse(text)
    }
}

impl From<&crate::k8s::apimachinery::pkg::api::resource::Quantity> for Quantity {
    /// A text that is no quantity counts as nothing: the API server has refused it long before.
    fn from(typed: &crate::k8s::apimachinery::pkg::api::resource::Quantity) -> Self {
        Self::parse(&typed.0).unwrap_or_default()
    }
}

impl From<Quantity> for crate::k8s::apimachinery::pkg::api::resource::Quantity {
    fn from(quantity: Quantity) -> Self {
        Self(quantity.to_string())
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, and the largest suffix that needs none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let small = self.nanos.abs() < 1024 * NANO;
        match self.format {
            _ if self.is_zero() => f.write_str("0"),
            // Below 1024 a binary quantity may have a fraction, which only decimal suffixes can express.
            Format::Binary if !small => write_binary(f, self.value()),
            Format::Exponent => write_decimal(f, self.nanos, exponent_suffix),
            Format::Binary | Format::Decimal => write_decimal(f, self.nanos, decimal_suffix),
        }
    }
}

fn write_binary(f: &mut fmt::Formatter<'_>, mut units: i128) -> fmt::Result {
    let mut power = 0;
    while units % 1024 == 0 && power < 6 {
        units /= 1024;
        power += 1;
    }
    let suffix = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power];
    write!(f, "{units}{suffix}")
}

fn write_decimal(f: &mut fmt::Formatter<'_>, nanos: i128, suffix: fn(i32) -> String) -> fmt::Result {
    let (mut mantissa, mut exponent) = (nanos, -9);
    while mantissa % 1000 == 0 && exponent < 18 {
        mantissa /= 1000;
        exponent += 3;
    }
    write!(f, "{mantissa}{}", suffix(exponent))
}

fn decimal_suffix(exponent: i32) -> String {
    let index = usize::try_from(exponent / 3 + 3).expect("exponents run from -9 to 18");
    ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][index].into()
}

fn exponent_suffix(exponent: i32) -> String {
    if exponent == 0 { String::new() } else { format!("e{exponent}") }
}

#[derive(Clone, Copy)]
enum Scale {
    Binary(u32),
    Decimal(i32),
    Exponent(i32),
}

impl Scale {
    fn parse(suffix: &str) -> Result<Self, QuantityError> {
        Ok(match suffix {
            "Ki" => Scale::Binary(10),
            "Mi" => Scale::Binary(20),
            "Gi" => Scale::Binary(30),
            "Ti" => Scale::Binary(40),
            "Pi" => Scale::Binary(50),
            "Ei" => Scale::Binary(60),
            "n" => Scale::Decimal(-9),
            "u" => Scale::Decimal(-6),
            "m" => Scale::Decimal(-3),
            "" => Scale::Decimal(0),
            "k" => Scale::Decimal(3),
            "M" => Scale::Decimal(6),
            "G" => Scale::Decimal(9),
            "T" => Scale::Decimal(12),
            "P" => Scale::Decimal(15),
            "E" => Scale::Decimal(18),
            _ => Scale::Exponent(exponent(suffix)?),
        })
    }

    fn format(self) -> Format {
        match self {
            Scale::Binary(_) => Format::Binary,
            Scale::Decimal(_) => Format::Decimal,
            Scale::Exponent(_) => Format::Exponent,
        }
    }

    /// `whole.fraction` in this scale, in billionths: capped, and rounded up.
    fn nanos(self, whole: &str, fraction: &str) -> i128 {
        let (shift, exponent) = match self {
            Scale::Binary(bits) => (bits, 0),
            Scale::Decimal(exponent) | Scale::Exponent(exponent) => (0, exponent),
        };
        let digits = format!("{whole}{fraction}");
        let point = whole.len() as i64 + i64::from(exponent) + 9;
        fixed_point(digits.trim_end_matches('0'), point, shift)
    }
}

/// The number `0.digits × 10^point × 2^shift`, rounded up, at most [`CAP`].
fn fixed_point(digits: &str, point: i64, shift: u32) -> i128 {
    let mut value: i128 = 0;
    // Multiplying first by 2^shift would overflow, so the division by a power of ten comes last.
    let significant = digits.trim_start_matches('0');
    let point = point - (digits.len() - significant.len()) as i64;
    if significant.is_empty() {
        return 0;
    }
    if point + i64::from(shift) / 3 > MAX_DIGITS as i64 {
        return CAP;
    }
    let mut inexact = false;
    for (index, digit) in significant.bytes().enumerate() {
        // 29 digits hold 2^63 billionths; what follows only decides the rounding.
        if index < 29 {
            value = value * 10 + i128::from(digit - b'0');
        } else {
            inexact |= digit != b'0';
        }
    }
    let taken = significant.len().min(29) as i64;
    let rounded = scale_by(value, point - taken, shift, inexact);
    rounded.clamp(0, CAP)
}

/// `value × 10^exponent × 2^shift`, rounded up.
fn scale_by(value: i128, exponent: i64, shift: u32, inexact: bool) -> i128 {
    let mut value = value;
    let mut left = shift;
    let mut exponent = exponent;
    let mut inexact = inexact;
    while left > 0 || exponent != 0 {
        if left > 0 && value < i128::MAX >> 11 {
            let step = left.min(10);
            value <<= step;
            left -= step;
        } else if exponent > 0 {
            match value.checked_mul(10) {
                Some(bigger) => value = bigger,
                None => return CAP,
            }
            exponent -= 1;
        } else if exponent < 0 {
            inexact |= value % 10 != 0;
            value /= 10;
            exponent += 1;
        } else {
            return CAP;
        }
    }
    value + i128::from(inexact)
}

fn exponent(suffix: &str) -> Result<i32, QuantityError> {
    let known = |c: char| "eEinumkKMGTP+-".contains(c) || c.is_ascii_digit();
    if !suffix.chars().all(known) {
        return Err(QuantityError::Format);
    }
    let digits = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
    digits.parse().map_err(|_| QuantityError::Suffix)
}

fn ceil(nanos: i128, unit: i128) -> i128 {
    // Away from zero in both directions, as upstream's `Value` and `MilliValue` round.
    nanos / unit + i128::from((nanos % unit).signum() as i8)
}

#[cfg(test)]
mod tests;
