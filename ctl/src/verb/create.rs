//! `amoeba create -f`

use std::path::PathBuf;

use super::apply::Validation;
use super::say;
use crate::app::App;
use crate::apply::target::targets;
use crate::cluster::path::{self, Query};
use crate::failure::Failure;
use crate::manifest;
use crate::output::name as printed_name;

/// Create the objects of a manifest
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File, directory, or - for standard input; may be given several times
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    filename: Vec<PathBuf>,
    /// Also read the directories inside a directory
    #[arg(short = 'R', long)]
    recursive: bool,
    /// What to do about unknown and duplicate fields
    #[arg(long, value_name = "HOW", default_value = "strict")]
    validate: Validation,
}

/// Creates one object after the other; names may be generated.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    let documents = manifest::read(&args.filename, args.recursive)?;
    let cluster = app.cluster().await?;
    for target in targets(&cluster, app.target.namespace.as_deref(), documents).await? {
        let query = Query::new()
            .with("fieldManager", "kubectl-create")
            .with("fieldValidation", args.validate.parameter());
        let collection = path::collection(&target.kind, Some(&target.namespace));
        let created = cluster.create(&query.on(&collection), &target.document.object).await?;
        say(format!("{} created", printed_name(&target.kind, &created)));
    }
    Ok(())
}
