//! Settings as an operator meets them: what is refused, what is told, and where.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use lab::{Lab, node::log_lines, wait::eventually};
use serde_json::Value;
use vpc_sim::SimConfig;

use crate::suite::{Outcome, trials};

trials!(
    case_12_negative_counts_mean_unset,
    case_13_what_pods_would_miss_is_refused_at_start,
    case_44_a_proxy_carries_ec2_and_not_the_metadata_service,
    log_lines_are_plain_and_tell_the_settings_that_differ,
    what_is_not_served_is_told_in_log_metrics_inspect_and_doctor,
);

/// The log's lines with this message.
fn lines(log: &str, message: &str) -> Vec<Value> {
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["message"] == message)
        .collect()
}

fn case_13_what_pods_would_miss_is_refused_at_start() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node("m5.large", &[])?;
    node.stop_daemon()?;
    node.set("ENABLE_MULTI_NIC", "true");
    node.set("ENABLE_POD_ENI", "true");
    let ended = node.run_daemon(&lab.sim.ec2_endpoint())?;
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(64), "{said}");
    for setting in ["ENABLE_MULTI_NIC=true", "ENABLE_POD_ENI=true"] {
        assert!(said.contains(&format!("{setting}: not served: ")), "{said}");
    }
    Ok(())
}

fn case_12_negative_counts_mean_unset() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let settings = [
        ("WARM_IP_TARGET", "-1"),
        ("MINIMUM_IP_TARGET", "-1"),
        ("MAX_ENI", "-1"),
        ("WARM_ENI_TARGET", "-1"),
        ("WARM_PREFIX_TARGET", "-1"),
    ];
    let node = lab.node("m5.large", &settings)?;
    let pod = node.add_pod("a")?;
    node.delete_pod(pod)?;
    Ok(())
}

fn what_is_not_served_is_told_in_log_metrics_inspect_and_doctor() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let settings = [
        ("ADDITIONAL_ENI_TAGS", "{\"team\": 7}"),
        ("ANNOTATE_POD_IP", "true"),
        ("NETWORK_POLICY_ENFORCING_MODE", "standard"),
        ("HAWSER_BLOCK_POD_IMSD", "true"),
    ];
    let node = lab.node("m5.large", &settings)?;
    let log = node.log();
    let told = |message: &str, setting: &str, level: &str| {
        let found = lines(&log, message).into_iter();
        found
            .filter(|line| {
                let named = line["setting"].as_str().unwrap_or_default();
                named.starts_with(setting) && line["level"] == level
            })
            .count()
    };
    assert_eq!(
        told("a setting is ignored", "ADDITIONAL_ENI_TAGS", "WARN"),
        1,
        "{log}"
    );
    assert_eq!(
        told("a setting is not served", "ANNOTATE_POD_IP", "WARN"),
        1,
        "{log}"
    );
    assert_eq!(
        told(
            "a setting is not served",
            "NETWORK_POLICY_ENFORCING_MODE",
            "INFO"
        ),
        1,
        "{log}"
    );
    assert_eq!(
        told("a setting is not known", "HAWSER_BLOCK_POD_IMSD", "WARN"),
        1,
        "{log}"
    );

    for kind in ["ignored", "not_served", "not_served_stock", "unknown"] {
        let metric = format!("hawser_setting_notices{{kind=\"{kind}\"}}");
        assert_eq!(node.metric(&metric)?, 1, "{kind}");
    }

    let ec2 = lab.sim.ec2_endpoint();
    let shown = node.ask(&ec2, &["inspect"])?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let examined = node.ask(&ec2, &["doctor"])?;
    let examined = String::from_utf8_lossy(&examined.stdout).into_owned();
    for setting in settings.map(|(name, _)| name) {
        assert!(shown.contains(&format!("setting   {setting}=")), "{shown}");
        assert!(examined.contains(&format!("{setting}=")), "{examined}");
    }
    assert!(
        examined.contains("did you mean HAWSER_BLOCK_POD_IMDS?"),
        "{examined}"
    );
    Ok(())
}

/// A name that only the proxy can resolve, as where the direct way is closed.
const FAR: &str = "http://ec2.far.example";

/// Passes on what reaches `listener` to EC2, and keeps the first line of each request.
fn proxy(listener: &TcpListener, ec2: &str, seen: &Mutex<Vec<String>>) -> io::Result<()> {
    let ec2 = ec2.trim_start_matches("http://");
    let ec2 = match ec2.contains(':') {
        true => ec2.to_owned(),
        false => format!("{ec2}:80"),
    };
    for client in listener.incoming() {
        let (mut client, mut server) = (client?, TcpStream::connect(&ec2)?);
        let mut from_server = server.try_clone()?;
        let mut to_client = client.try_clone()?;
        thread::spawn(move || io::copy(&mut from_server, &mut to_client));
        let mut bytes = [0; 16 * 1024];
        let read = client.read(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
        let line = text.lines().next().unwrap_or_default().to_owned();
        seen.lock().expect("no holder panics").push(line);
        server.write_all(&bytes[..read])?;
        thread::spawn(move || io::copy(&mut client, &mut server));
    }
    Ok(())
}

fn case_44_a_proxy_carries_ec2_and_not_the_metadata_service() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.bare_node("m5.large", &[("WARM_IP_TARGET", "2")])?;
    let listener = node.netns().run(|| TcpListener::bind("127.0.0.1:0"))??;
    node.set("HTTP_PROXY", &listener.local_addr()?.to_string());
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let (ec2, kept, host) = (lab.sim.ec2_endpoint(), seen.clone(), node.host()?);
    thread::spawn(move || host.run(|| proxy(&listener, &ec2, &kept)));
    node.start_daemon(FAR)?;
    let pod = node.add_pod("a")?;
    node.delete_pod(pod)?;
    let lines = || seen.lock().expect("no holder panics").clone();
    let first = lines();
    assert!(!first.is_empty(), "nothing came to the proxy");
    let wanted = |line: &String| line.starts_with(&format!("POST {FAR}"));
    assert!(first.iter().all(wanted), "{first:?}");

    node.stop_daemon()?;
    node.set("NO_PROXY", "far.example");
    let before = lines().len();
    node.start_daemon(FAR)?;
    let failed = || node.log().contains("EC2 call failed");
    assert!(
        eventually(Duration::from_secs(20), failed),
        "{}",
        node.log()
    );
    assert_eq!(lines().len(), before, "NO_PROXY has the direct way taken");
    Ok(())
}

/// Debug syntax is looked for in every lab test, when its node ends; here in a log with most of what there is to tell.
fn log_lines_are_plain_and_tell_the_settings_that_differ() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let settings = [("WARM_IP_TARGET", "12"), ("DISABLE_METRICS", "false")];
    let mut node = lab.node("m5.large", &settings)?;
    let pods: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .map(|id| node.add_pod(id))
        .collect::<Result<_, _>>()?;
    node.kill_daemon()?;
    let mut pods = pods.into_iter();
    for pod in pods.by_ref().take(1) {
        node.delete_pod(pod)?;
    }
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    for pod in pods {
        node.delete_pod(pod)?;
    }
    node.stop_daemon()?;

    let log = node.log();
    assert!(
        log.lines()
            .all(|line| serde_json::from_str::<Value>(line).is_ok()),
        "{log}"
    );
    assert_eq!(log_lines::in_debug_syntax(&log), Vec::<String>::new());
    assert!(!lines(&log, "asking EC2").is_empty(), "{log}");
    let started = lines(&log, "starting");
    let differ = started[0]["settings"].as_object().expect("an object");
    assert_eq!(differ["WARM_IP_TARGET"], "12");
    assert!(!differ.contains_key("DISABLE_METRICS"), "{differ:?}");
    Ok(())
}
