//! Generates the messages and client stubs of etcd's v3 API from `proto/`. The server has no generated
//! part: it dispatches by path on HTTP/2 itself (`src/service.rs`).

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["lock.proto", "election.proto", "health.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_server(false)
        .build_transport(false)
        .compile_fds(files)?;
    Ok(())
}
