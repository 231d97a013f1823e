//! Which run of a CronJob is due.

use api::cron::Schedule;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use k8s_openapi::api::batch::v1::CronJob;
use kube::ResourceExt;

/// So many missed runs are worth a warning.
const MANY: usize = 100;

/// A schedule in its time zone.
pub struct Timetable {
    schedule: Schedule,
    /// UTC unless the CronJob names one.
    pub zone: TimeZone,
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub struct Due {
    /// The latest run that hasn't been started.
    pub latest: Option<Timestamp>,
    /// Many runs were missed, which hints at a wrong clock or a long outage.
    pub many: bool,
}

impl Timetable {
    /// The timetable of `cron`; else the event that tells what is wrong.
    pub fn of(cron: &CronJob) -> Result<Timetable, (&'static str, String)> {
        let text = &cron.spec.schedule;
        let schedule = Schedule::parse(text)
            .map_err(|why| ("UnparseableSchedule", format!("unparseable schedule: {text:?} : {why}")))?;
        let zone = match &cron.spec.time_zone {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name)
                .map_err(|why| ("UnknownTimeZone", format!("invalid timeZone: {name:?}: {why}")))?,
        };
        Ok(Timetable { schedule, zone })
    }

    /// The first run after `time`.
    pub fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        self.schedule.next_after(time, &self.zone)
    }

    /// What is due at `now`, after the last run (or the CronJob's creation) and within its starting deadline.
    pub fn due(&self, cron: &CronJob, now: Timestamp) -> Due {
        let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
        let created = cron.creation_timestamp().map_or(now, |time| time.0);
        let mut earliest = last.map_or(created, |time| time.0);
        if let Some(seconds) = cron.spec.starting_deadline_seconds {
            let begin = now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN);
            earliest = earliest.max(begin);
        }
        Due { latest: self.latest(earliest, now), many: self.runs(earliest, now).nth(MANY).is_some() }
    }

    fn runs(&self, after: Timestamp, until: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        let first = self.next_after(after);
        std::iter::successors(first, |run| self.next_after(*run)).take_while(move |run| *run <= until)
    }

    /// The last run within the time; looked for backwards in growing steps, as years may have been missed.
    fn latest(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let mut step = SignedDuration::from_mins(1);
        loop {
            let begin = until.checked_sub(step).unwrap_or(Timestamp::MIN).max(after);
            if let Some(latest) = self.runs(begin, until).last() {
                return Some(latest);
            }
            if begin == after {
                return None;
            }
            step = step.saturating_mul(4);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Due, Timetable};
    use serde_json::json;

    fn due(schedule: &str, last: &str, deadline: Option<i64>, now: &str) -> Due {
        let cron = serde_json::from_value(json!({
            "metadata": {"name": "c", "creationTimestamp": last},
            "spec": {"schedule": schedule, "startingDeadlineSeconds": deadline, "timeZone": "Europe/Berlin",
                "jobTemplate": {"spec": {"template": {"spec": {"containers": []}}}}},
        }))
        .expect("a CronJob");
        let timetable = Timetable::of(&cron).expect("a timetable");
        timetable.due(&cron, now.parse().expect("a time"))
    }

    fn at(time: &str, many: bool) -> Due {
        Due { latest: Some(time.parse().expect("a time")), many }
    }

    #[test]
    fn the_latest_missed_run_is_due() {
        let none = Due { latest: None, many: false };
        assert_eq!(due("0 * * * *", "2026-01-01T00:10:00Z", None, "2026-01-01T00:59:59Z"), none);
        assert_eq!(
            due("0 * * * *", "2026-01-01T00:10:00Z", None, "2026-01-01T03:10:00Z"),
            at("2026-01-01T03:00:00Z", false)
        );
        assert_eq!(
            due("* * * * *", "2024-01-01T00:10:00Z", None, "2026-01-01T03:10:30Z"),
            at("2026-01-01T03:10:00Z", true)
        );
        assert_eq!(
            due("30 2 * * *", "2026-03-27T12:00:00Z", None, "2026-03-29T12:00:00Z"),
            at("2026-03-28T01:30:00Z", false),
            "half past two is skipped on the day of the change"
        );
    }

    #[test]
    fn a_deadline_forgets_older_runs() {
        let none = Due { latest: None, many: false };
        assert_eq!(due("0 * * * *", "2026-01-01T00:10:00Z", Some(60), "2026-01-01T03:10:00Z"), none);
        assert_eq!(
            due("0 * * * *", "2026-01-01T00:10:00Z", Some(900), "2026-01-01T03:10:00Z"),
            at("2026-01-01T03:00:00Z", false)
        );
    }
}
