"""Public addresses are told apart from all others, whatever form hides them."""

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.sources.netguard import Address, DialPolicy, is_public

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "93.184.215.14",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.0.3.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2606:4700:4700::1111",
    "2a00:1450:4001:830::200e",
    "2620:4f:7fff::1",
    "3ffd::1",
    "::ffff:8.8.8.8",
    "::ffff:808:808",
    "64:ff9b::8.8.8.8",
    "2a00::5efe:808:808",
    "2a00::200:5efe:808:808",
    "2A00::1",
]

NOT_PUBLIC = [
    # IPv4: first and last of each block
    "0.0.0.0",
    "0.255.255.255",
    "10.0.0.0",
    "10.255.255.255",
    "100.64.0.0",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.255",
    "168.63.129.16",
    "169.254.0.0",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.0",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.9",
    "192.0.0.192",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.0.0",
    "192.168.255.255",
    "192.175.48.1",
    "198.18.0.0",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    # IPv6 of its own
    "::",
    "::1",
    "::2",
    "100::1",
    "100:0:0:1::1",
    "200::1",
    "1fff:ffff::1",
    "2001::1",
    "2001:1::1",
    "2001:2::1",
    "2001:3::1",
    "2001:4:112::1",
    "2001:10::1",
    "2001:20::1",
    "2001:30::1",
    "2001:1ff:ffff::1",
    "2001:db8::1",
    "2620:4f:8000::1",
    "3ffe::1",
    "3fff::1",
    "3fff:fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fe80::a9fe:a9fe",
    "febf::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    # IPv4 inside IPv6
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "0:0:0:0:0:FFFF:7F00:0001",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "::ffff:168.63.129.16",
    "::ffff:0:127.0.0.1",  # IPv4-translated, RFC 2765
    "::127.0.0.1",
    "::8.8.8.8",
    "64:ff9b::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::8.8.8.8",
    "64:ff9b:1:7f00:0:100::",
    "64:ff9b:1:ffff:ffff:ffff:7f00:1",
    "64:ff9b:0:0:1::8.8.8.8",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2002:808:808::1",
    "2001:0:7f00:1::",  # Teredo server 127.0.0.1
    "2001:0:808:808:0:0:80ff:fffe",  # Teredo client 127.0.0.1
    "2a00::5efe:7f00:1",
    "2a00::5efe:a9fe:a9fe",
    "2a00::200:5efe:a00:1",
    # not exactly one address
    "",
    " ",
    "8.8.8.8 ",
    " 8.8.8.8",
    "8.8.8.8\n",
    "8.8.8",
    "8.8.8.8.8",
    "127.1",
    "0",
    "134744072",
    "0x08080808",
    "0x8.8.8.8",
    "010.8.8.8",
    "008.8.8.8",
    "8.8.8.8/32",
    "8.8.8.8:80",
    "①.①.①.①",
    "٨.٨.٨.٨",
    "[2606:4700:4700::1111]",
    "2606:4700:4700::1111%eth0",
    "2606:4700:4700::1111%",
    "fe80::1%1",
    "::ffff:8.8.8.8%lo",
    "::ffff:008.8.8.8",
    "localhost",
    "example.com",
    "1.1.1.1.",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_an_ordinary_address_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_a_special_or_unclear_address_is_not_public(address: str) -> None:
    assert not is_public(address)


def test_address_objects_are_taken_as_they_are() -> None:
    assert is_public(IPv4Address("8.8.8.8"))
    assert not is_public(IPv6Address("::1"))
    assert not is_public(IPv6Address("2606:4700:4700::1111%eth0"))


def embeddings(inner: IPv4Address) -> list[IPv6Address]:
    """Every known way to put an IPv4 address into an IPv6 one."""
    bits = int(inner)
    high, low = bits >> 16, bits & 0xFFFF
    return [
        IPv6Address(0xFFFF << 32 | bits),  # mapped
        IPv6Address(bits),  # compatible
        IPv6Address(0xFFFF << 48 | bits),  # translated
        IPv6Address(0x0064FF9B << 96 | bits),  # NAT64
        IPv6Address(0x0064FF9B0001 << 80 | bits),  # local NAT64, /96
        IPv6Address(0x0064FF9B0001 << 80 | high << 64 | low << 40),  # local NAT64, /48
        IPv6Address(0x2002 << 112 | bits << 80 | 1),  # 6to4
        IPv6Address(0x20010000 << 96 | bits << 64 | 0x8000 << 48 | 0xF7F7F7F7),  # Teredo server
        IPv6Address(0x20010000 << 96 | 0x08080808 << 64 | bits ^ 0xFFFFFFFF),  # Teredo client
        IPv6Address(0x2A00 << 112 | 0x00005EFE << 32 | bits),  # ISATAP, private identifier
        IPv6Address(0x2A00 << 112 | 0x02005EFE << 32 | bits),  # ISATAP, global identifier
    ]


# Mostly inside a special block, where a random address hardly ever falls.
special = st.sampled_from(NOT_PUBLIC[: NOT_PUBLIC.index("::")]).map(IPv4Address)
any_ipv4 = st.integers(0, 2**32 - 1).map(IPv4Address)
any_ipv6 = st.integers(0, 2**128 - 1).map(IPv6Address)


@given(special | any_ipv4)
def test_an_ipv6_address_is_public_only_if_the_ipv4_address_inside_it_is(
    inner: IPv4Address,
) -> None:
    for outer in embeddings(inner):
        assert not is_public(outer) or is_public(inner), outer


@given(special | any_ipv4)
def test_a_public_ipv4_address_is_global_to_the_standard_library_as_well(
    address: IPv4Address,
) -> None:
    assert not is_public(address) or address.is_global


@given(any_ipv6 | st.integers(0x2000 << 112, (0x4000 << 112) - 1).map(IPv6Address))
def test_a_public_ipv6_address_is_global_unicast_or_carries_a_public_one(
    address: IPv6Address,
) -> None:
    if is_public(address):
        unicast = address in ip_network("2000::/3") and address.is_global
        assert unicast or is_public(IPv4Address(int(address) & 0xFFFFFFFF))


@given(any_ipv4 | any_ipv6)
def test_text_and_object_are_judged_alike(address: Address) -> None:
    assert is_public(str(address)) == is_public(address)
    assert is_public(address.exploded) == is_public(address)


def test_the_default_policy_allows_public_addresses_only() -> None:
    policy = DialPolicy()
    assert all(policy.allows(address) for address in PUBLIC)
    assert not any(policy.allows(address) for address in NOT_PUBLIC)


def test_an_allowed_network_opens_its_addresses_and_no_others() -> None:
    policy = DialPolicy([ip_network("10.1.0.0/16"), ip_network("fd00:1::/32")])
    assert policy.allows("10.1.2.3")
    assert policy.allows("fd00:1::7")
    assert policy.allows("8.8.8.8")
    assert not policy.allows("10.2.0.1")
    assert not policy.allows("fd00:2::7")
    assert not policy.allows("127.0.0.1")


def test_an_allowed_ipv4_network_opens_the_mapped_form_and_no_tunnel() -> None:
    policy = DialPolicy([ip_network("127.0.0.0/8")])
    assert policy.allows("::ffff:127.0.0.1")
    assert not policy.allows("::ffff:10.0.0.1")
    for tunnel in ("::127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::1", "::1"):
        assert not policy.allows(tunnel)


def test_a_zone_id_is_never_allowed() -> None:
    policy = DialPolicy([ip_network("::/0"), ip_network("0.0.0.0/0")])
    assert policy.allows("fe80::1")
    assert not policy.allows("fe80::1%eth0")
    assert not policy.allows(IPv6Address("fe80::1%1"))
    assert not policy.allows("127.1")
