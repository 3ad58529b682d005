"""What tells a person's address or number from something else of the same shape."""

from __future__ import annotations

import datetime
import ipaddress
import re

_RESERVED_DOMAINS = ("example.com", "example.net", "example.org")
_RESERVED_ENDINGS = (".example", ".invalid", ".test", ".localhost", ".local")
"""RFC 2606 and RFC 6762."""
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3",
    )
)  # fmt: skip
"""RFC 6890; Python's own list differs between its versions."""
_DOCUMENTATION = tuple(
    ipaddress.ip_network(network)
    for network in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")
)
"""RFC 5737, RFC 3849, RFC 9637: nobody's addresses."""
_PUBLIC_IPV6, _LOCAL_IPV6 = ipaddress.ip_network("2000::/3"), ipaddress.ip_network("fc00::/6")
_IETF_IPV6 = ipaddress.ip_network("2001::/23")
_VERSION_WORD = re.compile(
    r"(?:\b(?:v|ver|ec|oid)|version|release|revision|build|section|chapter|figure|table|rfc|[=<>~^]=|[§第版本号])[\s.:=\"']*\Z",
    re.IGNORECASE,
)
_HEADING = re.compile(r"(?:\A|\n)[ \t]*\Z")
_SMALL_OCTET = 20
"""Four numbers below it are a version or a section rather than an address (3.2.1.4)."""
_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_ID_CHECKS = "10X98765432"


def is_personal_address(text: str, start: int, local: str, domain: str) -> bool:
    """Not an address of the examples' domains, a remote of git (git@host), or part of a URL or a longer word."""
    domain = domain.lower()
    if domain in _RESERVED_DOMAINS or domain.endswith(_RESERVED_ENDINGS) or ".." in local or local == "git":
        return False
    before = text[start - 1] if start else " "
    if before == ":" and text[max(0, start - 7) : start].endswith("mailto:"):
        return True
    return before not in "/:@" and not (before.isascii() and before.isalnum())


def is_ipv4(match: re.Match[str], private: bool) -> bool:
    """A valid address that is public (or any, with `private`), and not a version or section number."""
    octets = match[0].split(".")
    if any(int(octet) > 255 or (len(octet) > 1 and octet[0] == "0") for octet in octets):
        return False
    if all(int(octet) < _SMALL_OCTET for octet in octets):
        return private and match[0].startswith("10.")
    address = ipaddress.IPv4Address(match[0])
    if any(address in network for network in _DOCUMENTATION[:3]):
        return False
    if _VERSION_WORD.search(match.string, max(0, match.start() - 12), match.start()):
        return False
    if match.string[match.end() : match.end() + 2] == ". " and _HEADING.search(
        match.string, max(0, match.start() - 8), match.start()
    ):
        return False
    return private or not any(address in network for network in _NOT_PUBLIC)


def is_ipv6(text: str, private: bool) -> bool:
    """A valid address that is public; with `private`, also local ones and ::1."""
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return False
    if any(address in network for network in _DOCUMENTATION[3:]):
        return False
    if address in _PUBLIC_IPV6:
        return address not in _IETF_IPV6 and text.count(":") >= 3
    return private and (address in _LOCAL_IPV6 or text == "::1") and any(map(str.isdigit, text))


def is_phone_number(match: re.Match[str]) -> bool:
    """An international number has 8 to 15 digits (E.164), and 11 or more where nothing parts them."""
    digits = sum(map(str.isdigit, match[0]))
    if match[0][0] != "+":
        return True
    return (11 if match[0][1:].isdigit() else 8) <= digits <= 15


def is_chinese_id(match: re.Match[str]) -> bool:
    """GB 11643-1999: a real date of birth, and the check digit of ISO 7064 MOD 11-2."""
    number = match[0]
    try:
        datetime.date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    total = sum(weight * int(digit) for weight, digit in zip(_ID_WEIGHTS, number[:17], strict=True))
    return _ID_CHECKS[total % 11] == number[17].upper()


def is_card_number(match: re.Match[str]) -> bool:
    """Luhn's check digit (ISO/IEC 7812-1), and not one digit over and over."""
    digits = [int(character) for character in match[0] if character.isdigit()]
    if len(set(digits)) == 1:
        return False
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
