//! Label selectors, from their text (`a=b,c in (d,e),!f`) or from an object's `matchLabels`.
//!
//! A selector without requirements matches everything. An *absent* selector often means "nothing";
//! that decision belongs to the caller.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::SelectorError;
use super::lexer::{Token, tokens};
use crate::k8s::apimachinery::pkg::apis::meta::v1 as meta;
use crate::name;

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The label is set, to one of the values.
    In,
    /// The label isn't set, or to none of the values.
    NotIn,
    /// The label is set.
    Exists,
    /// The label isn't set.
    DoesNotExist,
    /// The label is set, to an integer greater than the value.
    Gt,
    /// The label is set, to an integer less than the value.
    Lt,
}

/// One condition on the labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// The comparison.
    pub operator: Operator,
    /// What to compare with; sorted, and empty for `Exists` and `DoesNotExist`.
    pub values: BTreeSet<String>,
}

impl Requirement {
    /// A requirement whose key, operator and values fit together. Errors: [`SelectorError::Invalid`].
    pub fn new(
        key: &str,
        operator: Operator,
        values: impl IntoIterator<Item = String>,
    ) -> Result<Self, SelectorError> {
        let invalid = |path: &str, value: &str, why: &str| SelectorError::Invalid {
            path: path.into(),
            value: value.into(),
            why: why.into(),
        };
        name::qualified_name(key).map_err(|why| invalid("key", key, &why))?;
        let values: BTreeSet<String> = values.into_iter().collect();
        if let Some(why) = wrong_count(operator, &values) {
            return Err(invalid("values", &values.iter().cloned().collect::<Vec<_>>().join(","), why));
        }
        for value in &values {
            name::label_value(value).map_err(|why| invalid(&format!("values[{value}]"), value, &why))?;
        }
        Ok(Self { key: key.into(), operator, values })
    }

    /// Whether a label with this value (or none) fulfils the requirement.
    pub fn accepts(&self, value: Option<&str>) -> bool {
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt => self.compare(value).is_some_and(|(label, bound)| label > bound),
            Operator::Lt => self.compare(value).is_some_and(|(label, bound)| label < bound),
        }
    }

    fn compare(&self, value: Option<&str>) -> Option<(i64, i64)> {
        Some((value?.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

fn wrong_count(operator: Operator, values: &BTreeSet<String>) -> Option<&'static str> {
    match operator {
        Operator::In | Operator::NotIn if values.is_empty() => {
            Some("for 'in', 'notin' operators, values set can't be empty")
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            Some("values set must be empty for exists and does not exist")
        }
        Operator::Gt | Operator::Lt if values.len() != 1 => {
            Some("for 'Gt', 'Lt' operators, exactly one value is required")
        }
        Operator::Gt | Operator::Lt if values.iter().any(|value| value.parse::<i64>().is_err()) => {
            Some("for 'Gt', 'Lt' operators, the value must be an integer")
        }
        _ => None,
    }
}

/// A conjunction of requirements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

impl LabelSelector {
    /// The selector that matches everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// The selector with these requirements.
    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements }
    }

    /// Reads `a=b,c in (d,e),!f`. Errors: [`SelectorError`].
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Parser { tokens: tokens(text), at: 0 }.selector()
    }

    /// The labels must have exactly these values.
    pub fn from_labels<'a>(
        labels: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Self, SelectorError> {
        let each =
            labels.into_iter().map(|(key, value)| Requirement::new(key, Operator::In, [value.clone()]));
        Ok(Self::new(each.collect::<Result<_, _>>()?))
    }

    /// The selector of a typed object. Errors: an operator, key or value isn't allowed.
    pub fn from_object(selector: &meta::LabelSelector) -> Result<Self, SelectorError> {
        let mut all = Self::from_labels(selector.match_labels.iter().flatten())?.requirements;
        for expression in selector.match_expressions.iter().flatten() {
            let values = expression.values.clone().unwrap_or_default();
            all.push(Requirement::new(&expression.key, operator(&expression.operator)?, values)?);
        }
        Ok(Self::new(all))
    }

    /// The selector of an untyped object (`{"matchLabels": …, "matchExpressions": …}`).
    pub fn from_value(selector: &Value) -> Result<Self, SelectorError> {
        let typed = serde_json::from_value(selector.clone())
            .map_err(|error| SelectorError::Syntax(error.to_string()))?;
        Self::from_object(&typed)
    }

    /// The requirements, sorted by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether this selector matches everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether the labels fulfil all requirements.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// Whether the labels of an untyped object fulfil all requirements.
    pub fn matches_object(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        self.matches_with(|key| labels?.get(key)?.as_str())
    }

    /// Whether labels, looked up one by one, fulfil all requirements.
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| requirement.accepts(label(&requirement.key)))
    }
}

fn operator(text: &str) -> Result<Operator, SelectorError> {
    match text {
        "In" => Ok(Operator::In),
        "NotIn" => Ok(Operator::NotIn),
        "Exists" => Ok(Operator::Exists),
        "DoesNotExist" => Ok(Operator::DoesNotExist),
        "Gt" => Ok(Operator::Gt),
        "Lt" => Ok(Operator::Lt),
        _ => Err(SelectorError::Syntax(format!("{text:?} is not a valid label selector operator"))),
    }
}

impl fmt::Display for LabelSelector {
    /// The text that parses back to this selector, e.g. for `status.selector` of a Scale.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            write!(f, "{}{requirement}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = || self.values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        let key = &self.key;
        match self.operator {
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::In if self.values.len() == 1 => write!(f, "{key}={}", values()),
            Operator::NotIn if self.values.len() == 1 => write!(f, "{key}!={}", values()),
            Operator::In => write!(f, "{key} in ({})", values()),
            Operator::NotIn => write!(f, "{key} notin ({})", values()),
            Operator::Gt => write!(f, "{key}>{}", values()),
            Operator::Lt => write!(f, "{key}<{}", values()),
        }
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn selector(mut self) -> Result<LabelSelector, SelectorError> {
        let mut requirements = Vec::new();
        if *self.peek() == Token::End {
            return Ok(LabelSelector::default());
        }
        loop {
            requirements.push(self.requirement()?);
            match self.take() {
                Token::End => return Ok(LabelSelector::new(requirements)),
                Token::Comma if matches!(self.peek(), Token::Word(_) | Token::Not) => {}
                Token::Comma => return Err(self.expected("identifier after ','")),
                other => return Err(found(&other, "',' or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if *self.peek() == Token::Not {
            self.take();
            let key = self.word("identifier")?;
            return Requirement::new(&key, Operator::DoesNotExist, []);
        }
        let key = self.word("!, identifier, or 'end of string'")?;
        if matches!(self.peek(), Token::Comma | Token::End) {
            return Requirement::new(&key, Operator::Exists, []);
        }
        let operator = self.operator()?;
        let values = match operator {
            (operator, true) => (operator, self.set()?),
            (operator, false) => (operator, vec![self.value()]),
        };
        Requirement::new(&key, values.0, values.1)
    }

    /// The operator, and whether a set in parentheses follows.
    fn operator(&mut self) -> Result<(Operator, bool), SelectorError> {
        match self.take() {
            Token::Equal => Ok((Operator::In, false)),
            Token::NotEqual => Ok((Operator::NotIn, false)),
            Token::Greater => Ok((Operator::Gt, false)),
            Token::Less => Ok((Operator::Lt, false)),
            Token::Word(word) if word == "in" => Ok((Operator::In, true)),
            Token::Word(word) if word == "notin" => Ok((Operator::NotIn, true)),
            other => Err(found(&other, "in, notin, =, ==, !=, gt, lt")),
        }
    }

    /// The value behind `=`; nothing is the empty value.
    fn value(&mut self) -> String {
        match self.peek().clone() {
            Token::Word(word) => {
                self.take();
                word
            }
            _ => String::new(),
        }
    }

    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.take() {
            Token::Open => {}
            other => return Err(found(&other, "'('")),
        }
        let mut values = vec![self.value()];
        loop {
            match self.take() {
                Token::Close => return Ok(values),
                Token::Comma => values.push(self.value()),
                other => return Err(found(&other, "',' or ')'")),
            }
        }
    }

    fn word(&mut self, expected: &str) -> Result<String, SelectorError> {
        match self.take() {
            Token::Word(word) => Ok(word),
            other => Err(found(&other, expected)),
        }
    }

    fn expected(&self, what: &str) -> SelectorError {
        found(self.peek(), what)
    }

    fn peek(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }
}

fn found(token: &Token, expected: &str) -> SelectorError {
    SelectorError::Syntax(format!("found '{}', expected: {expected}", token.text()))
}

#[cfg(test)]
mod tests;
