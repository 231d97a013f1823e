//! The order of a merged list.
//!
//! Items that the patch names stand in the order of its `$setElementOrder`, or else in its own. Items that
//! only the server has keep their place among their old neighbours; what is new goes before them.

use serde_json::Value;

/// Sorts `merged` by `order` (identities); `old` is the list before the patch.
pub(super) fn sort(
    old: &[Value],
    merged: Vec<Value>,
    order: &[Value],
    id: impl Fn(&Value) -> Option<Value>,
) -> Vec<Value> {
    let place =
        |item: &Value, list: &[Value]| id(item).and_then(|id| list.iter().position(|each| *each == id));
    let (mut named, rest): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| place(item, order).is_some());
    named.sort_by_key(|item| place(item, order));
    let old_ids: Vec<Value> = old.iter().filter_map(&id).collect();
    weave(named, rest, |item| place(item, &old_ids))
}

/// Merges two lists, each in its own order; where both fronts stood in the old list, the earlier goes first.
fn weave(named: Vec<Value>, rest: Vec<Value>, old_place: impl Fn(&Value) -> Option<usize>) -> Vec<Value> {
    let mut result = Vec::with_capacity(named.len() + rest.len());
    let (mut named, mut rest) = (named.into_iter().peekable(), rest.into_iter().peekable());
    loop {
        let next = match (named.peek(), rest.peek()) {
            (None, None) => return result,
            (Some(_), None) => named.next(),
            (None, Some(_)) => rest.next(),
            // A new item of the patch goes before what only the server has.
            (Some(by_patch), Some(servers)) => match (old_place(by_patch), old_place(servers)) {
                (Some(a), Some(b)) if b < a => rest.next(),
                _ => named.next(),
            },
        };
        result.extend(next);
    }
}
