//! What a runtime says of itself, in the words that a node's `Ready` condition has for it.

use super::proto::{RuntimeCondition, RuntimeStatus};

/// Why pods can't be run, the runtime before its network; nothing if they can. What isn't told doesn't hold.
pub fn troubles(status: &RuntimeStatus) -> Vec<String> {
    let wanted = [
        ("RuntimeReady", "container runtime not ready"),
        ("NetworkReady", "container runtime network not ready"),
    ];
    let trouble = |(kind, what): (&str, &str)| {
        let told = status.conditions.iter().find(|condition| condition.r#type == kind);
        let fails = told.is_none_or(|condition| !condition.status);
        fails.then(|| format!("{what}: {}", told.map_or("<nil>".to_owned(), text)))
    };
    wanted.into_iter().filter_map(trouble).collect()
}

fn text(condition: &RuntimeCondition) -> String {
    let RuntimeCondition { r#type: kind, status, reason, message } = condition;
    format!("{kind}={status} reason:{reason} message:{message}")
}

/// Since when runtimes show images as directories: major and minor version.
const IMAGE_VOLUMES: [(&str, (u64, u64)); 2] = [("containerd", (2, 1)), ("cri-o", (1, 31))];

/// Why a runtime can't show images as directories; `None` if it can, or nobody knows. An older one takes the field
/// for one that it needn't know, and fails for want of a path of the host.
pub fn lacks_image_volumes(name: &str, version: &str) -> Option<String> {
    let (_, (major, minor)) = IMAGE_VOLUMES.into_iter().find(|(known, _)| *known == name)?;
    let mut numbers = version.trim_start_matches('v').split('.').map(|number| number.parse::<u64>().ok());
    let has = (numbers.next()??, numbers.next()??);
    (has < (major, minor)).then(|| {
        format!(
            "{name} {version} can't mount images as volumes: it takes {major}.{minor} or newer, or a RuntimeClass whose \
             handler is `native`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_volumes_need_a_runtime_that_knows_of_them() {
        let lacks = |name: &str, version: &str| lacks_image_volumes(name, version).is_some();
        for version in ["1.6.20~ds1", "v1.7.28", "2.0.4"] {
            assert!(lacks("containerd", version), "{version}");
        }
        assert!(lacks("cri-o", "1.30.9"));
        for (name, version) in [
            ("containerd", "v2.1.0-beta.1"),
            ("containerd", "3.0.0"),
            ("cri-o", "1.31.0"),
            ("other", "0.1.0"),
        ] {
            assert!(!lacks(name, version), "{name} {version}");
        }
        assert!(!lacks("containerd", "built by hand"), "who says nothing is asked");
        let why = lacks_image_volumes("containerd", "1.6.20~ds1").expect("too old");
        assert!(
            why.starts_with("containerd 1.6.20~ds1 can't mount images as volumes: it takes 2.1 or newer"),
            "{why}"
        );
    }

    fn condition(kind: &str, status: bool) -> RuntimeCondition {
        RuntimeCondition {
            r#type: kind.to_owned(),
            status,
            reason: "NetworkPluginNotReady".to_owned(),
            message: "Network plugin returns error: cni plugin not initialized".to_owned(),
        }
    }

    #[test]
    fn what_fails_is_told_with_its_reason() {
        let told = |conditions: &[(&str, bool)]| {
            let conditions = conditions.iter().map(|(kind, status)| condition(kind, *status)).collect();
            troubles(&RuntimeStatus { conditions })
        };
        assert!(told(&[("RuntimeReady", true), ("NetworkReady", true)]).is_empty());
        assert_eq!(
            told(&[("RuntimeReady", true), ("NetworkReady", false)]),
            ["container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady \
              message:Network plugin returns error: cni plugin not initialized"]
        );
        assert_eq!(told(&[("NetworkReady", true)]), ["container runtime not ready: <nil>"]);
    }
}
