//! The command line, as used by an operator and a script.

use std::process::{Command, Output};

use crate::support::golden;
use lab::{Lab, node::binaries};
use planner::limits::{self, InstanceType};
use vpc_sim::SimConfig;

use crate::suite::{Outcome, trials};

trials!(
    a_new_type_is_asked_of_ec2_and_runs,
    an_unknown_type_names_its_neighbours,
    every_figure_of_the_table_is_printed,
    from_imds_is_the_instances_own_figure,
    help_reads_like_a_manual,
    max_pods_answers_in_every_form,
    the_exit_status_shows_whether_nodes_fit,
    unusable_arguments_are_refused
);

fn ipamd(arguments: &[&str]) -> std::io::Result<Output> {
    Command::new(binaries::ipamd())
        .args(arguments)
        .env_clear()
        .output()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn help_reads_like_a_manual() -> Outcome {
    for (name, arguments) in [
        ("help.txt", &["--help"][..]),
        ("help-run.txt", &["help", "run"]),
        ("help-install.txt", &["help", "install"]),
        ("help-uninstall.txt", &["help", "uninstall"]),
        ("help-takeover.txt", &["help", "takeover"]),
        ("help-handback.txt", &["help", "handback"]),
        ("help-settings.txt", &["help", "settings"]),
        ("help-max-pods.txt", &["help", "max-pods"]),
        ("help-inspect.txt", &["help", "inspect"]),
        ("help-doctor.txt", &["help", "doctor"]),
    ] {
        golden::compare(name, &stdout(&ipamd(arguments)?))?;
    }
    Ok(())
}

fn max_pods_answers_in_every_form() -> Outcome {
    for (name, arguments) in [
        ("max-pods-number.txt", &["m5.large"][..]),
        (
            "max-pods-numbers.txt",
            &["t3.small", "m5.large", "--prefix-delegation"],
        ),
        (
            "max-pods-explain.txt",
            &["m5.24xlarge", "--explain", "--pod-eni", "--max-eni", "10"],
        ),
        (
            "max-pods-table.txt",
            &[
                "m5.large",
                "p5.48xlarge",
                "bmn-sf1.metal",
                "--output",
                "table",
            ],
        ),
        (
            "max-pods.json",
            &[
                "m5.large",
                "--custom-networking",
                "--cluster-subnet-free=900",
                "--output=json",
            ],
        ),
        (
            "max-pods-plan.txt",
            &["m5.large", "--plan", "7..11 pods, WARM_IP_TARGET=5"],
        ),
        (
            "max-pods-plan.json",
            &[
                "m5.large",
                "--prefix-delegation",
                "--plan",
                "16..17 pods, WARM_PREFIX_TARGET=1",
                "--output=json",
            ],
        ),
    ] {
        let mut all = vec!["max-pods"];
        all.extend(arguments);
        let output = ipamd(&all)?;
        assert!(output.status.success(), "{name}: {output:?}");
        golden::compare(name, &stdout(&output))?;
    }
    Ok(())
}

/// For scripts: `TYPE N`, one line per type.
fn every_figure_of_the_table_is_printed() -> Outcome {
    let printed = stdout(&ipamd(&["max-pods", "--all", "--no-cap"])?);
    let expect: String = limits::all()
        .iter()
        .map(|t| {
            let figure = u32::from(t.max_enis) * (u32::from(t.ipv4_per_eni) - 1) + 2;
            format!("{} {figure}\n", t.name)
        })
        .collect();
    assert_eq!(printed, expect);
    Ok(())
}

fn the_exit_status_shows_whether_nodes_fit() -> Outcome {
    let fits = |nodes| {
        ipamd(&[
            "max-pods",
            "m5.large",
            "--cluster-subnet-free=900",
            "--nodes",
            nodes,
        ])
    };
    let (thirty, more) = (fits("30")?, fits("31")?);
    assert_eq!(
        (thirty.status.code(), stdout(&thirty)),
        (Some(0), "30\n".into())
    );
    assert_eq!(
        (more.status.code(), stdout(&more)),
        (Some(1), "30\n".into())
    );
    Ok(())
}

fn unusable_arguments_are_refused() -> Outcome {
    for arguments in [
        &["max-pods"][..],
        &["max-pods", "m5.large", "--all"],
        &["max-pods", "m5.large", "--nodes", "3"],
        &["max-pods", "m5.large", "--expression", "1 +"],
        &["max-pods", "m5.large", "--plan", "WARM_TARGET=1"],
        &["max-pods", "m5.large", "--plan", "", "--ipv6"],
    ] {
        let output = ipamd(arguments)?;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
    let odd = ipamd(&["max-pods", "m5.large", "--expression", "enis + 1"])?;
    assert_eq!((odd.status.code(), stdout(&odd)), (Some(0), "29\n".into()));
    assert!(stderr(&odd).contains("\"enis\" is neither"), "{odd:?}");
    Ok(())
}

fn from_imds_is_the_instances_own_figure() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.bare_node("t3.small", &[])?;
    let output = node.ask(&lab.sim.ec2_endpoint(), &["max-pods", "--from-imds"])?;
    assert_eq!(
        (output.status.code(), stdout(&output)),
        (Some(0), "11\n".into())
    );
    assert_eq!(lab.sim.calls().len(), 0, "the table knows this type");
    Ok(())
}

fn an_unknown_type_names_its_neighbours() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.bare_node("t3.small", &[])?;
    let output = node.ask(&lab.sim.ec2_endpoint(), &["max-pods", "m5.lagre"])?;
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    assert!(
        told.contains("m5.lagre; similar types are m5.large")
            && told.contains("EC2 does not know it either"),
        "{told}"
    );
    let alone = ipamd(&["max-pods", "m5.lagre"])?;
    let told = stderr(&alone);
    assert!(
        told.contains("similar types are m5.large") && told.contains("the region is unknown"),
        "{told}"
    );
    Ok(())
}

/// A type that AWS introduced after this was built.
fn a_new_type_is_asked_of_ec2_and_runs() -> Outcome {
    let new = InstanceType {
        name: "z9.small".into(),
        max_enis: 2,
        ipv4_per_eni: 3,
        cards: vec![2],
        vcpus: Some(64),
        trunking: None,
        branch_enis: None,
        ..limits::require("m5.large")?.clone()
    };
    let mut config = SimConfig::default();
    config.world.new_types.push(new);
    let lab = Lab::start(config)?;
    let node = lab.node("z9.small", &[])?;
    let output = node.ask(
        &lab.sim.ec2_endpoint(),
        &["max-pods", "z9.small", "--prefix-delegation"],
    )?;
    // 2 × 2 × 16 + 2
    assert_eq!(
        (output.status.code(), stdout(&output)),
        (Some(0), "66\n".into())
    );
    for n in 0..4 {
        node.add_pod(&format!("pod{n}"))?;
    }
    let (_netns, path) = node.sandbox("one-too-many")?;
    let refused = node
        .invocation("ADD", "one-too-many", Some(&path))
        .run(node.netns())?;
    let text = refused.error_text();
    assert!(text.contains("z9.small: 2 ENIs × (3 − 1)"), "{text}");
    Ok(())
}
