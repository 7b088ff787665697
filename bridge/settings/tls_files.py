"""The PEM files of the settings: certificate authorities for calls, certificate and key of the server listener."""

import base64
import hashlib
import re
import ssl
from pathlib import Path

from bridge.values import dataclass

_CERTIFICATE = re.compile(
    rb"^-----BEGIN ((?:TRUSTED |X509 )?CERTIFICATE)-----\s*$(.*?)^-----END \1-----", re.DOTALL | re.MULTILINE
)
"""All labels with which OpenSSL reads a certificate. Behind a trusted one, its DER has more that OpenSSL alone uses."""


def read_authorities(path: str) -> ssl.SSLContext:
    """Return a client context that trusts the machine's certificate authorities and those in the PEM file at `path`.

    Raise ValueError if the file cannot be used; its text is a sentence without subject and full stop.
    """
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise ValueError("contains no certificate in PEM form") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    return context


@dataclass(frozen=True, kw_only=True, slots=True)
class CertificateFiles:
    """Two PEM files. All methods raise ValueError as `read_authorities` does."""

    cert_file: str
    key_file: str

    def mark(self) -> bytes:
        """Return a digest that changes if the content of one of the files changes."""
        digest = hashlib.sha256()
        for path in (self.cert_file, self.key_file):
            digest.update(hashlib.sha256(_read(path)).digest())
        return digest.digest()

    def certificate(self) -> bytes:
        """Return the certificate itself, the first one of its file, as DER."""
        found = _CERTIFICATE.search(_read(self.cert_file))
        if found is None:
            raise ValueError(f"{self.cert_file} contains no certificate in PEM form")
        return base64.b64decode(found[2])

    def load(self) -> ssl.SSLContext:
        """Return a server context for TLS 1.2 and newer."""
        self.mark()  # OpenSSL does not report which of the files cannot be read
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            # An encrypted key must fail: without a callback OpenSSL would prompt for the password.
            context.load_cert_chain(self.cert_file, self.key_file, password=str)
        except (OSError, ValueError) as error:  # also ssl.SSLError
            reason = error.reason if isinstance(error, ssl.SSLError) else None
            detail = f" ({reason.replace('_', ' ').lower()})" if reason else ""
            files = f"{self.cert_file} and {self.key_file}"
            raise ValueError(f"{files} are not a certificate and its key in PEM form{detail}") from None
        return context


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
