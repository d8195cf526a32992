"""Addresses in place of paths: which text is one, what is shown of it, and from which hosts pictures are fetched.

What fetches them is `ssdtrt.reading.fetch`. No torch here, and nothing that takes long to import.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import unquote

from ssdtrt import config

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_USER = re.compile(r"(?<=://)[^/?#]*@")
_PATH = re.compile(r"[^:]+://[^/?#]*([^?#]*)")
_NO_FILE_NAME = re.compile(r'[\\/:*?"<>|]')

# What `ipaddress` calls global and is not a host of the internet, or is a way to one that is not: IPv4's multicast and
# reserved addresses, and 6to4. Older Pythons lack the others.
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        ("192.0.0.0/24", "192.88.99.0/24", "224.0.0.0/3", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    )
)
# All others of IPv6 are local, multicast or reserved, or stand for an address of IPv4 (mapped, NAT64).
_PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")


class AddressRules(NamedTuple):
    """What may be fetched.

    Attributes:
        allow_private: Whether pictures are also fetched from this machine and from private networks.
        max_bytes: The most bytes of a picture.
        timeout: Seconds in which a picture must be there, all in all.
    """

    allow_private: bool = False
    max_bytes: int = config.MAX_BYTES
    timeout: float = config.FETCH_SECONDS


PUBLIC = AddressRules()
"""The rules where nothing else is asked for."""


def is_address(picture: object) -> bool:
    """Return whether a picture is given by its address: text such as `https://host/a.jpg`, of any scheme."""
    return isinstance(picture, str) and _SCHEME.match(picture) is not None


def shown(picture: str) -> str:
    """Return an address in a line without its user name and password, to be shown and written; a path as it is."""
    return _printable(_USER.sub("", picture, count=1)) if is_address(picture) else picture


def path_of(picture: str) -> str:
    """Return the path of a file that an address stands for, to name files after it; a path as it is.

    Args:
        picture: A path, or an address, whose path is decoded. No part of it leads out of a folder, and what file
            systems do not take is replaced.
    """
    found = _PATH.match(picture) if is_address(picture) else None
    if found is None:
        return picture
    parts = [_as_file_name(unquote(part)) for part in found[1].split("/")]
    return "/" + ("/".join(part for part in parts if part) or "picture")


def _as_file_name(text: str) -> str:
    return _NO_FILE_NAME.sub("_", _printable(text)).strip(" .")


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "_" for letter in text)


def is_public(host: str) -> bool:
    """Return whether an IP address is one of the internet.

    Not this machine, a private network, link-local (where clouds have their metadata), multicast or reserved, nor an
    address of IPv6 that stands for one of IPv4.

    Args:
        host: The address, as a socket has it.
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    if not address.is_global or any(address in network for network in _NOT_PUBLIC):
        return False
    return address.version == 4 or address in _PUBLIC_IPV6
