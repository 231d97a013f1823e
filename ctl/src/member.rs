//! What `amoeba server` and `amoeba node` have in common: logs, the bond to a supervisor, and their errors.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use tracing_subscriber::EnvFilter;

use crate::scheduler_configuration::ConfigurationError;
use crate::standalone::tls::TlsError;
use crate::up::spawn::Report;

/// Why a member or a node can't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: choose another with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The URL can't be listened on.
    #[error("cannot listen on {url}: choose another with --listen-client-urls or --listen-peer-urls")]
    ListenUrl {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A certificate given as a file can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The certificates can't be made or read.
    #[error("cannot prepare the certificates in {dir}", dir = .dir.display())]
    Pki {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: apiserver::pki::PkiError,
    },
    /// The administrator's kubeconfig can't be left.
    #[error("cannot write {path}", path = .path.display())]
    Admin {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The scheduler's configuration can't be used.
    #[error(transparent)]
    SchedulerConfiguration(#[from] ConfigurationError),
    /// This machine can't become a node of the cluster.
    #[error("cannot join the cluster")]
    Join(#[source] kubelet::credentials::join::JoinError),
    /// The file of bearer tokens can't be used.
    #[error("cannot use the bearer tokens")]
    Tokens(#[source] apiserver::auth::TokenError),
    /// The OpenID Connect provider's keys can't be used.
    #[error("cannot use --oidc-jwks-file")]
    Provider(#[source] apiserver::auth::oidc::KeySetError),
    /// The audit policy can't be used.
    #[error("cannot use --audit-policy-file")]
    AuditPolicy(#[source] apiserver::audit::policy::PolicyError),
    /// The admin socket can't be made.
    #[error("cannot listen at {path} (--admin-socket)", path = .path.display())]
    AdminSocket {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store can't be opened.
    #[error("cannot open the store in {dir}", dir = .dir.display())]
    Store {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: store::OpenError,
    },
    /// Nobody could be told where the store is reached.
    #[error("cannot leave word in {dir} where etcd's API is served", dir = .dir.display())]
    Endpoints {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The cluster doesn't want to know this member.
    #[error("cannot tell the cluster this member's name and client URLs")]
    Publish(#[source] store::MemberError),
    /// The stock etcd cluster can't be used.
    #[error("cannot use the etcd cluster at {servers} (--etcd-servers)")]
    Etcd {
        /// Its URLs.
        servers: String,
        /// Why.
        #[source]
        source: etcd::client::ConnectError,
    },
    /// The API server can't start.
    #[error("cannot start the API server")]
    ApiServer(#[source] apiserver::handle::StartError),
    /// The API server can't go on.
    #[error("the API server stopped")]
    Serve(#[source] apiserver::ServeError),
    /// A client can't be made.
    #[error("cannot make a client of the API server")]
    Client(#[source] Box<client::config::ConfigError>),
    /// The node agent can't start or go on.
    #[error("the node agent stopped")]
    Node(#[source] kubelet::RunError),
    /// Simulated nodes can't be registered.
    #[error("cannot simulate nodes")]
    Hollow(#[source] kubelet::hollow::HollowError),
    /// The bond to the supervisor can't be made.
    #[error("cannot bind this process to the life of its supervisor")]
    Bond(#[source] io::Error),
}

/// Ends this process with SIGKILL when the process that started it ends, however that happens: an agent that
/// nobody watches would fight with the next one over its directory.
pub fn end_with_parent() -> Result<(), MemberError> {
    let parent = getppid();
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| MemberError::Bond(errno.into()))?;
    // The parent may have ended before the kernel knew of our wish.
    if getppid() != parent || parent.as_raw() == 1 {
        return Err(MemberError::Bond(io::Error::other("the supervisor has already ended")));
    }
    Ok(())
}

/// Logs go to standard error: `info` and above of our own, warnings of libraries, or what `--log` says.
pub fn log_to_stderr(filter: &str) {
    let filter = EnvFilter::builder().parse_lossy(filter);
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
    // A second call (in tests) keeps the first.
    let _ = subscriber.try_init();
}

/// What is logged unless `--log` says otherwise. kube logs each failed request as an error although its
/// caller handles it: our own parts say what matters.
pub const DEFAULT_LOG: &str =
    "warn,kube_client=off,store=info,apiserver=info,controllers=info,scheduler=info,kubelet=info,amoeba=info";

/// Tells the supervisor, or whoever reads our standard output.
pub fn report(report: Report) {
    let mut out = io::stdout();
    // Nobody has to listen.
    let _ = writeln!(out, "{}", report.word());
    let _ = out.flush();
}
