"""Makes the answers of two servers comparable: replaces generated values by names that are the same for both servers.

Owns the names. An id, address or MAC is named after the step whose answer contains it first (`<eni of create#1>`).
Identity is therefore still compared: the address that Create returns must be the address that Describe returns. Must drop
only empty values, and must not know which server is which.
"""

import re

TOKEN = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00))"
    r"|(?P<uuid>\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b)"
    r"|(?P<mac>\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b)"
    r"|(?P<dns>\bip-(?P<dashed>\d+-\d+-\d+-\d+)(?=\.))"
    r"|(?P<id>\b(?P<kind>[a-z]+(?:-[a-z]+)*)-(?:[0-9a-f]{17}|[0-9a-f]{8})\b)"
    r"|(?P<six>(?<![\w:])[0-9a-f]{1,4}:(?:[0-9a-f]{0,4}:){1,6}[0-9a-f]{0,4}(?P<sixlen>/\d+)?)"
    r"|(?P<four>\b\d{1,3}(?:\.\d{1,3}){3}\b(?P<fourlen>/\d+)?)"
    r"|(?P<account>\b\d{12}\b)"
)

# The fields that identify the members of a list, in order of preference.
KEYS = (
    "NetworkInterfaceId", "RouteTableAssociationId", "RouteTableId", "InstanceId", "SubnetId", "VpcId", "GroupId", "InstanceType", "NetworkCardIndex",
    "Key", "PrivateIpAddress", "Ipv6Address", "Ipv4Prefix", "Ipv6Prefix", "CidrBlock", "Ipv6CidrBlock",
    "DestinationCidrBlock", "DestinationIpv6CidrBlock",
)  # fmt: skip


class Names:
    """The names of one server's values. `known` has the values that both sides know from the start."""

    def __init__(self, known):
        self.names = dict(known)

    def _name(self, kind, value, step, counts):
        if value not in self.names:
            counts[kind] = counts.get(kind, 0) + 1
            self.names[value] = f"<{kind} of {step}#{counts[kind]}>"
        return self.names[value]

    def text(self, text, step, counts):
        def replace(m):
            def name(kind, value):
                return self._name(kind, value, step, counts)

            plain = next((k for k in ("time", "uuid", "account") if m[k]), None)
            if plain:
                return f"<{plain}>"
            if m["mac"]:
                return name("mac", m["mac"])
            if m["dns"]:
                return f"ip-{name('ip', m['dashed'].replace('-', '.'))}"
            if m["id"]:
                return name(m["kind"], m["id"])
            if m["six"]:
                return name("ipv6 net" if m["sixlen"] else "ipv6", m["six"])
            return name("net" if m["fourlen"] else "ip", m["four"])

        return TOKEN.sub(replace, text)

    def value(self, value, step, counts=None):
        """`value` with names. Lists are sorted; empty values are removed, because EC2 may send or omit them."""
        counts = {} if counts is None else counts
        if isinstance(value, str):
            return self.text(value, step, counts)
        if isinstance(value, dict):
            named = {k: self.value(value[k], step, counts) for k in sorted(value)}
            return {k: v for k, v in named.items() if v not in ([], {})}
        if isinstance(value, list):
            return sorted((self.value(v, step, counts) for v in value), key=identity)
        return value


def identity(member):
    """The identity of a list member."""
    if not isinstance(member, dict):
        return str(member)
    if "Instances" in member:
        return identity(member["Instances"][0])
    if "ResourceId" in member:
        return f"{member['Key']} of {member['ResourceId']}"
    return next((f"{k}={member[k]}" for k in KEYS if k in member), "")


def literals(text):
    """The ids and addresses in `text`. They are the same for both servers, so they are not renamed."""
    return {m[0]: m[0] for m in TOKEN.finditer(text) if not m["time"] and not m["account"]}
