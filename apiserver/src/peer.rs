//! Who is at the other end of a connection, before authentication.

use std::net::SocketAddr;

use rustls_pki_types::CertificateDer;

use crate::auth::Identity;

/// The other end of a connection.
#[derive(Clone, Debug)]
pub enum Peer {
    /// A TLS client; the chain is empty if it showed no certificate, and verified if it did.
    Tls {
        /// The client's certificate chain, leaf first.
        certs: Vec<CertificateDer<'static>>,
        /// The client's address.
        addr: SocketAddr,
    },
    /// Whoever may open the admin socket: an administrator of this machine. No limit holds for him.
    Admin,
    /// A part of this process, which is who it says it is.
    InProcess(Identity),
}
