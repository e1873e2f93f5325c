//! The objects of the AWS VPC CNI on a node, in commands of the usual tools, and the commands that list what it may leave.

/// Everything that both programs could leave behind. The state of the carrier and the age of neighbours are left out.
pub const LOOK: &str = "ip -d -o link | sed 's/ \\(qlen\\|state\\) [^ ]*//g; s/NO-CARRIER,\\|,LOWER_UP\\|,M-DOWN//g; s/promiscuity.*addrgenmode/addrgenmode/'; \
    ip -o addr | sed 's/ tentative//; s/valid_lft.*//'; ip route show table all | grep -v '^fe80\\|^ff00\\|^multicast\\|fe80::'; \
    ip -6 route show table all | grep -v 'fe80\\|ff00\\|anycast'; ip rule; ip -6 rule; \
    for t in nat mangle filter; do iptables-nft-save -t $t; iptables-legacy-save -t $t 2>/dev/null || true; done | grep -v '^#\\|^:'; \
    tc qdisc show | grep -v ' noqueue ' || true; nft list ruleset | sed 's/counter packets [0-9]* bytes [0-9]*//'; \
    for d in /proc/sys/net/ipv4/conf/eni* /proc/sys/net/ipv4/conf/pod*; do echo $d $(cat $d/rp_filter $d/forwarding $d/accept_redirects $d/send_redirects); done";

pub const CONFLIST: &str = r#"{ "cniVersion": "0.4.0", "name": "aws-cni", "disableCheck": true, "plugins": [
    { "name": "aws-cni", "type": "aws-cni", "vethPrefix": "eni", "mtu": "9001", "podSGEnforcingMode": "strict",
      "capabilities": { "io.kubernetes.cri.pod-annotations": true } },
    { "name": "egress-cni", "type": "egress-cni", "mtu": "9001", "enabled": "false", "randomizeSNAT": "prng", "nodeIP": "",
      "ipam": { "type": "host-local", "ranges": [[{ "subnet": "fd00::ac:00/118" }]], "routes": [{ "dst": "::/0" }],
        "dataDir": "/run/cni/v4pd/egress-v6-ipam" } },
    { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
    { "type": "linkerd-cni" }]}"#;

/// In a pod's namespace.
pub const INSIDE: &str = "ip -o link | sed 's/ \\(qlen\\|state\\) [^ ]*//g'; ip -o addr | grep -v fe80 | sed 's/valid_lft.*//'; ip route; \
    ip -6 route | grep -v '^fe80::/64\\|^multicast' || true; ip neigh show nud permanent";

/// Of `AWS_EXTERNAL_SERVICE_CIDRS`.
pub const SERVICES: &str = "192.0.2.0/24";

pub const MARKS: &str = "ip rule del fwmark 0x80/0x80 pref 1024 lookup main 2>/dev/null || true; \
    ip rule add fwmark 0x80/0x80 pref 1024 lookup main
    iptables-nft -t mangle -C PREROUTING -i eth0 -m comment --comment 'AWS, primary ENI' -m addrtype --dst-type LOCAL \
      --limit-iface-in -j CONNMARK --set-xmark 0x80/0x80 2>/dev/null || \
    iptables-nft -t mangle -A PREROUTING -i eth0 -m comment --comment 'AWS, primary ENI' -m addrtype --dst-type LOCAL \
      --limit-iface-in -j CONNMARK --set-xmark 0x80/0x80
    for i in eni+ vlan+; do \
      iptables-nft -t mangle -C PREROUTING -i $i -m comment --comment 'AWS, primary ENI' -j CONNMARK --restore-mark \
        --nfmask 0x80 --ctmask 0x80 2>/dev/null || \
      iptables-nft -t mangle -A PREROUTING -i $i -m comment --comment 'AWS, primary ENI' -j CONNMARK --restore-mark \
        --nfmask 0x80 --ctmask 0x80; done\n";

pub const SNAT: &str = "iptables-nft -t nat -N AWS-SNAT-CHAIN-0 2>/dev/null || true
    iptables-nft -t nat -F AWS-SNAT-CHAIN-0
    iptables-nft -t nat -C POSTROUTING -m comment --comment 'AWS SNAT CHAIN' -j AWS-SNAT-CHAIN-0 2>/dev/null || \
    iptables-nft -t nat -A POSTROUTING -m comment --comment 'AWS SNAT CHAIN' -j AWS-SNAT-CHAIN-0
    iptables-nft -t nat -A AWS-SNAT-CHAIN-0 -d 10.0.0.0/16 -m comment --comment 'AWS SNAT CHAIN' -j RETURN
    iptables-nft -t nat -A AWS-SNAT-CHAIN-0 ! -o vlan+ -m comment --comment 'AWS, SNAT' -m addrtype ! --dst-type LOCAL \
      -j SNAT --to-source OWN --random-fully\n";

/// Since version 1.23, where iptables writes to nftables.
pub const OWN_TABLE: &str = "nft 'table ip aws-cni; delete table ip aws-cni; table ip aws-cni { \
      chain snat-mark { ip daddr 10.0.0.0/16 counter return; counter ct mark set ct mark or 0x80; }; \
      chain nat-prerouting { type nat hook prerouting priority -90; fib daddr type local return; \
        iifname \"eni*\" counter jump snat-mark; counter meta mark set ct mark and 0x80; }; }'\n";

/// Where it does not, and in older versions.
pub const CONNMARK: &str = "iptables-nft -t nat -N AWS-CONNMARK-CHAIN-0 2>/dev/null || true
    iptables-nft -t nat -F AWS-CONNMARK-CHAIN-0
    iptables-nft -t nat -C PREROUTING -i eni+ -m comment --comment 'AWS, outbound connections' -j AWS-CONNMARK-CHAIN-0 \
      2>/dev/null || \
    iptables-nft -t nat -A PREROUTING -i eni+ -m comment --comment 'AWS, outbound connections' -j AWS-CONNMARK-CHAIN-0
    iptables-nft -t nat -C PREROUTING -m comment --comment 'AWS, CONNMARK' -j CONNMARK --restore-mark --mask 0x80 2>/dev/null || \
    iptables-nft -t nat -A PREROUTING -m comment --comment 'AWS, CONNMARK' -j CONNMARK --restore-mark --mask 0x80
    iptables-nft -t nat -A AWS-CONNMARK-CHAIN-0 -d 10.0.0.0/16 -m comment --comment 'AWS CONNMARK CHAIN, VPC CIDR' -j RETURN
    iptables-nft -t nat -A AWS-CONNMARK-CHAIN-0 -m comment --comment 'AWS, CONNMARK' -j CONNMARK --set-xmark 0x80/0x80\n";
