"""The PEM files of the settings: certificate authorities for calls, certificate and key of the server listener."""

import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path


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
    """Two PEM files. Both methods raise ValueError as `read_authorities` does."""

    cert_file: str
    key_file: str

    def mark(self) -> bytes:
        """Return a digest that changes if the content of one of the files changes."""
        digest = hashlib.sha256()
        for path in (self.cert_file, self.key_file):
            digest.update(hashlib.sha256(_read(path)).digest())
        return digest.digest()

    def load(self) -> tuple[ssl.SSLContext, float]:
        """Return a server context for TLS 1.2 and newer, and when its certificate expires, in seconds since 1970."""
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
        return context, _expires_at(self.cert_file)


def _expires_at(cert_file: str) -> float:
    # The standard library has no public function for it; this one is what its own tests read certificates with.
    decoded = ssl._ssl._test_decode_cert(cert_file)  # type: ignore[attr-defined]  # noqa: SLF001
    return ssl.cert_time_to_seconds(decoded["notAfter"])


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
