//! The files from which the image is built for every architecture.

use std::{fs, path::Path};

use libtest_mimic::Trial;

use crate::Outcome;

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/image");

pub fn trials() -> Vec<Trial> {
    vec![Trial::test(
        "image::its_build_names_no_architecture",
        build_names_no_architecture,
    )]
}

/// The C library's files have other paths on each architecture, so the build must ask for them.
fn build_names_no_architecture() -> Outcome {
    let names = [
        "x86_64", "x86-64", "amd64", "aarch64", "arm64", "/lib64", "ld-linux",
    ];
    for file in ["Containerfile", "assemble.sh"] {
        let text = fs::read_to_string(Path::new(FILES).join(file))?;
        let mut code = text.lines().filter(|line| !line.starts_with('#'));
        let found = code.find(|line| names.iter().any(|name| line.contains(name)));
        assert_eq!(found, None, "{file}");
    }
    Ok(())
}
