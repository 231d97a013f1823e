//! Evaluation, with every step paid for.

use std::sync::Arc;

use super::ast::{Expr, Kind, Literal, Loop, LoopKind, Mode};
use super::collections::{List, Map};
use super::library;
use super::signatures::{Cost, named};
use super::value::Value;
use super::{Bindings, Budget, EvalError};

type Answer<'v> = Result<Value<'v>, EvalError>;

/// What making a list or a map costs, besides its items (as in cel-go).
const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;

/// Names and their values, the innermost last.
pub(super) struct Scope<'a, 'v> {
    pub(super) bindings: &'a Bindings<'v>,
    pub(super) locals: Vec<(String, Value<'v>)>,
    pub(super) budget: &'a mut Budget,
}

impl<'v> Scope<'_, 'v> {
    pub(super) fn value(&mut self, expr: &Expr) -> Answer<'v> {
        match &expr.kind {
            Kind::Literal(literal) => Ok(constant(literal)),
            Kind::Ident(name) => self.ident(name),
            Kind::Select { of, field, mode } => self.select(of, field, *mode),
            Kind::Index { of, key, optional } => self.index(of, key, *optional),
            Kind::Call { function, target, args } => self.call(function, target.as_deref(), args),
            Kind::And(a, b) => self.both(a, b, false),
            Kind::Or(a, b) => self.both(a, b, true),
            Kind::If(condition, yes, no) => {
                let holds = self.flag(condition)?;
                self.value(if holds { yes } else { no })
            }
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { fields, .. } => self.fields(fields),
            Kind::Loop(inner) => self.looped(inner),
            Kind::Bind { name, init, body } => {
                let value = self.value(init)?;
                self.within(vec![(name.clone(), value)], |scope| scope.value(body))
            }
            Kind::OptMap { of, name, body, flat } => self.opt_map(of, name, body, *flat),
        }
    }

    fn pay(&mut self, cost: u64) -> Result<(), EvalError> {
        self.budget.pay(cost)
    }

    fn within<T>(
        &mut self,
        names: Vec<(String, Value<'v>)>,
        act: impl FnOnce(&mut Self) -> Result<T, EvalError>,
    ) -> Result<T, EvalError> {
        let depth = self.locals.len();
        self.locals.extend(names);
        let result = act(self);
        self.locals.truncate(depth);
        result
    }

    fn ident(&mut self, name: &str) -> Answer<'v> {
        self.pay(1)?;
        if let Some((_, value)) = self.locals.iter().rev().find(|(local, _)| local == name) {
            return Ok(value.clone());
        }
        if let Some(value) = self.bindings.get(name) {
            return Ok(value.clone());
        }
        match type_named(name) {
            Some(name) => Ok(Value::Type(name.into())),
            None => Err(EvalError::text(format!("no such attribute(s): {name}"))),
        }
    }

    fn select(&mut self, of: &Expr, field: &str, mode: Mode) -> Answer<'v> {
        // `google.protobuf.Timestamp` names a type, not fields.
        if let Some(name) = qualified(of, field) {
            if let Some(name) = type_named(&name) {
                return Ok(Value::Type(name.into()));
            }
            if let Some(value) = self.bindings.get(&name) {
                self.pay(1)?;
                return Ok(value.clone());
            }
        }
        let target = self.value(of)?;
        self.pay(1)?;
        let (map, inside) = match &target {
            Value::Map(map) => (map.clone(), false),
            Value::Optional(None) if mode == Mode::Test => return Ok(Value::Bool(false)),
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(value)) => match &**value {
                Value::Map(map) => (map.clone(), true),
                _ => return Err(EvalError::overload()),
            },
            _ => return Err(EvalError::overload()),
        };
        let found = map.field(field);
        match mode {
            Mode::Test => Ok(Value::Bool(found.is_some())),
            Mode::Optional => Ok(Value::Optional(found.map(Arc::new))),
            Mode::Value if inside => Ok(Value::Optional(found.map(Arc::new))),
            Mode::Value => found.ok_or_else(|| EvalError::text(format!("no such key: {field}"))),
        }
    }

    fn index(&mut self, of: &Expr, key: &Expr, optional: bool) -> Answer<'v> {
        let mut target = self.value(of)?;
        let key = self.value(key)?;
        self.pay(1)?;
        let mut lenient = optional;
        if let Value::Optional(inner) = target {
            let Some(inner) = inner else { return Ok(Value::Optional(None)) };
            (target, lenient) = ((*inner).clone(), true);
        }
        let found = at(&target, &key);
        match (lenient, found) {
            (true, Ok(value)) => Ok(Value::some(value)),
            (true, Err(error)) if error.text != library::NO_OVERLOAD => Ok(Value::Optional(None)),
            (_, found) => found,
        }
    }

    fn call(&mut self, function: &str, target: Option<&Expr>, args: &[Expr]) -> Answer<'v> {
        let (name, target) = match target.and_then(|target| namespaced(target, function)) {
            Some(name) => (name, None),
            None => (function.to_owned(), target),
        };
        let mut values = Vec::with_capacity(args.len() + 1);
        for expr in target.into_iter().chain(args) {
            values.push(self.value(expr)?);
        }
        self.pay(cost(&name, &values))?;
        library::call(&name, &values).map_err(EvalError::text)
    }

    /// `&&` and `||`: an error on one side doesn't matter if the other decides.
    fn both(&mut self, a: &Expr, b: &Expr, decisive: bool) -> Answer<'v> {
        let first = self.flag(a);
        if matches!(first, Ok(value) if value == decisive) || matches!(&first, Err(error) if error.is_fatal())
        {
            return first.map(Value::Bool);
        }
        let second = self.flag(b);
        match (first, second) {
            (Err(_), Ok(value)) if value == decisive => Ok(Value::Bool(value)),
            (Err(_), Err(error)) if error.is_fatal() => Err(error),
            (Err(error), _) => Err(error),
            (Ok(_), second) => second.map(Value::Bool),
        }
    }

    fn flag(&mut self, expr: &Expr) -> Result<bool, EvalError> {
        match self.value(expr)? {
            Value::Bool(value) => Ok(value),
            _ => Err(EvalError::overload()),
        }
    }

    fn list(&mut self, items: &[(Expr, bool)]) -> Answer<'v> {
        self.pay(LIST_COST)?;
        let mut values = Vec::with_capacity(items.len());
        for (item, optional) in items {
            match (self.value(item)?, optional) {
                (Value::Optional(value), true) => values.extend(value.map(|value| (*value).clone())),
                (value, _) => values.push(value),
            }
        }
        Ok(Value::list(values))
    }

    fn map(&mut self, entries: &[(Expr, Expr, bool)]) -> Answer<'v> {
        self.pay(MAP_COST)?;
        let mut made: Vec<(Value<'v>, Value<'v>)> = Vec::with_capacity(entries.len());
        for (key, value, optional) in entries {
            let key = self.value(key)?;
            if made.iter().any(|(other, _)| other.equals(&key)) {
                return Err(EvalError::text(format!("insert failed: key {} already exists", key.to_text())));
            }
            match (self.value(value)?, optional) {
                (Value::Optional(value), true) => made.extend(value.map(|value| (key, (*value).clone()))),
                (value, _) => made.push((key, value)),
            }
        }
        Ok(Value::map(made))
    }

    fn fields(&mut self, fields: &[(String, Expr, bool)]) -> Answer<'v> {
        self.pay(MAP_COST)?;
        let mut made = Vec::with_capacity(fields.len());
        for (name, value, optional) in fields {
            let key = Value::text(name.clone());
            match (self.value(value)?, optional) {
                (Value::Optional(value), true) => made.extend(value.map(|value| (key, (*value).clone()))),
                (value, _) => made.push((key, value)),
            }
        }
        Ok(Value::map(made))
    }

    fn opt_map(&mut self, of: &Expr, name: &str, body: &Expr, flat: bool) -> Answer<'v> {
        let Value::Optional(inner) = self.value(of)? else { return Err(EvalError::overload()) };
        let Some(inner) = inner else { return Ok(Value::Optional(None)) };
        let names = vec![(name.to_owned(), (*inner).clone())];
        let value = self.within(names, |scope| scope.value(body))?;
        Ok(if flat { value } else { Value::some(value) })
    }

    fn looped(&mut self, inner: &Loop) -> Answer<'v> {
        let range = self.value(&inner.range)?;
        let steps = steps(&range, inner.second.is_some())?;
        match inner.kind {
            LoopKind::All => self.quantified(inner, steps, false),
            LoopKind::Exists => self.quantified(inner, steps, true),
            LoopKind::ExistsOne => {
                let mut count = 0;
                for step in steps {
                    count += usize::from(self.step(inner, step, |scope| scope.flag(&inner.body))?);
                }
                Ok(Value::Bool(count == 1))
            }
            LoopKind::Map | LoopKind::Filter => {
                self.pay(LIST_COST)?;
                let mut made = Vec::new();
                for step in steps {
                    made.extend(self.step(inner, step, |scope| scope.item(inner))?);
                }
                Ok(Value::list(made))
            }
            LoopKind::MapToMap => {
                self.pay(MAP_COST)?;
                let mut made = Vec::new();
                for step in steps {
                    let key = step.0.clone();
                    let value = self.step(inner, step, |scope| scope.item(inner))?;
                    made.extend(value.map(|value| (key, value)));
                }
                Ok(Value::map(made))
            }
        }
    }

    /// `all` and `exists`: the first decisive item ends it; an error only counts if none is decisive.
    fn quantified(&mut self, inner: &Loop, steps: Vec<Step<'v>>, decisive: bool) -> Answer<'v> {
        let mut failed = None;
        for step in steps {
            match self.step(inner, step, |scope| scope.flag(&inner.body)) {
                Ok(value) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(_) => {}
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn step<T>(
        &mut self,
        inner: &Loop,
        (first, second): Step<'v>,
        act: impl FnOnce(&mut Self) -> Result<T, EvalError>,
    ) -> Result<T, EvalError> {
        self.pay(1)?;
        let mut names = vec![(inner.first.clone(), first)];
        names.extend(inner.second.clone().zip(second));
        self.within(names, act)
    }

    /// What an item becomes; nothing if it is filtered out.
    fn item(&mut self, inner: &Loop) -> Result<Option<Value<'v>>, EvalError> {
        if inner.kind == LoopKind::Filter {
            let kept = self.flag(&inner.body)?;
            return Ok(self.locals.last().filter(|_| kept).map(|(_, value)| value.clone()));
        }
        if let Some(filter) = &inner.filter
            && !self.flag(filter)?
        {
            return Ok(None);
        }
        self.value(&inner.body).map(Some)
    }
}

/// The values of a loop's one or two variables.
type Step<'v> = (Value<'v>, Option<Value<'v>>);

fn steps<'v>(range: &Value<'v>, two: bool) -> Result<Vec<Step<'v>>, EvalError> {
    Ok(match range {
        Value::List(list) if two => {
            list.iter().enumerate().map(|(index, item)| (Value::Int(index as i64), Some(item))).collect()
        }
        Value::List(list) => list.iter().map(|item| (item, None)).collect(),
        Value::Map(map) => map.entries().map(|(key, value)| (key, Some(value).filter(|_| two))).collect(),
        _ => return Err(EvalError::overload()),
    })
}

fn at<'v>(target: &Value<'v>, key: &Value<'v>) -> Answer<'v> {
    match (target, key) {
        (Value::List(list), Value::Int(_) | Value::Uint(_) | Value::Double(_)) => item(list, key),
        (Value::Map(map), key) => {
            entry(map, key).ok_or_else(|| EvalError::text(format!("no such key: {}", key.to_text())))
        }
        _ => Err(EvalError::overload()),
    }
}

fn item<'v>(list: &List<'v>, key: &Value<'v>) -> Answer<'v> {
    let index = match key {
        Value::Int(index) => usize::try_from(*index).ok(),
        Value::Uint(index) => usize::try_from(*index).ok(),
        Value::Double(index) if index.fract() == 0.0 && *index >= 0.0 => Some(*index as usize),
        _ => None,
    };
    let found = index.and_then(|index| list.get(index));
    found.ok_or_else(|| EvalError::text(format!("index out of bounds: {}", key.to_text())))
}

fn entry<'v>(map: &Map<'v>, key: &Value<'v>) -> Option<Value<'v>> {
    map.get(key).or_else(|| match key {
        Value::String(name) => map.field(name),
        _ => None,
    })
}

/// What a call costs, by the sizes of its arguments.
fn cost(name: &str, args: &[Value<'_>]) -> u64 {
    let first = named(name).iter().find(|signature| signature.args.len() == args.len());
    match first.map(|signature| signature.cost) {
        None | Some(Cost::One) => 1,
        Some(cost) => {
            let sizes: Vec<u64> = args.iter().map(Value::size).collect();
            cost.of(&sizes)
        }
    }
}

/// `sets.contains`: a function of a library, if nothing of that name is known.
pub(super) fn namespaced(target: &Expr, function: &str) -> Option<String> {
    let Kind::Ident(space) = &target.kind else { return None };
    let name = format!("{space}.{function}");
    (!named(&name).is_empty()).then_some(name)
}

fn qualified(of: &Expr, field: &str) -> Option<String> {
    match &of.kind {
        Kind::Ident(name) => Some(format!("{name}.{field}")),
        Kind::Select { of, field: middle, mode: Mode::Value } => {
            Some(format!("{}.{field}", qualified(of, middle)?))
        }
        _ => None,
    }
}

/// The names of types that expressions can compare with.
pub(super) fn type_named(name: &str) -> Option<&'static str> {
    const NAMES: [&str; 13] = [
        "bool",
        "int",
        "uint",
        "double",
        "string",
        "bytes",
        "list",
        "map",
        "null_type",
        "type",
        "optional_type",
        "google.protobuf.Timestamp",
        "google.protobuf.Duration",
    ];
    NAMES.into_iter().find(|known| *known == name)
}

fn constant<'v>(literal: &Literal) -> Value<'v> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::text(text.clone()),
        Literal::Bytes(bytes) => Value::Bytes(bytes.as_slice().into()),
    }
}
