//! The list of plugins that the runtime runs, and the part of it that is Hawser's. Pure: text in, text out.
//!
//! Only Hawser's own entry is written, and the entries of standard plugins that Hawser added. Entries of others, before or
//! after it, and keys of others in Hawser's entry stay as they are: service meshes insert their plugin here, and put it
//! back whenever it is missing. Knows no file and no time.

use proto::names::NETWORK;
use serde_json::{Map, Value, json};

use crate::config::ChainedPlugins;

/// The plugin's binary.
pub const PLUGIN: &str = "hawser";
/// The plugin of the AWS VPC CNI, and the companion that only works together with it.
const AWS_PLUGINS: [&str; 2] = ["aws-cni", "egress-cni"];
/// Keys of Hawser's entry that this daemon decides.
const KEYS: [&str; 5] = ["type", "socket", "vethPrefix", "mtu", "ipv6"];

/// What this daemon wants to be in the list.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Hawser's entry.
    pub plugin: Map<String, Value>,
    /// Entries of standard plugins, which follow it.
    pub companions: Vec<Value>,
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
    if damage == Some(Damage::OfAwsNode) {
        // Written for its plugin, which knows no later version.
        list.remove("cniVersion");
        list.remove("disableCheck");
    }
    list.entry("cniVersion").or_insert(CNI_VERSION.into());
    let offered = list.entry("cniVersions").or_insert(Value::Null);
    let is_ours = [true, false].map(versions).contains(offered);
    let alone = is_alone(&plugins);
    // With an entry of another program alone, nothing is rewritten: that program knows which versions its plugin has.
    let changes = alone || damage.is_some() || !wanted.companions.is_empty();
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
/// keys. An entry that is not configured any more is removed only if it has exactly the keys that Hawser writes.
fn complete(plugins: &mut Vec<Value>, wanted: &Wanted) {
    let wants = |kind: &Value| wanted.companions.iter().any(|c| c["type"] == *kind);
    let dropped: Vec<Value> = companions(ALL)
        .into_iter()
        .filter(|companion| !wants(&companion["type"]))
        .collect();
    plugins.retain(|plugin| !dropped.contains(plugin));
    for companion in &wanted.companions {
        if !plugins
            .iter()
            .any(|plugin| plugin["type"] == companion["type"])
        {
            plugins.push(companion.clone());
        }
    }
}

const ALL: ChainedPlugins = ChainedPlugins {
    portmap: true,
    bandwidth: true,
    tuning: true,
};

/// The entries as the AWS VPC CNI writes them.
#[must_use]
pub fn companions(which: ChainedPlugins) -> Vec<Value> {
    let mut entries = Vec::new();
    if which.portmap {
        entries.push(json!({
            "type": "portmap",
            "capabilities": { "portMappings": true },
            "snat": true,
        }));
    }
    if which.bandwidth {
        entries.push(json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } }));
    }
    if which.tuning {
        entries.push(json!({
            "type": "tuning",
            "sysctl": {
                "net.ipv6.conf.all.disable_ipv6": "1",
                "net.ipv6.conf.default.disable_ipv6": "1",
                "net.ipv6.conf.lo.disable_ipv6": "1",
            },
        }));
    }
    entries
}

#[cfg(test)]
mod tests;
