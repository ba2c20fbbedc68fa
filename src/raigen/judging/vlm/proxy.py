"""Finds the proxy that the environment names for a server."""

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from raigen.errors import RaigenError


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy. As a text, it is what the user set, without the password."""

    variable: str  # that names it, such as HTTPS_PROXY
    place: str  # host:port
    remedy: str  # how to do without it
    secrets: tuple[str, ...] = field(default=(), repr=False)  # the credentials in base64, then the password

    def __str__(self) -> str:
        return f"{self.variable}=http://{self.place}"

    @property
    def headers(self) -> Mapping[str, str]:
        """What the proxy alone is told."""
        return {"Proxy-Authorization": f"Basic {self.secrets[0]}"} if self.secrets else {}


def proxy_of(server: SplitResult) -> Proxy | None:
    """The proxy for a server, from HTTPS_PROXY or HTTP_PROXY, by the scheme of the server, else from ALL_PROXY.

    A name in lower case goes before the same name in upper case. None for servers on this machine and in NO_PROXY.
    Raises RaigenError for anything but an HTTP proxy, without repeating what may be a password.
    """
    host, found = server.hostname or "", getproxies_environment()
    kind = next((kind for kind in (server.scheme, "all") if found.get(kind)), None)
    port = server.port or (443 if server.scheme == "https" else 80)
    if kind is None or _is_here(host) or proxy_bypass(host) or proxy_bypass(f"{host}:{port}"):
        return None
    url, names = found[kind], sorted(os.environ, reverse=True)  # lower case first
    variable = next(name for name in names if name.lower() == f"{kind}_proxy" and os.environ[name] == url)
    remedy = f"To do without the proxy, unset {variable}, or add {host} to NO_PROXY"
    proxy = _split(url)
    if proxy is None:
        scheme = re.match(r"(?!http:)\w+://", url)
        raise RaigenError(
            f"{variable}: expected an HTTP proxy, as in http://host:port, with special letters of a password as %XX; "
            f"got {f'one that begins with {scheme[0]}' if scheme else 'another form'}. {remedy}"
        )
    user, _, place = proxy.netloc.rpartition("@")
    name, _, password = (unquote(part) for part in user.partition(":"))
    secrets = (base64.b64encode(f"{name}:{password}".encode()).decode(), password) if user else ()
    return Proxy(variable, place if proxy.port else f"{place.rstrip(':')}:80", remedy, secrets)


def _split(url: str) -> SplitResult | None:
    """The parts of a proxy's URL, whose scheme may be missing. None if it is no URL of an HTTP proxy."""
    try:
        proxy = urlsplit(url if "://" in url else f"http://{url}")
        is_right = proxy.scheme == "http" and proxy.hostname and proxy.port != 0 and url.isprintable()
    except ValueError:  # brackets or a port of another form
        return None
    more = proxy.path.strip("/") + proxy.query + proxy.fragment  # the rest of a password that is not escaped
    return proxy if is_right and not more else None


def _is_here(host: str) -> bool:
    """Whether a host is this machine, which no proxy reaches."""
    try:
        address = ip_address(host)
    except ValueError:
        name = host.rstrip(".")
        return name == "localhost" or name.endswith(".localhost")
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified
