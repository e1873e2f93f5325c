//! `ipamd doctor` against a node on which everything that it can find is made to happen, one thing after the other.

mod cloud;
mod host;
mod kernel;
mod pool;

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use e2e::{
    binaries, golden,
    lab::{Lab, eventually},
    node::Node,
};
use libtest_mimic::Trial;
use serde_json::Value;
use vpc_sim::SimConfig;

use crate::{Outcome, trials};

pub fn trials() -> Vec<Trial> {
    let own = own::trials();
    [
        own,
        cloud::trials(),
        host::trials(),
        kernel::trials(),
        pool::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A lab with one node whose disk looks like a real one's: network configuration, plugin, kubelet's settings.
struct Ward {
    lab: Lab,
    node: Node,
    /// The host's file system.
    root: PathBuf,
}

fn kernel_config_in(root: &Path) -> io::Result<PathBuf> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(root.join("boot").join(format!("config-{}", release.trim())))
}

/// A kernel that has everything, whatever this machine's says of itself.
fn put_kernel_config(root: &Path) -> io::Result<()> {
    let options = "VETH IPV6 IP_MULTIPLE_TABLES IPV6_MULTIPLE_TABLES NF_TABLES NF_TABLES_IPV4 NF_TABLES_IPV6 NFT_CT \
                   NFT_FIB_IPV4 NFT_FIB_IPV6 NFT_NAT NF_CONNTRACK NF_CONNTRACK_MARK NF_CT_NETLINK";
    let options = options.split_whitespace();
    let text: String = options.map(|name| format!("CONFIG_{name}=m\n")).collect();
    let path = kernel_config_in(root)?;
    fs::create_dir_all(root.join("boot"))?;
    fs::write(path, text)
}

/// What a report says.
struct Told {
    code: Option<i32>,
    report: Value,
}

impl Ward {
    fn start(kind: &str, sim: SimConfig) -> io::Result<Self> {
        Self::with(kind, sim, &[("WARM_IP_TARGET", "2")])
    }

    fn with(kind: &str, sim: SimConfig, settings: &[(&str, &str)]) -> io::Result<Self> {
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
        let ward = Self { lab, node, root };
        let written = || ward.conflist().exists();
        if eventually(Duration::from_secs(20), written) {
            Ok(ward)
        } else {
            Err(io::Error::other(format!(
                "no conflist\n{}",
                ward.node.log()
            )))
        }
    }

    fn conflist(&self) -> PathBuf {
        self.root.join("net.d/10-hawser.conflist")
    }

    /// What the host's kernel was built with: where that is written, and the text.
    fn kernel_config(&self) -> io::Result<(PathBuf, String)> {
        let path = kernel_config_in(&self.root)?;
        let text = fs::read_to_string(&path)?;
        Ok((path, text))
    }

    fn doctor(&self, more: &[&str]) -> io::Result<Output> {
        self.doctor_at(&self.lab.sim.ec2_endpoint(), more)
    }

    fn doctor_at(&self, endpoint: &str, more: &[&str]) -> io::Result<Output> {
        self.doctor_under(&[], endpoint, more)
    }

    /// Behind the words of another command.
    fn doctor_under(&self, words: &[&str], endpoint: &str, more: &[&str]) -> io::Result<Output> {
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

    fn told(&self) -> io::Result<Told> {
        Told::read(&self.doctor(&["--output", "json"])?)
    }

    /// Whether the doctor finds `what` under `check`, and whether its exit status says so.
    fn finds(&self, check: &str, what: &str) -> Outcome {
        self.told()?.finds(check, what)
    }

    /// Whether nothing is found.
    fn healthy(&self) -> Outcome {
        let told = self.told()?;
        let all = told.findings();
        if all.is_empty() && told.code == Some(0) {
            Ok(())
        } else {
            Err(format!("exit {:?}: {all:#?}\n{}", told.code, self.node.log()).into())
        }
    }
}

impl Told {
    fn read(output: &Output) -> io::Result<Self> {
        let report = serde_json::from_slice(&output.stdout)
            .map_err(|error| io::Error::other(format!("{error}: {output:?}")))?;
        let code = output.status.code();
        Ok(Self { code, report })
    }

    /// (check, finding) of all.
    fn findings(&self) -> Vec<(String, Value)> {
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

    fn finds(&self, check: &str, what: &str) -> Outcome {
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

mod own {
    use std::process::Command;

    use super::*;

    trials!(
        a_finding_is_written_for_people,
        a_healthy_node_has_no_finding,
        the_bundle_helps_and_tells_no_secret
    );

    /// What was seen where nothing is wrong differs from run to run, and is left out.
    fn a_finding_is_written_for_people() -> Outcome {
        let ward = Ward::start("m5.large", SimConfig::default())?;
        fs::remove_file(ward.root.join("bin/hawser"))?;
        let output = ward.doctor(&[])?;
        let text = String::from_utf8_lossy(&output.stdout);
        let text = text.replace(&*ward.root.to_string_lossy(), "ROOT");
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
        let ward = Ward::start("m5.large", SimConfig::default())?;
        ward.node.add_pod("web")?;
        ward.healthy()?;
        let output = ward.doctor(&[])?;
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
            17,
            "a line for each check of the manual: {text}"
        );
        let calls = ward.lab.sim.calls();
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

    fn the_bundle_helps_and_tells_no_secret() -> Outcome {
        let ward = Ward::start("m5.large", SimConfig::default())?;
        ward.node.add_pod("patient")?;
        let other = "{\"name\": \"x\", \"plugins\": [{\"type\": \"x\", \"apiToken\": \"hush\"}]}";
        fs::write(ward.root.join("net.d/99-x.conflist"), other)?;
        let path = ward.lab.dir().join("bundle.tar.gz");
        let output = ward.doctor(&["--bundle", &path.display().to_string()])?;
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
}
