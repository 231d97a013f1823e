//! Cron schedules, as CronJob writes them: five fields or a name such as `@hourly`.
//!
//! The dialect is that of upstream's library (robfig/cron v3, standard parser): lists, ranges, steps,
//! names of months and days, `?` for `*`; if both the day of the month and the day of the week are
//! restricted, either suffices.

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// No schedule fires less often than on 29 February, with a century's leap year left out.
const YEARS_TO_SEARCH: i16 = 9;

/// A parsed schedule: which minutes, hours, days and months fit, as bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether either of the two day fields is `*`: then both must fit.
    both_days: bool,
}

/// One of the five fields.
struct Range {
    name: &'static str,
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const MINUTE: Range = Range { name: "minute", low: 0, high: 59, names: &[] };
const HOUR: Range = Range { name: "hour", low: 0, high: 23, names: &[] };
const DAY: Range = Range { name: "day of month", low: 1, high: 31, names: &[] };
const MONTH: Range = Range { name: "month", low: 1, high: 12, names: &MONTHS };
const WEEKDAY: Range = Range { name: "day of week", low: 0, high: 6, names: &DAYS };

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// A text that says which field is wrong and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.contains("TZ=") {
            return Err("cannot use TZ or CRON_TZ in schedule, use timeZone field instead".into());
        }
        let fields: Vec<&str> = match text {
            "" => return Err("empty spec string".into()),
            "@yearly" | "@annually" => vec!["0", "0", "1", "1", "*"],
            "@monthly" => vec!["0", "0", "1", "*", "*"],
            "@weekly" => vec!["0", "0", "*", "*", "0"],
            "@daily" | "@midnight" => vec!["0", "0", "*", "*", "*"],
            "@hourly" => vec!["0", "*", "*", "*", "*"],
            _ if text.starts_with('@') => return Err(format!("unrecognized descriptor: {text}")),
            _ => text.split_whitespace().collect(),
        };
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(format!("expected exactly 5 fields, found {}: {fields:?}", fields.len()));
        };
        Ok(Self {
            minutes: MINUTE.parse(minute)?,
            hours: HOUR.parse(hour)?,
            days: DAY.parse(day)?,
            months: MONTH.parse(month)?,
            weekdays: WEEKDAY.parse(weekday)?,
            both_days: is_any(day) || is_any(weekday),
        })
    }

    /// The first time after `after` at which it fires, in the zone; `None` if there is none in the coming
    /// years (30 February). A time that a clock change skips doesn't fire, one that it repeats fires once.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let start = zone.to_datetime(after);
        let mut at =
            start.with().second(0).subsec_nanosecond(0).build().ok()?.checked_add(1.minute()).ok()?;
        while at.year() <= start.year() + YEARS_TO_SEARCH {
            if !has(self.months, at.month()) {
                at = at
                    .first_of_month()
                    .checked_add(1.month())
                    .ok()?
                    .with()
                    .time(Time::midnight())
                    .build()
                    .ok()?;
            } else if !self.fits_day(at) {
                at = at.checked_add(1.day()).ok()?.with().time(Time::midnight()).build().ok()?;
            } else if !has(self.hours, at.hour()) {
                at = at.with().minute(0).build().ok()?.checked_add(1.hour()).ok()?;
            } else if !has(self.minutes, at.minute()) {
                at = at.checked_add(1.minute()).ok()?;
            } else {
                match existing(at, after, zone) {
                    Some(time) => return Some(time),
                    None => at = at.checked_add(1.minute()).ok()?,
                }
            }
        }
        None
    }

    fn fits_day(&self, at: DateTime) -> bool {
        let day = has(self.days, at.day());
        let weekday = has(self.weekdays, at.weekday().to_sunday_zero_offset());
        if self.both_days { day && weekday } else { day || weekday }
    }
}

/// The instant of a local time, if that time exists and is after `after`.
fn existing(at: DateTime, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let time = zone.to_ambiguous_timestamp(at).compatible().ok()?;
    (zone.to_datetime(time) == at && time > after).then_some(time)
}

fn has(bits: u64, number: i8) -> bool {
    bits >> number & 1 == 1
}

fn is_any(field: &str) -> bool {
    field.split(',').any(|part| matches!(part.split('/').next(), Some("*" | "?")))
}

impl Range {
    fn parse(&self, field: &str) -> Result<u64, String> {
        field.split(',').try_fold(0, |bits, part| Ok(bits | self.parse_part(part)?))
    }

    fn parse_part(&self, part: &str) -> Result<u64, String> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(self.number(step, part)?)),
            None => (part, None),
        };
        let (low, high) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (self.low, self.high),
            Some((low, high)) => (self.value(low, part)?, self.value(high, part)?),
            None => {
                let value = self.value(range, part)?;
                // `5/15` begins at 5 and goes on to the end.
                (value, if step.is_some() { self.high } else { value })
            }
        };
        if low < self.low || high > self.high || low > high {
            return Err(format!("{}: {part:?} is not within {} to {}", self.name, self.low, self.high));
        }
        let step = step.unwrap_or(1);
        if step == 0 {
            return Err(format!("step of range should be a positive number: {part}"));
        }
        Ok((low..=high).step_by(step as usize).fold(0, |bits, number| bits | 1 << number))
    }

    fn value(&self, text: &str, part: &str) -> Result<u32, String> {
        let lower = text.to_lowercase();
        match self.names.iter().position(|name| *name == lower) {
            Some(place) => Ok(self.low + u32::try_from(place).expect("there are at most twelve names")),
            None => self.number(text, part),
        }
    }

    fn number(&self, text: &str, part: &str) -> Result<u32, String> {
        text.parse().map_err(|_| format!("{}: failed to parse {text:?} in {part:?} as a number", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str, zone: &str) -> String {
        let schedule = Schedule::parse(schedule).unwrap();
        let zone = TimeZone::posix(zone).unwrap();
        let next = schedule.next_after(after.parse().unwrap(), &zone);
        next.map_or_else(|| "never".into(), |time| time.to_string())
    }

    #[test]
    fn the_next_time() {
        let cases = [
            ("* * * * *", "2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z"),
            ("*/15 * * * *", "2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"),
            ("0 9-17/4 * * mon-fri", "2026-01-02T17:00:00Z", "2026-01-05T09:00:00Z"),
            ("30 2 29 feb *", "2026-01-01T00:00:00Z", "2028-02-29T02:30:00Z"),
            ("0 0 13 * 5", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("@hourly", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"),
            ("5/20 * * * *", "2026-01-01T00:06:00Z", "2026-01-01T00:25:00Z"),
            ("0 0 30 2 *", "2026-01-01T00:00:00Z", "never"),
            ("0 0 1,15 * ?", "2026-01-02T00:00:00Z", "2026-01-15T00:00:00Z"),
        ];
        for (schedule, after, expected) in cases {
            assert_eq!(next(schedule, after, "UTC0"), expected, "{schedule}");
        }
    }

    #[test]
    fn a_skipped_time_doesnt_fire_and_a_repeated_one_fires_once() {
        let zone = "CET-1CEST,M3.5.0,M10.5.0/3";
        assert_eq!(next("30 2 * * *", "2026-03-28T12:00:00Z", zone), "2026-03-30T00:30:00Z");
        assert_eq!(next("30 2 * * *", "2026-10-24T12:00:00Z", zone), "2026-10-25T00:30:00Z");
        assert_eq!(next("30 2 * * *", "2026-10-25T00:30:00Z", zone), "2026-10-26T01:30:00Z");
    }

    #[test]
    fn what_is_no_schedule() {
        let wrong = [
            "",
            "* * * *",
            "60 * * * *",
            "* * 0 * *",
            "* * * 13 *",
            "a * * * *",
            "*/0 * * * *",
            "5-1 * * * *",
            "@never",
            "TZ=UTC * * * * *",
        ];
        for text in wrong {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }
}
