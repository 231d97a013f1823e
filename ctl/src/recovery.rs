//! `--force-new-cluster`: one survivor goes on alone, and its operator learns what that may cost.

use std::path::Path;

use store::ClusterId;
use store::backup::BUMP_REVISION;
use store::recovery::{NewCluster, Report, force_new_cluster};

use crate::failure::Failure;
use crate::verb::note;

/// Makes the member in `dir` the only one of a new cluster and says what may be lost.
///
/// # Errors
/// If the directory is in use, isn't whole, or its member is alone already. Nothing is changed then.
pub fn force(dir: &Path) -> Result<(), Failure> {
    // A random id: no member of the old cluster, and none of an earlier attempt, may ever fit.
    let cluster = ClusterId(rand::random());
    let wanted = NewCluster { id: None, cluster, bump_revision: BUMP_REVISION, mark_compacted: true };
    let report = force_new_cluster(dir, &wanted)?;
    lines(&report, cluster).iter().for_each(note);
    Ok(())
}

fn lines(report: &Report, new: ClusterId) -> [String; 4] {
    let voters: Vec<String> = report.old_voters.iter().map(|id| format!("{:x}", id.0)).collect();
    let open = report.last - report.committed.min(report.last);
    [
        format!(
            "this member leaves cluster {:x} (voters {}) and is now cluster {:x}, alone",
            report.old_cluster.0,
            crate::text::and(&voters),
            new.0
        ),
        format!(
            "it has the log up to entry {}: whatever the others acknowledged after that entry is LOST",
            report.last
        ),
        format!(
            "{open} of its entries are not known to be committed: they are kept, so writes whose clients were told \
             nothing, or that they failed, may appear"
        ),
        format!(
            "revision {} became {}: clients have to read again. Empty the directories of the lost members before \
             they join this cluster, and start this one without --force-new-cluster from now on",
            report.old_revision, report.revision
        ),
    ]
}
