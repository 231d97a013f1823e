//! Which etcd API to talk to, and with which certificates: flags, or what a member left in its directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::standalone::settings;
use crate::standalone::tls::KeyPairFiles;
use crate::standalone::url::Url;

/// The file that a member of the control plane, or `amoeba up`, leaves in its data directory.
const FILE: &str = "etcd-endpoints.json";
/// Where etcd listens unless told otherwise.
const DEFAULT: &str = "http://127.0.0.1:2379";

/// The flags that choose a store's cluster; named as etcdctl's.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Which store")]
pub struct EndpointFlags {
    /// Client URLs of its members
    /// [default: those that a local `amoeba up` or `server` left in its data directory, or http://127.0.0.1:2379]
    #[arg(
        long,
        value_name = "URL,…",
        value_delimiter = ',',
        env = "ETCDCTL_ENDPOINTS",
        hide_env = true,
        global = true
    )]
    pub endpoints: Vec<Url>,
    /// Who signed their certificates
    #[arg(long, value_name = "FILE", env = "ETCDCTL_CACERT", hide_env = true, global = true)]
    pub cacert: Option<PathBuf>,
    /// Certificate to show
    #[arg(long, value_name = "FILE", env = "ETCDCTL_CERT", hide_env = true, global = true)]
    pub cert: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE", env = "ETCDCTL_KEY", hide_env = true, global = true)]
    pub key: Option<PathBuf>,
}

/// A store's cluster and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// At least one.
    pub urls: Vec<Url>,
    /// Who signed the servers' certificates.
    pub authority: Option<PathBuf>,
    /// What we show.
    pub own: Option<KeyPairFiles>,
    /// Whether its members are `amoeba server`s rather than `amoeba store`s, as far as we know.
    pub control_plane: bool,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Record {
    endpoints: Vec<String>,
    cacert: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

impl Endpoints {
    /// What the flags say, or what lies in the data directory, or etcd's default.
    ///
    /// # Errors
    /// In words for the user.
    pub fn find(app: &App, flags: &EndpointFlags) -> Result<Self, String> {
        let own = settings::pair(&flags.cert, &flags.key, ["--cert", "--key"])?;
        if flags.endpoints.is_empty()
            && let Some(left) = Self::left_behind(app)?
        {
            return Ok(left);
        }
        let default = || vec![DEFAULT.parse().expect("the default is a URL")];
        let urls = if flags.endpoints.is_empty() { default() } else { flags.endpoints.clone() };
        if let Some(url) = urls.iter().find(|url| url.secure && flags.cacert.is_none()) {
            return Err(format!("--endpoints {url} needs --cacert: who signed its certificate"));
        }
        Ok(Self { urls, authority: flags.cacert.clone(), own, control_plane: false })
    }

    /// An explicit data directory must have the file; the default one may.
    fn left_behind(app: &App) -> Result<Option<Self>, String> {
        let explicit = app.target.data_dir.is_some();
        let Ok(dir) = app.data_dir() else { return Ok(None) };
        let path = dir.join(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => parse(&text).map(Some).map_err(|why| format!("{}: {why}", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !explicit => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!(
                "--data-dir has no {FILE}: start the cluster (`up`, or `server --listen-client-urls`), or name it \
                 with --endpoints"
            )),
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        }
    }
}

fn parse(text: &str) -> Result<Endpoints, String> {
    let record: Record = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let urls: Result<Vec<Url>, String> = record.endpoints.iter().map(|url| url.parse()).collect();
    Ok(Endpoints {
        urls: urls?,
        authority: Some(record.cacert),
        own: Some(KeyPairFiles { certificate: record.cert, key: record.key }),
        control_plane: true,
    })
}

/// Leaves word in `dir` where the store of a control plane is reached, with the certificates of `pki`.
///
/// # Errors
/// If the file can't be written.
pub fn leave_behind(dir: &Path, urls: &[Url], pki: &Path) -> io::Result<()> {
    let record = Record {
        endpoints: urls.iter().map(Url::to_string).collect(),
        cacert: pki.join("etcd-ca.crt"),
        cert: pki.join("etcd-client.crt"),
        key: pki.join("etcd-client.key"),
    };
    let text = serde_json::to_string_pretty(&record).expect("text has a JSON form") + "\n";
    let temporary = dir.join(format!("{FILE}.new"));
    fs::write(&temporary, text)?;
    fs::rename(temporary, dir.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::TargetFlags;
    use crate::environment::Environment;

    fn list(found: &Endpoints) -> String {
        settings::join(&found.urls)
    }

    fn app(data_dir: &Path) -> App {
        let target = TargetFlags { data_dir: Some(data_dir.to_owned()), ..TargetFlags::default() };
        App::new(target, Environment::default())
    }

    #[test]
    fn what_a_member_left_is_found_by_its_directory() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let urls = ["https://127.0.0.1:2379".parse().expect("a URL")];
        leave_behind(dir.path(), &urls, Path::new("/pki")).expect("written");
        let found = Endpoints::find(&app(dir.path()), &EndpointFlags::default()).expect("found");
        assert_eq!((list(&found).as_str(), found.control_plane), ("https://127.0.0.1:2379", true));
        assert_eq!(found.authority.as_deref(), Some(Path::new("/pki/etcd-ca.crt")));
        let flags =
            EndpointFlags { endpoints: vec!["http://h:1".parse().expect("a URL")], ..Default::default() };
        assert_eq!(
            Endpoints::find(&app(dir.path()), &flags).map(|found| list(&found)),
            Ok("http://h:1".into())
        );
    }

    #[test]
    fn an_explicit_directory_without_it_is_an_error() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let error = Endpoints::find(&app(dir.path()), &EndpointFlags::default()).expect_err("missing");
        assert!(error.contains("--endpoints"), "{error}");
        let nowhere = App::new(TargetFlags::default(), Environment::default());
        assert_eq!(
            Endpoints::find(&nowhere, &EndpointFlags::default()).map(|found| list(&found)),
            Ok(DEFAULT.into())
        );
    }

    #[test]
    fn https_needs_an_authority() {
        let flags =
            EndpointFlags { endpoints: vec!["https://h:1".parse().expect("a URL")], ..Default::default() };
        let nowhere = App::new(TargetFlags::default(), Environment::default());
        assert!(Endpoints::find(&nowhere, &flags).expect_err("refused").contains("--cacert"));
    }
}
