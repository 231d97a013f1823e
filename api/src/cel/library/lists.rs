//! Functions on lists.

use std::cmp::Ordering;

use super::Answer;
use crate::cel::collections::List;
use crate::cel::value::Value;

use Value::{Bool, Double, Duration, Int, Uint};

/// Longest list that `lists.range` makes.
const MAX_RANGE: i64 = 100_000;

pub(super) fn call<'v>(name: &str, args: &[Value<'v>]) -> Option<Answer<'v>> {
    if let ("lists.range", [Int(end)]) = (name, args) {
        let fits = (0..=MAX_RANGE).contains(end);
        return Some(match fits {
            true => Ok(Value::list((0..*end).map(Int).collect())),
            false => Err(format!("lists.range: {end} is not between 0 and {MAX_RANGE}")),
        });
    }
    let [Value::List(list), rest @ ..] = args else { return None };
    Some(match (name, rest) {
        ("isSorted", []) => sorted(list).map(Bool),
        ("sum", []) => sum(list),
        ("min", []) => extreme(list, Ordering::Less, "min"),
        ("max", []) => extreme(list, Ordering::Greater, "max"),
        ("indexOf", [item]) => Ok(Int(place(list.iter().position(|other| other.equals(item))))),
        ("lastIndexOf", [item]) => {
            let all: Vec<Value<'v>> = list.iter().collect();
            Ok(Int(place(all.iter().rposition(|other| other.equals(item)))))
        }
        ("distinct", []) => Ok(distinct(list)),
        ("flatten", []) => Ok(flatten(list)),
        ("reverse", []) => Ok(Value::list(list.iter().rev().collect())),
        ("slice", [Int(from), Int(to)]) => slice(list, *from, *to),
        ("sort", []) => sort(list),
        ("first", []) => Ok(Value::Optional(list.get(0).map(std::sync::Arc::new))),
        ("last", []) => Ok(Value::Optional(list.iter().next_back().map(std::sync::Arc::new))),
        ("join", []) => join(list, ""),
        ("join", [Value::String(by)]) => join(list, by),
        ("sets.contains", [Value::List(other)]) => Ok(Bool(contains(list, other))),
        ("sets.equivalent", [Value::List(other)]) => Ok(Bool(contains(list, other) && contains(other, list))),
        ("sets.intersects", [Value::List(other)]) => {
            Ok(Bool(list.iter().any(|item| other.iter().any(|same| same.equals(&item)))))
        }
        _ => return None,
    })
}

fn place(found: Option<usize>) -> i64 {
    found.map_or(-1, |index| index as i64)
}

fn order<'v>(a: &Value<'v>, b: &Value<'v>) -> Result<Ordering, String> {
    a.compare(b).ok_or_else(|| super::NO_OVERLOAD.to_owned())
}

fn sorted(list: &List<'_>) -> Result<bool, String> {
    let items: Vec<Value<'_>> = list.iter().collect();
    for pair in items.windows(2) {
        if order(&pair[0], &pair[1])? == Ordering::Greater {
            return Ok(false);
        }
    }
    Ok(true)
}

fn sort<'v>(list: &List<'v>) -> Answer<'v> {
    let mut items: Vec<Value<'v>> = list.iter().collect();
    let mut failed = None;
    items.sort_by(|a, b| {
        order(a, b).unwrap_or_else(|why| {
            failed = Some(why);
            Ordering::Equal
        })
    });
    failed.map_or(Ok(Value::list(items)), Err)
}

fn sum<'v>(list: &List<'v>) -> Answer<'v> {
    let mut items = list.iter();
    let Some(first) = items.next() else { return Ok(Int(0)) };
    let overflow = || "integer overflow".to_owned();
    items.try_fold(first, |sum, item| match (sum, item) {
        (Int(a), Int(b)) => a.checked_add(b).map(Int).ok_or_else(overflow),
        (Uint(a), Uint(b)) => a.checked_add(b).map(Uint).ok_or_else(overflow),
        (Double(a), Double(b)) => Ok(Double(a + b)),
        (Duration(a), Duration(b)) => a.checked_add(b).map(Duration).ok_or_else(overflow),
        _ => Err(super::NO_OVERLOAD.to_owned()),
    })
}

fn extreme<'v>(list: &List<'v>, wanted: Ordering, name: &str) -> Answer<'v> {
    let mut items = list.iter();
    let first = items.next().ok_or_else(|| format!("{name} called on empty list"))?;
    items.try_fold(first, |best, item| Ok(if order(&item, &best)? == wanted { item } else { best }))
}

fn distinct<'v>(list: &List<'v>) -> Value<'v> {
    let mut seen: Vec<Value<'v>> = Vec::new();
    for item in list.iter() {
        if !seen.iter().any(|other| other.equals(&item)) {
            seen.push(item);
        }
    }
    Value::list(seen)
}

fn flatten<'v>(list: &List<'v>) -> Value<'v> {
    let items = list.iter().flat_map(|item| match item {
        Value::List(inner) => inner.iter().collect(),
        other => vec![other],
    });
    Value::list(items.collect())
}

fn slice<'v>(list: &List<'v>, from: i64, to: i64) -> Answer<'v> {
    match (usize::try_from(from), usize::try_from(to)) {
        (Ok(begin), Ok(end)) if begin <= end && end <= list.len() => {
            Ok(Value::list(list.iter().skip(begin).take(end - begin).collect()))
        }
        _ => Err(format!("cannot slice({from}, {to}), the list has {} items", list.len())),
    }
}

fn join<'v>(list: &List<'v>, by: &str) -> Answer<'v> {
    let texts: Result<Vec<String>, String> = list
        .iter()
        .map(|item| match item {
            Value::String(text) => Ok(text.into_owned()),
            _ => Err(super::NO_OVERLOAD.to_owned()),
        })
        .collect();
    Ok(Value::text(texts?.join(by)))
}

fn contains<'v>(list: &List<'v>, others: &List<'v>) -> bool {
    others.iter().all(|other| list.iter().any(|item| item.equals(&other)))
}
