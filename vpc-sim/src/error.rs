//! EC2's errors. The texts are EC2's (hence the capitals); codes and HTTP statuses are in two tables.

use std::net::IpAddr;

use crate::ids::{AttachmentId, EniId, GroupId, InstanceId, SubnetId};

/// A kind of resource, for "does not exist" errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Interface,
    Subnet,
    Vpc,
    Group,
    /// A security group of an interface: EC2 has another code for it.
    InterfaceGroup,
    RouteTable,
    Instance,
    Attachment,
    InstanceType,
    /// An id in CreateTags or DeleteTags with an unknown prefix.
    Other,
}

impl Resource {
    const fn code(self) -> &'static str {
        match self {
            Self::Interface => "InvalidNetworkInterfaceID.NotFound",
            Self::Subnet => "InvalidSubnetID.NotFound",
            Self::Vpc => "InvalidVpcID.NotFound",
            Self::Group => "InvalidGroup.NotFound",
            Self::InterfaceGroup => "InvalidSecurityGroupID.NotFound",
            Self::RouteTable => "InvalidRouteTableID.NotFound",
            Self::Instance => "InvalidInstanceID.NotFound",
            Self::Attachment => "InvalidAttachmentID.NotFound",
            Self::InstanceType => "InvalidInstanceType",
            Self::Other => "InvalidID",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Interface => "networkInterface",
            Self::Subnet => "subnet",
            Self::Vpc => "vpc",
            Self::Group => "security group",
            Self::InterfaceGroup => "securityGroup",
            Self::RouteTable => "routeTable",
            Self::Instance => "instance",
            Self::Attachment => "attachment",
            Self::InstanceType => "instance type",
            Self::Other => "resource",
        }
    }
}

fn missing(kind: Resource, ids: &[String]) -> String {
    let (word, joined) = (kind.word(), ids.join(", "));
    match (kind, ids.len()) {
        (Resource::InstanceType, _) => {
            format!("The following supplied instance types do not exist: [{joined}]")
        }
        (Resource::Group, _) => format!("The security group '{joined}' does not exist"),
        (Resource::Attachment, _) => format!("The interface attachment '{joined}' does not exist."),
        (_, 0 | 1) => format!("The {word} ID '{joined}' does not exist"),
        (_, _) => format!("The {word} IDs '{joined}' do not exist"),
    }
}

/// A failed call. `Display` is the text in `<Message>`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    #[error("{}", missing(*kind, ids))]
    NotFound { kind: Resource, ids: Vec<String> },

    #[error("Interface: [{eni}] in use.")]
    InterfaceInUse { eni: EniId },
    #[error("Network interface '{eni}' is currently in use.")]
    DeleteInUse { eni: EniId },
    #[error("Instance '{instance}' already has an interface attached at device index '{device}'.")]
    DeviceIndexTaken { instance: InstanceId, device: u32 },
    #[error("Interface count {count} exceeds the limit for {instance_type}")]
    AttachmentLimit { count: usize, instance_type: String },
    #[error("Network card index {card} does not exist for instance type {instance_type}.")]
    NoSuchCard { card: u32, instance_type: String },
    #[error(
        "You may not attach a network interface to an instance if they are not in the same availability zone"
    )]
    ZoneMismatch {
        interface_zone: String,
        instance_zone: String,
    },
    #[error("Instance '{instance}' is not in a valid state for this operation: {state}.")]
    InstanceState {
        instance: InstanceId,
        state: &'static str,
    },
    #[error(
        "Network interface attachment '{attachment}' is in a state that does not allow this operation: {state}."
    )]
    AttachmentState {
        attachment: AttachmentId,
        state: &'static str,
    },
    #[error(
        "The network interface at device index 0 and networkCard index {card} cannot be detached."
    )]
    PrimaryDetach { card: u32 },
    #[error("You are not allowed to manage 'ela-attach' attachments.")]
    Managed { eni: EniId },

    #[error("Number of private addresses will exceed limit.")]
    AddressLimit { wanted: usize, limit: u16 },
    #[error(
        "There are not enough free addresses in subnet '{subnet}' to satisfy the requested number."
    )]
    NoFreeAddresses { subnet: SubnetId },
    #[error(
        "There are not enough free cidr blocks in the specified subnet to satisfy the request."
    )]
    NoFreeBlocks { subnet: SubnetId },
    #[error("Address {address} is in use.")]
    AddressInUse { address: String },
    #[error("Some of {addresses} are assigned, but move is not allowed")]
    MoveNotAllowed { addresses: String },
    #[error("Some of the specified addresses are not assigned to interface {eni}")]
    NotAssigned { eni: EniId },
    #[error(
        "The primary private IP address {address} of interface {eni} cannot be unassigned or moved"
    )]
    PrimaryAddress { eni: EniId, address: IpAddr },
    #[error("Address {address} does not fall within the subnet's address range")]
    OutsideSubnet { address: String, subnet: SubnetId },
    #[error("Address {address} is in subnet's reserved address range.")]
    ReservedAddress { address: String },
    #[error("The prefix {prefix} is not an aligned block of the required size")]
    BadPrefix { prefix: String },
    #[error("Instance type {instance_type} does not support prefix delegation")]
    PrefixesUnsupported { instance_type: String },
    #[error("The subnet '{subnet}' has no IPv6 CIDR block")]
    NoIpv6 { subnet: SubnetId },

    #[error("Security group {group} and subnet {subnet} belong to different networks.")]
    GroupElsewhere { group: GroupId, subnet: SubnetId },
    #[error("You have specified two resources that belong to different networks.")]
    DifferentNetworks { group: GroupId, eni: EniId },
    #[error(
        "The maximum number of security groups per network interface has been reached ({limit})."
    )]
    GroupsPerInterface { limit: usize },
    #[error("The maximum number of Tags for a resource has been reached.")]
    TagLimit { resource: String },
    #[error("Tag keys starting with 'aws:' are reserved for internal use")]
    ReservedTag { key: String },
    #[error("'{kind}' is not a valid taggable resource type for this operation.")]
    NotTaggable { kind: String },
    #[error("The maximum number of network interfaces has been reached ({limit}).")]
    InterfaceQuota { limit: usize },
    #[error(
        "Arguments on this idempotent request are inconsistent with arguments used in previous request(s) with client \
         token '{token}'."
    )]
    TokenMismatch { token: String },

    #[error("The action {action} is not valid for this web service.")]
    InvalidAction { action: String },
    #[error("The requested version ({version}) of service AmazonEC2 does not exist")]
    NoSuchVersion { version: String },
    #[error("The parameter {name} is not recognized")]
    UnknownParameter { name: String },
    #[error("The request must contain the parameter {name}")]
    MissingParameter { name: String },
    #[error("Value ({value}) for parameter {name} is invalid. {why}")]
    InvalidValue {
        name: String,
        value: String,
        why: &'static str,
    },
    #[error("The parameter {first} cannot be used with the parameter {second}")]
    Combination { first: String, second: String },
    #[error("The query string is malformed: {why}")]
    Malformed { why: String },
    #[error("The filter '{name}' is invalid")]
    BadFilter { name: String },
    #[error("The token '{token}' is invalid")]
    BadNextToken { token: String },

    #[error("Request would have succeeded, but DryRun flag is set.")]
    DryRun,
    #[error("Request limit exceeded.")]
    Throttled,
    #[error("{message}")]
    Scripted { code: String, message: String },
}

impl ApiError {
    pub(crate) fn not_found(kind: Resource, id: &dyn ToString) -> Self {
        Self::NotFound {
            kind,
            ids: vec![id.to_string()],
        }
    }

    /// The value of `<Code>`.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::NotFound { kind, .. } => kind.code(),
            Self::InterfaceInUse { .. } => "InvalidNetworkInterface.InUse",
            Self::AttachmentLimit { .. } => "AttachmentLimitExceeded",
            Self::InstanceState { .. } | Self::AttachmentState { .. } => "IncorrectState",
            Self::PrimaryDetach { .. } | Self::Managed { .. } => "OperationNotPermitted",
            Self::AddressLimit { .. } => "PrivateIpAddressLimitExceeded",
            Self::NoFreeAddresses { .. } => "InsufficientFreeAddressesInSubnet",
            Self::NoFreeBlocks { .. } => "InsufficientCidrBlocks",
            Self::AddressInUse { .. } => "InvalidIPAddress.InUse",
            Self::GroupElsewhere { .. } => "InvalidParameter",
            Self::DifferentNetworks { .. } => "InvalidGroup.NotFound",
            Self::GroupsPerInterface { .. } => "SecurityGroupsPerInterfaceLimitExceeded",
            Self::TagLimit { .. } => "TagLimitExceeded",
            Self::InterfaceQuota { .. } => "NetworkInterfaceLimitExceeded",
            Self::TokenMismatch { .. } => "IdempotentParameterMismatch",
            Self::InvalidAction { .. } => "InvalidAction",
            Self::NoSuchVersion { .. } => "NoSuchVersion",
            Self::UnknownParameter { .. } => "UnknownParameter",
            Self::MissingParameter { .. } => "MissingParameter",
            Self::ZoneMismatch { .. } | Self::Combination { .. } => "InvalidParameterCombination",
            Self::Malformed { .. } => "MalformedQueryString",
            Self::BadNextToken { .. } => "InvalidNextToken",
            Self::DryRun => "DryRunOperation",
            Self::Throttled => "RequestLimitExceeded",
            Self::Scripted { code, .. } => code,
            Self::DeleteInUse { .. }
            | Self::DeviceIndexTaken { .. }
            | Self::NoSuchCard { .. }
            | Self::MoveNotAllowed { .. }
            | Self::NotAssigned { .. }
            | Self::PrimaryAddress { .. }
            | Self::OutsideSubnet { .. }
            | Self::ReservedAddress { .. }
            | Self::BadPrefix { .. }
            | Self::PrefixesUnsupported { .. }
            | Self::NoIpv6 { .. }
            | Self::ReservedTag { .. }
            | Self::NotTaggable { .. }
            | Self::InvalidValue { .. }
            | Self::BadFilter { .. } => "InvalidParameterValue",
        }
    }

    /// The HTTP status for the code.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self.code() {
            "RequestLimitExceeded" | "ServiceUnavailable" | "Unavailable" => 503,
            "InternalError" | "InternalFailure" => 500,
            "AuthFailure" => 401,
            "UnauthorizedOperation"
            | "AccessDenied"
            | "AccessDeniedException"
            | "InvalidClientTokenId"
            | "MissingAuthenticationToken"
            | "OptInRequired"
            | "SignatureDoesNotMatch" => 403,
            "DryRunOperation" => 412,
            _ => 400,
        }
    }
}
