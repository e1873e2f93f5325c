//! The chart as a plain manifest, and as a base for Kustomize.

use std::{fs, path::Path, process::Command};

use cluster::{command::run, programs};

use super::{ROOT, api_server::Server, program};
use crate::Outcome;

pub(super) fn is_the_rendered_chart() -> Outcome {
    let mut script = Command::new("sh");
    script.arg("deploy/manifests/render.sh").current_dir(ROOT);
    script.env("PATH", programs::search_path()?);
    let rendered = run(&mut script)?;
    let manifest = fs::read_to_string(Path::new(ROOT).join("deploy/manifests/hawser.yaml"))?;
    assert!(
        rendered == manifest,
        "run `make manifest`: the chart has changed"
    );
    Ok(())
}

pub(super) fn kustomize_sets_the_image() -> Outcome {
    let overlay = std::env::temp_dir().join(format!("hawser-overlay-{}", std::process::id()));
    let base = overlay.join("base");
    fs::create_dir_all(&base)?;
    for file in ["kustomization.yaml", "hawser.yaml"] {
        fs::copy(
            Path::new(ROOT).join("deploy/manifests").join(file),
            base.join(file),
        )?;
    }
    let text =
        "resources: [base]\nimages: [{ name: hawser, newName: registry.example/h, newTag: v9 }]\n";
    fs::write(overlay.join("kustomization.yaml"), text)?;
    let built = run(program("kubectl")?.arg("kustomize").arg(&overlay))?;
    fs::remove_dir_all(&overlay)?;
    assert_eq!(built.matches("image: registry.example/h:v9").count(), 2);
    assert!(!built.contains("image: hawser"));
    Ok(())
}

/// Each object is what the API server makes of it: applied once, a comparison finds nothing.
pub(super) fn is_applied_without_a_difference() -> Outcome {
    let server = Server::start()?;
    let manifest = format!("{ROOT}/deploy/manifests/hawser.yaml");
    let base = format!("{ROOT}/deploy/manifests");
    server.kubectl(&["apply", "--server-side", "-f", &manifest])?;
    for source in [["-f", &manifest], ["-k", &base]] {
        let difference = server.kubectl(&[&["diff", "--server-side"][..], &source].concat())?;
        assert_eq!(difference, "", "{source:?}");
    }
    let applied =
        server.kubectl(&["get", "daemonset/hawser", "-n", "kube-system", "-o", "name"])?;
    assert_eq!(applied.trim(), "daemonset.apps/hawser");
    Ok(())
}
