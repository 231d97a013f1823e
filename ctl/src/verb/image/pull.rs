//! `amoeba image pull`: who we are to a registry, and the fetching.

use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Secret;
use kubelet::image::registry::{self, Login};
use kubelet::image::{ImageStore, Reference};
use kubelet::pod::pull_secrets;
use serde_json::Value;

use super::size;
use crate::app::App;
use crate::cluster::path::escape;
use crate::failure::Failure;
use crate::verb::say;

/// Types of Secrets that hold logins, the newer first.
const TYPES: [&str; 2] = ["kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg"];

/// Which images, and as whom.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A registry is asked with the logins for it in their order, and then without one. It is asked over HTTPS; \
    on loopback without TLS, unless certs.d says how it is known. Whom to believe beside the system's authorities is said \
    in the images' directory, or for all programs of the machine: certs.d/HOST:PORT/ca.crt there, in /etc/containers or in \
    /etc/docker, and client certificates beside it (NAME.cert, NAME.key)."
)]
pub struct PullArgs {
    /// Names, such as docker.io/library/busybox:1.36 or registry.example:5000/web@sha256:…
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<Reference>,
    /// Secret of the cluster with logins, as `kubectl create secret docker-registry` makes it; may be given again
    #[arg(long = "secret", value_name = "NAME")]
    secrets: Vec<String>,
    /// Docker's config.json with logins [default, without --secret: that of $DOCKER_CONFIG or ~/.docker]
    #[arg(long, value_name = "FILE", visible_alias = "config")]
    auth_file: Option<PathBuf>,
}

/// Logins by their registries.
type Logins = Vec<(String, Login)>;

/// Fetches all images.
pub(super) async fn pull(app: &App, store: &ImageStore, args: &PullArgs) -> Result<(), Failure> {
    let logins = logins(app, args).await?;
    for image in &args.images {
        let pulled = registry::pull_as(store, image, &logins).await;
        let pulled = pulled.map_err(|why| {
            let why = explained(&why, image, &logins);
            Failure::io(format!("pull {image}"), io::Error::other(why))
        })?;
        say(format_args!("pulled {image} ({})", size(pulled.size)));
    }
    Ok(())
}

/// Those of the Secrets before those of the file.
async fn logins(app: &App, args: &PullArgs) -> Result<Logins, Failure> {
    let mut all = Vec::new();
    if !args.secrets.is_empty() {
        let cluster = app.cluster().await?;
        for name in &args.secrets {
            let namespace = cluster.namespace();
            let path = format!("/api/v1/namespaces/{}/secrets/{}", escape(namespace), escape(name));
            let secret = cluster.get(&path).await?;
            let logins =
                of_secret(secret).map_err(|why| Failure::Usage(format!("--secret {name}: {why}")))?;
            all.extend(logins);
        }
    }
    match (&args.auth_file, app.environment.docker_config()) {
        (Some(path), _) => all.extend(of_file(path)?),
        // Docker's own command takes it, too; who has none, or one without logins, asks anonymously.
        (None, Some(path)) if args.secrets.is_empty() => {
            all.extend(std::fs::read(path).map(|bytes| pull_secrets::of_config(&bytes)).unwrap_or_default());
        }
        _ => {}
    }
    Ok(all)
}

fn of_secret(secret: Value) -> Result<Logins, String> {
    let kind = secret["type"].as_str().unwrap_or_default().to_owned();
    if !TYPES.contains(&kind.as_str()) {
        let how = "`kubectl create secret docker-registry`";
        return Err(format!(
            "the Secret is of the type {kind:?}, and logins are in {:?}: make one by {how}",
            TYPES[0]
        ));
    }
    let secret: Secret = serde_json::from_value(secret).map_err(|error| error.to_string())?;
    let logins = pull_secrets::of_secret(&secret);
    if logins.is_empty() { Err("the Secret holds no login that can be read".to_owned()) } else { Ok(logins) }
}

fn of_file(path: &Path) -> Result<Logins, Failure> {
    let bytes =
        std::fs::read(path).map_err(|source| Failure::io(format!("read {}", path.display()), source))?;
    let logins = pull_secrets::of_config(&bytes);
    if logins.is_empty() {
        let why = without_logins(&bytes);
        return Err(Failure::Usage(format!("--auth-file {}: {why}", path.display())));
    }
    Ok(logins)
}

fn without_logins(config: &[u8]) -> &'static str {
    let config: Value = serde_json::from_slice(config).unwrap_or_default();
    if config["credsStore"].is_string() || config["credHelpers"].is_object() {
        return "its logins are kept by a helper (credsStore, credHelpers), which isn't asked: log in without one";
    }
    "no logins under \"auths\": it has to be a file such as ~/.docker/config.json"
}

/// What would help here, where there is no pod.
fn explained(why: &str, image: &Reference, logins: &Logins) -> String {
    let Some(denied) = why.strip_suffix(registry::REMEDY) else { return why.to_owned() };
    let registries: Vec<&str> = logins.iter().map(|(registry, _)| registry.as_str()).collect();
    if registries.is_empty() {
        return format!("{denied}pass --secret NAME or --auth-file FILE");
    }
    let has = if registries.contains(&image.registry.as_str()) {
        "is not let in"
    } else {
        "is not for this registry"
    };
    format!("{denied}what was passed {has} (logins for {})", registries.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn logins_come_from_secrets_made_for_them() {
        let data = "eyJhdXRocyI6eyJyLmV4YW1wbGUiOnsiYXV0aCI6ImJXVTZjSGM9In19fQ==";
        let secret = |kind: &str, data: Value| json!({"type": kind, "data": data});
        let good = of_secret(secret(TYPES[0], json!({".dockerconfigjson": data}))).expect("a login");
        let [(registry, login)] = good.as_slice() else { panic!("{good:?}") };
        assert_eq!(
            (registry.as_str(), login.user.as_str(), login.password.as_str()),
            ("r.example", "me", "pw")
        );
        let error =
            of_secret(secret("Opaque", json!({".dockerconfigjson": data}))).expect_err("another type");
        assert!(error.starts_with("the Secret is of the type \"Opaque\""), "{error}");
        let error = of_secret(secret(TYPES[0], json!({".dockerconfigjson": "e30="}))).expect_err("empty");
        assert_eq!(error, "the Secret holds no login that can be read");
    }

    #[test]
    fn what_would_help_is_said() {
        let image: Reference = "r.example/web:1".parse().expect("a name");
        let why =
            format!("pull access denied for r.example/web: no basic auth credentials; {}", registry::REMEDY);
        let login = Login { user: "me".to_owned(), password: "pw".to_owned() };
        let said = |logins: &Logins| {
            explained(&why, &image, logins).split_once("; ").expect("a remedy").1.to_owned()
        };
        assert_eq!(said(&Vec::new()), "pass --secret NAME or --auth-file FILE");
        assert_eq!(
            said(&vec![("other".to_owned(), login.clone())]),
            "what was passed is not for this registry (logins for other)"
        );
        assert_eq!(
            said(&vec![("r.example".to_owned(), login)]),
            "what was passed is not let in (logins for r.example)"
        );
        assert_eq!(
            explained("r.example/web:1: not found", &image, &Vec::new()),
            "r.example/web:1: not found"
        );
        assert!(without_logins(br#"{"auths":{"r":{}},"credsStore":"desktop"}"#).contains("credsStore"));
    }
}
