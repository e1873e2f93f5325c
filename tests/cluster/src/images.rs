//! Builds container images on this machine, without a registry.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{command::run, programs};

/// The image of every pod's sandbox.
pub const PAUSE: &str = "registry.k8s.io/pause:3.10.1";
/// Kubernetes' test image: an HTTP server that returns its name, and a client.
pub const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.57";
pub const COREDNS: &str = "registry.k8s.io/coredns/coredns:v1.12.4";

/// Hawser's image, with its name in the chart.
pub const HAWSER: &str = concat!("docker.io/library/hawser:", env!("CARGO_PKG_VERSION"));

/// The root of the checkout, where the Containerfile is built.
const CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The paths of the program in Debian's package busybox-static, with and without a merged /usr.
const BUSYBOX: [&str; 2] = ["/usr/bin/busybox", "/bin/busybox"];

/// A static program and its command line.
#[derive(Debug)]
struct Image<'a> {
    name: &'a str,
    program: PathBuf,
    /// In the image.
    path: &'a str,
    arguments: &'a [&'a str],
}

/// Creates an archive of all images of the cluster except Hawser's.
///
/// # Errors
/// If a program is missing or `directory` cannot be written.
pub fn archive(directory: &Path) -> io::Result<PathBuf> {
    let programs = programs::directory()?;
    let busybox = BUSYBOX.iter().map(Path::new).find(|path| path.is_file());
    let busybox = busybox.ok_or_else(|| {
        io::Error::other("busybox is missing: run `make tools` (package busybox-static)")
    })?;
    let images = [
        Image {
            name: PAUSE,
            program: busybox.to_owned(),
            path: "bin/busybox",
            arguments: &["sleep", "infinity"],
        },
        Image {
            name: AGNHOST,
            program: programs.join("agnhost"),
            path: "agnhost",
            arguments: &[],
        },
        Image {
            name: COREDNS,
            program: programs.join("coredns"),
            path: "coredns",
            arguments: &[],
        },
    ];
    fs::create_dir_all(directory)?;
    let mut manifest = Vec::new();
    let mut files = vec!["manifest.json".to_owned()];
    for (number, image) in images.iter().enumerate() {
        manifest.push(layer(directory, number, image)?);
        files.extend([format!("{number}.json"), format!("{number}.tar")]);
    }
    fs::write(
        directory.join("manifest.json"),
        Value::from(manifest).to_string(),
    )?;
    let archive = directory.join("images.tar");
    tar(directory, &archive, &files)?;
    Ok(archive)
}

/// Builds Hawser's image from these programs, with the Containerfile of the release but without its build stage, and
/// returns its archive.
///
/// # Errors
/// If buildah or the script that assembles the image's files fails.
pub fn hawser(directory: &Path, ipamd: &Path, plugin: &Path) -> io::Result<PathBuf> {
    // Replaces the file system of the build stage, which has the image's files in `/image`.
    let stage = directory.join("hawser.stage");
    let mut assemble = Command::new("sh");
    assemble
        .current_dir(CHECKOUT)
        .arg("deploy/image/assemble.sh")
        .args([ipamd, plugin, &stage.join("image")]);
    run(&mut assemble)?;
    let buildah = || {
        let mut command = Command::new("buildah");
        command
            .current_dir(CHECKOUT)
            .args(["--storage-driver", "vfs", "--root"])
            .arg(directory.join("storage"))
            .arg("--runroot")
            .arg(directory.join("storage.run"));
        command
    };
    let context = format!("build={}", stage.display());
    let mut build = buildah();
    build
        .args(["build", "--isolation", "chroot", "--tag", HAWSER])
        .args(["--build-context", &context])
        .args(["--file", "deploy/image/Containerfile"])
        .arg(&stage);
    run(&mut build)?;
    let archive = directory.join("hawser.tar");
    let target = format!("docker-archive:{}:{HAWSER}", archive.display());
    run(buildah().args(["push", HAWSER, &target]))?;
    fs::remove_dir_all(directory.join("storage"))?;
    Ok(archive)
}

/// Writes an image's layer and configuration, and returns its entry in the archive's manifest. The format is that of
/// `docker save`. Unlike an OCI layout, it needs only the digest of the layer.
fn layer(directory: &Path, number: usize, image: &Image<'_>) -> io::Result<Value> {
    let root = directory.join(format!("{number}.root"));
    let program = root.join(image.path);
    let parent = program.parent().unwrap_or(&root);
    fs::create_dir_all(parent)?;
    fs::create_dir_all(root.join("tmp"))?;
    fs::copy(&image.program, &program)?;
    let (layer, config) = (format!("{number}.tar"), format!("{number}.json"));
    tar(&root, &directory.join(&layer), &[".".to_owned()])?;
    let digest = run(Command::new("sha256sum").arg(directory.join(&layer)))?;
    let digest = digest.split_whitespace().next().unwrap_or_default();
    let mut command = vec![format!("/{}", image.path)];
    command.extend(image.arguments.iter().map(|word| (*word).to_owned()));
    let content = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": { "Entrypoint": command },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    fs::write(directory.join(&config), content.to_string())?;
    Ok(json!({ "Config": config, "RepoTags": [image.name], "Layers": [layer] }))
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
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
