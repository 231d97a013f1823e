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

#[cfg(test)]
mod tests {
    use super::*;

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
