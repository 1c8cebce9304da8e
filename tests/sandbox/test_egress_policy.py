"""Which names, ports and addresses a sandbox may reach."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.egress.addresses import address_allowed
from sandbox.egress.policy import Allow, Deny, Policy, PolicyError, decide, parse_hosts, parse_policy
from sandbox.protocol import NetworkPolicy


def limited(*hosts: str) -> Policy:
    return parse_policy(NetworkPolicy("limited", hosts))


UNRESTRICTED = Policy("unrestricted")

PRIVATE = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
    "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
]  # fmt: skip
PRIVATE_V6 = ["::/96", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "2001::/32", "2002::/16", "64:ff9b:1::/48"]


def inside(network: str) -> st.SearchStrategy[IPv4Address | IPv6Address]:
    return st.ip_addresses(v=4, network=network)


@given(st.sampled_from(PRIVATE).flatmap(inside))
def test_no_private_address_passes_in_any_disguise(address: IPv4Address | IPv6Address) -> None:
    number = int(address)
    assert not address_allowed(address)
    for prefix in ("::ffff:0:0", "::", "64:ff9b::", "::ffff:0:0:0"):
        assert not address_allowed(IPv6Address(int(IPv6Address(prefix)) | number)), prefix
    assert not address_allowed(IPv6Address((0x2002 << 112) | (number << 80)))  # 6to4
    assert not address_allowed(IPv6Address((0x20010000 << 96) | (number ^ 0xFFFFFFFF)))  # Teredo


@given(st.sampled_from(PRIVATE_V6).flatmap(lambda network: st.ip_addresses(v=6, network=network)))
def test_no_private_ipv6_address_passes(address: IPv6Address) -> None:
    assert not address_allowed(address)


@given(st.ip_addresses())
def test_whatever_passes_is_global_unicast_for_the_standard_library_too(address: IPv4Address | IPv6Address) -> None:
    nat64 = isinstance(address, IPv6Address) and address in IPv6Network("64:ff9b::/96")
    if address_allowed(address) and not nat64:
        assert address.is_global and not address.is_multicast


@pytest.mark.parametrize("ip", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"])
def test_public_addresses_pass(ip: str) -> None:
    assert address_allowed(ip)


@pytest.mark.parametrize("ip", ["169.254.169.254", "168.63.129.16", "fe80::1%eth0", "2606:4700::1%1", "fd00:ec2::254"])
def test_metadata_services_and_zones_do_not_pass(ip: str) -> None:
    assert not address_allowed(ip)


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ("", "empty"),
        ("*.", "empty"),
        ("*", "wildcard"),
        ("a.*.com", "wildcard"),
        ("*a.com", "wildcard"),
        ("https://a.com", "scheme"),
        ("a.com/x", "path"),
        ("a.com:443", "port"),
        ("u@a.com", "user name"),
        ("10.0.0.1", "IP address"),
        ("::1", "IP address"),
        ("[::1]", "IP address"),
        ("0x7f000001", "IP address"),
        ("127.1", "IP address"),
        ("a b.com", "host name"),
        ("-a.com", "host name"),
        ("a..com", "host name"),
        ("x" * 64 + ".com", "host name"),
        ("\u2603\u200d.com", "international"),
    ],
)
def test_a_bad_entry_is_refused_with_the_entry_and_the_rule(entry: str, rule: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_hosts([entry])
    assert repr(entry) in str(caught.value) and rule in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "host"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.com", "example.COM"),
        ("example.com.", "example.com"),
        ("example.com", "example.com."),
        ("*.example.com", "a.example.com"),
        ("*.example.com", "a.b.example.com"),
        ("stra\u00dfe.de", "xn--strae-oqa.de"),
        ("*.B\u00dcCHER.example", "www.xn--bcher-kva.example"),
    ],
)
def test_a_listed_host_is_allowed(entry: str, host: str) -> None:
    assert decide(limited(entry), host, 443) == Allow(host.lower().removesuffix("."))


@pytest.mark.parametrize(
    ("entry", "host"),
    [
        ("example.com", "a.example.com"),
        ("*.example.com", "example.com"),
        ("*.example.com", "badexample.com"),
        ("example.com", "example.com.evil.net"),
        ("example.com", "exam\u200dple.com"),
        ("example.com", "1.1.1.1"),
        ("example.com", "0x7f000001"),
        ("example.com", ""),
        ("*.example.com", ".example.com"),
    ],
)
def test_an_unlisted_host_is_denied(entry: str, host: str) -> None:
    assert isinstance(decide(limited(entry), host, 443), Deny)


def test_a_denial_names_the_host_and_the_setting() -> None:
    denial = decide(limited("example.com"), "other.example", 443)
    assert isinstance(denial, Deny)
    assert "other.example" in denial.reason and "environment.network.allowed_hosts" in denial.reason


@given(st.text())
def test_a_denial_is_one_line_of_ascii_whatever_the_host(host: str) -> None:
    denial = decide(limited(), host, 443)
    assert isinstance(denial, Deny) and denial.reason.isascii() and denial.reason.isprintable()


def test_a_listed_host_is_reachable_on_web_ports_only() -> None:
    policy = limited("example.com")
    assert [port for port in (22, 25, 80, 443, 8080) if isinstance(decide(policy, "example.com", port), Allow)] == [
        80,
        443,
    ]


def test_unrestricted_allows_public_hosts_on_any_port_but_mail() -> None:
    assert decide(UNRESTRICTED, "Example.com", 8443) == Allow("example.com")
    assert decide(UNRESTRICTED, "1.1.1.1", 53) == Allow("1.1.1.1")
    for host, port in [
        ("example.com", 25),
        ("10.0.0.1", 80),
        ("::ffff:127.0.0.1", 80),
        ("127.1", 80),
        ("2130706433", 80),
    ]:
        assert isinstance(decide(UNRESTRICTED, host, port), Deny), host


def test_without_network_nothing_is_allowed() -> None:
    assert isinstance(decide(parse_policy(NetworkPolicy("none", ("example.com",))), "example.com", 443), Deny)
