//! The wire format: the answer of each action, and its errors.

use std::time::{Duration, Instant};

use crate::{
    Api, Outcome,
    action::Action,
    http::testing::{Answer, http, raw, serve},
    ids::InstanceId,
    state::faults::{Fault, FaultKind},
    world::model::{
        Route,
        security::{Peer, Protocol, Rule},
    },
};

mod refusals;

const FORM: (&str, &str) = (
    "Content-Type",
    "application/x-www-form-urlencoded; charset=utf-8",
);
const SIGNED: (&str, &str) = (
    "Authorization",
    "AWS4-HMAC-SHA256 Credential=AKID/x/us-west-2/ec2/aws4_request",
);

struct Client {
    api: Api,
    node: InstanceId,
    subnet: String,
    primary: String,
}

fn client() -> Client {
    let (api, node) = serve(true);
    let subnet = api.world().first_subnet().unwrap().to_string();
    let primary = api.world().instance(&node).unwrap().primary.to_string();
    Client {
        api,
        node,
        subnet,
        primary,
    }
}

fn form(action: &str, params: &[(&str, &str)]) -> String {
    let rest: String = params.iter().map(|(k, v)| format!("&{k}={v}")).collect();
    format!("Action={action}&Version=2016-11-15{rest}")
}

impl Client {
    fn ask(&self, action: &str, params: &[(&str, &str)]) -> Answer {
        http(
            &self.api.ec2_endpoint(),
            "POST",
            "/",
            &[FORM, SIGNED],
            &form(action, params),
        )
    }

    /// The body of a successful call, after checks that apply to all answers.
    fn ok(&self, action: &str, params: &[(&str, &str)]) -> String {
        let answer = self.ask(action, params);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let open = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>"
        );
        assert!(answer.body.starts_with(&open), "{}", answer.body);
        assert!(
            answer.body.ends_with(&format!("</{action}Response>")),
            "{}",
            answer.body
        );
        balanced(&answer.body);
        answer.body
    }

    /// The status and code of a failed call, after checks of the error format.
    fn refused(&self, action: &str, params: &[(&str, &str)]) -> (u16, String) {
        let answer = self.ask(action, params);
        balanced(&answer.body);
        assert!(
            answer.body.contains("<Response><Errors><Error><Code>"),
            "{}",
            answer.body
        );
        assert!(
            answer
                .body
                .contains("</Message></Error></Errors><RequestID>"),
            "{}",
            answer.body
        );
        (answer.status, inner(&answer.body, "Code"))
    }

    fn create(&self, params: &[(&str, &str)]) -> String {
        let all = [&[("SubnetId", self.subnet.as_str())], params].concat();
        self.ok("CreateNetworkInterface", &all)
    }
}

/// The contents of the first element with this name.
fn inner(xml: &str, name: &str) -> String {
    let (_, rest) = xml
        .split_once(&format!("<{name}>"))
        .unwrap_or_else(|| panic!("no {name} in {xml}"));
    rest.split_once(&format!("</{name}>")).unwrap().0.to_owned()
}

fn count(xml: &str, name: &str) -> usize {
    xml.matches(&format!("<{name}>")).count()
}

/// Every element that is opened is closed, in order.
fn balanced(xml: &str) {
    let mut open = Vec::new();
    for tag in xml
        .split('<')
        .skip(1)
        .map(|t| t.split('>').next().unwrap())
        .filter(|t| !t.starts_with('?'))
    {
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "{xml}"),
            None => open.push(tag.split(' ').next().unwrap()),
        }
    }
    assert!(open.is_empty(), "{xml}");
}

#[test]
fn create_answers_the_interface_and_its_token() {
    let c = client();
    let params = [
        ("Description", "a%20%26%20%3Cb%3E"),
        ("SecondaryPrivateIpAddressCount", "2"),
        ("Ipv6PrefixCount", "1"),
        ("ClientToken", "t1"),
        ("TagSpecification.1.ResourceType", "network-interface"),
        ("TagSpecification.1.Tag.1.Key", "k"),
        ("TagSpecification.1.Tag.1.Value", "v"),
    ];
    let body = c.create(&params);
    assert_eq!(inner(&body, "description"), "a &amp; &lt;b&gt;");
    assert_eq!(inner(&body, "clientToken"), "t1");
    assert_eq!(
        inner(&body, "tagSet"),
        "<item><key>k</key><value>v</value></item>"
    );
    assert_eq!(count(&inner(&body, "privateIpAddressesSet"), "item"), 3);
    assert_eq!(
        inner(&body, "ipv6PrefixSet")
            .matches("/80</ipv6Prefix>")
            .count(),
        1
    );
    assert_eq!(inner(&body, "subnetId"), c.subnet);
    assert_eq!(inner(&body, "interfaceType"), "interface");
    assert!(
        body.contains("<primary>true</primary>") && body.contains("<status>pending</status>"),
        "{body}"
    );
    assert_eq!(
        inner(&c.create(&params), "networkInterfaceId"),
        inner(&body, "networkInterfaceId")
    );
}

#[test]
fn create_takes_explicit_addresses_and_prefixes() {
    let c = client();
    let body = c.create(&[
        ("PrivateIpAddresses.1.PrivateIpAddress", "10.0.3.4"),
        ("PrivateIpAddresses.1.Primary", "true"),
        ("PrivateIpAddresses.2.PrivateIpAddress", "10.0.3.5"),
    ]);
    assert!(
        body.contains("<privateIpAddress>10.0.3.4</privateIpAddress>") && body.contains("10.0.3.5"),
        "{body}"
    );
    let body = c.create(&[
        ("PrivateIpAddress", "10.0.3.6"),
        ("Ipv4Prefix.1.Ipv4Prefix", "10.0.4.0/28"),
    ]);
    assert_eq!(
        inner(&body, "ipv4PrefixSet"),
        "<item><ipv4Prefix>10.0.4.0/28</ipv4Prefix></item>"
    );
}

#[test]
fn an_interface_lives_from_create_to_delete() {
    let c = client();
    let eni = inner(&c.create(&[]), "networkInterfaceId");
    let id = ("NetworkInterfaceId", eni.as_str());
    let attach = [
        id,
        ("InstanceId", &c.node.0),
        ("DeviceIndex", "1"),
        ("NetworkCardIndex", "0"),
    ];
    let body = c.ok("AttachNetworkInterface", &attach);
    assert_eq!(inner(&body, "networkCardIndex"), "0");
    let attachment = inner(&body, "attachmentId");
    let modify = [
        id,
        ("Attachment.AttachmentId", attachment.as_str()),
        ("Attachment.DeleteOnTermination", "true"),
    ];
    assert_eq!(
        inner(&c.ok("ModifyNetworkInterfaceAttribute", &modify), "return"),
        "true"
    );
    let body = c.ok(
        "DescribeNetworkInterfaces",
        &[("NetworkInterfaceId.1", &eni)],
    );
    let bond = inner(&body, "attachment");
    for (name, value) in [
        ("attachmentId", attachment.as_str()),
        ("deviceIndex", "1"),
        ("status", "attached"),
        ("deleteOnTermination", "true"),
        ("instanceId", &c.node.0),
    ] {
        assert_eq!(inner(&bond, name), value);
    }
    assert!(inner(&bond, "attachTime").ends_with('Z'));
    assert_eq!(
        c.refused("DeleteNetworkInterface", &[id]),
        (400, "InvalidParameterValue".into())
    );
    assert_eq!(
        inner(
            &c.ok("DetachNetworkInterface", &[("AttachmentId", &attachment)]),
            "return"
        ),
        "true"
    );
    assert_eq!(
        inner(&c.ok("DeleteNetworkInterface", &[id]), "return"),
        "true"
    );
    assert_eq!(
        c.refused("DeleteNetworkInterface", &[id]).1,
        "InvalidNetworkInterfaceID.NotFound"
    );
}

#[test]
fn addresses_come_and_go() {
    let c = client();
    let id = ("NetworkInterfaceId", c.primary.as_str());
    let body = c.ok(
        "AssignPrivateIpAddresses",
        &[id, ("SecondaryPrivateIpAddressCount", "2")],
    );
    assert_eq!(inner(&body, "networkInterfaceId"), c.primary);
    let given = inner(&body, "assignedPrivateIpAddressesSet");
    assert_eq!(count(&given, "privateIpAddress"), 2);
    let first = inner(&given, "privateIpAddress");
    let body = c.ok("AssignPrivateIpAddresses", &[id, ("Ipv4PrefixCount", "1")]);
    let prefix = inner(&inner(&body, "assignedIpv4PrefixSet"), "ipv4Prefix");
    let drop = [
        id,
        ("PrivateIpAddress.1", first.as_str()),
        ("Ipv4Prefix.1", &prefix),
    ];
    assert_eq!(
        inner(&c.ok("UnassignPrivateIpAddresses", &drop), "return"),
        "true"
    );
    assert_eq!(
        c.refused("UnassignPrivateIpAddresses", &drop).1,
        "InvalidParameterValue"
    );
}

#[test]
fn ipv6_addresses_come_and_go() {
    let c = client();
    let id = ("NetworkInterfaceId", c.primary.as_str());
    let body = c.ok("AssignIpv6Addresses", &[id, ("Ipv6AddressCount", "1")]);
    let address = inner(&inner(&body, "assignedIpv6Addresses"), "item");
    let body = c.ok("AssignIpv6Addresses", &[id, ("Ipv6PrefixCount", "1")]);
    let prefix = inner(&inner(&body, "assignedIpv6PrefixSet"), "item");
    assert!(prefix.ends_with("/80"));
    let body = c.ok(
        "UnassignIpv6Addresses",
        &[id, ("Ipv6Addresses.1", &address), ("Ipv6Prefix.1", &prefix)],
    );
    assert_eq!(
        inner(&inner(&body, "unassignedIpv6Addresses"), "item"),
        address
    );
    assert_eq!(
        inner(&inner(&body, "unassignedIpv6PrefixSet"), "item"),
        prefix
    );
}

#[test]
fn tags_come_and_go() {
    let c = client();
    let resource = ("ResourceId.1", c.primary.as_str());
    assert_eq!(
        inner(
            &c.ok(
                "CreateTags",
                &[resource, ("Tag.1.Key", "k"), ("Tag.1.Value", "v")]
            ),
            "return"
        ),
        "true"
    );
    let body = c.ok(
        "DescribeTags",
        &[
            ("Filter.1.Name", "resource-id"),
            ("Filter.1.Value.1", &c.primary),
        ],
    );
    let row = inner(&body, "item");
    let expect = format!(
        "<resourceId>{}</resourceId><resourceType>network-interface</resourceType><key>k</key><value>v</value>",
        c.primary
    );
    assert_eq!(row, expect);
    c.ok("DeleteTags", &[resource, ("Tag.1.Key", "k")]);
    assert_eq!(inner(&c.ok("DescribeTags", &[]), "tagSet"), "");
}

#[test]
fn instances_show_their_interfaces() {
    let c = client();
    let body = c.ok("DescribeInstances", &[("InstanceId.1", &c.node.0)]);
    let instance = inner(&body, "instancesSet");
    assert_eq!(inner(&instance, "instanceId"), c.node.0);
    assert_eq!(inner(&instance, "instanceType"), "m5.large");
    assert_eq!(
        inner(&instance, "instanceState"),
        "<code>16</code><name>running</name>"
    );
    assert_eq!(inner(&instance, "httpTokens"), "required");
    let interface = inner(&instance, "networkInterfaceSet");
    assert_eq!(inner(&interface, "networkInterfaceId"), c.primary);
    assert_eq!(inner(&inner(&interface, "attachment"), "deviceIndex"), "0");
}

#[test]
fn instance_types_show_their_limits() {
    let c = client();
    let body = c.ok(
        "DescribeInstanceTypes",
        &[("InstanceType.1", "p4d.24xlarge")],
    );
    for (name, value) in [
        // All four cards together; each has 15.
        ("maximumNetworkInterfaces", "60"),
        ("maximumNetworkCards", "4"),
        ("defaultNetworkCardIndex", "0"),
        ("ipv4AddressesPerInterface", "50"),
        ("hypervisor", "nitro"),
    ] {
        assert_eq!(inner(&body, name), value);
    }
    let cards = inner(&body, "networkCards");
    assert_eq!(count(&cards, "item"), 4);
    assert_eq!(inner(&cards, "maximumNetworkInterfaces"), "15");
    assert_eq!(
        c.refused("DescribeInstanceTypes", &[("InstanceType.1", "x9.huge")])
            .1,
        "InvalidInstanceType"
    );
}

#[test]
fn the_topology_is_described() {
    let c = client();
    let subnet = c.ok("DescribeSubnets", &[("SubnetId.1", &c.subnet)]);
    assert_eq!(
        inner(&subnet, "availableIpAddressCount"),
        (4096 - 5 - 1).to_string()
    );
    assert_eq!(inner(&subnet, "cidrBlock"), "10.0.0.0/20");
    assert_eq!(inner(&subnet, "ipv6CidrBlock"), "2600:1f14:0:1::/64");
    assert_eq!(inner(&subnet, "availabilityZone"), "us-west-2a");
    let vpc = c.ok("DescribeVpcs", &[]);
    assert_eq!(
        inner(&inner(&vpc, "cidrBlockAssociationSet"), "cidrBlock"),
        "10.0.0.0/16"
    );
    assert_eq!(inner(&vpc, "vpcId"), inner(&subnet, "vpcId"));
    for (xml, prefix) in [(&subnet, "subnet-cidr-assoc-"), (&vpc, "vpc-cidr-assoc-")] {
        let ids: Vec<_> = xml.split("<associationId>").skip(1).collect();
        let own = |i: &&&str| i.starts_with(prefix) && i.find('<') == Some(prefix.len() + 17);
        assert_eq!(ids.iter().filter(own).count(), ids.len(), "{xml}");
    }
    assert_eq!(count(&vpc, "associationId"), 2);
    let group = c.ok("DescribeSecurityGroups", &[("GroupName.1", "default")]);
    assert_eq!(inner(&group, "vpcId"), inner(&subnet, "vpcId"));
    let none = c.ok("DescribeSecurityGroups", &[("GroupName.1", "other")]);
    assert_eq!(inner(&none, "securityGroupInfo"), "");
}

#[test]
fn route_tables_show_their_routes_and_associations() {
    let c = client();
    {
        let mut world = c.api.world();
        let subnet = world.first_subnet().unwrap().clone();
        let vpc = world.subnet(&subnet).unwrap().vpc.clone();
        let table = world.add_route_table(&vpc, Route::everything("nat-1", true));
        assert!(world.associate_route_table(&table, &subnet));
    }
    let ask = |name: &str, value: &str| {
        let filter = [("Filter.1.Name", name), ("Filter.1.Value.1", value)];
        c.ok("DescribeRouteTables", &filter)
    };
    let own = ask("association.subnet-id", &c.subnet);
    let table = inner(&own, "routeTableId");
    assert_eq!(
        count(&own, "routeTableId"),
        2,
        "the table and its association"
    );
    let association = inner(&own, "associationSet");
    for (name, value) in [
        ("routeTableId", table.as_str()),
        ("subnetId", &c.subnet),
        ("main", "false"),
    ] {
        assert_eq!(inner(&association, name), value);
    }
    assert!(inner(&association, "routeTableAssociationId").starts_with("rtbassoc-"));
    let routes = inner(&own, "routeSet");
    let local = "<destinationCidrBlock>10.0.0.0/16</destinationCidrBlock><gatewayId>local</gatewayId>\
                 <state>active</state><origin>CreateRouteTable</origin>";
    assert_eq!(inner(&routes, "item"), local);
    assert_eq!(count(&routes, "natGatewayId"), 2);
    assert_eq!(count(&routes, "destinationIpv6CidrBlock"), 2);
    let main = ask("association.main", "true");
    assert_eq!(count(&main, "subnetId"), 0);
    assert!(
        inner(&main, "routeSet").contains("<gatewayId>igw-"),
        "{main}"
    );
    assert_eq!(count(&c.ok("DescribeRouteTables", &[]), "vpcId"), 2);
    assert_eq!(
        c.refused("DescribeRouteTables", &[("RouteTableId.1", "rtb-1")])
            .1,
        "InvalidRouteTableID.NotFound"
    );
}

#[test]
fn security_groups_show_their_rules() {
    let c = client();
    let (group, peer) = {
        let mut world = c.api.world();
        let vpc = world.vpcs().next().unwrap().id.clone();
        let group = world.add_group(&vpc, "pods", "pods");
        let peer = world.vpc(&vpc).unwrap().default_group.clone();
        let web = |peer| Rule::new(Protocol::tcp(80), peer);
        let rules = vec![
            web(Peer::Block("10.0.0.0/8".parse().unwrap())),
            web(Peer::Group(peer.clone())),
            Rule::new(Protocol::Icmp, Peer::Block("::/0".parse().unwrap())),
        ];
        world.set_ingress(&group, rules);
        (group, peer)
    };
    let body = c.ok("DescribeSecurityGroups", &[("GroupId.1", &group.0)]);
    let ingress = inner(&body, "ipPermissions");
    let account = inner(&body, "ownerId");
    let expect = format!(
        "<item><ipProtocol>icmp</ipProtocol><fromPort>-1</fromPort><toPort>-1</toPort><groups></groups>\
         <ipRanges></ipRanges><ipv6Ranges><item><cidrIpv6>::/0</cidrIpv6></item></ipv6Ranges>\
         <prefixListIds></prefixListIds></item>\
         <item><ipProtocol>tcp</ipProtocol><fromPort>80</fromPort><toPort>80</toPort>\
         <groups><item><userId>{account}</userId><groupId>{peer}</groupId></item></groups>\
         <ipRanges><item><cidrIp>10.0.0.0/8</cidrIp></item></ipRanges><ipv6Ranges></ipv6Ranges>\
         <prefixListIds></prefixListIds></item>"
    );
    assert_eq!(ingress, expect);
    let egress = inner(&body, "ipPermissionsEgress");
    assert_eq!(inner(&egress, "ipProtocol"), "-1");
    assert_eq!(count(&egress, "fromPort"), 0);
}

#[test]
fn pages_follow_their_tokens() {
    let c = client();
    for _ in 0..6 {
        c.create(&[]);
    }
    let first = c.ok("DescribeNetworkInterfaces", &[("MaxResults", "5")]);
    assert_eq!(count(&first, "ownerId"), 5);
    let token = inner(&first, "nextToken");
    let second = c.ok(
        "DescribeNetworkInterfaces",
        &[("MaxResults", "5"), ("NextToken", &token)],
    );
    assert_eq!(
        (count(&second, "ownerId"), count(&second, "nextToken")),
        (2, 0)
    );
}
