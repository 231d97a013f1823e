//! `/version`: which Kubernetes this server speaks.

use serde_json::{Value, json};

/// The version of the API that is served.
pub const KUBERNETES_VERSION: &str = "v1.37.0";

/// The document. Clients parse `major` and `minor` as numbers and `gitVersion` as a semantic version, whose
/// build part names us.
pub fn document() -> Value {
    json!({
        "major": "1",
        "minor": "37",
        "gitVersion": format!("{KUBERNETES_VERSION}+amoeba-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    })
}

/// The architecture by the name that Go and container images use.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
