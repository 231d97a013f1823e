//! Which kubeconfig is used, and how several are merged.
//!
//! Order: `--kubeconfig`, an explicit `--data-dir`, `$KUBECONFIG`, the default data directory of
//! `amoeba up`, `~/.kube/config`. The first that applies is used, and an error names it.

use std::path::{Path, PathBuf};

use kube::config::{Kubeconfig, KubeconfigError};

use crate::app::App;

/// The file that `amoeba up` leaves in its data directory.
pub const ADMIN_KUBECONFIG: &str = "admin.kubeconfig";

/// No kubeconfig applies.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// Nothing was named and no usual place has one.
    #[error(
        "no cluster found: start one with `amoeba up`, or name one with --kubeconfig FILE (looked at: {0})"
    )]
    Nowhere(String),
    /// The file that was asked for isn't there.
    #[error("{flag} names {path}, which doesn't exist: `amoeba up` makes one in its --data-dir", path = .path.display())]
    Missing {
        /// `--kubeconfig` or `--data-dir`.
        flag: &'static str,
        /// The file.
        path: PathBuf,
    },
}

/// The kubeconfig files to merge, in order of precedence. `exists` answers for the file system.
pub fn find(app: &App, exists: &dyn Fn(&Path) -> bool) -> Result<Vec<PathBuf>, NotFound> {
    if let Some(path) = &app.target.kubeconfig {
        return required("--kubeconfig", path.clone(), exists);
    }
    if let Some(dir) = &app.target.data_dir {
        return required("--data-dir", dir.join(ADMIN_KUBECONFIG), exists);
    }
    let listed: Vec<PathBuf> =
        app.environment.kubeconfig.iter().filter(|path| exists(path)).cloned().collect();
    if !listed.is_empty() {
        return Ok(listed);
    }
    let usual = usual_places(app);
    match usual.iter().find(|path| exists(path)) {
        Some(path) => Ok(vec![path.clone()]),
        None => Err(NotFound::Nowhere(join(app.environment.kubeconfig.iter().chain(&usual)))),
    }
}

fn required(
    flag: &'static str,
    path: PathBuf,
    exists: &dyn Fn(&Path) -> bool,
) -> Result<Vec<PathBuf>, NotFound> {
    if exists(&path) { Ok(vec![path]) } else { Err(NotFound::Missing { flag, path }) }
}

fn usual_places(app: &App) -> Vec<PathBuf> {
    let local = app.environment.data_dir().map(|dir| dir.join(ADMIN_KUBECONFIG));
    let home = app.environment.home.as_ref().map(|home| home.join(".kube/config"));
    local.into_iter().chain(home).collect()
}

fn join<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> String {
    paths.map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Reads and merges the files; the first that sets something wins.
pub fn read(paths: &[PathBuf]) -> Result<Kubeconfig, KubeconfigError> {
    let mut merged = Kubeconfig::default();
    for path in paths {
        merged = merged.merge(Kubeconfig::read_from(path)?)?;
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::TargetFlags;
    use crate::environment::Environment;

    fn app(kubeconfig: Option<&str>, data_dir: Option<&str>, variable: &[&str]) -> App {
        let target = TargetFlags {
            kubeconfig: kubeconfig.map(PathBuf::from),
            data_dir: data_dir.map(PathBuf::from),
            ..TargetFlags::default()
        };
        let environment = Environment {
            home: Some("/h".into()),
            kubeconfig: variable.iter().map(PathBuf::from).collect(),
            ..Environment::default()
        };
        App::new(target, environment)
    }

    fn found(app: &App, files: &[&str]) -> Result<Vec<PathBuf>, NotFound> {
        find(app, &|path| files.iter().any(|file| Path::new(file) == path))
    }

    const LOCAL: &str = "/h/.local/share/amoeba/admin.kubeconfig";

    #[test]
    fn the_flag_wins_over_everything() {
        let app = app(Some("/f"), Some("/d"), &["/e"]);
        assert_eq!(found(&app, &["/f", "/d/admin.kubeconfig", "/e", LOCAL]), Ok(vec!["/f".into()]));
    }

    #[test]
    fn a_named_file_that_is_missing_is_an_error_and_not_a_reason_to_look_elsewhere() {
        let missing = found(&app(Some("/f"), None, &[]), &[LOCAL]);
        assert_eq!(missing, Err(NotFound::Missing { flag: "--kubeconfig", path: "/f".into() }));
    }

    #[test]
    fn the_variable_wins_over_the_usual_places_and_missing_parts_of_it_are_skipped() {
        let app = app(None, None, &["/e1", "/e2", "/e3"]);
        assert_eq!(found(&app, &["/e1", "/e3", LOCAL]), Ok(vec!["/e1".into(), "/e3".into()]));
    }

    #[test]
    fn the_local_cluster_wins_over_the_home_file() {
        let app = app(None, None, &[]);
        assert_eq!(found(&app, &["/h/.kube/config", LOCAL]), Ok(vec![LOCAL.into()]));
        assert_eq!(found(&app, &["/h/.kube/config"]), Ok(vec!["/h/.kube/config".into()]));
    }

    #[test]
    fn the_error_lists_where_we_looked() {
        let message = found(&app(None, None, &["/e"]), &[]).expect_err("nothing exists").to_string();
        assert!(
            message.contains("/e, /h/.local/share/amoeba/admin.kubeconfig, /h/.kube/config"),
            "{message}"
        );
    }
}
