//! The files from which the image is built for every architecture, and what the image says of its parts.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use cluster::command::run;
use lab::node::binaries;
use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::Outcome;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test(
            "image::its_build_names_no_architecture",
            build_names_no_architecture,
        ),
        Trial::test(
            "image::it_has_the_licences_of_all_its_parts",
            has_all_licences,
        ),
    ]
}

/// The C library's files have other paths on each architecture, so the build must ask for them.
fn build_names_no_architecture() -> Outcome {
    let names = [
        "x86_64", "x86-64", "amd64", "aarch64", "arm64", "/lib64", "ld-linux",
    ];
    for file in ["Containerfile", "assemble.sh"] {
        let text = fs::read_to_string(Path::new(ROOT).join("deploy/image").join(file))?;
        let mut code = text.lines().filter(|line| !line.starts_with('#'));
        let found = code.find(|line| names.iter().any(|name| line.contains(name)));
        assert_eq!(found, None, "{file}");
    }
    Ok(())
}

fn has_all_licences() -> Outcome {
    let image = std::env::temp_dir().join(format!("hawser-image-{}", std::process::id()));
    run(Command::new("sh")
        .current_dir(ROOT)
        .arg("deploy/image/assemble.sh")
        .args([&binaries::ipamd(), &binaries::plugin(), &image]))?;
    let told = check(&image.join("usr/share/doc/hawser"));
    fs::remove_dir_all(&image)?;
    told
}

fn check(doc: &Path) -> Outcome {
    let listed = listed(doc)?;
    assert_eq!(listed, linked()?);
    // One of two, and another one.
    assert_eq!(
        listed
            .iter()
            .find(|((name, _), _)| name == "unicode-ident")
            .map(|(_, licence)| licence.as_str()),
        Some("(MIT OR Apache-2.0) AND Unicode-3.0")
    );
    for (file, text) in [
        ("LICENSE", "Apache License"),
        ("glibc.copyright", "GNU Lesser General Public"),
        ("musl.copyright", "Rich Felker"),
        ("rust-std.copyright.html.gz", "The Rust Standard Library"),
        ("third-party-licenses.txt.gz", "UNICODE LICENSE V3"),
    ] {
        // Also reads what is not compressed.
        let read = run(Command::new("gzip").args(["-cdf"]).arg(doc.join(file)))?;
        assert!(read.contains(text), "{file} has no \"{text}\"");
    }
    Ok(())
}

/// The name and version of a crate.
type Part = (String, String);

/// The list of parts: each with its licence.
fn listed(doc: &Path) -> Result<BTreeMap<Part, String>, Failed> {
    let list: Value = serde_json::from_str(&fs::read_to_string(doc.join("sbom.spdx.json"))?)?;
    assert_eq!(list["spdxVersion"], "SPDX-2.3");
    let text = |part: &Value, key: &str| part[key].as_str().unwrap_or_default().to_owned();
    let parts = list["packages"].as_array().into_iter().flatten();
    let parts = parts.map(|part| {
        let name = (text(part, "name"), text(part, "versionInfo"));
        (name, text(part, "licenseDeclared"))
    });
    Ok(parts.collect())
}

/// The crates that are linked into either program, with the licences that their manifests declare.
fn linked() -> std::io::Result<BTreeMap<Part, String>> {
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(ROOT)
        .args(["--locked", "--offline", "tree"]);
    cargo.args(["--package", "ipamd", "--package", "cni-plugin"]);
    let tree = run(cargo.args([
        "--edges", "normal", "--prefix", "none", "--format", "{p}|{l}",
    ]))?;
    let parts = tree.lines().filter_map(|line| {
        let (part, licence) = line.trim_end_matches(" (*)").split_once('|')?;
        let (name, rest) = part.split_once(" v")?;
        let version = rest.split(' ').next()?;
        // The old form of an alternative.
        let licence = licence.replace(" / ", "/").replace('/', " OR ");
        Some(((name.to_owned(), version.to_owned()), licence))
    });
    Ok(parts.collect())
}
