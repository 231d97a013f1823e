//! `amoeba version`

use serde_json::{Value, json};

use super::say;
use crate::app::App;
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::output::Format;

/// Show versions
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only of this program; ask no server
    #[arg(long)]
    client: bool,
    /// As json or yaml
    #[arg(short, long, value_name = "FORM")]
    output: Option<Format>,
}

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Prints both versions; that no server answers is no failure of this verb unless it was asked for one.
pub async fn run(app: &App, args: Args) -> Result<(), Failure> {
    let server = if args.client { None } else { of_server(app).await };
    match args.output {
        None => print(server.as_ref()),
        Some(form) => {
            let object =
                json!({"clientVersion": {"gitVersion": format!("v{VERSION}")}, "serverVersion": server});
            let shown = form.object(&Default::default(), &object).map_err(Failure::Usage)?;
            super::say_raw(&shown);
        }
    }
    Ok(())
}

fn print(server: Option<&Value>) {
    say(format!("Client Version: v{VERSION}"));
    match server {
        Some(server) => {
            say(format!("Server Version: {}", server["gitVersion"].as_str().unwrap_or("unknown")))
        }
        None => say("Server Version: (no cluster)"),
    }
}

async fn of_server(app: &App) -> Option<Value> {
    let cluster: Cluster = app.cluster().await.ok()?;
    cluster.get("/version").await.ok()
}
