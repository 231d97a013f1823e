//! The official Python client: `e2e/python/test_client.py` on a cluster.

use std::path::PathBuf;
use std::process::Command;

use e2e::{Cluster, checkout};

/// Where `make test` installs the client.
fn python() -> PathBuf {
    let path = std::env::var_os("KUBERNETES_PYTHON").map(PathBuf::from);
    let path = path.expect(
        "KUBERNETES_PYTHON is unset: run `make test`, which installs the client, or name a python that has \
         the package `kubernetes` 37",
    );
    assert!(path.exists(), "no python at KUBERNETES_PYTHON={}: run `make test`", path.display());
    path
}

#[test]
fn the_python_client_finds_what_it_expects() {
    let python = python();
    let cluster = Cluster::up(1, 1);
    let output = Command::new(python)
        .arg(checkout().join("e2e/python/test_client.py"))
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("TESTDATA", checkout().join("e2e/testdata"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(cluster.path())
        .output()
        .expect("python starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
