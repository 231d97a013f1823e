//! Quantities are read, compared and written as upstream's are.

use super::*;
use proptest::prelude::*;

#[test]
fn canonical_forms() {
    let table = [
        ("0", "0"),
        ("0Mi", "0"),
        ("1", "1"),
        ("1.0", "1"),
        ("+1", "1"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("0.5", "500m"),
        (".5", "500m"),
        ("5.", "5"),
        ("1000", "1k"),
        ("1024", "1024"),
        ("1e3", "1e3"),
        ("12E6", "12e6"),
        ("0.001", "1m"),
        ("100n", "100n"),
        ("0.1n", "1n"),
        ("-0.1n", "-1n"),
        ("1024Ki", "1Mi"),
        ("1536Mi", "1536Mi"),
        ("0.5Gi", "512Mi"),
        ("1.5Gi", "1536Mi"),
        ("512", "512"),
        ("0.5Ki", "512"),
        ("1.1Ki", "1127"),
        ("64Mi", "64Mi"),
        ("1E", "1E"),
        ("100E", "9223372036854775807"),
        ("8Ei", "9223372036854775807"),
        ("-2", "-2"),
        ("1e-3", "1e-3"),
        ("500e-3", "500e-3"),
        ("0.1Mi", "104858"),
        ("1Ki", "1Ki"),
        ("3e-10", "1e-9"),
        ("123456789012345678901234567890", "9223372036854775807"),
    ];
    for (text, canonical) in table {
        let quantity = Quantity::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(quantity.to_string(), canonical, "{text}");
    }
}

#[test]
fn refused() {
    let table = [
        ("", QuantityError::Format),
        ("m", QuantityError::Format),
        ("1.2.3", QuantityError::Format),
        (".", QuantityError::Format),
        ("abc", QuantityError::Format),
        ("1x", QuantityError::Format),
        ("1 ", QuantityError::Format),
        ("1mm", QuantityError::Suffix),
        ("1K", QuantityError::Suffix),
        ("1e", QuantityError::Suffix),
        ("1ki", QuantityError::Suffix),
        ("--1", QuantityError::Format),
    ];
    for (text, error) in table {
        assert_eq!(Quantity::parse(text), Err(error), "{text:?}");
    }
}

#[test]
fn amounts_round_up() {
    let cpu = Quantity::parse("100u").expect("a quantity");
    assert_eq!((cpu.as_milli(), cpu.value()), (1, 1));
    let memory = Quantity::parse("1.5Ki").expect("a quantity");
    assert_eq!(memory.as_bytes(), 1536);
    assert_eq!(Quantity::parse("-1500m").expect("a quantity").value(), -2);
}

#[test]
fn sums_keep_the_first_format() {
    let sum =
        Quantity::ZERO.add(&Quantity::parse("1Gi").expect("a")).add(&Quantity::parse("1024").expect("b"));
    assert_eq!(sum.to_string(), "1048577Ki");
    assert_eq!(sum.sub(&sum).to_string(), "0");
}

proptest! {
    #[test]
    fn the_canonical_form_says_the_same(milli in any::<i32>(), suffix in "m|k|Ki|Mi|Gi||e2|u|n|G") {
        let quantity = Quantity::parse(&format!("{milli}{suffix}")).expect("a quantity");
        let again = Quantity::parse(&quantity.to_string()).expect("canonical");
        prop_assert_eq!(again, quantity);
        prop_assert_eq!(again.to_string(), quantity.to_string());
    }

    /// Against the obvious model: an integer number of billionths.
    #[test]
    fn amounts_are_exact(
        (whole, tenths) in (any::<i32>(), 0..10i128),
        (suffix, nanos) in prop::sample::select(vec![
            ("n", 1), ("u", 1_000), ("m", 1_000_000), ("", NANO), ("k", 1_000 * NANO), ("Ki", 1024 * NANO),
            ("M", 1_000_000 * NANO), ("Mi", 1_048_576 * NANO), ("e3", 1_000 * NANO), ("E-3", 1_000_000),
        ]),
    ) {
        let quantity = Quantity::parse(&format!("{whole}.{tenths}{suffix}")).expect("a quantity");
        // `-0.5` has no sign in its whole part, so its sign is taken from the text.
        let tenfold = (i128::from(whole).abs() * 10 + tenths) * nanos;
        let magnitude = tenfold / 10 + i128::from(tenfold % 10 != 0);
        prop_assert_eq!(quantity.nanos, if whole < 0 { -magnitude } else { magnitude });
        let milli = quantity.as_milli();
        prop_assert!((milli.abs() - 1) * 1_000_000 < magnitude && magnitude <= milli.abs() * 1_000_000);
    }

    #[test]
    fn adding_and_taking_away_cancel_out(a in any::<i32>(), b in any::<i32>()) {
        let (a, b) = (Quantity::from_milli(a.into()), Quantity::from_milli(b.into()));
        prop_assert_eq!(a.add(&b).sub(&b), a);
        prop_assert_eq!(a.add(&b) > a, b.signum() > 0);
    }

    #[test]
    fn parsing_never_panics(text in "[-+]?[0-9.]{0,40}[eEinumkKMGTPi]{0,3}[-+]?[0-9]{0,6}") {
        let _ = Quantity::parse(&text);
    }
}
