"""The rules of TLS on the server listener: the pair is whole, and no token crosses a network in the clear.

It knows the settings only; how the pair is used and renewed stands in server/http/tls.py.
"""

from collections.abc import Iterator

from bridge.settings.callers import is_loopback
from bridge.settings.certificate import CertificateFiles
from bridge.settings.complaints import Complaint
from bridge.settings.model import Settings

SHOWN_SECRETS = frozenset({"token", "iam"})
"""Schemes that send the secret itself, as the hook does: whoever reads it can be them. A signature shows no key."""


def tls_rules(settings: Settings) -> Iterator[Complaint]:
    """Complain of half a pair, of one that cannot be used, and of tokens that others could read."""
    server = settings.server
    names = ("tls_cert_file", "tls_key_file")
    absent = [name for name in names if not getattr(server, name)]
    if len(absent) == 1:
        other = next(name for name in names if name not in absent)
        yield Complaint(f"server.{absent[0]}", f"is missing, and {other} is set.", "Set both, or neither.")
    elif not absent:
        try:
            CertificateFiles(cert_file=server.tls_cert_file, key_file=server.tls_key_file).load()
        except ValueError as error:
            remedy = "Name the certificate with its chain, and its key without a password."
            yield Complaint("server.tls_cert_file", f"{error}.", remedy)
    elif shows_secrets(settings):
        yield Complaint(
            "server.behind_tls",
            "is not true, and tokens would cross the network in the clear.",
            "Write behind_tls = true under [server] if a proxy in front speaks TLS. "
            'Else write tls_cert_file and tls_key_file there, or host = "127.0.0.1".',
        )


def shows_secrets(settings: Settings) -> bool:
    """Tell whether tokens would come in from elsewhere, and nobody has said that they come by TLS."""
    server = settings.server
    safe = server.behind_tls or is_loopback(server.host or "localhost")  # an empty host is another rule's
    return bool(SHOWN_SECRETS & set(settings.callers.auth) or settings.hook.secret) and not safe
