"""Addresses: which text is one, what is shown of them, the files that they stand for, and the hosts that are public."""

import ipaddress
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdtrt.reading.addresses import is_address, is_public, path_of, shown

v4 = st.ip_addresses(v=4)
v6 = st.ip_addresses(v=6)
NETWORKS = [  # Of each an address is drawn too: at random they would hardly be met.
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16", "0.0.0.0/8", "100.64.0.0/10",
    "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32", "::1/128", "::/128", "::/96", "::ffff:0:0/96", "64:ff9b::/96",
    "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:2::/48", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16",
    "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
]  # fmt: skip
not_public = st.sampled_from(NETWORKS).flatmap(lambda network: st.ip_addresses(network=network))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("https://host/a.jpg", True),
        ("HTTP://host", True),
        ("ftp://host/a.jpg", True),
        ("file:///etc/passwd", True),
        ("https:/host/a.jpg", False),
        ("./https://host", False),
        ("c://windows/a.jpg", False),
        ("a.jpg", False),
        ("-", False),
        (Path("https://host"), False),
        (b"https://host", False),
        (None, False),
    ],
)
def test_which_text_is_an_address(text, expected):
    assert is_address(text) is expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("https://host/a@b.jpg?c=d@e", "https://host/a@b.jpg?c=d@e"),
        ("https://me:secret@host:81/a.jpg", "https://host:81/a.jpg"),
        ("https://token@host", "https://host"),
        ("https://me:se@cr@et@host/@a", "https://host/@a"),
        ("ftp://me:secret@host", "ftp://host"),
        ("https://host/a\n\x1b[31m.jpg", "https://host/a__[31m.jpg"),
        ("me@host/a\n.jpg", "me@host/a\n.jpg"),
    ],
)
def test_what_is_shown(text, expected):
    assert shown(text) == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("https://host/x/a.jpg?size=2", "/x/a.jpg"),
        ("https://host/a%20b.jpg#c", "/a b.jpg"),
        ("https://host", "/picture"),
        ("https://host/", "/picture"),
        ("https://host?a=/b.jpg", "/picture"),
        ("https://host/200/300", "/200/300"),
        ("https://host/x/..%2f..%2fetc%2fa.jpg", "/x/_.._etc_a.jpg"),
        ("https://host/../../.ssh/a.jpg", "/ssh/a.jpg"),
        ("https://host/%2e%2e/", "/picture"),
        ("https://host/C:%5Ca%00%1b.jpg", "/C__a__.jpg"),
        ("https://host/%e2%80%ae%ff.jpg", "/_\ufffd.jpg"),
        ("in/a.jpg?b", "in/a.jpg?b"),
    ],
)
def test_the_path_that_an_address_stands_for(text, expected):
    assert path_of(text) == expected


@given(st.text("/\\.:%2fFeE5cC0a \x00\x1b\u202e?#@"))
def test_no_address_leads_out_of_a_folder(text):
    path = path_of(f"https://host/{text}")
    assert path.isprintable() and os.path.normpath(path) == path and Path(path).stem not in ("", ".", "..")


@pytest.mark.parametrize("host", ["8.8.8.8", "93.184.216.34", "2606:2800:220:1::1", "2a00:1450:4001::", "2600::1%eth0"])
def test_public_hosts(host):
    assert is_public(host)


@given(not_public)
def test_no_other_host_is_public(address):
    assert not is_public(str(address))


@given(v4 | v6 | not_public)
def test_what_python_knows_as_not_public_is_not(address):
    usual = address.is_global and not (
        address.is_multicast or address.is_private or address.is_reserved or address.is_link_local
        or address.is_loopback or address.is_unspecified or getattr(address, "is_site_local", False)
        or getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None) or getattr(address, "teredo", None)
    )  # fmt: skip
    assert usual or not is_public(str(address))


@given(v4)
def test_no_way_through_ipv6_to_an_address_of_ipv4(address):
    number = int(address)
    for prefix in ("::", "::ffff:0:0", "::ffff:0:0:0", "64:ff9b::", "64:ff9b:1::"):
        assert not is_public(str(ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) + number)))
    assert not is_public(str(ipaddress.ip_address((0x2002 << 112) + (number << 80) + 1)))
