//! Generates the messages and client stubs of the Container Runtime Interface from `proto/`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["cri.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .btree_map(".")
        .build_server(false)
        .build_transport(false)
        .compile_fds(files)?;
    Ok(())
}
