//! `amoeba image`: the images of this machine's nodes.

mod pull;

use std::io;
use std::path::{Path, PathBuf};

use kubelet::image::{Image, ImageError, ImageStore, Reference};
use serde_json::json;

use super::{say, say_raw};
use crate::app::App;
use crate::failure::Failure;
use crate::print::table::simple;

/// Load, fetch, list or remove the images of this machine's nodes
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The nodes of a cluster that `amoeba up` runs share the images of its data directory; \
    `amoeba node` has those of its own (--data-dir), or of --image-dir."
)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    action: Action,
    /// Where the images are [default: `images` in the data directory]
    #[arg(long, value_name = "DIR", global = true)]
    image_dir: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Take images from an archive (`docker save`, OCI), or from a directory with an OCI layout
    Load {
        /// File or directory; `-` is standard input
        source: PathBuf,
        /// Name of the image, for a source that has none or another
        #[arg(long, value_name = "NAME")]
        name: Option<Reference>,
    },
    /// Fetch images from their registries
    Pull(pull::PullArgs),
    /// List images
    #[command(visible_alias = "list")]
    Ls {
        /// As table or json
        #[arg(short, long, value_name = "FORM", default_value = "table")]
        output: Form,
    },
    /// Remove names, and with its last name an image
    #[command(visible_alias = "remove")]
    Rm {
        /// Names or identities
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
}

/// `-o`
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Form {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Loads, fetches, lists or removes.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    let dir = match args.image_dir {
        Some(dir) => dir,
        None => app.data_dir()?.join("images"),
    };
    let store = ImageStore::open(&dir)?;
    match args.action {
        Action::Load { source, name } => load(&store, &source, name.as_ref()),
        Action::Pull(args) => pull::pull(app, &store, &args).await,
        Action::Ls { output } => list(&store, output),
        Action::Rm { images } => images.iter().try_for_each(|image| remove(&store, image)),
    }
}

fn load(store: &ImageStore, source: &Path, name: Option<&Reference>) -> Result<(), Failure> {
    let images = match source == Path::new("-") {
        true => store.load_archive(io::stdin().lock(), name),
        false => store.load(source, name),
    };
    let images = images.map_err(|why| {
        Failure::io(format!("load images from {}", source.display()), io::Error::other(why.chain()))
    })?;
    for image in images {
        match image.names.as_slice() {
            [] => say(format_args!("loaded {} without a name: load it again with --name", image.id)),
            names => names.iter().for_each(|name| say(format_args!("loaded {name}"))),
        }
    }
    Ok(())
}

fn list(store: &ImageStore, form: Form) -> Result<(), Failure> {
    let images = store.list()?;
    match form {
        Form::Json => say(json!({ "images": images })),
        Form::Table => {
            let rows = images.iter().flat_map(rows).collect();
            simple(&["IMAGE", "ID", "SIZE"], rows).iter().for_each(|line| say_raw(&format!("{line}\n")));
        }
    }
    Ok(())
}

/// One line for each name.
fn rows(image: &Image) -> Vec<Vec<String>> {
    let none = ["<none>".to_owned()];
    let names = if image.names.is_empty() { &none } else { image.names.as_slice() };
    let id = image.id.hex()[..12].to_owned();
    names.iter().map(|name| vec![name.clone(), id.clone(), size(image.size)]).collect()
}

/// As Docker shows it.
fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes}B") } else { format!("{value:.1}{}", units[unit]) }
}

fn remove(store: &ImageStore, image: &str) -> Result<(), Failure> {
    let gone = store.remove(image).map_err(|error| match error {
        ImageError::Unknown(name) => Failure::Usage(format!("no image {name}: `amoeba image ls` shows all")),
        other => other.into(),
    })?;
    say(format_args!("{} {image}", if gone { "removed" } else { "removed the name" }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [(0, "0B"), (999, "999B"), (1_500, "1.5kB"), (2_000_000_000, "2.0GB")] {
            assert_eq!(size(bytes), text);
        }
    }
}
