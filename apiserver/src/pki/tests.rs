//! Round trips through files and real TLS handshakes.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;

use rustls_pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn pki() -> (tempfile::TempDir, Pki) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let pki = Pki::load_or_create(&dir.path().join("pki")).expect("new authorities");
    (dir, pki)
}

/// One handshake over a pipe; the certificates that the server saw, or who refused.
async fn handshake(
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
    name: &str,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(name.to_owned()).expect("valid name");
    let accept = TlsAcceptor::from(server).accept(far);
    let connect = TlsConnector::from(client).connect(name, near);
    let (accepted, connected) = tokio::join!(accept, connect);
    connected.map_err(|error| format!("client: {error}"))?;
    let accepted = accepted.map_err(|error| format!("server: {error}"))?;
    Ok(accepted.get_ref().1.peer_certificates().unwrap_or_default().to_vec())
}

fn client_of(pki: &Pki, issued: &Issued) -> Arc<rustls::ClientConfig> {
    tls::client_config(&pki.cluster.certificate, issued, &[b"h2"]).expect("client configuration")
}

#[test]
fn second_start_loads_the_same_authority() {
    let (dir, first) = pki();
    let second = Pki::load_or_create(&dir.path().join("pki")).expect("load");
    assert_eq!(first.ca_pem(), second.ca_pem());
    assert_eq!(first.peers.certificate_pem, second.peers.certificate_pem);
    assert_ne!(first.ca_pem(), first.peers.certificate_pem);
}

#[test]
fn keys_are_readable_by_their_owner_only() {
    let (dir, _pki) = pki();
    for (file, mode) in [
        ("ca.key", 0o600),
        ("peer-ca.key", 0o600),
        ("etcd-ca.key", 0o600),
        ("ca.crt", 0o644),
        ("sa.key", 0o600),
        ("encryption.keys", 0o600),
    ] {
        let path = dir.path().join("pki").join(file);
        let found = fs::metadata(path).expect("file exists").permissions().mode() & 0o777;
        assert_eq!(found, mode, "{file}");
    }
    let entries = fs::read_dir(dir.path().join("pki")).expect("directory").count();
    assert_eq!(entries, 11, "no temporary files are left");
}

#[test]
fn damaged_files_are_refused_with_the_remedy() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage, &str); 5] = [
        ("no certificate", |dir| fs::write(dir.join("ca.crt"), "junk").unwrap(), "ca.crt is damaged"),
        ("no key", |dir| fs::write(dir.join("ca.key"), "").unwrap(), "ca.key is damaged"),
        ("key missing", |dir| fs::remove_file(dir.join("ca.key")).unwrap(), "ca.key is missing"),
        (
            "key of another",
            |dir| assert!(fs::copy(dir.join("peer-ca.key"), dir.join("ca.key")).unwrap() > 0),
            "it doesn't belong to the key beside it",
        ),
        (
            "not an authority",
            |dir| {
                let leaf = Pki::load_or_create(dir).unwrap().issue_client("jane", &[]).unwrap();
                fs::write(dir.join("ca.crt"), leaf.certificate_pem).unwrap();
                fs::write(dir.join("ca.key"), leaf.key_pem).unwrap();
            },
            "it isn't a certificate authority",
        ),
    ];
    for (case, damage, expected) in cases {
        let (dir, _) = pki();
        let dir = dir.path().join("pki");
        damage(&dir);
        let error = Pki::load_or_create(&dir).expect_err(case).to_string();
        assert!(error.contains(expected), "{case}: {error}");
        assert!(error.contains("to make a new authority"), "{case} names the remedy: {error}");
    }
}

#[test]
fn a_crash_between_key_and_certificate_is_repaired() {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::write(dir.path().join("ca.key"), "half of a key").expect("write");
    let pki = Pki::load_or_create(dir.path()).expect("a key without certificate was never used");
    assert_eq!(Pki::load_or_create(dir.path()).expect("load").ca_pem(), pki.ca_pem());
}

#[test]
fn more_groups_than_a_certificate_holds_are_refused() {
    let (_dir, pki) = pki();
    let error = pki.issue_client("jane", &["a", "b", "c"]).expect_err("three groups");
    assert!(matches!(error, PkiError::TooManyGroups { count: 3, .. }));
}

#[test]
fn debug_output_shows_no_key() {
    let (_dir, pki) = pki();
    let issued = pki.issue_client("jane", &[]).expect("issue");
    assert!(!format!("{issued:?} {pki:?}").contains("PRIVATE KEY"));
}

#[tokio::test]
async fn api_server_accepts_our_clients_and_anonymous_ones() {
    let (_dir, pki) = pki();
    let serving = pki.issue_server(&["localhost".to_owned()], &[LOOPBACK]).expect("issue");
    let server = pki.server_tls_config(&serving).expect("server configuration");
    let jane = pki.issue_client("jane", &["dev", "ops"]).expect("issue");

    let seen = handshake(server.clone(), client_of(&pki, &jane), "localhost").await.expect("jane gets in");
    let identity = crate::auth::Identity::from_certificate(&seen[0]).expect("a user");
    assert_eq!((identity.user.as_str(), identity.groups), ("jane", vec!["dev".to_owned(), "ops".to_owned()]));
    handshake(server.clone(), client_of(&pki, &jane), "127.0.0.1").await.expect("by address");
    let error = handshake(server.clone(), client_of(&pki, &jane), "elsewhere").await.expect_err("wrong name");
    assert!(error.starts_with("client:"), "{error}");

    let anonymous =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates({
                let mut roots = rustls::RootCertStore::empty();
                roots.add(pki.cluster.certificate.clone()).expect("root");
                roots
            })
            .with_no_client_auth();
    let seen = handshake(server, Arc::new(anonymous), "localhost").await.expect("anonymous gets in");
    assert!(seen.is_empty());
}

#[tokio::test]
async fn certificates_of_another_authority_are_refused() {
    let (_dir, ours) = pki();
    let (_other_dir, theirs) = pki();
    let serving = ours.issue_server(&["localhost".to_owned()], &[]).expect("issue");
    let server = ours.server_tls_config(&serving).expect("server configuration");
    let impostor = theirs.issue_client("admin", &[MASTERS_GROUP]).expect("issue");
    handshake(server, client_of(&ours, &impostor), "localhost").await.expect_err("wrong authority");
}

#[tokio::test]
async fn only_peers_open_raft_connections() {
    let (_dir, pki) = pki();
    let peer = pki.issue_peer("m1").expect("issue");
    let server = pki.peer_server_tls(&peer).expect("server configuration");
    let client = pki.peer_client_tls(&peer).expect("client configuration");
    handshake(server.clone(), client, PEER_SERVER_NAME).await.expect("peers connect");

    let admin = pki.issue_client("admin", &[MASTERS_GROUP]).expect("issue");
    let client = tls::client_config(&pki.peers.certificate, &admin, &[]).expect("client configuration");
    handshake(server, client, PEER_SERVER_NAME).await.expect_err("an admin is no peer");
}

#[tokio::test]
async fn a_node_cannot_pose_as_another() {
    let (_dir, pki) = pki();
    let node = pki.issue_node("n1", &[LOOPBACK]).expect("issue");
    let server = pki.server_tls_config(&node).expect("server configuration");
    let client = Arc::new(pki).kubelet_client_tls().expect("client configuration");
    let seen = handshake(server.clone(), client.clone(), "n1").await.expect("its own name");
    let identity = crate::auth::Identity::from_certificate(&seen[0]).expect("a user");
    assert_eq!(identity.user, KUBELET_CLIENT_USER);
    handshake(server, client, "n2").await.expect_err("another node's name");
}

#[tokio::test]
async fn the_next_connection_shows_the_renewed_certificate_at_both_ends() {
    let (_dir, pki) = pki();
    let (node, pki) = (pki.issue_node("n1", &[]), Arc::new(pki));
    let signer = pki.clone();
    let serving = Renewed::new(move || signer.issue_node("n1", &[])).expect("issue");
    let server = pki.server_tls_config(&serving).expect("server configuration");
    let own = pki.front_proxy().expect("issue");
    let client = tls::client_config(&pki.cluster.certificate, &own, &[]).expect("client configuration");
    // The front proxy has an authority of its own, which this server must believe to look at what is shown.
    let verifier = tls::only_clients_of(&pki.front_proxy.certificate).expect("a verifier");
    let asking = tls::server_config(&node.expect("issue"), verifier, &[]).expect("server configuration");
    let mut shown = Vec::new();
    for _ in 0..2 {
        // Twice, since a session that is taken up again would show what was shown before.
        let first = handshake(asking.clone(), client.clone(), "n1").await.expect("believed");
        assert_eq!(handshake(asking.clone(), client.clone(), "n1").await.expect("believed"), first);
        shown.push(first);
        own.age();
    }
    assert_ne!(shown[0], shown[1]);

    let jane = client_of(&pki, &pki.issue_client("jane", &[]).expect("issue"));
    handshake(server.clone(), jane.clone(), "n1").await.expect("the node's name");
    let before = format!("{serving:?}");
    serving.age();
    handshake(server, jane, "n1").await.expect("the renewed one has the same name");
    assert_ne!(format!("{serving:?}"), before, "who was connected to was asked for the certificate of now");
}

#[tokio::test]
async fn only_the_etcd_client_opens_the_stores_own_api() {
    let (dir, pki) = pki();
    let serving = pki.issue_etcd_server(&["localhost".to_owned()], &[LOOPBACK]).expect("issue");
    let server = pki.etcd_server_tls(&serving).expect("server configuration");
    pki.write_etcd_client(dir.path()).expect("written");
    let read = |file: &str| fs::read_to_string(dir.path().join(file)).expect("a file");
    let client = Issued { certificate_pem: read("etcd-client.crt"), key_pem: read("etcd-client.key") };
    let trusting = |issued: &Issued| {
        tls::client_config(&pki.etcd.certificate, issued, &[b"h2"]).expect("client configuration")
    };
    handshake(server.clone(), trusting(&client), "127.0.0.1").await.expect("the client's own certificate");

    for other in [
        pki.issue_client("admin", &[MASTERS_GROUP]).expect("issue"),
        pki.issue_node("n1", &[LOOPBACK]).expect("issue"),
        pki.issue_peer("m1").expect("issue"),
    ] {
        handshake(server.clone(), trusting(&other), "127.0.0.1").await.expect_err("of another authority");
    }
}

#[test]
fn a_request_is_signed_for_its_key_and_its_time() {
    let (_dir, pki) = pki();
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec!["n1".to_owned()]).expect("a name");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:n1");
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    let pem = params.serialize_request(&key).and_then(|request| request.pem()).expect("a request");
    let request = api::csr::CertificateRequest::parse(pem.as_bytes()).expect("parses");
    assert_eq!(
        (request.names.as_slice(), request.organizations.as_slice()),
        (&["n1".to_owned()][..], &["system:nodes".to_owned()][..])
    );
    let usages = ["digital signature".to_owned(), "client auth".to_owned()];
    let signed = pki.sign_request(&request, &usages, 1_000..2_000).expect("signed");
    let der = super::tls::parse_certificate(&signed).expect("PEM");
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).expect("X.509");
    assert_eq!(parsed.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
    let validity = parsed.validity();
    assert_eq!((validity.not_before.timestamp(), validity.not_after.timestamp()), (1_000, 2_000));
    let extended = parsed.extended_key_usage().expect("well-formed").expect("there").value;
    assert!(extended.client_auth && !extended.server_auth);
    let identity = crate::auth::Identity::from_certificate(&der).expect("a user");
    assert_eq!(
        (identity.user.as_str(), identity.groups),
        ("system:node:n1", vec!["system:nodes".to_owned()])
    );
    let long = pki.sign_request(&request, &usages, 1_000..i64::MAX / 2).expect("signed");
    let der = super::tls::parse_certificate(&long).expect("PEM");
    assert_eq!(
        super::tls::end_of(&der),
        super::tls::end_of(&pki.cluster.certificate),
        "not longer than the authority"
    );
}
