//! The report itself: for humans, for support, and on a healthy node.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use vpc_sim::SimConfig;

use super::doctor_node::DoctorNode;
use crate::{
    suite::{Outcome, trials},
    support::golden,
};

trials!(
    a_finding_is_written_for_people,
    a_healthy_node_has_no_finding,
    the_bundle_contains_no_secrets
);

/// Observations of healthy checks differ between runs and are left out.
fn a_finding_is_written_for_people() -> Outcome {
    let examined = DoctorNode::start("m5.large", SimConfig::default())?;
    fs::remove_file(examined.root.join("bin/hawser"))?;
    let output = examined.doctor(&[])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let text = text.replace(&*examined.root.to_string_lossy(), "ROOT");
    let shown: String = text
        .lines()
        .map(|line| {
            let good = line.starts_with("ok ") || line.starts_with("skip ");
            let line = if good {
                line.get(..19).unwrap_or(line)
            } else {
                line
            };
            format!("{}\n", line.trim_end())
        })
        .collect();
    golden::compare("doctor.txt", &shown)?;
    Ok(())
}

fn a_healthy_node_has_no_finding() -> Outcome {
    let examined = DoctorNode::start("m5.large", SimConfig::default())?;
    examined.node.add_pod("web")?;
    examined.healthy()?;
    let output = examined.doctor(&[])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines
            .iter()
            .all(|line| line.starts_with("ok ") || line.starts_with("skip ")),
        "{text}"
    );
    assert_eq!(
        lines.len(),
        23,
        "a line for each check of the manual: {text}"
    );
    let calls = examined.lab.sim.calls();
    let changing = calls.iter().filter(|call| {
        let changes = !call.action.starts_with("Describe");
        changes && call.params.contains("DryRun=true")
    });
    assert!(
        changing.count() >= 6,
        "every changing action was tried by dry run"
    );
    Ok(())
}

fn the_bundle_contains_no_secrets() -> Outcome {
    let examined = DoctorNode::start("m5.large", SimConfig::default())?;
    examined.node.add_pod("patient")?;
    let other = "{\"name\": \"x\", \"plugins\": [{\"type\": \"x\", \"apiToken\": \"hush\"}]}";
    fs::write(examined.root.join("net.d/99-x.conflist"), other)?;
    let path = examined.lab.dir().join("bundle.tar.gz");
    let output = examined.doctor(&["--bundle", &path.display().to_string()])?;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
    let unpacked = Command::new("tar").arg("-xzOf").arg(&path).output()?;
    let all = String::from_utf8_lossy(&unpacked.stdout).into_owned();
    let list = Command::new("tar").arg("-tzf").arg(&path).output()?;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    for name in [
        "settings",
        "conflists",
        "nftables",
        "links",
        "rules4",
        "routes4",
        "version",
    ] {
        assert!(list.contains(&format!("hawser/{name}.txt")), "{list}");
    }
    assert!(
        list.contains("hawser/node.json") && list.contains("hawser/report.json"),
        "{list}"
    );
    for wanted in [
        "WARM_IP_TARGET=2",
        "chain ip hawser choose_eni",
        "\"pod\": \"pod-1\"",
        "99-x.conflist",
    ] {
        assert!(all.contains(wanted), "{wanted}");
    }
    for secret in ["hush", "pod-patient"] {
        assert!(!all.contains(secret), "{secret} is in the archive");
    }
    Ok(())
}
