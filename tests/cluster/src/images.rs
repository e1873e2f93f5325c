//! Builds container images on this machine, without a registry. May use `command` and `programs`; must not know the
//! cluster's machines.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use self::archive::Image;
use crate::{command::run, programs};

mod archive;

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
    let root = |name: &str| directory.join(format!("{name}.root"));
    let mut pause = Image::of_program(root("pause"), PAUSE, busybox, "bin/busybox")?;
    pause.arguments = ["sleep", "infinity"].map(str::to_owned).to_vec();
    let program =
        |name: &str, image: &str| Image::of_program(root(name), image, &programs.join(name), name);
    let images = [
        pause,
        program("agnhost", AGNHOST)?,
        program("coredns", COREDNS)?,
    ];
    archive::save(directory, "images", &images)
}

/// An image whose program is for another architecture than this machine's.
pub const FOREIGN: &str = "docker.io/library/foreign:1";

/// Creates an archive of [`FOREIGN`]. Its program's path is that of Hawser's.
///
/// # Errors
/// If `directory` cannot be written.
pub fn foreign(directory: &Path, program: &Path) -> io::Result<PathBuf> {
    /// Where an ELF header names the machine (elf.h: `e_machine`), two bytes.
    const MACHINE: std::ops::Range<usize> = 18..20;
    /// `EM_S390`: no node of AWS.
    const S390: [u8; 2] = [22, 0];
    let mut bytes = fs::read(program)?;
    bytes[MACHINE].copy_from_slice(&S390);
    let patched = directory.join("foreign");
    fs::write(&patched, bytes)?;
    fs::set_permissions(&patched, fs::metadata(program)?.permissions())?;
    let root = directory.join("foreign.root");
    let image = Image::of_program(root, FOREIGN, &patched, "usr/bin/ipamd")?;
    archive::save(directory, "foreign-image", &[image])
}

/// The web server for critest, which asks its port 80.
pub const WEB: &str = "docker.io/library/web:1";

/// Creates an archive of the images for the conformance tests: one image with agnhost and the programs that the specs
/// run in pods, under all of `names`, and [`WEB`].
///
/// # Errors
/// If a program is missing or `directory` cannot be written.
pub fn test_tools(directory: &Path, names: &[String]) -> io::Result<PathBuf> {
    let root = directory.join("tools.root");
    let mut script = Command::new("sh");
    script
        .args(["-euc", include_str!("images/test_tools.sh"), "test_tools"])
        .args([&root, &programs::directory()?]);
    run(&mut script)?;
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let images = [
        Image {
            names: names.to_vec(),
            root: root.clone(),
            entrypoint: words(&["/agnhost"]),
            arguments: words(&["pause"]),
        },
        Image {
            names: words(&[WEB]),
            root,
            entrypoint: words(&["/agnhost", "netexec", "--http-port=80"]),
            arguments: Vec::new(),
        },
    ];
    archive::save(directory, "tools", &images)
}

/// The tag of an image that [`HAWSER`] replaces.
pub const EARLIER: &str = "earlier";

/// Builds an image with the tag [`EARLIER`] and another plugin: the same, followed by a byte that is not loaded.
///
/// # Errors
/// As [`hawser`].
pub fn earlier(directory: &Path, ipamd: &Path, plugin: &Path) -> io::Result<PathBuf> {
    let directory = directory.join(EARLIER);
    fs::create_dir_all(&directory)?;
    let other = directory.join("hawser");
    let mut bytes = fs::read(plugin)?;
    bytes.push(0);
    fs::write(&other, bytes)?;
    let image = format!("docker.io/library/hawser:{EARLIER}");
    build(&directory, &image, ipamd, &other)
}

/// Builds Hawser's image from these programs, with the Containerfile of the release but without its build stage, and
/// returns its archive.
///
/// # Errors
/// If buildah or the script that assembles the image's files fails.
pub fn hawser(directory: &Path, ipamd: &Path, plugin: &Path) -> io::Result<PathBuf> {
    build(directory, HAWSER, ipamd, plugin)
}

fn build(directory: &Path, image: &str, ipamd: &Path, plugin: &Path) -> io::Result<PathBuf> {
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
        .args(["build", "--isolation", "chroot", "--tag", image])
        .args(["--build-context", &context])
        .args(["--file", "deploy/image/Containerfile"])
        .arg(&stage);
    run(&mut build)?;
    let archive = directory.join("hawser.tar");
    let target = format!("docker-archive:{}:{image}", archive.display());
    run(buildah().args(["push", image, &target]))?;
    fs::remove_dir_all(directory.join("storage"))?;
    Ok(archive)
}
