//! Quantities, such as `1.5Gi`.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Answer;
use crate::cel::value::Value;
use crate::quantity::{Format, Quantity};

use Value::{Bool, Int, Quantity as Q, String as Text};

pub(super) fn call<'v>(name: &str, args: &[Value<'v>]) -> Option<Answer<'v>> {
    Some(match (name, args) {
        ("quantity", [Text(text)]) => Quantity::parse(text).map(of).map_err(|error| error.to_string()),
        ("isQuantity", [Text(text)]) => Ok(Bool(Quantity::parse(text).is_ok())),
        ("sign", [Q(a)]) => Ok(Int(a.signum().into())),
        ("isInteger", [Q(a)]) => Ok(Bool(whole(a).is_some())),
        ("asInteger", [Q(a)]) => {
            whole(a).map(Int).ok_or_else(|| "cannot convert value to integer".to_owned())
        }
        ("asApproximateFloat", [Q(a)]) => Ok(Value::Double(a.as_milli() as f64 / 1000.0)),
        ("add", [Q(a), Q(b)]) => Ok(of(a.add(b))),
        ("add", [Q(a), Int(b)]) => Ok(of(a.add(&units(*b)))),
        ("sub", [Q(a), Q(b)]) => Ok(of(a.sub(b))),
        ("sub", [Q(a), Int(b)]) => Ok(of(a.sub(&units(*b)))),
        ("isLessThan", [Q(a), Q(b)]) => Ok(Bool(a.cmp(b) == Ordering::Less)),
        ("isGreaterThan", [Q(a), Q(b)]) => Ok(Bool(a.cmp(b) == Ordering::Greater)),
        ("compareTo", [Q(a), Q(b)]) => Ok(Int(a.cmp(b) as i64)),
        _ => return None,
    })
}

fn of<'v>(quantity: Quantity) -> Value<'v> {
    Q(Arc::new(quantity))
}

fn units(number: i64) -> Quantity {
    Quantity::from_units(number, Format::Decimal)
}

fn whole(quantity: &Quantity) -> Option<i64> {
    let milli = quantity.as_milli();
    // Finer than a thousandth isn't whole either: rounding up to whole units would change it.
    let is_whole = milli % 1000 == 0 && quantity.value().checked_mul(1000) == Some(milli);
    i64::try_from(milli / 1000).ok().filter(|_| is_whole)
}
