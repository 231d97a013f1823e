//! The functions of expressions, by library. Each takes its target as its first argument.

mod lists;
mod named_formats;
mod net;
mod operators;
mod quantity;
pub mod semver;
mod strings;
mod text_format;
mod times;
pub mod url;

use super::value::Value;

pub(super) type Answer<'v> = Result<Value<'v>, String>;

/// Nobody here knows the function for these values.
pub(super) const NO_OVERLOAD: &str = "no such overload";

/// Calls a function. Errors: a text.
pub(super) fn call<'v>(name: &str, args: &[Value<'v>]) -> Answer<'v> {
    if let [Value::Extension(target), rest @ ..] = args {
        return target.call(name, rest);
    }
    let libraries = [
        operators::call,
        strings::call,
        lists::call,
        times::call,
        quantity::call,
        net::call,
        url::call,
        semver::call,
        named_formats::call,
    ];
    for library in libraries {
        if let Some(answer) = library(name, args) {
            return answer;
        }
    }
    Err(NO_OVERLOAD.to_owned())
}
