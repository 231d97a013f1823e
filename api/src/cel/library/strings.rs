//! Functions on texts, and on regular expressions.

use std::num::NonZeroUsize;

use regex::Regex;

use super::Answer;
use super::text_format::format;
use crate::cel::value::Value;

use Value::{Bool, Int, String as Text};

/// Largest compiled size of a pattern that comes from an object.
const PATTERN_BYTES: usize = 1 << 20;

pub(super) fn call<'v>(name: &str, args: &[Value<'v>]) -> Option<Answer<'v>> {
    let [Text(text), rest @ ..] = args else { return None };
    Some(match (name, rest) {
        ("contains", [Text(part)]) => Ok(Bool(text.contains(&**part))),
        ("startsWith", [Text(part)]) => Ok(Bool(text.starts_with(&**part))),
        ("endsWith", [Text(part)]) => Ok(Bool(text.ends_with(&**part))),
        ("matches", [Text(pattern)]) => compiled(pattern).map(|pattern| Bool(pattern.is_match(text))),
        ("find", [Text(pattern)]) => compiled(pattern)
            .map(|pattern| Value::text(pattern.find(text).map_or("", |found| found.as_str()).to_owned())),
        ("findAll", [Text(pattern)]) => find_all(text, pattern, -1),
        ("findAll", [Text(pattern), Int(most)]) => find_all(text, pattern, *most),
        ("charAt", [Int(at)]) => char_at(text, *at),
        ("indexOf", [Text(part)]) => index_of(text, part, 0),
        ("indexOf", [Text(part), Int(from)]) => index_of(text, part, *from),
        ("lastIndexOf", [Text(part)]) => last_index_of(text, part, i64::MAX),
        ("lastIndexOf", [Text(part), Int(from)]) => last_index_of(text, part, *from),
        ("lowerAscii", []) => Ok(Value::text(text.to_ascii_lowercase())),
        ("upperAscii", []) => Ok(Value::text(text.to_ascii_uppercase())),
        ("replace", [Text(old), Text(new)]) => Ok(Value::text(text.replace(&**old, new))),
        ("replace", [Text(old), Text(new), Int(most)]) => Ok(Value::text(match usize::try_from(*most) {
            Ok(most) => text.replacen(&**old, new, most),
            Err(_) => text.replace(&**old, new),
        })),
        ("split", [Text(by)]) => Ok(split(text, by, -1)),
        ("split", [Text(by), Int(most)]) => Ok(split(text, by, *most)),
        ("substring", [Int(from)]) => substring(text, *from, text.chars().count() as i64),
        ("substring", [Int(from), Int(to)]) => substring(text, *from, *to),
        ("trim", []) => Ok(Value::text(text.trim().to_owned())),
        ("reverse", []) => Ok(Value::text(text.chars().rev().collect::<String>())),
        ("jsonpatch.escapeKey", []) => Ok(Value::text(text.replace('~', "~0").replace('/', "~1"))),
        ("strings.quote", []) => Ok(Value::text(format!("{text:?}"))),
        ("format", [Value::List(list)]) => format(text, &list.iter().collect::<Vec<_>>()).map(Value::text),
        _ => return None,
    })
}

fn compiled(pattern: &str) -> Result<Regex, String> {
    let built = regex::RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build();
    built.map_err(|error| format!("error parsing regexp: {error}"))
}

fn find_all<'v>(text: &str, pattern: &str, most: i64) -> Answer<'v> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let pattern = compiled(pattern)?;
    let found = pattern.find_iter(text).take(most).map(|found| Value::text(found.as_str().to_owned()));
    Ok(Value::list(found.collect()))
}

fn outside<'v>(at: i64) -> Answer<'v> {
    Err(format!("index out of range: {at}"))
}

fn char_at<'v>(text: &str, at: i64) -> Answer<'v> {
    let length = text.chars().count() as i64;
    match usize::try_from(at) {
        Ok(_) if at == length => Ok(Value::text("")),
        Ok(index) if at < length => Ok(Value::text(text.chars().skip(index).take(1).collect::<String>())),
        _ => outside(at),
    }
}

/// The byte at which a character begins; the text's length behind its end.
fn byte_at(text: &str, character: usize) -> usize {
    text.char_indices().nth(character).map_or(text.len(), |(byte, _)| byte)
}

fn characters(text: &str, bytes: usize) -> i64 {
    text[..bytes].chars().count() as i64
}

fn index_of<'v>(text: &str, part: &str, from: i64) -> Answer<'v> {
    let Ok(start) = usize::try_from(from) else { return outside(from) };
    if part.is_empty() {
        return Ok(Int(from));
    }
    let begin = byte_at(text, start);
    let found = text[begin..].find(part).map(|at| characters(text, begin + at));
    Ok(Int(found.unwrap_or(-1)))
}

fn last_index_of<'v>(text: &str, part: &str, from: i64) -> Answer<'v> {
    let Ok(last) = usize::try_from(from) else { return outside(from) };
    if part.is_empty() {
        return Ok(Int((text.chars().count() as i64).min(from)));
    }
    let end = byte_at(text, last).saturating_add(part.len()).min(text.len());
    let end = (end..=text.len()).find(|end| text.is_char_boundary(*end)).unwrap_or(text.len());
    Ok(Int(text[..end].rfind(part).map_or(-1, |at| characters(text, at))))
}

fn substring<'v>(text: &str, from: i64, to: i64) -> Answer<'v> {
    let length = text.chars().count() as i64;
    if from < 0 || from > length {
        return outside(from);
    }
    if to < 0 || to > length {
        return outside(to);
    }
    if from > to {
        return Err(format!("invalid substring range. start: {from}, end: {to}"));
    }
    let take = usize::try_from(to - from).unwrap_or(0);
    Ok(Value::text(text.chars().skip(usize::try_from(from).unwrap_or(0)).take(take).collect::<String>()))
}

fn split<'v>(text: &str, by: &str, most: i64) -> Value<'v> {
    let pieces: Vec<String> = match (by.is_empty(), usize::try_from(most).ok().map(NonZeroUsize::new)) {
        (_, Some(None)) => Vec::new(),
        (true, most) => {
            let letters: Vec<String> = text.chars().map(String::from).collect();
            let most = most.flatten().map_or(letters.len(), NonZeroUsize::get).min(letters.len());
            let (first, rest) = letters.split_at(most.saturating_sub(1));
            first.iter().cloned().chain((!rest.is_empty()).then(|| rest.concat())).collect()
        }
        (false, Some(Some(most))) => text.splitn(most.get(), by).map(str::to_owned).collect(),
        (false, None) => text.split(by).map(str::to_owned).collect(),
    };
    Value::list(pieces.into_iter().map(Value::text).collect())
}
