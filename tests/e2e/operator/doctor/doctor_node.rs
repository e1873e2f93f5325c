//! A node for the doctor, with a disk like a real host's, and the doctor's report.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use lab::{
    Lab,
    node::{Node, binaries},
    wait::eventually,
};
use serde_json::Value;
use vpc_sim::SimConfig;

use crate::suite::Outcome;

/// A lab with one node whose disk looks like a real one: network configuration, plugin, the kubelet's settings.
pub struct DoctorNode {
    pub lab: Lab,
    pub node: Node,
    /// The host's file system.
    pub root: PathBuf,
}

fn kernel_config_in(root: &Path) -> io::Result<PathBuf> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(root.join("boot").join(format!("config-{}", release.trim())))
}

/// A kernel configuration with all options, whatever this machine has.
fn put_kernel_config(root: &Path) -> io::Result<()> {
    let options = "VETH IPV6 IP_MULTIPLE_TABLES IPV6_MULTIPLE_TABLES NF_TABLES NF_TABLES_IPV4 NF_TABLES_IPV6 NFT_CT \
                   NFT_FIB_IPV4 NFT_FIB_IPV6 NFT_NAT NFT_MASQ NF_CONNTRACK NF_CONNTRACK_MARK NF_CT_NETLINK";
    let options = options.split_whitespace();
    let text: String = options.map(|name| format!("CONFIG_{name}=m\n")).collect();
    let path = kernel_config_in(root)?;
    fs::create_dir_all(root.join("boot"))?;
    fs::write(path, text)
}

/// The contents of a report.
pub struct Report {
    pub code: Option<i32>,
    pub report: Value,
}

impl DoctorNode {
    pub fn start(kind: &str, sim: SimConfig) -> io::Result<Self> {
        Self::with(kind, sim, &[("WARM_IP_TARGET", "2")])
    }

    pub fn with(kind: &str, sim: SimConfig, settings: &[(&str, &str)]) -> io::Result<Self> {
        let lab = Lab::start(sim)?;
        let root = lab.dir().join("host");
        let conf_dir = root.join("net.d");
        fs::create_dir_all(&conf_dir)?;
        fs::create_dir_all(root.join("bin"))?;
        fs::copy(binaries::plugin(), root.join("bin/hawser"))?;
        fs::set_permissions(root.join("bin/hawser"), fs::Permissions::from_mode(0o755))?;
        put_kernel_config(&root)?;
        let conf_dir = conf_dir.display().to_string();
        let place = [("HOST_CNI_CONFDIR_PATH", &*conf_dir)];
        let node = lab.node(kind, &[settings, &place].concat())?;
        let examined = Self { lab, node, root };
        let written = || examined.conflist().exists();
        if eventually(Duration::from_secs(20), written) {
            Ok(examined)
        } else {
            Err(io::Error::other(format!(
                "no conflist\n{}",
                examined.node.log()
            )))
        }
    }

    pub fn conflist(&self) -> PathBuf {
        self.root.join("net.d/10-aws.conflist")
    }

    /// The host's kernel configuration: its path and its text.
    pub fn kernel_config(&self) -> io::Result<(PathBuf, String)> {
        let path = kernel_config_in(&self.root)?;
        let text = fs::read_to_string(&path)?;
        Ok((path, text))
    }

    pub fn doctor(&self, more: &[&str]) -> io::Result<Output> {
        self.doctor_at(&self.lab.sim.ec2_endpoint(), more)
    }

    pub fn doctor_at(&self, endpoint: &str, more: &[&str]) -> io::Result<Output> {
        self.doctor_under(&[], endpoint, more)
    }

    /// With another command in front.
    pub fn doctor_under(
        &self,
        words: &[&str],
        endpoint: &str,
        more: &[&str],
    ) -> io::Result<Output> {
        let root = self.root.display().to_string();
        let mut all = vec![
            "doctor",
            "--root",
            &root,
            "--cni-conf-dir",
            "/net.d",
            "--cni-bin-dir",
            "/bin",
        ];
        all.extend(more);
        self.node.ask_under(words, endpoint, &all)
    }

    pub fn told(&self) -> io::Result<Report> {
        Report::read(&self.doctor(&["--output", "json"])?)
    }

    /// Whether the doctor finds `what` under `check`, with the right exit status.
    pub fn finds(&self, check: &str, what: &str) -> Outcome {
        self.told()?.finds(check, what)
    }

    /// Whether there are no findings.
    pub fn healthy(&self) -> Outcome {
        let told = self.told()?;
        let all = told.findings();
        if all.is_empty() && told.code == Some(0) {
            Ok(())
        } else {
            Err(format!("exit {:?}: {all:#?}\n{}", told.code, self.node.log()).into())
        }
    }
}

impl Report {
    pub fn read(output: &Output) -> io::Result<Self> {
        let report = serde_json::from_slice(&output.stdout)
            .map_err(|error| io::Error::other(format!("{error}: {output:?}")))?;
        let code = output.status.code();
        Ok(Self { code, report })
    }

    /// (check, finding) of all findings.
    pub fn findings(&self) -> Vec<(String, Value)> {
        let checks = self.report["checks"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let of = |check: Value| {
            let name = check["name"].as_str().unwrap_or_default().to_owned();
            let findings = check["findings"].as_array().cloned().unwrap_or_default();
            findings
                .into_iter()
                .map(move |finding| (name.clone(), finding))
        };
        checks.into_iter().flat_map(of).collect()
    }

    pub fn finds(&self, check: &str, what: &str) -> Outcome {
        let all = self.findings();
        let found = all.iter().find(|(name, finding)| {
            name == check
                && finding["what"]
                    .as_str()
                    .is_some_and(|text| text.contains(what))
        });
        let Some((_, finding)) = found else {
            return Err(format!("{check}: no \"{what}\" in {all:#?}").into());
        };
        for part in ["evidence", "effect", "remedy"] {
            let text = finding[part].as_str().unwrap_or_default();
            if text.is_empty() {
                return Err(format!("{finding} has no {part}").into());
            }
        }
        let fails = all
            .iter()
            .any(|(_, finding)| finding["severity"] == "failure");
        let expect = Some(i32::from(fails));
        if self.code == expect {
            Ok(())
        } else {
            Err(format!("exit status {:?} instead of {expect:?}", self.code).into())
        }
    }
}
