//! The parts of times and durations.

use jiff::Zoned;
use jiff::tz::{Offset, TimeZone};

use super::Answer;
use crate::cel::value::Value;

use Value::Int;

pub(super) fn call<'v>(name: &str, args: &[Value<'v>]) -> Option<Answer<'v>> {
    match args {
        [Value::Duration(nanos)] => duration(name, *nanos).map(|part| Ok(Int(part))),
        [Value::Timestamp(time)] => part(name, &time.to_zoned(TimeZone::UTC)).map(|part| Ok(Int(part))),
        [Value::Timestamp(time), Value::String(zone)] => match zone_of(zone) {
            Some(zone) => part(name, &time.to_zoned(zone)).map(|part| Ok(Int(part))),
            None => Some(Err(format!("unknown time zone {zone}"))),
        },
        _ => None,
    }
}

fn duration(name: &str, nanos: i64) -> Option<i64> {
    Some(match name {
        "getHours" => nanos / 3_600_000_000_000,
        "getMinutes" => nanos / 60_000_000_000,
        "getSeconds" => nanos / 1_000_000_000,
        "getMilliseconds" => nanos / 1_000_000 % 1000,
        _ => return None,
    })
}

/// Months, days of the year and of the month count from 0; `getDate` counts from 1.
fn part(name: &str, time: &Zoned) -> Option<i64> {
    Some(match name {
        "getFullYear" => time.year().into(),
        "getMonth" => i64::from(time.month()) - 1,
        "getDate" => time.day().into(),
        "getDayOfMonth" => i64::from(time.day()) - 1,
        "getDayOfWeek" => time.weekday().to_sunday_zero_offset().into(),
        "getDayOfYear" => i64::from(time.day_of_year()) - 1,
        "getHours" => time.hour().into(),
        "getMinutes" => time.minute().into(),
        "getSeconds" => time.second().into(),
        "getMilliseconds" => time.millisecond().into(),
        _ => return None,
    })
}

/// `UTC`, `Europe/Zurich`, `+02:00`.
fn zone_of(name: &str) -> Option<TimeZone> {
    if let Some((hours, minutes)) = name.split_once(':') {
        let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
        let sign = if name.starts_with('-') { -1 } else { 1 };
        let seconds = hours.checked_mul(3600)?.checked_add(sign * minutes.checked_mul(60)?)?;
        return Offset::from_seconds(seconds).ok().map(TimeZone::fixed);
    }
    if name == "UTC" { Some(TimeZone::UTC) } else { TimeZone::get(name).ok() }
}
