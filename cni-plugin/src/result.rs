//! Owns the form of an ADD's result in each protocol version, and how CHECK parses it. Everything in it exists: there
//! are no dummy entries, and no hidden data from ADD to DEL.

use std::net::IpAddr;

use nettypes::Mac;
use proto::address::{AddressError, ip, mac};
use proto::v1::{AddReply, Link};
use serde_json::{Map, Value, json};

use crate::error::{Failure, code};
use crate::input::conf::{ConfError, kind};
use crate::version::Version;

/// A reply of the daemon that cannot be converted into a result.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    #[error("the reply of ipamd has no field {field}")]
    Absent { field: &'static str },
    #[error("the reply of ipamd has a malformed address")]
    Address {
        #[from]
        source: AddressError,
    },
}

impl From<ReplyError> for Failure {
    fn from(error: ReplyError) -> Self {
        Self::new(
            code::INTERNAL,
            &error,
            "install the plugin and ipamd of the same release",
        )
    }
}

/// One end of the pod's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub mac: Mac,
    pub mtu: u32,
}

/// The result of ADD, independent of the protocol version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    pub address: IpAddr,
    pub gateway: IpAddr,
    pub host: Interface,
    pub pod: Interface,
    /// Another interface of the sandbox has its default route.
    pub secondary: bool,
}

impl TryFrom<AddReply> for Granted {
    type Error = ReplyError;

    fn try_from(reply: AddReply) -> Result<Self, ReplyError> {
        Ok(Self {
            address: ip("address", &reply.address)?,
            gateway: ip("gateway", &reply.gateway)?,
            host: interface("host", reply.host)?,
            pod: interface("pod", reply.pod)?,
            secondary: reply.secondary,
        })
    }
}

fn interface(field: &'static str, link: Option<Link>) -> Result<Interface, ReplyError> {
    let link = link.ok_or(ReplyError::Absent { field })?;
    Ok(Interface {
        mac: mac(field, &link.mac)?,
        name: link.name,
        mtu: link.mtu,
    })
}

impl Granted {
    /// The result in the form of `version`, added to the result of the previous plugins in the chain.
    pub fn to_json(
        &self,
        version: Version,
        sandbox: &str,
        prev: Option<&Map<String, Value>>,
    ) -> Result<Value, ConfError> {
        let mut result = prev.cloned().unwrap_or_default();
        result.insert("cniVersion".to_owned(), version.as_str().into());

        let interfaces = list(&mut result, "interfaces")?;
        interfaces.push(interface_json(&self.host, "", version));
        interfaces.push(interface_json(&self.pod, sandbox, version));
        let pod_index = interfaces.len() - 1;

        let family = Family::of(self.address);
        let mut ip = json!({
            "interface": pod_index,
            "address": format!("{}/{}", self.address, family.host_bits),
            "gateway": self.gateway.to_string(),
        });
        // 1.0.0 removed the family, because the address shows it.
        if version < Version::V1_0_0 {
            ip["version"] = family.name.into();
        }
        list(&mut result, "ips")?.push(ip);

        if !self.secondary {
            let default = json!({"dst": family.everything, "gw": self.gateway.to_string()});
            list(&mut result, "routes")?.push(default);
        }
        Ok(Value::Object(result))
    }
}

/// How results represent the differences between the families.
struct Family {
    name: &'static str,
    host_bits: u8,
    everything: &'static str,
}

impl Family {
    const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self {
                name: "4",
                host_bits: 32,
                everything: "0.0.0.0/0",
            },
            IpAddr::V6(_) => Self {
                name: "6",
                host_bits: 128,
                everything: "::/0",
            },
        }
    }
}

fn interface_json(interface: &Interface, sandbox: &str, version: Version) -> Value {
    let mut json = json!({
        "name": interface.name,
        "mac": interface.mac.to_string(),
        "sandbox": sandbox,
    });
    if version >= Version::V1_1_0 && interface.mtu > 0 {
        json["mtu"] = interface.mtu.into();
    }
    json
}

/// The array under `key`; absent and `null` give an empty one.
fn list<'a>(
    result: &'a mut Map<String, Value>,
    key: &'static str,
) -> Result<&'a mut Vec<Value>, ConfError> {
    let value = result.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Array(Vec::new());
    }
    let found = kind(value);
    value.as_array_mut().ok_or(ConfError::Type {
        key,
        found,
        want: "an array",
    })
}

/// The address of `ifname` in a sandbox, from a previous result. Additions of other plugins are ignored; an address
/// without an interface is used if there is no better one.
pub fn address_in(prev: &Map<String, Value>, ifname: &str) -> Result<IpAddr, ConfError> {
    let array = |key: &str| prev.get(key).and_then(Value::as_array);
    let interfaces = array("interfaces").map_or(&[][..], Vec::as_slice);
    let ours = |ip: &Value| {
        let index = ip["interface"].as_u64()?;
        let interface = interfaces.get(usize::try_from(index).ok()?)?;
        let inside = interface["sandbox"].as_str().is_some_and(|s| !s.is_empty());
        Some(inside && interface["name"] == ifname)
    };
    let ips = array("ips").map_or(&[][..], Vec::as_slice);
    let named = ips.iter().filter(|ip| ours(ip) == Some(true));
    let unnamed = ips.iter().filter(|ip| ip["interface"].is_null());
    named
        .chain(unnamed)
        .find_map(ip_address)
        .ok_or_else(|| ConfError::NoAddress {
            ifname: ifname.to_owned(),
        })
}

fn ip_address(ip: &Value) -> Option<IpAddr> {
    let text = ip["address"].as_str()?;
    let (address, _length) = text.split_once('/')?;
    address.parse().ok()
}

#[cfg(test)]
mod tests;
