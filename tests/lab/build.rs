//! Compiles the subset of the CRI with protox, so that no `protoc` needs to be installed, and the library that is
//! preloaded into daemons to change their clocks.

use std::{env, path::PathBuf, process::Command};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["cri.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds(descriptors)?;
    leaping_clocks()
}

fn leaping_clocks() -> Result<(), Box<dyn std::error::Error>> {
    const SOURCE: &str = "src/crash/clock_offset.c";
    println!("cargo:rerun-if-changed={SOURCE}");
    let library = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo names no directory")?)
        .join("clock_offset.so");
    let mut compiler = Command::new("cc");
    compiler
        .args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
        .arg(library)
        .args([SOURCE, "-ldl"]);
    match compiler.status()? {
        status if status.success() => Ok(()),
        status => Err(format!("{compiler:?}: {status}").into()),
    }
}
