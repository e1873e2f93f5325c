//! Which subnets serve pods by their tags: the rules of the AWS VPC CNI's subnet discovery.
//!
//! | Tag of a subnet | Value | Meaning |
//! |---|---|---|
//! | `kubernetes.io/role/cni` | absent or empty | new ENIs only if it is the subnet of the primary ENI |
//! | | `0` | no new ENI, and ENIs that are there get no more pods |
//! | | anything else | new ENIs, if the next row allows it |
//! | `cni.networking.k8s.aws/cluster/<name>` | any | if there is at least one such tag, only for these clusters |
//!
//! The tags of clusters count only together with the first tag, and only if the cluster's name is known. So the subnet of
//! the primary ENI may be used without the first tag, even if it has another cluster's tag.

use std::{collections::BTreeMap, fmt};

/// Whether pods may use a subnet.
pub const ROLE_TAG: &str = "kubernetes.io/role/cni";
/// The start of the tags that name clusters.
pub const CLUSTER_TAG: &str = "cni.networking.k8s.aws/cluster/";

/// Why a subnet gets no new ENI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It does not have [`ROLE_TAG`], and is not the subnet of the primary ENI.
    Untagged,
    /// The value of [`ROLE_TAG`] is 0.
    RoleZero,
    /// It is tagged for other clusters only.
    OtherCluster,
    OtherZone {
        zone: String,
        ours: String,
    },
    /// EC2 does not list it.
    Unknown,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untagged => write!(f, "it does not have the tag {ROLE_TAG}"),
            Self::RoleZero => write!(f, "its tag {ROLE_TAG} is 0"),
            Self::OtherCluster => f.write_str("its tags name other clusters only"),
            Self::OtherZone { zone, ours } => {
                write!(f, "it is in zone {zone}, and the node is in {ours}")
            }
            Self::Unknown => f.write_str("EC2 does not list it"),
        }
    }
}

/// What [`ROLE_TAG`] says.
enum Role {
    None,
    Zero,
    Pods,
}

fn role(tags: &BTreeMap<String, String>) -> Role {
    match tags.get(ROLE_TAG).map(String::as_str) {
        None | Some("") => Role::None,
        Some("0") => Role::Zero,
        Some(_) => Role::Pods,
    }
}

/// Whether the subnet has tags of clusters, and none of them names this one.
fn for_others(tags: &BTreeMap<String, String>, cluster: Option<&str>) -> bool {
    let Some(cluster) = cluster else { return false };
    let mut named = tags.keys().filter_map(|key| key.strip_prefix(CLUSTER_TAG));
    let first = named.next();
    first.is_some_and(|name| name != cluster) && !named.any(|name| name == cluster)
}

/// Whether new ENIs may be created in a subnet with these tags. `primary`: the primary ENI is in it. `cluster`: this
/// cluster's name, if it is known.
///
/// # Errors
/// Why not.
pub fn fit(
    tags: &BTreeMap<String, String>,
    primary: bool,
    cluster: Option<&str>,
) -> Result<(), Unfit> {
    match role(tags) {
        Role::Zero => Err(Unfit::RoleZero),
        Role::None if primary => Ok(()),
        Role::None => Err(Unfit::Untagged),
        Role::Pods if for_others(tags, cluster) => Err(Unfit::OtherCluster),
        Role::Pods => Ok(()),
    }
}

/// Why ENIs in a subnet with these tags get no more pods. `None` if they do.
#[must_use]
pub fn excluded(tags: &BTreeMap<String, String>, cluster: Option<&str>) -> Option<Unfit> {
    match role(tags) {
        Role::Zero => Some(Unfit::RoleZero),
        Role::Pods if for_others(tags, cluster) => Some(Unfit::OtherCluster),
        Role::None | Role::Pods => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The role tag, the tags of clusters (ours is `a`), whether the primary ENI is in the subnet, whether `CLUSTER_NAME`
    /// is set: whether new ENIs may be created there, and whether ENIs there get more pods.
    type Row = (
        Option<&'static str>,
        &'static [&'static str],
        bool,
        bool,
        bool,
        bool,
    );

    #[rustfmt::skip]
    const TABLE: [Row; 80] = [
        (None,      &[],         true,  true,  true,  true),
        (None,      &[],         true,  false, true,  true),
        (None,      &[],         false, true,  false, true),
        (None,      &[],         false, false, false, true),
        (None,      &["a"],      true,  true,  true,  true),
        (None,      &["a"],      true,  false, true,  true),
        (None,      &["a"],      false, true,  false, true),
        (None,      &["a"],      false, false, false, true),
        (None,      &["b"],      true,  true,  true,  true),
        (None,      &["b"],      true,  false, true,  true),
        (None,      &["b"],      false, true,  false, true),
        (None,      &["b"],      false, false, false, true),
        (None,      &["a", "b"], true,  true,  true,  true),
        (None,      &["a", "b"], true,  false, true,  true),
        (None,      &["a", "b"], false, true,  false, true),
        (None,      &["a", "b"], false, false, false, true),
        (Some(""),  &[],         true,  true,  true,  true),
        (Some(""),  &[],         true,  false, true,  true),
        (Some(""),  &[],         false, true,  false, true),
        (Some(""),  &[],         false, false, false, true),
        (Some(""),  &["a"],      true,  true,  true,  true),
        (Some(""),  &["a"],      true,  false, true,  true),
        (Some(""),  &["a"],      false, true,  false, true),
        (Some(""),  &["a"],      false, false, false, true),
        (Some(""),  &["b"],      true,  true,  true,  true),
        (Some(""),  &["b"],      true,  false, true,  true),
        (Some(""),  &["b"],      false, true,  false, true),
        (Some(""),  &["b"],      false, false, false, true),
        (Some(""),  &["a", "b"], true,  true,  true,  true),
        (Some(""),  &["a", "b"], true,  false, true,  true),
        (Some(""),  &["a", "b"], false, true,  false, true),
        (Some(""),  &["a", "b"], false, false, false, true),
        (Some("0"), &[],         true,  true,  false, false),
        (Some("0"), &[],         true,  false, false, false),
        (Some("0"), &[],         false, true,  false, false),
        (Some("0"), &[],         false, false, false, false),
        (Some("0"), &["a"],      true,  true,  false, false),
        (Some("0"), &["a"],      true,  false, false, false),
        (Some("0"), &["a"],      false, true,  false, false),
        (Some("0"), &["a"],      false, false, false, false),
        (Some("0"), &["b"],      true,  true,  false, false),
        (Some("0"), &["b"],      true,  false, false, false),
        (Some("0"), &["b"],      false, true,  false, false),
        (Some("0"), &["b"],      false, false, false, false),
        (Some("0"), &["a", "b"], true,  true,  false, false),
        (Some("0"), &["a", "b"], true,  false, false, false),
        (Some("0"), &["a", "b"], false, true,  false, false),
        (Some("0"), &["a", "b"], false, false, false, false),
(Some("1"), &[],         true,  true,  true,  true),
        (Some("1"), &[],         true,  false, true,  true),
        (Some("1"), &[],         false, true,  true,  true),
        (Some("1"), &[],         false, false, true,  true),
        (Some("1"), &["a"],      true,  true,  true,  true),
        (Some("1"), &["a"],      true,  false, true,  true),
        (Some("1"), &["a"],      false, true,  true,  true),
        (Some("1"), &["a"],      false, false, true,  true),
        (Some("1"), &["b"],      true,  true,  false, false),
        (Some("1"), &["b"],      true,  false, true,  true),
        (Some("1"), &["b"],      false, true,  false, false),
        (Some("1"), &["b"],      false, false, true,  true),
        (Some("1"), &["a", "b"], true,  true,  true,  true),
        (Some("1"), &["a", "b"], true,  false, true,  true),
        (Some("1"), &["a", "b"], false, true,  true,  true),
        (Some("1"), &["a", "b"], false, false, true,  true),
        (Some("x"), &[],         true,  true,  true,  true),
        (Some("x"), &[],         true,  false, true,  true),
        (Some("x"), &[],         false, true,  true,  true),
        (Some("x"), &[],         false, false, true,  true),
        (Some("x"), &["a"],      true,  true,  true,  true),
        (Some("x"), &["a"],      true,  false, true,  true),
        (Some("x"), &["a"],      false, true,  true,  true),
        (Some("x"), &["a"],      false, false, true,  true),
        (Some("x"), &["b"],      true,  true,  false, false),
        (Some("x"), &["b"],      true,  false, true,  true),
        (Some("x"), &["b"],      false, true,  false, false),
        (Some("x"), &["b"],      false, false, true,  true),
        (Some("x"), &["a", "b"], true,  true,  true,  true),
        (Some("x"), &["a", "b"], true,  false, true,  true),
        (Some("x"), &["a", "b"], false, true,  true,  true),
        (Some("x"), &["a", "b"], false, false, true,  true),
    ];

    #[test]
    fn the_tags_of_a_subnet_decide_as_in_the_table() {
        for (role, clusters, primary, named, may_grow, serves) in TABLE {
            let role = role.map(|role| (ROLE_TAG.to_owned(), role.to_owned()));
            let clusters = clusters
                .iter()
                .map(|name| (format!("{CLUSTER_TAG}{name}"), "shared".to_owned()));
            let tags: BTreeMap<_, _> = role.into_iter().chain(clusters).collect();
            let cluster = named.then_some("a");
            let case = format!("{tags:?}, primary {primary}, cluster {cluster:?}");
            assert_eq!(fit(&tags, primary, cluster).is_ok(), may_grow, "{case}");
            assert_eq!(excluded(&tags, cluster).is_none(), serves, "{case}");
        }
    }

    #[test]
    fn other_tags_of_clusters_are_not_read() {
        let tags = [(ROLE_TAG, "1"), ("kubernetes.io/cluster/b", "owned")];
        let tags = tags.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(fit(&tags.into(), false, Some("a")), Ok(()));
    }
}
