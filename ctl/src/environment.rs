//! What the process was given by its environment, read once.

use std::path::PathBuf;

/// The few variables that matter to us.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `$HOME`.
    pub home: Option<PathBuf>,
    /// `$XDG_DATA_HOME`.
    pub xdg_data_home: Option<PathBuf>,
    /// `$KUBECONFIG`, split at its colons.
    pub kubeconfig: Vec<PathBuf>,
    /// `$DOCKER_CONFIG`, a directory.
    pub docker_config: Option<PathBuf>,
}

impl Environment {
    /// Reads the environment of this process.
    pub fn of_process() -> Self {
        let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let kubeconfig = std::env::var_os("KUBECONFIG")
            .map(|list| std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect())
            .unwrap_or_default();
        Self {
            home: path("HOME"),
            xdg_data_home: path("XDG_DATA_HOME"),
            kubeconfig,
            docker_config: path("DOCKER_CONFIG"),
        }
    }

    /// Where Docker keeps logins of registries; `None` without a home.
    pub fn docker_config(&self) -> Option<PathBuf> {
        let own = || Some(self.home.as_ref()?.join(".docker"));
        Some(self.docker_config.clone().or_else(own)?.join("config.json"))
    }

    /// Where `amoeba up` keeps its cluster unless told otherwise: `$XDG_DATA_HOME/amoeba`, else
    /// `~/.local/share/amoeba`. `None` without a home.
    pub fn data_dir(&self) -> Option<PathBuf> {
        let base = self.xdg_data_home.clone().or_else(|| Some(self.home.as_ref()?.join(".local/share")))?;
        Some(base.join("amoeba"))
    }
}
