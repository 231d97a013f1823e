//! Types and costs of an expression before it is ever evaluated.
//!
//! Every node gets a type (with the largest size that the schema allows) and the most that its evaluation can
//! cost. What the checker can't know is `dyn` and left to evaluation.

use std::sync::Arc;

use super::ast::{Expr, Kind, Literal, Loop, LoopKind, Mode};
use super::eval::{namespaced, type_named};
use super::signatures::{Signature, named};
use super::types::{Type, UNBOUNDED};
use super::unify::{joined, merged, resolve, same};
use super::{CompileError, Environment};

/// What is known of an expression.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub(super) kind: Type,
    pub(super) cost: u64,
}

type Outcome = Result<Checked, CompileError>;

pub(super) fn check(expr: &Expr, environment: &Environment) -> Outcome {
    Checker { environment, locals: Vec::new() }.expr(expr)
}

struct Checker<'a> {
    environment: &'a Environment,
    locals: Vec<(String, Type)>,
}

fn error(at: usize, text: String) -> CompileError {
    CompileError { at, text }
}

impl Checker<'_> {
    fn expr(&mut self, expr: &Expr) -> Outcome {
        let at = expr.at;
        match &expr.kind {
            Kind::Literal(literal) => Ok(Checked { kind: constant(literal), cost: 0 }),
            Kind::Ident(name) => self.ident(name, at),
            Kind::Select { of, field, mode } => self.select(of, field, *mode, at),
            Kind::Index { of, key, optional } => self.index(of, key, *optional, at),
            Kind::Call { function, target, args } => self.call(function, target.as_deref(), args, at),
            Kind::And(a, b) => self.logic("&&", a, b, at),
            Kind::Or(a, b) => self.logic("||", a, b, at),
            Kind::If(condition, yes, no) => self.choice(condition, yes, no, at),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => self.structure(name, fields, at),
            Kind::Loop(inner) => self.looped(inner, at),
            Kind::Bind { name, init, body } => {
                let init = self.expr(init)?;
                let body = self.within(&[(name, init.kind.clone())], |checker| checker.expr(body))?;
                Ok(Checked { kind: body.kind, cost: init.cost.saturating_add(body.cost) })
            }
            Kind::OptMap { of, name, body, flat } => self.opt_map(of, name, body, *flat, at),
        }
    }

    fn within<T>(&mut self, names: &[(&str, Type)], act: impl FnOnce(&mut Self) -> T) -> T {
        let depth = self.locals.len();
        self.locals.extend(names.iter().map(|(name, kind)| ((*name).to_owned(), kind.clone())));
        let result = act(self);
        self.locals.truncate(depth);
        result
    }

    fn known(&self, name: &str) -> Option<Type> {
        let local = self.locals.iter().rev().find(|(local, _)| local == name).map(|(_, kind)| kind.clone());
        local.or_else(|| self.environment.get(name).cloned())
    }

    fn ident(&mut self, name: &str, at: usize) -> Outcome {
        let kind = self.known(name).or_else(|| type_named(name).map(|_| Type::Type));
        let kind =
            kind.ok_or_else(|| error(at, format!("undeclared reference to '{name}' (in container '')")))?;
        Ok(Checked { kind, cost: 1 })
    }

    fn select(&mut self, of: &Expr, field: &str, mode: Mode, at: usize) -> Outcome {
        if dotted(of).is_some_and(|name| type_named(&format!("{name}.{field}")).is_some()) {
            return Ok(Checked { kind: Type::Type, cost: 0 });
        }
        // Some variables have a dot in their name: `authorizer.requestResource`.
        let variable = dotted(of).and_then(|name| self.environment.get(&format!("{name}.{field}")));
        if let Some(kind) = variable {
            return Ok(Checked { kind: kind.clone(), cost: 1 });
        }
        let target = self.expr(of)?;
        let cost = target.cost.saturating_add(1);
        let (kind, inside) = match &target.kind {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let found = match &kind {
            Type::Object(object) => {
                let known = object.fields.get(field).map(|field| field.kind.clone());
                known.ok_or_else(|| error(at, format!("undefined field '{field}'")))?
            }
            Type::Map(_, value, _) => (**value).clone(),
            Type::Dyn => Type::Dyn,
            other => return Err(error(at, format!("type '{other}' does not support field selection"))),
        };
        let kind = match mode {
            Mode::Test => Type::Bool,
            Mode::Optional => Type::optional(found),
            Mode::Value if inside => Type::optional(found),
            Mode::Value => found,
        };
        Ok(Checked { kind, cost })
    }

    fn index(&mut self, of: &Expr, key: &Expr, optional: bool, at: usize) -> Outcome {
        let (target, key) = (self.expr(of)?, self.expr(key)?);
        let cost = target.cost.saturating_add(key.cost).saturating_add(1);
        let (kind, lenient) = match &target.kind {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), optional),
        };
        let found = match &kind {
            Type::List(item, _) if key.kind.fits(&Type::Int) => Some((**item).clone()),
            Type::Map(wanted, value, _) if key.kind.fits(wanted) => Some((**value).clone()),
            Type::Dyn => Some(Type::Dyn),
            Type::Object(_) if key.kind.fits(&Type::STRING) => Some(Type::Dyn),
            _ => None,
        };
        let found = found.ok_or_else(|| no_overload(at, "_[_]", &[&target.kind, &key.kind], false))?;
        Ok(Checked { kind: if lenient { Type::optional(found) } else { found }, cost })
    }

    fn call(&mut self, function: &str, target: Option<&Expr>, args: &[Expr], at: usize) -> Outcome {
        let space = target.filter(|target| !self.is_variable(target)).and_then(|of| namespaced(of, function));
        let (name, target) = match space {
            Some(name) => (name, None),
            None => (function.to_owned(), target),
        };
        let is_method = target.is_some();
        let mut given = Vec::new();
        for expr in target.into_iter().chain(args) {
            given.push(self.expr(expr)?);
        }
        let below = given.iter().fold(0u64, |sum, arg| sum.saturating_add(arg.cost));
        let kinds: Vec<&Type> = given.iter().map(|arg| &arg.kind).collect();
        let candidates: Vec<&Signature> = named(&name).iter().filter(|s| s.is_method == is_method).collect();
        if candidates.is_empty() {
            return Err(error(at, format!("undeclared reference to '{name}' (in container '')")));
        }
        let fitting: Vec<(&Signature, Type)> = candidates
            .iter()
            .filter_map(|signature| Some((*signature, resolve(signature, &kinds)?)))
            .collect();
        let Some((signature, first)) = fitting.first() else {
            return Err(no_overload(at, &shown_name(&name), &kinds, is_method));
        };
        let kind = if fitting.iter().all(|(_, kind)| same(kind, first)) { first.clone() } else { Type::Dyn };
        let sizes: Vec<u64> = kinds.iter().map(|kind| kind.size()).collect();
        let kind = kind.with_size(result_size(&name, &sizes));
        Ok(Checked { kind, cost: below.saturating_add(signature.cost.of(&sizes)) })
    }

    fn is_variable(&self, expr: &Expr) -> bool {
        matches!(&expr.kind, Kind::Ident(name) if self.known(name).is_some())
    }

    fn logic(&mut self, operator: &str, a: &Expr, b: &Expr, at: usize) -> Outcome {
        let (a, b) = (self.expr(a)?, self.expr(b)?);
        if !a.kind.fits(&Type::Bool) || !b.kind.fits(&Type::Bool) {
            return Err(no_overload(at, &format!("_{operator}_"), &[&a.kind, &b.kind], false));
        }
        Ok(Checked { kind: Type::Bool, cost: a.cost.saturating_add(b.cost) })
    }

    fn choice(&mut self, condition: &Expr, yes: &Expr, no: &Expr, at: usize) -> Outcome {
        let (condition, yes, no) = (self.expr(condition)?, self.expr(yes)?, self.expr(no)?);
        let kind = joined(&yes.kind, &no.kind);
        let Some(kind) = kind.filter(|_| condition.kind.fits(&Type::Bool)) else {
            return Err(no_overload(at, "_?_:_", &[&condition.kind, &yes.kind, &no.kind], false));
        };
        Ok(Checked { kind, cost: condition.cost.saturating_add(yes.cost.max(no.cost)) })
    }

    fn list(&mut self, items: &[(Expr, bool)]) -> Outcome {
        let mut cost = 10u64;
        let mut kind: Option<Type> = None;
        for (item, optional) in items {
            let item = self.expr(item)?;
            cost = cost.saturating_add(item.cost);
            kind = Some(merged(kind, unwrapped(item.kind, *optional)));
        }
        Ok(Checked { kind: Type::List(Arc::new(kind.unwrap_or(Type::Dyn)), items.len() as u64), cost })
    }

    fn map(&mut self, entries: &[(Expr, Expr, bool)]) -> Outcome {
        let mut cost = 30u64;
        let (mut keys, mut values) = (None, None);
        for (key, value, optional) in entries {
            let (key, value) = (self.expr(key)?, self.expr(value)?);
            cost = cost.saturating_add(key.cost).saturating_add(value.cost);
            keys = Some(merged(keys, key.kind));
            values = Some(merged(values, unwrapped(value.kind, *optional)));
        }
        let any = |kind: Option<Type>| Arc::new(kind.unwrap_or(Type::Dyn));
        Ok(Checked { kind: Type::Map(any(keys), any(values), entries.len() as u64), cost })
    }

    fn structure(&mut self, name: &str, fields: &[(String, Expr, bool)], at: usize) -> Outcome {
        let Some(known) = self.environment.structure(name) else {
            return Err(error(at, format!("undeclared reference to '{name}' (in container '')")));
        };
        let mut cost = 40u64;
        for (field, value, _) in fields {
            if !known.is_empty() && !known.contains(&field.as_str()) {
                return Err(error(value.at, format!("undefined field '{field}'")));
            }
            if known.is_empty() {
                check_part(&format!("{name}.{field}"), value)?;
            }
            cost = cost.saturating_add(self.expr(value)?.cost);
        }
        Ok(Checked { kind: Type::object(name, []), cost })
    }

    fn looped(&mut self, inner: &Loop, at: usize) -> Outcome {
        let range = self.expr(&inner.range)?;
        let (first, second, size) = match &range.kind {
            Type::List(item, size) if inner.second.is_some() => (Type::Int, (**item).clone(), *size),
            Type::List(item, size) => ((**item).clone(), Type::Dyn, *size),
            Type::Map(key, value, size) => ((**key).clone(), (**value).clone(), *size),
            Type::Object(object) => (Type::STRING, Type::Dyn, object.fields.len() as u64),
            Type::Dyn => (Type::Dyn, Type::Dyn, UNBOUNDED),
            other => {
                let text = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                return Err(error(at, text));
            }
        };
        let mut names = vec![(inner.first.as_str(), first.clone())];
        names.extend(inner.second.as_deref().map(|name| (name, second)));
        let (body, filter) = self.within(&names, |checker| {
            let filter = inner.filter.as_ref().map(|filter| checker.expr(filter)).transpose()?;
            Ok((checker.expr(&inner.body)?, filter))
        })?;
        let is_condition = !matches!(inner.kind, LoopKind::Map | LoopKind::MapToMap);
        let conditions = filter.iter().chain(is_condition.then_some(&body));
        if let Some(wrong) = conditions.into_iter().find(|condition| !condition.kind.fits(&Type::Bool)) {
            let text = format!("expected type 'bool' but found '{}'", wrong.kind);
            return Err(error(at, text));
        }
        let each = body.cost.saturating_add(filter.map_or(0, |filter| filter.cost)).saturating_add(1);
        let cost = range.cost.saturating_add(size.saturating_mul(each)).saturating_add(made_cost(inner.kind));
        let kind = match inner.kind {
            LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne => Type::Bool,
            LoopKind::Filter => Type::List(Arc::new(first), size),
            LoopKind::Map => Type::List(Arc::new(body.kind), size),
            LoopKind::MapToMap => Type::Map(Arc::new(first), Arc::new(body.kind), size),
        };
        Ok(Checked { kind, cost })
    }

    fn opt_map(&mut self, of: &Expr, name: &str, body: &Expr, flat: bool, at: usize) -> Outcome {
        let target = self.expr(of)?;
        let inner = match &target.kind {
            Type::Optional(inner) => (**inner).clone(),
            Type::Dyn => Type::Dyn,
            other => return Err(no_overload(at, "optMap", &[other], true)),
        };
        let body = self.within(&[(name, inner)], |checker| checker.expr(body))?;
        let kind = if flat { body.kind } else { Type::optional(body.kind) };
        Ok(Checked { kind, cost: target.cost.saturating_add(body.cost).saturating_add(1) })
    }
}

/// What is put at a path of an object must be named after the path.
fn check_part(path: &str, value: &Expr) -> Result<(), CompileError> {
    match &value.kind {
        Kind::Struct { name, .. } if name != path => {
            let text = format!("type mismatch: unexpected type name {name:?}, expected {path:?}");
            Err(error(value.at, text))
        }
        Kind::List(items) => items.iter().try_for_each(|(item, _)| check_part(path, item)),
        Kind::Map(entries) => entries.iter().try_for_each(|(_, value, _)| check_part(path, value)),
        _ => Ok(()),
    }
}

fn made_cost(kind: LoopKind) -> u64 {
    match kind {
        LoopKind::Map | LoopKind::Filter => 10,
        LoopKind::MapToMap => 30,
        _ => 0,
    }
}

fn dotted(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.clone()),
        Kind::Select { of, field, mode: Mode::Value } => Some(format!("{}.{field}", dotted(of)?)),
        _ => None,
    }
}

fn constant(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(text) => Type::String(text.chars().count() as u64),
        Literal::Bytes(bytes) => Type::Bytes(bytes.len() as u64),
    }
}

fn unwrapped(kind: Type, optional: bool) -> Type {
    match kind {
        Type::Optional(inner) if optional => (*inner).clone(),
        other => other,
    }
}

/// The largest size of a result, where it follows from those of the arguments.
fn result_size(name: &str, sizes: &[u64]) -> u64 {
    let size = |index: usize| sizes.get(index).copied().unwrap_or(UNBOUNDED);
    match name {
        "+" => size(0).saturating_add(size(1)),
        "lowerAscii" | "upperAscii" | "trim" | "substring" | "reverse" | "sort" | "distinct" | "slice"
        | "split" | "find" | "findAll" | "bytes" => size(0),
        "charAt" => 1,
        "string" => size(0).max(40),
        _ => UNBOUNDED,
    }
}

/// Operators are named by their shape.
fn shown_name(name: &str) -> String {
    match name {
        "!_" | "-_" => name.to_owned(),
        "in" => "@in".to_owned(),
        _ if name.chars().all(|c| !c.is_alphanumeric()) => format!("_{name}_"),
        _ => name.to_owned(),
    }
}

fn no_overload(at: usize, name: &str, given: &[&Type], is_method: bool) -> CompileError {
    let texts: Vec<String> = given.iter().map(|kind| kind.to_string()).collect();
    let applied = match (is_method, texts.as_slice()) {
        (true, [target, args @ ..]) => format!("{target}.({})", args.join(", ")),
        _ => format!("({})", texts.join(", ")),
    };
    error(at, format!("found no matching overload for '{name}' applied to '{applied}'"))
}
