//! What types have in common, and what a signature's variables become by the arguments that it is given.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::signatures::Signature;
use super::types::Type;

/// The type of items of two types.
pub(super) fn merged(before: Option<Type>, next: Type) -> Type {
    match before {
        None => next,
        Some(before) => joined(&before, &next).unwrap_or(Type::Dyn),
    }
}

/// The type that values of both types have, with the larger size.
pub(super) fn joined(a: &Type, b: &Type) -> Option<Type> {
    if matches!(a, Type::Dyn) || matches!(b, Type::Dyn) {
        return Some(Type::Dyn);
    }
    if b.fits(a) && a.fits(b) {
        return Some(a.clone().with_size(a.size().max(b.size())));
    }
    match (a, b) {
        (Type::Null, other) if a.fits(other) => Some(other.clone()),
        (other, Type::Null) if b.fits(other) => Some(other.clone()),
        _ => None,
    }
}

pub(super) fn same(a: &Type, b: &Type) -> bool {
    a.fits(b) && b.fits(a) && matches!(a, Type::Dyn) == matches!(b, Type::Dyn)
}

/// The result of a signature for arguments of these types; `None` if they don't fit.
pub(super) fn resolve(signature: &Signature, given: &[&Type]) -> Option<Type> {
    if signature.args.len() != given.len() {
        return None;
    }
    let mut variables = BTreeMap::new();
    let fits = signature.args.iter().zip(given).all(|(wanted, given)| unify(wanted, given, &mut variables));
    fits.then(|| substituted(&signature.result, &variables))
}

/// Gives a variable its type, or one that takes both this and the one it has. Only equality takes values of any two
/// types that evaluation can compare.
fn bind(name: char, given: &Type, variables: &mut BTreeMap<char, Type>) -> bool {
    let kind = match variables.get(&name) {
        Some(known) => joined(known, given),
        None => Some(given.clone()),
    };
    kind.map(|kind| variables.insert(name, kind)).is_some()
}

fn unify(wanted: &Type, given: &Type, variables: &mut BTreeMap<char, Type>) -> bool {
    match (wanted, given) {
        (Type::Var(name), given) => bind(*name, given, variables),
        (_, Type::Dyn) => true,
        (Type::List(wanted, _), Type::List(given, _)) | (Type::Optional(wanted), Type::Optional(given)) => {
            unify(wanted, given, variables)
        }
        (Type::Map(key, value, _), Type::Map(other, given, _)) => {
            unify(key, other, variables) && unify(value, given, variables)
        }
        (Type::Map(key, value, _), Type::Object(_)) => {
            unify(key, &Type::STRING, variables) && unify(value, &Type::Dyn, variables)
        }
        (wanted, given) => given.fits(wanted),
    }
}

fn substituted(kind: &Type, variables: &BTreeMap<char, Type>) -> Type {
    let inner = |kind: &Type| Arc::new(substituted(kind, variables));
    match kind {
        Type::Var(name) => variables.get(name).cloned().unwrap_or(Type::Dyn),
        Type::List(item, size) => Type::List(inner(item), *size),
        Type::Map(key, value, size) => Type::Map(inner(key), inner(value), *size),
        Type::Optional(value) => Type::Optional(inner(value)),
        other => other.clone(),
    }
}
