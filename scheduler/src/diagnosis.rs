//! Why no node is right: the summary that users read, and the full account per node and rule.

use crate::name::NodeName;
use crate::plugins::{Plugin, Reason};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The refusal of one node by one rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// The rule.
    pub plugin: Plugin,
    /// Its reasons, at least one.
    pub reasons: Vec<Reason>,
}

/// What all rules say about one node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeExplanation {
    /// The node.
    pub node: NodeName,
    /// Rules that refuse it; empty if it is feasible.
    pub rejections: Vec<Rejection>,
    /// Weighted scores of a feasible node.
    pub scores: Vec<(Plugin, i64)>,
}

/// Why a pod is unschedulable, in summary. Displays as upstream's FailedScheduling text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    nodes: usize,
    reasons: BTreeMap<String, usize>,
    /// What is about the pod and not about nodes.
    about_pod: BTreeSet<String>,
    plugins: BTreeSet<Plugin>,
    /// Why nobody was driven away for it; `None` if that wasn't tried, or was done.
    pub preemption: Option<Preemption>,
    /// Of a pod that fits but whose gang doesn't, or that waits for its gang.
    pub gang: Option<GangShortage>,
}

/// Why preemption found no room. Displays as upstream's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preemption {
    /// The pod may not drive others away, for this reason.
    NotEligible(&'static str),
    /// It would help nowhere.
    Hopeless {
        /// Nodes on which nobody, or too few, are less important.
        no_victims: usize,
        /// Nodes whose refusal has another reason than the pods that are there.
        not_helpful: usize,
        /// Whether a rule about where other pods are may have had a part in it, though no node blames it.
        by_others: bool,
    },
}

/// How many pods of a gang have or would get a node, and how many must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GangShortage {
    /// Name of the PodGroup.
    pub group: Box<str>,
    /// So many fit at the same time.
    pub fit: usize,
    /// So many must.
    pub needed: usize,
}

impl Diagnosis {
    /// Sums up the first rejection of every node.
    pub fn new(rejections: impl Iterator<Item = Rejection>) -> Self {
        let mut diagnosis = Diagnosis::default();
        for rejection in rejections {
            diagnosis.nodes += 1;
            diagnosis.plugins.insert(rejection.plugin);
            for reason in rejection.reasons {
                if reason.is_about_pod() {
                    diagnosis.about_pod.insert(reason.to_string());
                    continue;
                }
                *diagnosis.reasons.entry(reason.to_string()).or_insert(0) += 1;
            }
        }
        diagnosis
    }

    /// The same with the outcome of preemption.
    pub fn with_preemption(mut self, preemption: Preemption) -> Self {
        self.preemption = Some(preemption);
        self
    }

    /// The same for a pod that waits with its gang.
    pub fn with_gang(mut self, shortage: GangShortage) -> Self {
        self.gang = Some(shortage);
        self
    }

    /// Whether there was no node to ask.
    pub fn saw_no_nodes(&self) -> bool {
        self.nodes == 0
    }

    /// Whether some node was refused by `plugin`.
    pub fn blames(&self, plugin: Plugin) -> bool {
        self.plugins.contains(&plugin)
    }
}

/// `0/5 nodes are available: …`. Upstream sorts the finished phrases, counts included.
fn unavailable(f: &mut fmt::Formatter<'_>, nodes: usize, mut phrases: Vec<String>) -> fmt::Result {
    phrases.sort();
    write!(f, "0/{nodes} nodes are available: {}.", phrases.join(", "))
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(GangShortage { group, fit, needed }) = &self.gang {
            write!(f, "{fit} of the {needed} pods that PodGroup \"{group}\" needs at once fit: ")?;
        }
        if self.nodes == 0 {
            return write!(f, "no nodes available to schedule pods");
        }
        let phrases = self.reasons.iter().map(|(reason, nodes)| format!("{nodes} {reason}"));
        unavailable(f, self.nodes, phrases.chain(self.about_pod.iter().cloned()).collect())?;
        match &self.preemption {
            None => Ok(()),
            Some(Preemption::NotEligible(why)) => write!(f, " preemption: not eligible due to {why}."),
            Some(Preemption::Hopeless { no_victims, not_helpful, .. }) => {
                let phrases = [
                    (*no_victims, "No preemption victims found for incoming pod"),
                    (*not_helpful, "Preemption is not helpful for scheduling"),
                ];
                let phrases = phrases.iter().filter(|(nodes, _)| *nodes > 0);
                write!(f, " preemption: ")?;
                unavailable(f, self.nodes, phrases.map(|(nodes, text)| format!("{nodes} {text}")).collect())
            }
        }
    }
}

impl fmt::Display for NodeExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.node)?;
        for rejection in &self.rejections {
            let reasons: Vec<String> = rejection.reasons.iter().map(Reason::to_string).collect();
            write!(f, " {}: {};", rejection.plugin, reasons.join(", "))?;
        }
        if self.rejections.is_empty() {
            let total: i64 = self.scores.iter().map(|(_, score)| score).sum();
            write!(f, " score {total}")?;
            let parts: Vec<String> =
                self.scores.iter().map(|(plugin, score)| format!("{plugin} {score}")).collect();
            write!(f, " ({})", parts.join(", "))?;
        }
        Ok(())
    }
}
