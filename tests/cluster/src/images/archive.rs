//! Writes container images as an archive for `ctr images import`, without a registry.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::command::run;

/// An image with one layer.
#[derive(Debug)]
pub(super) struct Image {
    pub names: Vec<String>,
    /// The directory with the image's files.
    pub root: PathBuf,
    pub entrypoint: Vec<String>,
    /// The arguments of a container that gives none itself.
    pub arguments: Vec<String>,
}

impl Image {
    /// A static program at `path` in the image, which is all that the image contains.
    pub(super) fn of_program(
        root: PathBuf,
        name: &str,
        program: &Path,
        path: &str,
    ) -> io::Result<Self> {
        let copy = root.join(path);
        fs::create_dir_all(copy.parent().unwrap_or(&root))?;
        fs::create_dir_all(root.join("tmp"))?;
        fs::copy(program, copy)?;
        Ok(Self {
            names: vec![name.to_owned()],
            root,
            entrypoint: vec![format!("/{path}")],
            arguments: Vec::new(),
        })
    }
}

/// Writes the images to `directory/NAME.tar` and returns this path. The format is that of `docker save`. Unlike an OCI
/// layout, it needs only the digests of the layers.
pub(super) fn save(directory: &Path, name: &str, images: &[Image]) -> io::Result<PathBuf> {
    let work = directory.join(name);
    fs::create_dir_all(&work)?;
    let mut manifest = Vec::new();
    let mut files = vec!["manifest.json".to_owned()];
    for (number, image) in images.iter().enumerate() {
        manifest.push(layer(&work, number, image)?);
        files.extend([format!("{number}.json"), format!("{number}.tar")]);
    }
    fs::write(
        work.join("manifest.json"),
        Value::from(manifest).to_string(),
    )?;
    let archive = directory.join(format!("{name}.tar"));
    tar(&work, &archive, &files)?;
    fs::remove_dir_all(work)?;
    Ok(archive)
}

/// Writes an image's layer and configuration, and returns its entry in the archive's manifest.
fn layer(work: &Path, number: usize, image: &Image) -> io::Result<Value> {
    let (layer, config) = (format!("{number}.tar"), format!("{number}.json"));
    tar(&image.root, &work.join(&layer), &[".".to_owned()])?;
    let digest = run(Command::new("sha256sum").arg(work.join(&layer)))?;
    let digest = digest.split_whitespace().next().unwrap_or_default();
    let content = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": { "Entrypoint": image.entrypoint, "Cmd": image.arguments },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    fs::write(work.join(&config), content.to_string())?;
    Ok(json!({ "Config": config, "RepoTags": image.names, "Layers": [layer] }))
}

fn tar(from: &Path, archive: &Path, names: &[String]) -> io::Result<()> {
    let mut command = Command::new("tar");
    command
        .args(["--owner=0", "--group=0", "--numeric-owner", "--create"])
        .arg("--directory")
        .arg(from)
        .arg("--file")
        .arg(archive)
        .args(names);
    run(&mut command).map(drop)
}

/// This machine's architecture, with its name in images.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
