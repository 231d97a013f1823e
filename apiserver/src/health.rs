//! `/livez`, `/readyz`, `/healthz`: may this server go on, and may it get requests.
//!
//! A check is a name and a verdict; what the verdicts are is decided elsewhere, once per request. The
//! answer is `ok` for machines, one line per check with `?verbose` or on failure.

use http::StatusCode;

use crate::query::Query;

/// One thing that must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name: a path segment below the endpoint.
    pub name: &'static str,
    /// Only readiness depends on it: its failure is no reason to restart the server.
    pub readiness_only: bool,
    /// `Err` with the reason, if it doesn't hold.
    pub verdict: Result<(), String>,
}

impl Check {
    /// A check of the server itself: if it fails, only a restart helps.
    pub fn live(name: &'static str, verdict: Result<(), String>) -> Self {
        Self { name, readiness_only: false, verdict }
    }

    /// A check of what the server needs to answer.
    pub fn ready(name: &'static str, verdict: Result<(), String>) -> Self {
        Self { name, readiness_only: true, verdict }
    }
}

/// Answers a health path with status and text; `None` if it is no such path or names an unknown check.
pub fn respond(path: &str, query: &Query, checks: &[Check]) -> Option<(StatusCode, String)> {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let endpoint = segments.next().filter(|name| matches!(*name, "livez" | "readyz" | "healthz"))?;
    let single = segments.next();
    if segments.next().is_some() {
        return None;
    }
    let relevant = checks.iter().filter(|check| endpoint == "readyz" || !check.readiness_only);
    match single {
        Some(name) => relevant.filter(|check| check.name == name).map(one).next(),
        None => Some(all(endpoint, relevant, query)),
    }
}

fn one(check: &Check) -> (StatusCode, String) {
    match &check.verdict {
        Ok(()) => (StatusCode::OK, "ok".to_owned()),
        Err(reason) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {}: {reason}\n", check.name))
        }
    }
}

fn all<'a>(endpoint: &str, checks: impl Iterator<Item = &'a Check>, query: &Query) -> (StatusCode, String) {
    let mut failed = false;
    let mut text = String::new();
    let excluded: Vec<&str> = query.all("exclude").collect();
    for check in checks {
        let line = match &check.verdict {
            _ if excluded.contains(&check.name) => format!("[+]{} excluded: ok\n", check.name),
            Ok(()) => format!("[+]{} ok\n", check.name),
            Err(reason) => {
                failed = true;
                format!("[-]{} failed: {reason}\n", check.name)
            }
        };
        text.push_str(&line);
    }
    match (failed, query.flag("verbose")) {
        (true, _) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{text}{endpoint} check failed\n")),
        (false, true) => (StatusCode::OK, format!("{text}{endpoint} check passed\n")),
        (false, false) => (StatusCode::OK, "ok".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(path: &str, query: &str, store: Result<(), String>) -> Option<(u16, String)> {
        let checks = [Check::live("ping", Ok(())), Check::ready("store", store)];
        let (status, text) = respond(path, &Query::parse(query), &checks)?;
        Some((status.as_u16(), text))
    }

    #[test]
    fn a_healthy_server_says_ok() {
        for path in ["/livez", "/readyz", "/healthz", "/readyz/", "/readyz/store", "/livez/ping"] {
            assert_eq!(ask(path, "", Ok(())), Some((200, "ok".to_owned())), "{path}");
        }
    }

    #[test]
    fn verbose_lists_the_checks() {
        let text = "[+]ping ok\n[+]store ok\nreadyz check passed\n";
        assert_eq!(ask("/readyz", "verbose", Ok(())), Some((200, text.to_owned())));
        let text = "[+]ping ok\n[+]store excluded: ok\nreadyz check passed\n";
        assert_eq!(
            ask("/readyz", "verbose&exclude=store", Err("gone".to_owned())),
            Some((200, text.to_owned()))
        );
    }

    #[test]
    fn a_missing_store_makes_unready_but_not_dead() {
        let lost = || Err("no leader".to_owned());
        assert_eq!(ask("/livez", "", lost()), Some((200, "ok".to_owned())));
        let text = "[+]ping ok\n[-]store failed: no leader\nreadyz check failed\n";
        assert_eq!(ask("/readyz", "", lost()), Some((500, text.to_owned())));
        let text = "internal server error: store: no leader\n";
        assert_eq!(ask("/readyz/store", "", lost()), Some((500, text.to_owned())));
    }

    #[test]
    fn other_paths_are_not_ours() {
        for path in ["/healthy", "/livez/unknown", "/livez/store", "/livez/ping/more", "/"] {
            assert_eq!(ask(path, "", Ok(())), None, "{path}");
        }
    }
}
