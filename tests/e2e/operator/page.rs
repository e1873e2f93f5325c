//! The live page in a real browser: cells that follow the pods, checked visually, by keyboard and by accessible name.

use std::time::Duration;

use lab::{Lab, browser::Browser, node::Node};
use serde_json::{Value, json};
use vpc_sim::{Action, Fault, FaultKind, SimConfig};

use crate::{
    suite::{Outcome, trials},
    support::ipv6,
    support::refusals::full_node,
};

trials!(
    a_large_node_is_readable,
    an_ipv6_prefix_is_drawn_by_what_is_used_of_it,
    cells_follow_pods_that_come_and_go,
    the_page_brings_everything_itself,
    the_page_is_used_by_keyboard_and_read_aloud,
    the_page_shows_waiting_pods_and_their_reasons,
    the_page_shows_what_a_pod_has_besides_its_address,
);

/// On a loaded machine, a browser starts slowly.
const SOON: Duration = Duration::from_secs(60);

fn open(lab: &Lab, node: &Node) -> std::io::Result<Browser> {
    let profile = lab.dir().join(format!("browser-{}", node.instance.id));
    Browser::open(node.netns(), "http://127.0.0.1:61679/", &profile)
}

fn cells(state: &str) -> String {
    format!("document.querySelectorAll('#map button[data-state=\"{state}\"]').length")
}

fn cells_follow_pods_that_come_and_go() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[("WARM_IP_TARGET", "3")])?;
    let first = node.add_pod("first")?;
    let mut page = open(&lab, &node)?;
    assert!(
        page.becomes(&cells("assigned"), &json!(1), SOON),
        "{}",
        text(&mut page)
    );
    let second = node.add_pod("second")?;
    assert!(
        page.becomes(&cells("assigned"), &json!(2), SOON),
        "{}",
        text(&mut page)
    );
    let title = format!(
        "[...document.querySelectorAll('#map button')].find(b => b.title.startsWith('{},')).title.includes('pod lab/pod-second')",
        second.address()
    );
    assert_eq!(page.evaluate(&title)?, json!(true));
    node.delete_pod(first)?;
    assert!(
        page.becomes(&cells("cooling"), &json!(1), SOON),
        "{}",
        text(&mut page)
    );
    assert!(
        page.becomes(&cells("assigned"), &json!(1), SOON),
        "{}",
        text(&mut page)
    );
    assert!(!page.picture()?.is_empty());
    Ok(())
}

fn an_ipv6_prefix_is_drawn_by_what_is_used_of_it() -> Outcome {
    let lab = ipv6::start()?;
    let node = lab.node("m5.large", &ipv6::SIX)?;
    let pods = ipv6::pods(&node, 20)?;
    let mut page = open(&lab, &node)?;
    let shows_all = page.becomes(&cells("assigned"), &json!(pods.len()), SOON);
    assert!(shows_all, "{}", text(&mut page));
    let shown = text(&mut page);
    let said = "20 in use, the rest of the prefix free";
    assert!(
        shown.as_str().is_some_and(|all| all.contains(said)),
        "{shown}"
    );
    Ok(())
}

/// Fifteen ENIs with fifty addresses: every slot is a clickable cell, nothing is outside the window, all ENIs are
/// visible.
fn a_large_node_is_readable() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("m5.24xlarge", &[("WARM_IP_TARGET", "700")])?;
    for n in 0..30 {
        node.add_pod(&format!("pod{n}"))?;
    }
    let mut page = open(&lab, &node)?;
    let grown = "document.querySelectorAll('#map section').length === 15 && document.querySelectorAll('#map button').length === 15 * 49";
    assert!(
        page.becomes(grown, &json!(true), SOON * 2),
        "{}",
        text(&mut page)
    );
    let within = "document.scrollingElement.scrollWidth <= innerWidth";
    assert_eq!(page.evaluate(within)?, json!(true));
    let sizes = page.evaluate(
        "(() => { const b = [...document.querySelectorAll('#map button')].map(b => b.getBoundingClientRect()); \
         return { narrow: Math.min(...b.map(r => r.width)), low: Math.min(...b.map(r => r.height)), \
         ends: Math.max(...b.map(r => r.bottom)) + scrollY, window: innerHeight }; })()",
    )?;
    let size = |name: &str| sizes[name].as_f64().unwrap_or_default();
    assert!(size("narrow") >= 16.0 && size("low") >= 16.0, "{sizes}");
    assert!(
        size("ends") <= 1.5 * size("window"),
        "the map is one and a half windows high at most: {sizes}"
    );
    // In the order of attachment, whatever the order of creation.
    let devices = page.evaluate(
        "[...document.querySelectorAll('#map section')].slice(1).map(s => Number(/device (\\d+),/.exec(s.textContent)[1]))",
    )?;
    assert_eq!(devices, json!((1..15).collect::<Vec<_>>()));
    Ok(())
}

fn the_page_shows_waiting_pods_and_their_reasons() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = full_node(&lab)?;
    let mut page = open(&lab, &node)?;
    assert!(
        page.becomes(&cells("assigned"), &json!(3), SOON),
        "{}",
        text(&mut page)
    );
    lab.sim.faults().push(Fault {
        action: Action::CreateNetworkInterface,
        times: 1,
        kind: FaultKind::Hang,
    });
    let (_netns, path) = node.sandbox("late")?;
    let add = node.invocation("ADD", "late", Some(&path));
    let has = |id: &str, words: &str| {
        format!("document.getElementById('{id}').innerText.includes({words:?})")
    };
    std::thread::scope(|scope| -> Outcome {
        let adding = scope.spawn(|| add.run(node.netns()));
        for (id, words) in [
            ("waiting", "lab/pod-late"),
            ("waiting", "no free address after"),
            ("calls", "CreateNetworkInterface"),
            ("decisions", "create an ENI in subnet-"),
        ] {
            let there = page.becomes(&has(id, words), &json!(true), SOON);
            assert!(there, "{id}: {}", text(&mut page));
        }
        // Ages on the page advance even if nothing happens on the node.
        let waited = "document.querySelector('#waiting td:nth-child(2)').textContent";
        let first = page.evaluate(waited)?;
        let grows = format!("{waited} !== {first}");
        assert!(
            page.becomes(&grows, &json!(true), SOON),
            "{}",
            text(&mut page)
        );
        adding.join().map_err(|_| "the ADD panicked")??;
        let nobody = has("waiting", "No pods wait.");
        assert!(
            page.becomes(&nobody, &json!(true), SOON),
            "{}",
            text(&mut page)
        );
        Ok(())
    })
}

fn text(page: &mut Browser) -> Value {
    page.evaluate("document.body.innerText").unwrap_or_default()
}

/// Nothing is fetched from elsewhere, and text on the page is never interpreted as markup.
fn the_page_brings_everything_itself() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[("WARM_IP_TARGET", "1")])?;
    node.add_pod("pod0")?;
    let mut page = open(&lab, &node)?;
    assert!(
        page.becomes(&cells("assigned"), &json!(1), SOON),
        "{}",
        text(&mut page)
    );
    let fetched = page.evaluate("performance.getEntriesByType('resource').map(r => new URL(r.name).origin).filter(o => o !== location.origin)")?;
    assert_eq!(fetched, json!([]));
    let refused = page.evaluate(
        "fetch('http://127.0.0.1:61678/metrics').then(() => 'fetched', () => 'refused')",
    )?;
    assert_eq!(
        refused,
        json!("refused"),
        "the policy lets the page talk to others"
    );
    Ok(())
}

fn the_page_is_used_by_keyboard_and_read_aloud() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[("WARM_IP_TARGET", "2")])?;
    node.add_pod("pod0")?;
    let mut page = open(&lab, &node)?;
    assert!(
        page.becomes(&cells("assigned"), &json!(1), SOON),
        "{}",
        text(&mut page)
    );
    // One tab stop in each ENI's map; the arrow keys continue from there.
    let stops = "[...document.querySelectorAll('#map ul')].every(u => u.querySelectorAll('[tabindex=\"0\"]').length === 1)";
    assert_eq!(page.evaluate(stops)?, json!(true));
    page.evaluate("document.querySelector('#map [tabindex=\"0\"]').focus()")?;
    let at = "[...document.activeElement.closest('ul').querySelectorAll('button')].indexOf(document.activeElement)";
    assert_eq!(page.evaluate(at)?, json!(0));
    page.press("ArrowRight", 39)?;
    assert_eq!(page.evaluate(at)?, json!(1));
    page.press("Home", 36)?;
    assert_eq!(page.evaluate(at)?, json!(0));
    let spoken = page.evaluate("document.getElementById('about').textContent === document.activeElement.getAttribute('aria-label')")?;
    assert_eq!(spoken, json!(true), "{}", text(&mut page));
    // The accessibility tree for screen readers: every cell has a name, and so have the regions.
    let tree = page.call("Accessibility.getFullAXTree", json!({}))?;
    let nodes = tree["nodes"].as_array().cloned().unwrap_or_default();
    let named = |role: &str| -> Vec<String> {
        nodes
            .iter()
            .filter(|node| node["role"]["value"] == role && node["ignored"] == false)
            .map(|node| {
                node["name"]["value"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect()
    };
    let buttons = named("button");
    assert!(
        buttons.len() >= 3 && buttons.iter().all(|name| !name.is_empty()),
        "{buttons:?}"
    );
    assert!(
        buttons
            .iter()
            .any(|name| name.contains("assigned, pod lab/pod-pod0")),
        "{buttons:?}"
    );
    assert!(
        named("region")
            .iter()
            .any(|name| name == "ENIs and their addresses"),
        "{:?}",
        named("region")
    );
    Ok(())
}

fn the_page_shows_what_a_pod_has_besides_its_address() -> Outcome {
    let lab = Lab::start(SimConfig::dual_stack())?;
    let node = lab.node("t3.small", &[("ENABLE_V6_EGRESS", "true")])?;
    let own = node.instance.address;
    let asked = json!({
        "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": own }],
        "bandwidth": { "egressRate": 3_000_000, "egressBurst": 1_000_000 },
    });
    node.add_pod_asking("web", &asked)?;
    let mut page = open(&lab, &node)?;
    let drawn = page.becomes(&cells("assigned"), &json!(1), SOON);
    assert!(drawn, "{}", text(&mut page));
    let title =
        page.evaluate("document.querySelector('#map button[data-state=\"assigned\"]').title")?;
    let words = [
        &*format!("host port {own} 8080/tcp to 80"),
        "egress at most 3000000 bit/s",
        "IPv6 by fd00::ac:",
    ];
    for word in words {
        assert!(
            title.as_str().is_some_and(|title| title.contains(word)),
            "{title}"
        );
    }
    assert!(!title.to_string().contains("ingress"), "{title}");
    Ok(())
}
