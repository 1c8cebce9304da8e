"""Which addresses a sandbox may reach: globally routable unicast ones, and nothing that leads back inside. Pure.

Above: `policy` for literals, `dial` for every resolved address. `ipaddress.is_global` is not enough and differs between
Python versions; the lists below are the IANA special-purpose registries, read strictly.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

IPAddress = IPv4Address | IPv6Address

_REFUSED_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this host: Linux connects 0.0.0.0 to itself
            "10.0.0.0/8",
            "100.64.0.0/10",  # carrier NAT; some clouds keep their metadata service here
            "127.0.0.0/8",
            "168.63.129.16/32",  # a cloud's host agent behind a public address: never leaves the machine
            "169.254.0.0/16",  # link-local, the usual metadata services
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",
            "198.18.0.0/15",  # benchmarking
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, broadcast
        ),
    )
)
_GLOBAL_V6 = IPv6Network("2000::/3")
"""All that was given out as global unicast: loopback, unique-local, link-local, multicast and mapped lie outside."""
_REFUSED_V6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments: Teredo tunnels, benchmarking, ORCHID
            "2001:db8::/32",
            "2002::/16",  # 6to4: an IPv4 address in disguise
            "3fff::/20",  # documentation
        ),
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
"""Where a network has IPv6 only, every IPv4 host appears under this prefix: judged by the address it carries."""


def address_allowed(ip: IPAddress | str) -> bool:
    """True when `ip` is a public unicast address. An address with a zone (`fe80::1%eth0`) never is.

    Raises ValueError when the string is not an IP address.
    """
    address = ip_address(ip) if isinstance(ip, str) else ip
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    if address.scope_id is not None:
        return False
    carried = _carried(address)
    if carried is not None:
        return address_allowed(carried)
    return address in _GLOBAL_V6 and not any(address in network for network in _REFUSED_V6)


def _carried(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that a connection to this one would really go to, where the form says so."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
