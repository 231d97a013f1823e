//! What a pod is called: by the kernel, and in its own `/etc/hosts`. Upstream's rules (`GeneratePodHostNameAndDomain`).

use k8s_openapi::api::core::v1::{Pod, PodSpec};

/// The cluster's domain where nobody says otherwise.
pub const DEFAULT_DOMAIN: &str = "cluster.local";
/// The longest name that is made of a pod's.
const LABEL_LIMIT: usize = 63;
/// The longest name that the kernel keeps.
const KERNEL_LIMIT: usize = 64;

fn set(text: Option<&String>) -> Option<&String> {
    text.filter(|text| !text.is_empty())
}

/// Without a domain: `spec.hostname`, or the pod's name as far as a host's may be long.
fn short(pod: &Pod, spec: &PodSpec) -> String {
    if let Some(name) = set(spec.hostname_override.as_ref()).or(set(spec.hostname.as_ref())) {
        return name.clone();
    }
    let name = pod.metadata.name.clone().unwrap_or_default();
    let cut = &name[..name.floor_char_boundary(LABEL_LIMIT)];
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// With the domain of its `subdomain`, by which others of its Service find it; `None` without one.
fn full(pod: &Pod, spec: &PodSpec, domain: &str) -> Option<String> {
    let subdomain =
        set(spec.subdomain.as_ref()).filter(|_| set(spec.hostname_override.as_ref()).is_none())?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    Some(format!("{}.{subdomain}.{namespace}.svc.{domain}", short(pod, spec)))
}

/// What the kernel is told.
///
/// # Errors
/// `setHostnameAsFQDN`, and the whole name is too long for that.
pub fn hostname(pod: &Pod, domain: &str) -> Result<String, String> {
    let spec = pod.spec.clone().unwrap_or_default();
    let wanted = full(pod, &spec, domain).filter(|_| spec.set_hostname_as_fqdn == Some(true));
    match wanted {
        Some(name) if name.len() > KERNEL_LIMIT => Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is too long ({KERNEL_LIMIT} \
             characters is the max, {} characters requested)",
            name.len()
        )),
        Some(name) => Ok(name),
        None => Ok(short(pod, &spec)),
    }
}

/// The names beside its address in `/etc/hosts`.
pub fn own_names(pod: &Pod, domain: &str) -> String {
    let spec = pod.spec.clone().unwrap_or_default();
    let own = short(pod, &spec);
    full(pod, &spec, domain).map_or(own.clone(), |full| format!("{full}\t{own}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &str) -> Pod {
        let text = format!("{{metadata: {{name: web-0, namespace: shop}}, spec: {{containers: []{spec}}}}}");
        serde_yaml::from_str(&text).expect("a pod")
    }

    #[test]
    fn a_pod_is_called_as_upstream_calls_it() {
        let full = "web-0.db.shop.svc.example.org";
        for (spec, kernel, hosts) in [
            ("", "web-0", "web-0".to_owned()),
            (", hostname: own", "own", "own".to_owned()),
            (", subdomain: db", "web-0", format!("{full}\tweb-0")),
            (", subdomain: db, setHostnameAsFQDN: true", full, format!("{full}\tweb-0")),
            (", setHostnameAsFQDN: true", "web-0", "web-0".to_owned()),
            (", hostname: own, subdomain: db, hostnameOverride: a.b", "a.b", "a.b".to_owned()),
        ] {
            let pod = pod(spec);
            assert_eq!(hostname(&pod, "example.org").as_deref(), Ok(kernel), "{spec}");
            assert_eq!(own_names(&pod, "example.org"), hosts, "{spec}");
        }
    }

    #[test]
    fn names_are_cut_or_refused_where_they_are_too_long() {
        let mut long = pod("");
        long.metadata.name = Some("x".repeat(62) + "-yz");
        assert_eq!(hostname(&long, "d"), Ok("x".repeat(62)));
        let refused = hostname(&pod(", subdomain: db, setHostnameAsFQDN: true"), &"d".repeat(60));
        let refused = refused.expect_err("too long");
        assert!(
            refused.ends_with("is too long (64 characters is the max, 78 characters requested)"),
            "{refused}"
        );
    }
}
