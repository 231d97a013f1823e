//! An etcd cluster that others run, as the keeper of the objects: the flags that name it, and how it is reached.

use std::path::PathBuf;
use std::sync::Arc;
use std::{fs, io};

use etcd::client::EtcdKv;

use crate::member::MemberError;
use crate::standalone::settings;
use crate::standalone::tls::{self, KeyPairFiles};
use crate::standalone::url::Url;

/// Where the etcd cluster is, and with which certificates; flags named as kube-apiserver's.
#[derive(Clone, Debug, clap::Args)]
pub struct StockEtcdArgs {
    /// Keep the objects in this etcd cluster instead of the own store
    #[arg(long, value_name = "URL,…", value_delimiter = ',', help_heading = "etcd")]
    etcd_servers: Vec<Url>,
    /// Who signed the certificates of those etcd servers
    #[arg(long, value_name = "FILE", help_heading = "etcd", requires = "etcd_servers")]
    etcd_cafile: Option<PathBuf>,
    /// Certificate shown to those etcd servers
    #[arg(long, value_name = "FILE", help_heading = "etcd", requires = "etcd_servers")]
    etcd_certfile: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE", help_heading = "etcd", requires = "etcd_servers")]
    etcd_keyfile: Option<PathBuf>,
}

impl StockEtcdArgs {
    /// The cluster, if one is named.
    ///
    /// # Errors
    /// What is missing, as told to the user.
    pub fn cluster(&self) -> Result<Option<StockEtcd>, String> {
        if self.etcd_servers.is_empty() {
            return Ok(None);
        }
        let own =
            settings::pair(&self.etcd_certfile, &self.etcd_keyfile, ["--etcd-certfile", "--etcd-keyfile"])?;
        if let Some(url) = self.etcd_servers.iter().find(|url| url.secure && self.etcd_cafile.is_none()) {
            return Err(format!("--etcd-servers {url} needs --etcd-cafile: who signed its certificate"));
        }
        Ok(Some(StockEtcd { servers: self.etcd_servers.clone(), authority: self.etcd_cafile.clone(), own }))
    }

    /// The same flags for another process, with absolute paths: they are remembered.
    ///
    /// # Errors
    /// A file isn't there.
    pub fn flags(&self) -> io::Result<Vec<String>> {
        if self.etcd_servers.is_empty() {
            return Ok(Vec::new());
        }
        let mut flags = vec!["--etcd-servers".to_owned(), settings::join(&self.etcd_servers)];
        let files = [
            ("--etcd-cafile", &self.etcd_cafile),
            ("--etcd-certfile", &self.etcd_certfile),
            ("--etcd-keyfile", &self.etcd_keyfile),
        ];
        for (flag, file) in files.into_iter().filter_map(|(flag, file)| Some((flag, file.as_ref()?))) {
            let file = fs::canonicalize(file)?.to_string_lossy().into_owned();
            flags.extend([flag.to_owned(), file]);
        }
        Ok(flags)
    }
}

/// How a stock etcd cluster is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StockEtcd {
    servers: Vec<Url>,
    /// Who signed the servers' certificates.
    authority: Option<PathBuf>,
    /// What we show.
    own: Option<KeyPairFiles>,
}

impl StockEtcd {
    /// A client of the cluster; what is missing with it is logged.
    ///
    /// # Errors
    /// If the files can't be used or no server answers.
    pub async fn connect(&self) -> Result<Arc<EtcdKv>, MemberError> {
        let authority = self.authority.as_ref();
        let tls = authority.map(|authority| tls::client(authority, self.own.as_ref())).transpose()?;
        let servers: Vec<String> = self.servers.iter().map(Url::to_string).collect();
        let connected = EtcdKv::connect(servers.clone(), tls).await;
        let client = connected.map_err(|source| MemberError::Etcd { servers: servers.join(","), source })?;
        tracing::warn!(
            servers = servers.join(","),
            "the objects are in a stock etcd, which keeps no journal: who wrote what, when and why is not recorded; \
             members, backups and compaction are etcd's own affair"
        );
        Ok(Arc::new(client))
    }
}
