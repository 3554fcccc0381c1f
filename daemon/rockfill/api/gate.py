"""Who gets in: every request passes here before any handler runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from rockfill.access.hosts import host_name
from rockfill.access.tokens import Scope, Visitor
from rockfill.errors import Code, Problem, ProblemInfo

if TYPE_CHECKING:
    from rockfill.access.hosts import HostNames
    from rockfill.access.logins import Logins
    from rockfill.access.networks import Networks
    from rockfill.access.tokens import Access

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

# Whoever needs no token gets no more than this.
TOKENLESS = frozenset({Scope.READ, Scope.COMPLETE})

# What people call a token when they put it into an address.
TOKEN_NAMES = frozenset({"token", "access_token", "api_key", "apikey", "api-key", "key", "auth", "authorization"})

UNAUTHORIZED = ProblemInfo(
    Code.UNAUTHORIZED,
    "This needs the appliance's token.",
    "Send it as `Authorization: Bearer TOKEN`; `rockfill token` prints it.",
)
WRONG_TOKEN = ProblemInfo(Code.UNAUTHORIZED, "That is not a token of this appliance.", "`rockfill token` prints it.")
FROM_ELSEWHERE = ProblemInfo(Code.FORBIDDEN, "A page from elsewhere may not do this.", "Open the appliance's own page.")

_VISITOR = web.RequestKey("visitor", Visitor)

# The address that asks, whoever passes the request on.
CLIENT = web.RequestKey("client", str)


class Gate:
    """Decides who gets in."""

    def __init__(self, access: Access, logins: Logins, hosts: HostNames, networks: Networks, cookie_name: str) -> None:
        self._access = access
        self._logins = logins
        self._hosts = hosts
        self._networks = networks
        self.cookie_name = cookie_name

    def check(self, request: web.Request, scope: Scope | None) -> None:
        """Raise what keeps this request out of an address that needs `scope`."""
        if not request.raw_path.startswith("/"):
            raise Problem(Code.INVALID_VALUE, "This is no proxy.", "Ask for a path, such as /health.")
        host = self.host(request)
        if not self._hosts.allows(host):
            raise Problem(
                Code.HOST_NOT_ALLOWED,
                f'This machine does not answer to the name "{(host_name(host) or "")[:100]}".',
                "Use its address, or add the name to [server] allowed_hosts in the configuration.",
            )
        request[CLIENT] = self.client(request)
        self._refuse_token_in_address(request)
        if request.method not in SAFE_METHODS:
            self.refuse_other_origins(request, unknown=True)
        if scope is not None and scope not in self.known_visitor(request).scopes:
            raise forbidden(scope)

    def known_visitor(self, request: web.Request) -> Visitor:
        """Whoever asks; `unauthorized` for a stranger, `too_many_requests` for one who tried too often."""
        visitor = self.visitor(request)
        if visitor is None:
            raise UNAUTHORIZED.raised()
        return visitor

    def visitor(self, request: web.Request) -> Visitor | None:
        """Whoever asks; None for somebody who shows nothing. One who shows the wrong thing is refused likewise."""
        visitor = request.get(_VISITOR) or self._visitor(request)
        if visitor is not None:
            request[_VISITOR] = visitor
        return visitor

    def _visitor(self, request: web.Request) -> Visitor | None:
        token = _presented_token(request)
        if token:
            return self.log_in(request, token)
        session = request.cookies.get(self.cookie_name)
        if session is not None:
            visitor = self._access.visitor_of_session(session, time.time())
            if visitor is not None:
                if request.method not in SAFE_METHODS:
                    self.refuse_other_origins(request, unknown=False)
                return visitor
        return Visitor(TOKENLESS) if self.needs_no_token(request) else None

    def log_in(self, request: web.Request, token: str) -> Visitor:
        """Whom `token` lets in, or `unauthorized`, or `too_many_requests`."""
        visitor = self._logins.attempt(request[CLIENT], token.strip())
        if visitor is None:
            raise WRONG_TOKEN.raised()
        return visitor

    def use_link(self, request: web.Request, nonce: str) -> Visitor | None:
        """Whom a one-time link lets in: whoever made it, if that token is still good. Raises `too_many_requests`."""
        session = self._logins.use_link(request[CLIENT], nonce)
        return self._access.visitor_of_session(session, time.time()) if session is not None else None

    def new_session(self, visitor: Visitor) -> str:
        """The value of a session cookie for `visitor`."""
        return self._access.new_session(visitor, time.time())

    def needs_no_token(self, request: web.Request) -> bool:
        """Whether whoever asks may read and complete without one."""
        if _is_forwarded(request) and not self._networks.is_proxy(request.remote):
            return False  # somebody far away, by way of a proxy that we were told nothing of
        return self._networks.needs_no_token(request[CLIENT])

    def refuse_other_origins(self, request: web.Request, *, unknown: bool) -> None:
        """A browser tells where a page is from; only our own may act with what the browser holds for us.

        `unknown` allows a request that does not say, which no browser sends with a method that changes anything.
        """
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None and unknown:
            return
        _, _, authority = (origin or "").partition("://")
        if authority.lower() != self.host(request).lower():
            raise FROM_ELSEWHERE.raised()

    def _refuse_token_in_address(self, request: web.Request) -> None:
        """An address ends up in histories and logs, and in those of every proxy on the way.

        Only names are looked at: an answer that depends on a value would tell whether that is a token, to anybody and
        as often as they like.
        """
        for name in request.query:
            if name.lower() in TOKEN_NAMES:
                raise Problem(
                    Code.INVALID_VALUE,
                    "A token in an address is not accepted: it ends up in histories and logs.",
                    "Send it as `Authorization: Bearer TOKEN`. If it was a real one, replace it.",
                )

    # ---- what a proxy that is trusted says of the request

    def client(self, request: web.Request) -> str:
        """The address that asks."""
        said = [name for value in request.headers.getall("X-Forwarded-For", []) for name in value.split(",")]
        return self._networks.client(request.remote, said)

    def host(self, request: web.Request) -> str:
        """The Host header that the client sent."""
        return self._forwarded(request, "X-Forwarded-Host") or request.headers.get(hdrs.HOST, "")

    def is_encrypted(self, request: web.Request) -> bool:
        """Whether the client speaks TLS, with us or with the proxy."""
        return request.secure or self._forwarded(request, "X-Forwarded-Proto") == "https"

    def _forwarded(self, request: web.Request, header: str) -> str:
        return request.headers.get(header, "").strip() if self._networks.is_proxy(request.remote) else ""


def forbidden(scope: Scope) -> Problem:
    """The problem of a caller who lacks `scope`."""
    return Problem(
        Code.FORBIDDEN,
        f'This needs a token with the scope "{scope}".',
        "Use the primary token, which `rockfill token` prints, or one with that scope.",
    )


def _is_forwarded(request: web.Request) -> bool:
    return any(name in request.headers for name in ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"))


def _presented_token(request: web.Request) -> str:
    scheme, _, credentials = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    return request.headers.get("X-API-Key", "").strip()
