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
    plugins: BTreeSet<Plugin>,
}

impl Diagnosis {
    /// Sums up the first rejection of every node.
    pub fn new(rejections: impl Iterator<Item = Rejection>) -> Self {
        let mut diagnosis = Diagnosis::default();
        for rejection in rejections {
            diagnosis.nodes += 1;
            diagnosis.plugins.insert(rejection.plugin);
            for reason in rejection.reasons {
                *diagnosis.reasons.entry(reason.to_string()).or_insert(0) += 1;
            }
        }
        diagnosis
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

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return write!(f, "no nodes available to schedule pods");
        }
        // Upstream sorts the finished phrases, counts included.
        let mut phrases: Vec<String> =
            self.reasons.iter().map(|(reason, nodes)| format!("{nodes} {reason}")).collect();
        phrases.sort();
        write!(f, "0/{} nodes are available: {}.", self.nodes, phrases.join(", "))
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
