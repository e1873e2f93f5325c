//! Owns the names that cross the boundary. Each is checked once, here, and has its own type afterwards.
//!
//! None of them is used as a path or passed to a shell. The kernel gets only interface names.

use std::fmt;

use crate::v1;

/// A name that violates its rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name is empty.
    #[error("{what} is empty")]
    Empty {
        /// The kind of name.
        what: &'static str,
    },
    /// Too long.
    #[error("{what} has {len} bytes, more than {max}")]
    TooLong {
        /// The kind of name.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The maximum length.
        max: usize,
    },
    /// An invalid character.
    #[error("{what} has {found:?} at byte {at}")]
    Character {
        /// The kind of name.
        what: &'static str,
        /// The first such character.
        found: char,
        /// Its offset.
        at: usize,
    },
    /// Well-formed, but reserved for another meaning.
    #[error("{what} may not be {name:?}")]
    Reserved {
        /// The kind of name.
        what: &'static str,
        /// The name.
        name: String,
    },
}

/// A string newtype whose only constructor is `TryFrom<&str>`.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The checked text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;

            fn try_from(text: &str) -> Result<Self, NameError> {
                $check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

name!(
    /// A network's name: letters, digits, `_`, `.`, `-`, starting with a letter or digit (CNI specification), at most
    /// 255 bytes.
    NetworkName,
    network_name
);
name!(
    /// A container's id: the rule of a network's name, at most 128 bytes and without `..`.
    ContainerId,
    container_id
);
name!(
    /// An interface's name that the kernel uses literally: 1 to 15 bytes; not `.` or `..`; no `/`, `:`, `%` (which
    /// makes the kernel add a number), whitespace or control character.
    IfName,
    if_name
);
name!(
    /// The prefix of host-end names: 1 to 4 bytes, so that eleven hexadecimal digits can follow; not `eth`, `lo` or
    /// `vlan`, which are the names of other links.
    VethPrefix,
    veth_prefix
);
/// Longest text about a pod that is kept, in bytes: a pod's name may have 253.
const POD_TEXT_MAX: usize = 253;

/// A namespace, name or uid of a pod as the runtime gave it. It is shown to people and decides nothing, so any text is
/// taken: control characters are escaped, and what is longer than 253 bytes is cut. It is never empty.
///
/// Runtimes that are not Kubernetes, and test suites, use names that Kubernetes would refuse.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodText(String);

impl PodText {
    /// `None` for the empty text, which means absence on the wire and in `CNI_ARGS`.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let mut kept = String::with_capacity(text.len().min(POD_TEXT_MAX));
        for character in text.chars() {
            let before = kept.len();
            if character.is_control() {
                kept.extend(character.escape_default());
            } else {
                kept.push(character);
            }
            if kept.len() > POD_TEXT_MAX {
                kept.truncate(before);
                break;
            }
        }
        Some(Self(kept))
    }

    /// The text, without control characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<PodText> for String {
    fn from(text: PodText) -> Self {
        text.0
    }
}

fn length(what: &'static str, text: &str, max: usize) -> Result<(), NameError> {
    match text.len() {
        0 => Err(NameError::Empty { what }),
        len if len > max => Err(NameError::TooLong { what, len, max }),
        _ => Ok(()),
    }
}

/// Checks that every character satisfies `good`, which also gets its offset.
fn characters(
    what: &'static str,
    text: &str,
    good: impl Fn(usize, char) -> bool,
) -> Result<(), NameError> {
    match text.char_indices().find(|(at, c)| !good(*at, *c)) {
        Some((at, found)) => Err(NameError::Character { what, found, at }),
        None => Ok(()),
    }
}

fn cni_identifier(at: usize, c: char) -> bool {
    c.is_ascii_alphanumeric() || (at > 0 && matches!(c, '_' | '.' | '-'))
}

fn network_name(text: &str) -> Result<(), NameError> {
    let what = "network name";
    length(what, text, 255)?;
    characters(what, text, cni_identifier)
}

fn container_id(text: &str) -> Result<(), NameError> {
    let what = "container id";
    length(what, text, 128)?;
    characters(what, text, cni_identifier)?;
    match text.find("..") {
        Some(at) => Err(NameError::Character {
            what,
            found: '.',
            at: at + 1,
        }),
        None => Ok(()),
    }
}

fn interface_characters(what: &'static str, text: &str) -> Result<(), NameError> {
    characters(what, text, |_, c| {
        !(c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%'))
    })
}

fn if_name(text: &str) -> Result<(), NameError> {
    let what = "interface name";
    length(what, text, 15)?;
    interface_characters(what, text)?;
    reserved(what, text, &[".", ".."])
}

fn veth_prefix(text: &str) -> Result<(), NameError> {
    let what = "veth prefix";
    length(what, text, 4)?;
    interface_characters(what, text)?;
    reserved(what, text, &["eth", "lo", "vlan"])
}

fn reserved(what: &'static str, text: &str, names: &[&str]) -> Result<(), NameError> {
    if names.contains(&text) {
        let name = text.to_owned();
        return Err(NameError::Reserved { what, name });
    }
    Ok(())
}

/// The name of the network that the daemon configures. It is the AWS VPC CNI's: a runtime finds cached results by it, and
/// chaining plugins look for it.
pub const NETWORK: &str = "aws-cni";
/// Its name in earlier releases. Sandboxes made under it are served until they end.
pub const FORMER_NETWORK: &str = "hawser";

/// The minimum MTU in a network configuration: every IPv4 host must accept this size.
pub const MTU_MIN: u32 = 576;
/// The maximum MTU in a network configuration: the MTU of an ENI inside a VPC.
pub const MTU_MAX: u32 = 9001;

/// An attachment of the CNI specification: the primary key of everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SandboxKey {
    /// The network's name.
    pub network: NetworkName,
    /// The sandbox's id.
    pub container_id: ContainerId,
    /// The interface inside it.
    pub ifname: IfName,
}

impl fmt::Display for SandboxKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.network, self.container_id, self.ifname)
    }
}

impl TryFrom<v1::Sandbox> for SandboxKey {
    type Error = NameError;

    fn try_from(wire: v1::Sandbox) -> Result<Self, NameError> {
        Ok(Self {
            network: wire.network.as_str().try_into()?,
            container_id: wire.container_id.as_str().try_into()?,
            ifname: wire.ifname.as_str().try_into()?,
        })
    }
}

impl From<SandboxKey> for v1::Sandbox {
    fn from(key: SandboxKey) -> Self {
        Self {
            network: key.network.into(),
            container_id: key.container_id.into(),
            ifname: key.ifname.into(),
        }
    }
}

/// The pod of a sandbox, as far as the runtime provided it. Never a key: two sandboxes of one pod may exist at the same
/// time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodIdentity {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: Option<PodText>,
    /// `K8S_POD_NAME`.
    pub name: Option<PodText>,
    /// `K8S_POD_UID`.
    pub uid: Option<PodText>,
}

impl From<v1::Pod> for PodIdentity {
    fn from(wire: v1::Pod) -> Self {
        Self {
            namespace: PodText::new(&wire.namespace),
            name: PodText::new(&wire.name),
            uid: PodText::new(&wire.uid),
        }
    }
}

impl From<PodIdentity> for v1::Pod {
    fn from(pod: PodIdentity) -> Self {
        Self {
            namespace: pod.namespace.map(Into::into).unwrap_or_default(),
            name: pod.name.map(Into::into).unwrap_or_default(),
            uid: pod.uid.map(Into::into).unwrap_or_default(),
        }
    }
}

/// Parses a name from a message; an empty string means absent.
///
/// # Errors
/// The errors of the name's type.
pub fn optional<'a, T: TryFrom<&'a str>>(text: &'a str) -> Result<Option<T>, T::Error> {
    if text.is_empty() {
        return Ok(None);
    }
    text.try_into().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good<T: for<'a> TryFrom<&'a str, Error = NameError> + fmt::Display>(texts: &[&str]) {
        for text in texts {
            let name = T::try_from(text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
            assert_eq!(name.to_string(), *text);
        }
    }

    fn bad<T: for<'a> TryFrom<&'a str, Error = NameError> + fmt::Debug>(texts: &[&str]) {
        for text in texts {
            assert!(T::try_from(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn network_names_follow_the_specification() {
        good::<NetworkName>(&["a", "aws-cni", "0_.-", &"n".repeat(255)]);
        bad::<NetworkName>(&["", "-a", ".a", "a b", "a/b", "ä", &"n".repeat(256)]);
    }

    #[test]
    fn container_ids_follow_the_specification_and_never_climb() {
        good::<ContainerId>(&["a1", "cnitool-77383ca0a0715733ca6f", &"f".repeat(128)]);
        bad::<ContainerId>(&["", "..", "a..b", "a/b", "a b", "a\n", &"f".repeat(129)]);
    }

    #[test]
    fn interface_names_are_taken_literally_by_the_kernel() {
        good::<IfName>(&["eth0", "net1", "a", "123456789012345", "..."]);
        bad::<IfName>(&[
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "a\tb",
            "eth%d",
            "a\0",
            "1234567890123456",
        ]);
    }

    #[test]
    fn veth_prefixes_leave_room_for_the_hash() {
        good::<VethPrefix>(&["eni", "cali", "v"]);
        bad::<VethPrefix>(&["", "eth", "lo", "vlan", "toolg", "a/b", "a%d"]);
    }

    #[test]
    fn names_of_a_pod_are_not_validated() {
        let kept = |text| PodText::new(text).map(String::from);
        assert_eq!(kept(""), None);
        for text in [
            "web-0",
            "create-PodSandbox-for-run-1",
            "../../etc",
            "größe 7",
        ] {
            assert_eq!(kept(text).as_deref(), Some(text));
        }
        assert_eq!(kept("a\nb\0c").as_deref(), Some("a\\nb\\u{0}c"));
    }

    #[test]
    fn text_about_a_pod_is_bounded() {
        let kept = |text: &str| PodText::new(text).map(|text| text.as_str().len());
        assert_eq!(kept(&"a".repeat(253)), Some(253));
        assert_eq!(kept(&"a".repeat(100_000)), Some(253));
        assert_eq!(kept(&"ä".repeat(1000)), Some(252));
        assert_eq!(kept(&"\n".repeat(1000)), Some(252));
    }

    #[test]
    fn errors_name_operand_and_place() {
        let error = ContainerId::try_from("ab/c").unwrap_err();
        assert_eq!(error.to_string(), "container id has '/' at byte 2");
        let error = IfName::try_from("1234567890123456").unwrap_err();
        assert_eq!(
            error.to_string(),
            "interface name has 16 bytes, more than 15"
        );
    }

    #[test]
    fn sandbox_keys_survive_the_wire() {
        let wire = v1::Sandbox {
            network: "aws-cni".to_owned(),
            container_id: "c0ffee".to_owned(),
            ifname: "eth0".to_owned(),
        };
        let key = SandboxKey::try_from(wire.clone()).unwrap();
        assert_eq!(key.to_string(), "aws-cni/c0ffee/eth0");
        assert_eq!(v1::Sandbox::from(key), wire);
        assert!(SandboxKey::try_from(v1::Sandbox::default()).is_err());
    }

    #[test]
    fn absent_pod_fields_are_empty_on_the_wire() {
        let pod = PodIdentity::from(v1::Pod::default());
        assert_eq!(pod, PodIdentity::default());
        assert_eq!(v1::Pod::from(pod), v1::Pod::default());
    }
}
