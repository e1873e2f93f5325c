//! The table. Rows with a phrase come before the row of the same code without one.
//!
//! Sources: "Error codes for the Amazon EC2 API" and "Common error types" of EC2's API reference (those that the daemon's
//! calls can return), and what EC2 was observed to return. `docs/ec2-errors.md` has the same rows, and a test compares
//! both.

use planner::event::Rest;

use super::{Meaning, Row};

use Meaning::{
    Denied, InUse, Internal, Limit, NoAddress, NoBlock, NoRoom, NotFound, Refused, Throttled,
};

const LONG: Meaning = Refused(Rest::Long);
const SHORT: Meaning = Refused(Rest::Short);

pub(super) const DEFECT: &str = "EC2's message names the parameter: if it comes from a setting, correct the setting, else report this with the \
     daemon's log";
const BUDGET: &str = "find out what uses the account's EC2 request budget in {region}";
const ADDRESSES: &str = "free addresses in the subnet, or use nodes in another subnet";
const BLOCKS: &str =
    "single addresses are used meanwhile; reserve a block for prefixes in the subnet";
const ROOM: &str = "free addresses in the subnet, or reserve a block for prefixes in it";
const INTERFACES: &str = "raise the quota \"Network interfaces per Region\" (L-DF5E4CA3 of Amazon VPC) in the Service Quotas console of \
     {region}, or delete unused interfaces there";
const GROUPS_QUOTA: &str = "give the primary ENI fewer security groups, or raise the quota \"Security groups per network interface\" \
     (L-2AFB9258 of Amazon VPC) in the Service Quotas console of {region}";
const OTHER_QUOTA: &str =
    "raise the quota that EC2's message names in the Service Quotas console of {region}";
const FULL: &str = "no action needed: the daemon lists the interfaces and uses what they have";
const TAGS: &str =
    "correct ADDITIONAL_ENI_TAGS or CLUSTER_NAME, or the tag policy that EC2's message names";
const TAG_COUNT: &str = "set fewer tags in ADDITIONAL_ENI_TAGS: an interface has at most 50";
const ACCOUNT: &str = "ask AWS Support why EC2 does not serve this account in {region}";
const OPT_IN: &str =
    "subscribe the account to EC2 and enable {region} for it, in the account's settings";
const VERIFICATION: &str =
    "wait for AWS to verify the account for {region}, or ask AWS Support; it takes up to hours";
const CREDENTIALS: &str =
    "check the node role, its credentials and the node's clock; `ipamd doctor` checks the clock";
const PASSES: &str = "no action needed: the daemon tries again";
const POLICY: &str =
    "allow the action in the node role's IAM policy; `ipamd doctor` tests each action";
const GROUPS: &str = "give the primary ENI security groups that exist: new ENIs get the same ones";
const SUBNET: &str = "replace the node by one in a subnet that exists";
const GONE: &str = "find out who deleted it: CloudTrail has the caller";
const STATE: &str = "no action needed: the daemon lists the interfaces and tries again";
const ZONE: &str = "delete the interface: its subnet must be in the instance's zone";
const NOT_ALLOWED: &str = "EC2's message says what is not allowed; an interface that an AWS service manages must be left to it: tag it \
     node.k8s.amazonaws.com/no_manage=true";
const UNSUPPORTED: &str = "use an instance type or a subnet that supports what EC2's message names, or turn the setting off";
const HEALTH: &str = "see the AWS Health Dashboard for EC2 in {region}";

const fn row(
    code: &'static str,
    meaning: Meaning,
    text: &'static str,
    remedy: &'static str,
) -> Row {
    Row {
        code,
        saying: None,
        meaning,
        text,
        remedy,
    }
}

const fn saying(words: &'static str, row: Row) -> Row {
    Row {
        saying: Some(words),
        ..row
    }
}

/// Every code of EC2 that the daemon knows.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    // The account's request budget.
    row("RequestLimitExceeded", Throttled, "too many requests of the account", BUDGET),
    row("Throttling", Throttled, "too many requests of the account", BUDGET),
    row("ThrottlingException", Throttled, "too many requests of the account", BUDGET),
    row("EC2ThrottledException", Throttled, "too many requests of the account", BUDGET),
    row("RequestThrottled", Throttled, "too many requests of the account", BUDGET),
    row("BandwidthLimitExceeded", Throttled, "too many requests of the account", BUDGET),

    // Room in the subnet, on the instance and on the interface.
    row("InsufficientFreeAddressesInSubnet", NoAddress, "the subnet has too few free addresses", ADDRESSES),
    row("InsufficientCidrBlocks", NoBlock, "the subnet has no free block for a prefix", BLOCKS),
    row("PrivateIpAddressLimitExceeded", Limit, "the interface has as many addresses as its instance allows", FULL),
    row("InvalidInterface.IpAddressLimitExceeded", Limit, "the interface has as many addresses as its instance allows", FULL),
    row("AttachmentLimitExceeded", Limit, "the instance has as many interfaces as its type allows", FULL),

    // Quotas of the account.
    row("NetworkInterfaceLimitExceeded", LONG, "the account has as many interfaces in the region as its quota allows", INTERFACES),
    row("SecurityGroupsPerInterfaceLimitExceeded", LONG, "more security groups than the quota allows", GROUPS_QUOTA),
    row("SecurityGroupsPerInstanceLimitExceeded", LONG, "more security groups than the quota allows", GROUPS_QUOTA),
    row("SecurityGroupLimitExceeded", LONG, "more security groups than the quota allows", GROUPS_QUOTA),
    row("ResourceLimitExceeded", LONG, "a quota of the account is used up", OTHER_QUOTA),
    row("ResourceCountLimitExceeded", LONG, "a quota of the account is used up", OTHER_QUOTA),
    row("ResourceCountExceeded", LONG, "a quota of the account is used up", OTHER_QUOTA),
    row("RequestResourceCountExceeded", LONG, "the request names too many objects", DEFECT),
    row("FilterLimitExceeded", LONG, "the request has too many filters", DEFECT),

    // Tags.
    row("TagLimitExceeded", LONG, "more than 50 tags", TAG_COUNT),
    row("InvalidTagKey.Malformed", LONG, "a tag's key is empty, too long or reserved", TAGS),
    row("TagPolicyViolation", LONG, "a tag policy of the organization does not allow a tag", TAGS),
    saying("Tag keys starting with 'aws:'", row("InvalidParameterValue", LONG, "a tag's key is reserved", TAGS)),
    saying("Tag keys starting with 'aws:'", row("InvalidParameter", LONG, "a tag's key is reserved", TAGS)),
    row("ConcurrentTagAccess", SHORT, "another request changes the same tags", PASSES),

    // The account.
    row("OptInRequired", LONG, "the account is not subscribed to EC2, or the region is not enabled for it", OPT_IN),
    row("PendingVerification", LONG, "the account is being verified", VERIFICATION),
    row("Blocked", LONG, "the account is blocked", ACCOUNT),

    // Permission.
    row("UnauthorizedOperation", Denied, "IAM does not allow the action", POLICY),
    row("AccessDenied", Denied, "IAM does not allow the action", POLICY),
    row("AccessDeniedException", Denied, "IAM does not allow the action", POLICY),
    row("NotAuthorized", Denied, "IAM does not allow the action", POLICY),

    // Credentials and the clock.
    saying("Signature", row("AuthFailure", SHORT, "the clock is wrong", CREDENTIALS)),
    row("AuthFailure", LONG, "the credentials are not valid, or not in this region", CREDENTIALS),
    row("InvalidClientTokenId", LONG, "the credentials do not exist", CREDENTIALS),
    row("UnrecognizedClientException", LONG, "the credentials do not exist", CREDENTIALS),
    row("MissingAuthenticationToken", LONG, "the request has no credentials", CREDENTIALS),
    row("IncompleteSignature", LONG, "the signature is not complete", CREDENTIALS),
    saying("expired", row("SignatureDoesNotMatch", SHORT, "the clock is wrong", CREDENTIALS)),
    saying("not yet current", row("SignatureDoesNotMatch", SHORT, "the clock is wrong", CREDENTIALS)),
    row("SignatureDoesNotMatch", LONG, "the signature does not match", CREDENTIALS),
    row("RequestExpired", SHORT, "the credentials have expired, or the clock is wrong", CREDENTIALS),
    row("InvalidSecurity.RequestHasExpired", SHORT, "the clock is more than five minutes wrong", CREDENTIALS),
    row("ExpiredToken", SHORT, "the credentials have expired", CREDENTIALS),
    row("ExpiredTokenException", SHORT, "the credentials have expired", CREDENTIALS),

    // What the call names does not exist, or not here.
    row("InvalidNetworkInterfaceID.NotFound", NotFound, "the interface does not exist, or not yet", GONE),
    row("InvalidAttachmentID.NotFound", NotFound, "the attachment does not exist, or not yet", GONE),
    row("InvalidAttachment.NotFound", NotFound, "the attachment does not exist, or not yet", GONE),
    row("InvalidGroup.NotFound", NotFound, "the security group does not exist", GROUPS),
    row("InvalidSecurityGroupID.NotFound", NotFound, "the security group does not exist", GROUPS),
    row("InvalidSubnetID.NotFound", NotFound, "the subnet does not exist", SUBNET),
    row("InvalidSubnetId.NotFound", NotFound, "the subnet does not exist", SUBNET),
    row("InvalidSubnet", NotFound, "the subnet does not exist", SUBNET),
    row("InvalidVpcID.NotFound", NotFound, "the VPC does not exist", SUBNET),
    row("InvalidInstanceID.NotFound", LONG, "the instance does not exist", GONE),
    row("InvalidInstanceType", LONG, "the instance type does not exist in this region", UNSUPPORTED),
    row("InvalidID", LONG, "an id is malformed or does not exist", DEFECT),
    row("InvalidInstanceID", LONG, "the instance id is malformed", DEFECT),
    row("InvalidInstanceID.Malformed", LONG, "the instance id is malformed", DEFECT),
    row("InvalidNetworkInterfaceId.Malformed", LONG, "the interface id is malformed", DEFECT),
    row("InvalidNetworkInterfaceID.Malformed", LONG, "the interface id is malformed", DEFECT),
    row("InvalidNetworkInterfaceAttachmentId.Malformed", LONG, "the attachment id is malformed", DEFECT),
    row("InvalidGroupId.Malformed", LONG, "a security group id is malformed", GROUPS),
    row("InvalidSecurityGroupId.Malformed", LONG, "a security group id is malformed", GROUPS),
    row("InvalidSubnetId.Malformed", LONG, "the subnet id is malformed", DEFECT),
    row("InvalidUserID.Malformed", LONG, "the account id is malformed", DEFECT),

    // The state of what the call names.
    row("InvalidNetworkInterface.InUse", InUse, "the interface is in use", STATE),
    row("IncorrectState", InUse, "the interface or attachment is in another state", STATE),
    row("IncorrectInstanceState", InUse, "the instance is in another state", STATE),
    row("InvalidInstanceState", InUse, "the instance is in another state", STATE),
    row("InvalidState", InUse, "something is in another state", STATE),
    row("InvalidVpcState", InUse, "the VPC is in another state", STATE),
    row("DependencyViolation", InUse, "something else still depends on it", STATE),
    row("InvalidIPAddress.InUse", InUse, "the address is in use", STATE),
    row("Resource.AlreadyAssigned", InUse, "the address is in use", STATE),
    row("Resource.AlreadyAssociated", InUse, "it is attached already", STATE),
    saying("in use", row("InvalidParameterValue", InUse, "the interface is still attached", STATE)),
    saying("already has an interface attached", row("InvalidParameterValue", InUse, "the device number is in use", STATE)),
    saying("sufficient free", row("InvalidParameterValue", NoRoom, "the subnet is smaller than the request", ROOM)),
    saying("are not assigned", row("InvalidParameterValue", NotFound, "others have taken the addresses", GONE)),

    // The zone.
    saying("availability zone", row("InvalidParameterCombination", LONG, "the interface is in another zone", ZONE)),
    saying("availability zone", row("InvalidParameterValue", LONG, "the interface is in another zone", ZONE)),
    saying("Availability Zone", row("InvalidParameterCombination", LONG, "the interface is in another zone", ZONE)),
    saying("Availability Zone", row("InvalidParameterValue", LONG, "the interface is in another zone", ZONE)),
    row("ZonesMismatched", LONG, "the interface is in another zone", ZONE),
    row("InvalidAvailabilityZone", LONG, "the zone does not exist", ZONE),
    row("InvalidZone.NotFound", LONG, "the zone does not exist", ZONE),

    // What EC2 does not do for this object.
    row("OperationNotPermitted", LONG, "the operation is not allowed for this object", NOT_ALLOWED),
    row("Unsupported", LONG, "the operation is not supported here", UNSUPPORTED),
    row("UnsupportedOperation", LONG, "the operation is not supported here", UNSUPPORTED),
    row("UnsupportedTenancy", LONG, "the VPC's tenancy does not support it", UNSUPPORTED),
    row("UnsupportedInstanceAttribute", LONG, "the attribute is not supported", UNSUPPORTED),
    row("InvalidInstanceAttributeValue", LONG, "the attribute is not supported", UNSUPPORTED),
    row("VPCResourceNotSpecified", LONG, "the operation needs a VPC", UNSUPPORTED),
    row("VPCIdNotSpecified", LONG, "the account has no default VPC", DEFECT),

    // The request.
    row("InvalidParameterValue", LONG, "the value of a parameter is not allowed", DEFECT),
    row("InvalidParameter", LONG, "a parameter is not allowed", DEFECT),
    row("InvalidParameterCombination", LONG, "parameters exclude each other", DEFECT),
    row("InvalidParameterDependency", LONG, "a parameter needs another one", DEFECT),
    row("MissingParameter", LONG, "a parameter is missing", DEFECT),
    row("MissingAction", LONG, "the action is missing", DEFECT),
    row("MissingInput", LONG, "a parameter is missing", DEFECT),
    row("UnknownParameter", LONG, "a parameter is not known", DEFECT),
    row("InvalidAction", LONG, "the action is not known", DEFECT),
    row("UnknownOperationException", LONG, "the action is not known", DEFECT),
    row("NoSuchVersion", LONG, "the version is not known", DEFECT),
    row("InvalidCharacter", LONG, "a character is not allowed", DEFECT),
    row("InvalidFormat", LONG, "the format is not allowed", DEFECT),
    row("InvalidInput", LONG, "the input is not allowed", DEFECT),
    row("InvalidRequest", LONG, "the request is not allowed", DEFECT),
    row("InvalidResourceType.Unknown", LONG, "the type of object is not known", DEFECT),
    row("InvalidFilter", LONG, "a filter is not known", DEFECT),
    row("InvalidMaxResults", LONG, "the page size is not allowed", DEFECT),
    row("InvalidClientToken", LONG, "the client token is malformed", DEFECT),
    row("InvalidQueryParameter", LONG, "the query is malformed", DEFECT),
    row("MalformedQueryString", LONG, "the query is malformed", DEFECT),
    row("MalformedHttpRequestException", LONG, "the request is malformed", DEFECT),
    row("RequestEntityTooLargeException", LONG, "the request is too large", DEFECT),
    row("ValidationError", LONG, "the request is malformed", DEFECT),
    row("UnsupportedProtocol", LONG, "the protocol is not supported", DEFECT),
    row("DryRunOperation", LONG, "it was a dry run, and the action is allowed", DEFECT),
    row("IdempotentParameterMismatch", SHORT, "the client token was used with other parameters", PASSES),
    row("InvalidNextToken", SHORT, "the page's token has expired", PASSES),
    row("InvalidPaginationToken", SHORT, "the page's token has expired", PASSES),

    // EC2 itself.
    row("InternalError", Internal, "an error of EC2 itself", HEALTH),
    row("InternalFailure", Internal, "an error of EC2 itself", HEALTH),
    row("Unavailable", Internal, "EC2 is overloaded", HEALTH),
    row("ServiceUnavailable", Internal, "EC2 is overloaded", HEALTH),
    row("RequestTimeoutException", Internal, "EC2 took too long", HEALTH),
    row("RequestAbortedException", Internal, "EC2 aborted the request", HEALTH),
    row("InsufficientCapacity", Internal, "EC2 has no capacity", HEALTH),
    row("InsufficientAddressCapacity", Internal, "EC2 has no capacity", HEALTH),
];
