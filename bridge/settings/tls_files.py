"""The certificate authorities of `outbound.ca_file`, besides those of this machine.

It opens that one file, and knows no connection.
"""

import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path


def read_authorities(path: str) -> ssl.SSLContext:
    """Return a client's TLS context that also believes the authorities in the PEM file at `path`; raise ValueError.

    The error says what is wrong with the file, as half a sentence.
    """
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise ValueError("holds no certificate in PEM form") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    return context


# The certificate of `server.tls_cert_file` and its key, as what a listener speaks TLS with.
#
# It opens these two files, and knows no listener.


@dataclass(frozen=True, kw_only=True, slots=True)
class CertificateFiles:
    """The two PEM files; each method raises ValueError, saying what is wrong with them as half a sentence."""

    cert_file: str
    key_file: str

    def mark(self) -> bytes:
        """Return what tells this pair from any other one."""
        digest = hashlib.sha256()
        for path in (self.cert_file, self.key_file):
            digest.update(hashlib.sha256(_read(path)).digest())
        return digest.digest()

    def load(self) -> ssl.SSLContext:
        """Return a server's context for TLS 1.2 and newer."""
        self.mark()  # OpenSSL does not say which of the files it could not open
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self.cert_file, self.key_file, password=_no_password)
        except (OSError, ValueError) as error:  # ssl.SSLError among them
            files = f"{self.cert_file} and {self.key_file}"
            raise ValueError(f"{files} are no certificate and its key in PEM form{_why(error)}") from None
        return context


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def _why(error: Exception) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return f" ({reason.replace('_', ' ').lower()})" if reason else ""


def _no_password() -> str:
    """Answer where a key is encrypted: nobody is there to be asked."""
    return ""
