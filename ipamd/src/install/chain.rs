//! The list of plugins that the runtime runs, and the part of it that is Hawser's. Pure: text in, text out.
//!
//! Only Hawser's own entry is written, and the entries of standard plugins that Hawser added. Entries of others, before or
//! after it, and keys of others in Hawser's entry stay as they are: service meshes insert their plugin here, and put it
//! back whenever it is missing.
//!
//! What a standard plugin of the list does, Hawser does not do: host ports would be translated twice, and traffic limited
//! twice. So Hawser's entry declares a capability only if no other entry does. An entry of `portmap` that an earlier release
//! or the AWS VPC CNI wrote stays, because the rules that it made for running pods are removed only by itself.
//!
//! Knows no file and no time.

use proto::names::NETWORK;
use serde_json::{Map, Value, json};

/// The plugin's binary.
pub const PLUGIN: &str = "hawser";
/// The plugin of the AWS VPC CNI, and the companion that only works together with it.
const AWS_PLUGINS: [&str; 2] = ["aws-cni", "egress-cni"];
/// Keys of Hawser's entry that this daemon decides.
const KEYS: [&str; 5] = ["type", "socket", "vethPrefix", "mtu", "ipv6"];

/// What this daemon wants to be in the list.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Hawser's entry, except what it declares.
    pub plugin: Map<String, Value>,
    /// What Hawser does itself if no standard plugin of the list does it.
    pub capabilities: Vec<&'static str>,
    /// Entries of standard plugins, which follow it.
    pub companions: Vec<Value>,
    /// Entries of standard plugins that are removed if they have exactly these keys, as Hawser and the AWS VPC CNI write
    /// them.
    pub unwanted: Vec<Value>,
}

/// A problem of a list, other than changed settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// There is no file, or an empty one.
    Absent,
    NotJson,
    /// JSON, but no list of plugins.
    NotAList,
    /// Hawser's plugin is missing.
    WithoutUs,
    /// Hawser's plugin is called more than once: a pod would get two addresses.
    Twice,
    /// The list is the AWS VPC CNI's.
    OfAwsNode,
}

impl Damage {
    /// For log lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Absent => "there is no file",
            Self::NotJson => "it is not JSON",
            Self::NotAList => "it holds no list of plugins",
            Self::WithoutUs => "the plugin hawser is not in it",
            Self::Twice => "the plugin hawser is in it twice",
            Self::OfAwsNode => "it is the AWS VPC CNI's",
        }
    }
}

/// The result of a merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The text to be written; `None` if nothing of Hawser's has changed.
    pub text: Option<String>,
    pub damage: Option<Damage>,
}

/// Merges Hawser's entries into the list `found`, which may be absent.
#[must_use]
pub fn merge(found: Option<&str>, wanted: &Wanted) -> Outcome {
    let Some(text) = found.filter(|text| !text.trim().is_empty()) else {
        return anew(wanted, Damage::Absent);
    };
    let Ok(value) = serde_json::from_str::<Value>(text) else {
        return anew(wanted, Damage::NotJson);
    };
    let Value::Object(mut list) = value.clone() else {
        return anew(wanted, Damage::NotAList);
    };
    let Some(Value::Array(plugins)) = list.get("plugins") else {
        return anew(wanted, Damage::NotAList);
    };
    let mut plugins = plugins.clone();
    let damage = repair(&mut plugins, wanted);
    complete(&mut plugins, wanted);
    declare(&mut plugins, wanted);
    if damage == Some(Damage::OfAwsNode) {
        // Written for its plugin, which knows no later version.
        list.remove("cniVersion");
        list.remove("disableCheck");
    }
    list.entry("cniVersion").or_insert(CNI_VERSION.into());
    let offered = list.entry("cniVersions").or_insert(Value::Null);
    let is_ours = [true, false].map(versions).contains(offered);
    let alone = is_alone(&plugins);
    let standard = plugins.iter().any(is_standard);
    // With an entry of another program alone, nothing is rewritten: that program knows which versions its plugin has.
    let changes = alone || damage.is_some() || standard;
    if offered.is_null() || is_ours && changes {
        *offered = versions(alone);
    }
    list.insert("plugins".to_owned(), Value::Array(plugins));
    list.insert("name".to_owned(), NETWORK.into());
    let list = Value::Object(list);
    Outcome {
        text: (list != value).then(|| written(&list)),
        damage,
    }
}

/// The AWS VPC CNI's list, with what other programs have added to `ours` since it was replaced.
#[must_use]
pub fn hand_back(ours: &str, theirs: &str) -> String {
    let parsed = |text| serde_json::from_str::<Value>(text).unwrap_or_default();
    let mut list = parsed(theirs);
    let added: Vec<Value> = parsed(ours)["plugins"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|plugin| !is(plugin, PLUGIN) && !is_standard(plugin))
        .cloned()
        .collect();
    let Some(Value::Array(plugins)) = list.get_mut("plugins") else {
        return theirs.to_owned();
    };
    let is_there = |plugins: &[Value], plugin: &Value| {
        let same = |other: &Value| other["type"] == plugin["type"];
        plugins.iter().any(same)
    };
    let missing: Vec<_> = added
        .into_iter()
        .filter(|plugin| !is_there(plugins, plugin))
        .collect();
    if missing.is_empty() {
        return theirs.to_owned();
    }
    plugins.extend(missing);
    written(&list)
}

/// Whether the list is the AWS VPC CNI's.
#[must_use]
pub fn is_of_aws_node(text: &str) -> bool {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let plugins = value["plugins"].as_array();
    plugins.is_some_and(|plugins| plugins.iter().any(|plugin| is(plugin, AWS_PLUGINS[0])))
}

fn anew(wanted: &Wanted, damage: Damage) -> Outcome {
    let mut plugins = vec![Value::Object(wanted.plugin.clone())];
    plugins.extend(wanted.companions.iter().cloned());
    declare(&mut plugins, wanted);
    let mut list = Map::new();
    list.insert("cniVersion".to_owned(), CNI_VERSION.into());
    list.insert("cniVersions".to_owned(), versions(is_alone(&plugins)));
    list.insert("name".to_owned(), NETWORK.into());
    list.insert("plugins".to_owned(), Value::Array(plugins));
    Outcome {
        text: Some(written(&Value::Object(list))),
        damage: Some(damage),
    }
}

/// The version that containerd 1.6 and 1.7 can read. Later ones choose from `cniVersions`.
const CNI_VERSION: &str = "1.0.0";

/// The value of `cniVersions`. The runtime passes the version that it chooses to every plugin of the list, and a plugin that
/// does not know it fails: Debian 12's portmap knows no 1.1.0. So this version, which adds STATUS and GC, is offered only if
/// no other plugin is in the list.
fn versions(alone: bool) -> Value {
    if alone {
        json!(["0.4.0", CNI_VERSION, "1.1.0"])
    } else {
        json!(["0.4.0", CNI_VERSION])
    }
}

/// Whether it is the entry of a standard plugin as Hawser or the AWS VPC CNI writes it.
fn is_standard(plugin: &Value) -> bool {
    [portmap(), bandwidth(), tuning()].contains(plugin)
}

fn is_alone(plugins: &[Value]) -> bool {
    plugins.iter().all(|plugin| is(plugin, PLUGIN))
}

fn written(list: &Value) -> String {
    format!("{list:#}\n")
}

fn is(plugin: &Value, kind: &str) -> bool {
    plugin["type"] == kind
}

/// Has exactly one entry of Hawser's in the list, with this daemon's keys.
fn repair(plugins: &mut Vec<Value>, wanted: &Wanted) -> Option<Damage> {
    let ours: Vec<usize> = (0..plugins.len())
        .filter(|at| is(&plugins[*at], PLUGIN))
        .collect();
    match ours.as_slice() {
        [at] => {
            set_keys(&mut plugins[*at], &wanted.plugin);
            None
        }
        [] => {
            let theirs = plugins.iter().position(|plugin| is(plugin, AWS_PLUGINS[0]));
            plugins.retain(|plugin| !AWS_PLUGINS.iter().any(|kind| is(plugin, kind)));
            // In the place of the plugin that gave addresses. Without one, first: others chain behind it.
            let at = theirs.unwrap_or(0).min(plugins.len());
            plugins.insert(at, Value::Object(wanted.plugin.clone()));
            Some(theirs.map_or(Damage::WithoutUs, |_| Damage::OfAwsNode))
        }
        [first, rest @ ..] => {
            for at in rest.iter().rev() {
                plugins.remove(*at);
            }
            set_keys(&mut plugins[*first], &wanted.plugin);
            Some(Damage::Twice)
        }
    }
}

fn set_keys(entry: &mut Value, wanted: &Map<String, Value>) {
    let Value::Object(entry) = entry else { return };
    for key in KEYS {
        match wanted.get(key) {
            Some(value) => entry.insert(key.to_owned(), value.clone()),
            None => entry.remove(key),
        };
    }
}

/// Adds the configured standard plugins, unless there is an entry of the same type: another program may own it, with other
/// keys.
fn complete(plugins: &mut Vec<Value>, wanted: &Wanted) {
    plugins.retain(|plugin| !wanted.unwanted.contains(plugin));
    for companion in &wanted.companions {
        if !plugins
            .iter()
            .any(|plugin| plugin["type"] == companion["type"])
        {
            plugins.push(companion.clone());
        }
    }
}

/// The capabilities that Hawser may declare.
const CAPABILITIES: [&str; 2] = [PORT_MAPPINGS, BANDWIDTH];
/// The runtime passes the pod's host ports to an entry with this capability.
pub const PORT_MAPPINGS: &str = "portMappings";
/// The same for the limits of its bandwidth.
pub const BANDWIDTH: &str = "bandwidth";

/// Has Hawser's entry declare what it shall do and no other entry declares.
fn declare(plugins: &mut [Value], wanted: &Wanted) {
    for capability in CAPABILITIES {
        let taken = plugins
            .iter()
            .any(|plugin| !is(plugin, PLUGIN) && plugin["capabilities"][capability] == true);
        let ours = plugins.iter_mut().find(|plugin| is(plugin, PLUGIN));
        if let Some(Value::Object(entry)) = ours {
            let declared = wanted.capabilities.contains(&capability) && !taken;
            set_capability(entry, capability, declared);
        }
    }
}

fn set_capability(entry: &mut Map<String, Value>, capability: &str, declared: bool) {
    const KEY: &str = "capabilities";
    let mut all = match entry.remove(KEY) {
        Some(Value::Object(all)) => all,
        _ => Map::new(),
    };
    if declared {
        all.insert(capability.to_owned(), true.into());
    } else {
        all.remove(capability);
    }
    if !all.is_empty() {
        entry.insert(KEY.to_owned(), Value::Object(all));
    }
}

/// The entry of `portmap`, as earlier releases and the AWS VPC CNI write it.
#[must_use]
pub fn portmap() -> Value {
    json!({
        "type": "portmap",
        "capabilities": { PORT_MAPPINGS: true },
        "snat": true,
    })
}

/// The entry of `bandwidth`, as earlier releases and the AWS VPC CNI write it.
#[must_use]
pub fn bandwidth() -> Value {
    json!({ "type": "bandwidth", "capabilities": { BANDWIDTH: true } })
}

/// The entry of `tuning` that takes IPv6 from pods, as the AWS VPC CNI writes it.
#[must_use]
pub fn tuning() -> Value {
    json!({
        "type": "tuning",
        "sysctl": {
            "net.ipv6.conf.all.disable_ipv6": "1",
            "net.ipv6.conf.default.disable_ipv6": "1",
            "net.ipv6.conf.lo.disable_ipv6": "1",
        },
    })
}

#[cfg(test)]
mod tests;
