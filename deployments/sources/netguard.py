"""Which addresses are public. Classifies addresses and nothing else: no names, no sockets.

The table lists every special-purpose block of the IANA registries, including the few that are
globally reachable (anycast relays and the like), because they serve no images.
https://www.iana.org/assignments/iana-ipv4-special-registry
https://www.iana.org/assignments/iana-ipv6-special-registry
`ipaddress.is_global` is not enough: Python 3.11 calls 64:ff9b::7f00:1, 2002:7f00:1::,
::127.0.0.1, fec0::1, 224.0.0.1 and 168.63.129.16 global.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NOT_PUBLIC_4 = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # "this network"; Linux dials 0.0.0.0 as loopback, RFC 791
        "10.0.0.0/8",  # private use, RFC 1918
        "100.64.0.0/10",  # carrier NAT, RFC 6598; Alibaba's metadata is 100.100.100.200
        "127.0.0.0/8",  # loopback, RFC 1122
        "168.63.129.16/32",  # Azure's host agent, https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
        "169.254.0.0/16",  # link-local, RFC 3927; cloud metadata is 169.254.169.254
        "172.16.0.0/12",  # private use, RFC 1918
        "192.0.0.0/24",  # IETF protocol assignments, RFC 6890; Oracle's metadata is 192.0.0.192
        "192.0.2.0/24",  # documentation, RFC 5737
        "192.31.196.0/24",  # AS112, RFC 7535
        "192.52.193.0/24",  # AMT relays, RFC 7450
        "192.88.99.0/24",  # 6to4 relays, deprecated, RFC 7526
        "192.168.0.0/16",  # private use, RFC 1918
        "192.175.48.0/24",  # AS112, RFC 7534
        "198.18.0.0/15",  # benchmarking, RFC 2544
        "198.51.100.0/24",  # documentation, RFC 5737
        "203.0.113.0/24",  # documentation, RFC 5737
        "224.0.0.0/4",  # multicast, RFC 5771
        "240.0.0.0/4",  # reserved and broadcast, RFC 1112, RFC 8190
    )
)

# Only 2000::/3 is allocated as global unicast (RFC 4291, section 2.4, and the IANA IPv6 address
# space registry), so everything else is refused without a row: loopback, IPv4-compatible
# ::/96, discard 100::/64, local NAT64 64:ff9b:1::/48, SRv6 5f00::/16, unique local fc00::/7,
# link-local fe80::/10, site-local fec0::/10, multicast ff00::/8. The two exceptions, `_MAPPED`
# and `_NAT64`, are judged by the IPv4 address that they embed.
_GLOBAL_UNICAST_6 = IPv6Network("2000::/3")

# Tunnels are refused entirely, whatever IPv4 addresses they embed.
_NOT_PUBLIC_6 = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # IETF assignments, RFC 2928: Teredo, benchmarking, ORCHID, DRIP, AMT, AS112
        "2001:db8::/32",  # documentation, RFC 3849
        "2002::/16",  # 6to4, RFC 3056, deprecated with its relays by RFC 7526
        "2620:4f:8000::/48",  # AS112, RFC 7534
        "3ffe::/16",  # the former 6bone, RFC 3701
        "3fff::/20",  # documentation, RFC 9637
    )
)

_MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291, section 2.5.5.2: the kernel dials IPv4
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: what DNS64 gives on an IPv6-only network
_ISATAP = (0x00005EFE, 0x02005EFE)  # RFC 5214, section 6.1: the interface identifier's upper half


def is_public(address: str | Address) -> bool:
    """Whether the address is an ordinary host of the public Internet.

    An IPv4 address embedded in an IPv6 one must be public too. Text that is not exactly one
    address (zone ids, leading zeros, short or numeric IPv4 forms) is not public.
    """
    parsed = _parse(address)
    if parsed is None:
        return False
    if isinstance(parsed, IPv4Address):
        return not any(parsed in block for block in _NOT_PUBLIC_4)
    if parsed in _MAPPED or parsed in _NAT64:
        return is_public(_last_32_bits(parsed))
    if parsed not in _GLOBAL_UNICAST_6 or any(parsed in block for block in _NOT_PUBLIC_6):
        return False
    isatap = int(parsed) >> 32 & 0xFFFFFFFF in _ISATAP
    return not isatap or is_public(_last_32_bits(parsed))


class DialPolicy:
    """Which addresses may be dialled: the public ones and those in `allow_cidrs`.

    An allowed network covers exactly its own addresses; an IPv4 network also their IPv4-mapped
    IPv6 form, which is another spelling of the same host.
    """

    def __init__(self, allow_cidrs: Sequence[Network] = ()) -> None:
        self._allowed = tuple(allow_cidrs)

    def allows(self, address: str | Address) -> bool:
        """Whether a connection to `address` may be opened. False for zone ids and non-addresses."""
        parsed = _parse(address)
        if parsed is None:
            return False
        spellings: list[Address] = [parsed]
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
            spellings.append(parsed.ipv4_mapped)
        allowed = any(spelling in network for spelling in spellings for network in self._allowed)
        return allowed or is_public(parsed)


def _parse(address: str | Address) -> Address | None:
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    return None if isinstance(parsed, IPv6Address) and parsed.scope_id is not None else parsed


def _last_32_bits(address: IPv6Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFFFFFF)
