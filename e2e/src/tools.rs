//! Where the binary under test and others' tools are.

use std::path::{Path, PathBuf};

/// The binary under test: `$AMOEBA`, or the one that cargo built beside this test.
pub fn amoeba_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("AMOEBA") {
        return path.into();
    }
    let test = std::env::current_exe().expect("the test has a path");
    let beside = test.ancestors().nth(2).expect("target/debug/deps/TEST").join("amoeba");
    assert!(beside.exists(), "build the binary first (`make test` does): {} is missing", beside.display());
    beside
}

/// The kubectl binaries to test with: `$KUBECTL` and, if there is another, the one on the PATH.
pub fn kubectls() -> Vec<PathBuf> {
    let named = std::env::var_os("KUBECTL").map(PathBuf::from).filter(|path| path.exists());
    let on_path = std::env::var_os("PATH").and_then(|paths| {
        std::env::split_paths(&paths).map(|folder| folder.join("kubectl")).find(|path| path.exists())
    });
    let found: Vec<_> = named.into_iter().chain(on_path).collect();
    assert!(!found.is_empty(), "no kubectl: run `make test`, which brings one, or set KUBECTL");
    found
}

/// The helm to test with, if there is one: what `HELM` says, or the one on the path.
pub fn helm() -> Option<PathBuf> {
    let named = std::env::var_os("HELM").map(PathBuf::from).filter(|path| path.exists());
    named.or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join("helm")).find(|helm| helm.exists())
    })
}

/// The checkout that the test runs in. Asked at run time: two checkouts that share a target directory may share
/// what was compiled, with the path of the other baked in.
pub fn checkout() -> PathBuf {
    let crate_dir = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the crate is");
    Path::new(&crate_dir).parent().expect("the crate lies in the checkout").to_owned()
}

/// A file in `manifests/`.
pub fn manifest(name: &str) -> String {
    let path = checkout().join("manifests").join(name);
    path.to_str().expect("UTF-8 path").to_owned()
}
