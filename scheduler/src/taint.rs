//! Taints and tolerations as values, and the one rule that relates them.

use api::k8s::api::core::v1 as core;
use std::fmt;

/// What a taint does to pods that don't tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// New pods stay away.
    NoSchedule,
    /// New pods prefer other nodes.
    PreferNoSchedule,
    /// New pods stay away and running ones are evicted (by the node lifecycle controller, not here).
    NoExecute,
}

/// A taint of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Taint {
    /// Key, for example `node.kubernetes.io/not-ready`.
    pub key: Box<str>,
    /// Value, often empty.
    pub value: Box<str>,
    /// Effect on pods without a matching toleration.
    pub effect: Effect,
}

/// A toleration of a pod. An absent part matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Toleration {
    key: Option<Box<str>>,
    /// `None` is the operator Exists: any value.
    value: Option<Box<str>>,
    effect: Option<Effect>,
}

/// The taint every cordoned node implies; tolerating it overrides `spec.unschedulable`.
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

impl Effect {
    /// Reads the API's spelling; an unknown effect is `None` and ignored, as upstream does.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "NoSchedule" => Some(Effect::NoSchedule),
            "PreferNoSchedule" => Some(Effect::PreferNoSchedule),
            "NoExecute" => Some(Effect::NoExecute),
            _ => None,
        }
    }

    /// Whether the effect forbids placing a pod (rather than discouraging it).
    pub fn forbids(self) -> bool {
        self != Effect::PreferNoSchedule
    }
}

impl Taint {
    /// The taint of an API object, or `None` if its effect is unknown.
    pub fn of(taint: &core::Taint) -> Option<Self> {
        let effect = Effect::parse(&taint.effect)?;
        let value = taint.value.as_deref().unwrap_or_default();
        Some(Taint { key: taint.key.as_str().into(), value: value.into(), effect })
    }

    /// The taint that a cordoned node is treated as having.
    pub fn unschedulable() -> Self {
        Taint { key: UNSCHEDULABLE.into(), value: "".into(), effect: Effect::NoSchedule }
    }
}

impl Toleration {
    /// The toleration of an API object. Validation has already refused unknown operators and effects.
    pub fn of(toleration: &core::Toleration) -> Self {
        let exists = toleration.operator.as_deref() == Some("Exists");
        let value = toleration.value.as_deref().unwrap_or_default();
        Toleration {
            key: toleration.key.as_deref().filter(|key| !key.is_empty()).map(Into::into),
            value: (!exists).then(|| value.into()),
            effect: toleration.effect.as_deref().and_then(Effect::parse),
        }
    }

    /// Whether this toleration accepts `taint`.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        let effect = self.effect.is_none_or(|effect| effect == taint.effect);
        let key = self.key.as_ref().is_none_or(|key| *key == taint.key);
        let value = self.value.as_ref().is_none_or(|value| *value == taint.value);
        effect && key && value
    }
}

impl fmt::Display for Taint {
    /// As upstream prints it in its messages: `{key: value}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}: {}}}", self.key, self.value)
    }
}
