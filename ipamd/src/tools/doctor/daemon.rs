//! The daemon: whether it answers, and the state of its pool.

use proto::{error_chain::chain, v1};

use super::{Check, Finding, failure, neighbours, warning};
use crate::{
    config::Config,
    rpc::{
        client::Client,
        view::{Address, Source, View, human_duration},
    },
    runtime::clock,
    state::store::read_only::peek,
    tools::saved_view,
};

/// A pod that has waited this long is reported; growth takes up to about ten seconds.
const LONG_MS: u64 = 20_000;

/// Whether the daemon answers; and the node, from it or from its state file.
pub(super) async fn check(config: &Config) -> (Check, Option<View>) {
    const NAME: &str = "daemon";
    let socket = config.paths.socket();
    let asked = async {
        let mut client = Client::connect(&socket).await?;
        client.inspect().await
    };
    let error = match asked.await {
        Ok(snapshot) => {
            let seen = format!("answers at {}", socket.display());
            return (
                Check::new(NAME, seen, Vec::new()),
                Some(View::from(snapshot)),
            );
        }
        Err(error) => error,
    };
    let view = peek(&config.paths.state())
        .ok()
        .map(|(contents, _)| saved_view::view(&contents, clock::now()));
    let left = if view.is_some() {
        "there is a state file"
    } else {
        "there is no state file"
    };
    let finding = failure(
        "the daemon does not answer",
        format!("{}; {left}", chain(&error)),
        "no pod starts on this node; those that run keep their network",
        "read the daemon's log; its last line says why it ended",
    );
    (Check::new(NAME, "", vec![finding]), view)
}

/// The pool's problems, as reported by the daemon.
pub(super) fn pool(view: Option<&View>) -> Check {
    const NAME: &str = "pool";
    let Some(view) = view.filter(|view| view.source == Source::Live) else {
        return Check::skipped(NAME, "this check needs a running daemon");
    };
    let totals = view.totals;
    let used = totals.assigned + totals.reserved;
    let mut findings: Vec<_> = view.obstacles.iter().map(obstacle).collect();
    findings.extend(view.refused.iter().map(refused));
    let late = view.waiting.iter().filter(|w| w.waited_ms >= LONG_MS);
    if let Some(first) = late.clone().max_by_key(|w| w.waited_ms) {
        findings.push(failure(
            format!(
                "{} pods have waited for an address for a long time",
                late.count()
            ),
            format!(
                "{} for {}: {}",
                first.pod,
                human_duration(first.waited_ms),
                first.cause
            ),
            "they stay in ContainerCreating",
            "the cause says what is missing; `ipamd inspect --watch` shows the progress",
        ));
    }
    if view.pod_limit > 0 && used >= view.pod_limit {
        findings.push(warning(
            "the node is full",
            format!(
                "{used} of {} pod addresses: {}",
                view.pod_limit, view.pod_limit_why
            ),
            "further pods are refused with this calculation",
            "set the kubelet's maxPods to the value that `ipamd max-pods` prints, or use a larger instance type",
        ));
    }
    findings.extend(neighbours::claims(view));
    let claimed = |address: &&Address| address.host_uses || address.foreign_rule > 0;
    let addresses = view.enis.iter().flat_map(|eni| &eni.addresses);
    let quarantined = addresses.filter(|address| address.state == "quarantined");
    let explained = number(quarantined.filter(claimed).count());
    let unconfirmed = totals.quarantined.saturating_sub(explained);
    if unconfirmed > 0 {
        findings.push(warning(
            "EC2 does not confirm addresses of this node",
            format!("{unconfirmed} addresses are quarantined"),
            "they are not assigned to new pods; pods with these addresses may have no network",
            "find out who unassigns addresses or detaches ENIs: CloudTrail has the caller",
        ));
    }
    if !view.unmanaged.is_empty() && totals.enis + number(view.unmanaged.len()) >= totals.max_enis {
        findings.push(warning(
            "unmanaged interfaces use ENI slots",
            format!(
                "{} of {}: {}",
                view.unmanaged.len(),
                totals.max_enis,
                view.unmanaged.join(", ")
            ),
            "the node holds fewer pods than its limit says",
            "detach them, or lower maxPods accordingly",
        ));
    }
    let seen = format!(
        "{used} of {} pod addresses in use, {} free",
        view.pod_limit, totals.free
    );
    Check::new(NAME, seen, findings)
}

fn obstacle(obstacle: &v1::Obstacle) -> Finding {
    warning(
        obstacle.what.clone(),
        format!(
            "EC2's answer; the next call is in {}",
            human_duration(obstacle.for_ms)
        ),
        "the pool cannot grow: pods beyond the free addresses wait",
        "an empty subnet needs addresses, throttling fewer calls in the account",
    )
}

/// The last refusal of an action, however long ago: it was not done since.
fn refused(refused: &v1::RefusedAction) -> Finding {
    let effect = if refused.stops_growth {
        "the pool cannot grow: pods beyond the free addresses wait"
    } else {
        "what the pool no longer needs stays in EC2"
    };
    let remedy = match refused.remedy.as_str() {
        "" => "EC2's message says why",
        remedy => remedy,
    };
    let age = human_duration(refused.age_ms);
    let evidence = format!("{}; {age} ago", refused.message);
    warning(refused.what.clone(), evidence, effect, remedy.to_owned())
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
