//! A view as text for a terminal, without colours and with any width, because it is often piped.

use std::net::IpAddr;

use crate::{
    rpc::view::{Address, Eni, Source, View, human_duration, human_rate},
    tools::cli::table::Table,
};

pub(super) fn draw(view: &View) -> String {
    let mut text = String::new();
    head(view, &mut text);
    waiting(view, &mut text);
    for eni in &view.enis {
        draw_eni(eni, &mut text);
    }
    if !view.unmanaged.is_empty() {
        line(
            &mut text,
            &format!("\nunmanaged: {}", view.unmanaged.join(", ")),
        );
    }
    text
}

fn line(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    text.push_str(&format!("{line}\n"));
}

fn head(view: &View, text: &mut String) {
    let totals = view.totals;
    let used = totals.assigned + totals.reserved;
    let name = format!("{} {}", view.instance, view.instance_type);
    match view.source {
        Source::Live => line(
            text,
            &format!("{name}: {used} of {} pod addresses in use", view.pod_limit),
        ),
        Source::File => line(
            text,
            &format!("{name}: {used} pod addresses in use, from the state file"),
        ),
    }
    if !view.pod_limit_why.is_empty() {
        line(text, &format!("limit     {}", view.pod_limit_why));
    }
    let states = [
        (totals.free, "free"),
        (totals.reserved, "reserved"),
        (totals.assigned, "assigned"),
        (totals.cooling, "cooling"),
        (totals.quarantined, "quarantined"),
        (totals.releasing, "releasing"),
        (totals.withheld, "withheld"),
        (totals.incoming, "under way"),
    ];
    let states: Vec<_> = states
        .iter()
        .filter(|(n, name)| *n > 0 || *name == "free")
        .map(|(n, name)| format!("{n} {name}"))
        .collect();
    let enis = match view.source {
        Source::Live => format!("{} of {} ENIs", totals.enis, totals.max_enis),
        Source::File => format!("{} ENIs", totals.enis),
    };
    line(text, &format!("pool      {enis}: {}", states.join(", ")));
    if let Some(decision) = &view.decision {
        line(text, &format!("policy    {}", decision.policy));
        line(
            text,
            &format!("next      {}: {}", decision.verdict, decision.why),
        );
    }
    places(view, text);
    for call in &view.calls {
        let what = format!("{} {}", call.action, call.eni);
        line(
            text,
            &format!(
                "call      {}, {} ago",
                what.trim(),
                human_duration(call.age_ms)
            ),
        );
    }
    for obstacle in &view.obstacles {
        line(
            text,
            &format!(
                "obstacle  {}, for {} more",
                obstacle.what,
                human_duration(obstacle.for_ms)
            ),
        );
    }
    for refused in &view.refused {
        let next = match refused.retry_ms {
            0 => "the next try is due".to_owned(),
            wait => format!("the next try is in {}", human_duration(wait)),
        };
        let age = human_duration(refused.age_ms);
        line(
            text,
            &format!("refused   {}, {age} ago, {next}", refused.what),
        );
        line(text, &format!("          {}", refused.message));
        if !refused.remedy.is_empty() {
            line(text, &format!("          {}", refused.remedy));
        }
    }
    for setting in &view.settings {
        let why = match setting.kind.as_str() {
            "ignored" => "is ignored: expected",
            "unknown" => "is not known:",
            _ => "is not served:",
        };
        line(
            text,
            &format!("setting   {} {why} {}", setting.setting, setting.text),
        );
    }
    if view.cordoned {
        line(text, "node      cordoned");
    }
    if view.stopping {
        line(text, "daemon    shutting down");
    }
}

/// Where new ENIs are created, unless all are like the primary one.
fn places(view: &View, text: &mut String) {
    let Some(places) = &view.places else { return };
    if !places.none.is_empty() {
        line(text, &format!("subnets   none: {}", places.none));
        line(text, &format!("          {}", places.remedy));
    } else if places.class != "the primary ENI" {
        let subnets = places.subnets.join(", ");
        line(text, &format!("subnets   {}: {subnets}", places.class));
    }
    if !places.unlisted.is_empty() {
        let why = &places.unlisted;
        line(
            text,
            &format!("          EC2 does not list subnets, the last answer stays in force: {why}"),
        );
    }
}

fn waiting(view: &View, text: &mut String) {
    if view.waiting.is_empty() {
        return;
    }
    line(text, "");
    let mut table = Table::new(&["WAITING", "FOR", "BECAUSE"]);
    for waiting in &view.waiting {
        table.row(vec![
            name(&waiting.pod, &waiting.sandbox),
            human_duration(waiting.waited_ms),
            waiting.cause.clone(),
        ]);
    }
    text.push_str(&table.to_string());
}

fn draw_eni(eni: &Eni, text: &mut String) {
    let mut facts = vec![if eni.id.is_empty() {
        "(no id yet)".to_owned()
    } else {
        eni.id.clone()
    }];
    let age = eni
        .phase_age_ms
        .map(|age| format!(" for {}", human_duration(age)));
    facts.push(format!("{}{}", eni.phase, age.unwrap_or_default()));
    facts.extend(eni.device.map(|device| match eni.card {
        0 => format!("device {device}"),
        card => format!("card {card} device {device}"),
    }));
    facts.extend(eni.address.map(|address| address.to_string()));
    facts.extend(
        [eni.mac.clone(), eni.subnet.clone()]
            .into_iter()
            .filter(|fact| !fact.is_empty()),
    );
    if eni.primary {
        facts.push("primary".to_owned());
    }
    if eni.missing {
        facts.push("EC2 does not list it".to_owned());
    }
    if !eni.closed.is_empty() {
        facts.push(eni.closed.clone());
    }
    line(text, &format!("\n{}", facts.join(", ")));
    if !eni.prefixes.is_empty() {
        line(text, &format!("  prefixes  {}", eni.prefixes.join(", ")));
    }
    addresses(&eni.addresses, text);
    let free = eni.addresses.iter().filter(|a| a.state == "free").count();
    // The addresses of an IPv6 prefix are not counted.
    let free = match eni.prefixes.iter().any(|prefix| prefix.contains(':')) {
        true => "the rest of the prefix free".to_owned(),
        false => format!("{free} free"),
    };
    line(text, &format!("  {free}"));
}

fn addresses(all: &[Address], text: &mut String) {
    let mut table = Table::new(&["  ADDRESS", "STATE", "AGE", "POD", "REASON"]);
    // Few pods have any.
    let any = all.iter().any(|address| !extras(address).is_empty());
    if any {
        table.column("EXTRAS");
    }
    let mut rows = 0;
    for shown in all.iter().filter(|address| address.state != "free") {
        rows += 1;
        let address = shown.address.map_or_else(String::new, |a| a.to_string());
        let mut row = vec![
            format!("  {address}"),
            shown.state.clone(),
            shown.age_ms.map_or_else(|| "-".to_owned(), human_duration),
            name(&shown.pod, &shown.sandbox),
            shown.reason.clone(),
        ];
        row.extend(any.then(|| extras(shown)));
        table.row(row);
    }
    if rows > 0 {
        text.push_str(&table.to_string());
    }
}

/// `port 10.0.0.5:8080/tcp to 80, egress 1 Mbit/s, IPv6 by fd00::ac:2`
fn extras(address: &Address) -> String {
    let ports = address.host_ports.iter().map(|port| {
        let host = match port.host_ip {
            None => String::new(),
            Some(IpAddr::V4(four)) => format!("{four}:"),
            Some(IpAddr::V6(six)) => format!("[{six}]:"),
        };
        let (protocol, number) = (port.protocol, port.host_port);
        format!("port {host}{number}/{protocol} to {}", port.container_port)
    });
    let limits = address.bandwidth.unwrap_or_default();
    let limits = [
        ("ingress", limits.ingress_rate),
        ("egress", limits.egress_rate),
    ];
    let limits = limits
        .into_iter()
        .filter(|(_, rate)| *rate > 0)
        .map(|(direction, rate)| format!("{direction} {}", human_rate(rate)));
    let egress = address.egress_address.map(|egress| match egress {
        IpAddr::V4(_) => format!("IPv4 by {egress}"),
        IpAddr::V6(_) => format!("IPv6 by {egress}"),
    });
    let all: Vec<_> = ports.chain(limits).chain(egress).collect();
    all.join(", ")
}

/// A pod's name, or its sandbox if the runtime gave no name.
fn name(pod: &str, sandbox: &str) -> String {
    if pod.is_empty() {
        sandbox.to_owned()
    } else {
        pod.to_owned()
    }
}
