//! Restart policies, and the phase that follows from the containers' states.
//!
//! Upstream's `getPhase`, as a function of values.

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Pod};

use crate::pod::container::{ContainerLife, State};
use crate::pod::roles::{Role, spec_of};

/// `status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not all containers have been started yet.
    Pending,
    /// At least one container runs or is being restarted.
    Running,
    /// All containers ended well and won't be restarted.
    Succeeded,
    /// All containers ended, at least one of them badly.
    Failed,
}

impl Phase {
    /// As it stands in the object.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    /// From the object.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Running, Self::Succeeded, Self::Failed].into_iter().find(|p| p.as_str() == text)
    }

    /// Once reached it is never left.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// `restartPolicy` of a pod or a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// After every end.
    Always,
    /// After a bad end.
    OnFailure,
    /// Not at all.
    Never,
}

fn parse_policy(text: Option<&str>) -> Option<RestartPolicy> {
    match text? {
        "Always" => Some(RestartPolicy::Always),
        "OnFailure" => Some(RestartPolicy::OnFailure),
        "Never" => Some(RestartPolicy::Never),
        _ => None,
    }
}

/// The pod's own policy; `Always` unless it says otherwise.
pub fn pod_policy(pod: &Pod) -> RestartPolicy {
    let text = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    parse_policy(text).unwrap_or(RestartPolicy::Always)
}

/// Whether this container runs again after it ended with this code.
pub fn restarts_after(pod: &Pod, container: &ContainerLife, code: i32) -> bool {
    let spec = spec_of(pod, &container.name);
    let own = spec.as_ref().and_then(|spec| parse_policy(spec.restart_policy.as_deref()));
    let policy = own.unwrap_or_else(|| pod_policy(pod));
    if spec.is_some_and(|spec| has_rule_for(&spec, code)) {
        return true;
    }
    match (container.role, policy) {
        (Role::Sidecar, _) => true,
        (Role::Ephemeral, _) | (_, RestartPolicy::Never) => false,
        (Role::Init, _) | (Role::App, RestartPolicy::OnFailure) => code != 0,
        (Role::App, RestartPolicy::Always) => true,
    }
}

/// Whether one of `restartPolicyRules` asks for another run after this code, whatever the policy says.
fn has_rule_for(spec: &Container, code: i32) -> bool {
    let applies = |rule: &ContainerRestartRule| {
        let codes = rule.exit_codes.as_ref().filter(|_| rule.action == "Restart");
        codes.is_some_and(|codes| {
            let listed = codes.values.iter().flatten().any(|value| *value == code);
            match codes.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            }
        })
    };
    spec.restart_policy_rules.iter().flatten().any(applies)
}

/// An init container has failed for good: the pod never starts.
fn init_failed(pod: &Pod, containers: &[ContainerLife]) -> bool {
    containers.iter().filter(|c| c.role == Role::Init).any(|c| {
        c.ended().is_some_and(|ended| ended.exit.code != 0 && !restarts_after(pod, c, ended.exit.code))
    })
}

/// All init containers have completed and all sidecars have started once.
pub fn is_initialized(containers: &[ContainerLife]) -> bool {
    containers.iter().all(|c| match c.role {
        Role::Init => c.ended().is_some_and(|ended| ended.exit.code == 0),
        Role::Sidecar => c.is_started() || c.attempts > 0 && !c.is_active(),
        Role::App | Role::Ephemeral => true,
    })
}

/// The phase that the containers' states amount to. `ending` says that none will be started again.
pub fn phase(pod: &Pod, containers: &[ContainerLife], ending: bool) -> Phase {
    if init_failed(pod, containers) {
        return Phase::Failed;
    }
    let apps = Count::of(pod, containers);
    let begun = apps.running + apps.over > 0;
    if !begun && !is_initialized(containers) && !ending {
        return Phase::Pending;
    }
    match apps {
        Count { waiting: 1.., .. } if !ending => Phase::Pending,
        Count { running: 1.., .. } => Phase::Running,
        Count { over: 0, .. } => Phase::Pending,
        Count { again: 1.., .. } if !ending => Phase::Running,
        Count { waiting: 0, over, well, .. } if over == well => Phase::Succeeded,
        _ => Phase::Failed,
    }
}

/// How many app containers are where.
#[derive(Default)]
struct Count {
    /// Never ran.
    waiting: u32,
    running: u32,
    /// Ended at least once and don't run now.
    over: u32,
    /// Of `over`: ended with 0.
    well: u32,
    /// Of `over`: will be run again.
    again: u32,
}

impl Count {
    fn of(pod: &Pod, containers: &[ContainerLife]) -> Self {
        let mut count = Self::default();
        containers.iter().filter(|c| c.role == Role::App).for_each(|c| count.add(pod, c, &c.state));
        count
    }

    fn add(&mut self, pod: &Pod, container: &ContainerLife, state: &State) {
        let ended = match state {
            State::Running(_) => return self.running += 1,
            State::Starting(before) => return self.add(pod, container, before),
            State::Ended(ended) => Some(ended),
            State::Waiting(_) => container.last.as_ref(),
        };
        let Some(ended) = ended else { return self.waiting += 1 };
        self.over += 1;
        self.well += u32::from(ended.exit.code == 0);
        self.again += u32::from(container.renews || restarts_after(pod, container, ended.exit.code));
    }
}
