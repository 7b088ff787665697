from datetime import UTC, datetime

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from bridge.domain.instants import SECOND
from bridge.protocols.x509 import certificate_end
from bridge.settings.tls_files import CertificateFiles

ENDS = [datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)]
ENDS += [datetime(2050, 1, 1, tzinfo=UTC), datetime(2120, 6, 1, 12, tzinfo=UTC)]  # in another form from 2050 on


def der_of(leaf):
    return x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())


@pytest.mark.parametrize("ends_at", ENDS, ids=str)
@pytest.mark.parametrize("kind", list(trustme.KeyType))
def test_the_end_of_a_certificate_is_read(ends_at, kind, tmp_path):
    leaf = trustme.CA(key_type=kind).issue_cert("bridge.example", not_after=ends_at, key_type=kind)
    path = tmp_path / "tls.pem"
    path.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    der = CertificateFiles(cert_file=str(path), key_file=str(path)).certificate()
    assert certificate_end(der) == int(ends_at.timestamp()) * SECOND


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x82\xff\xff", b"\x30\x03\x30\x01\x00", b"\x30\x84" + b"\xff" * 4])
def test_what_is_no_certificate_is_rejected(der):
    with pytest.raises(ValueError, match="certificate"):
        certificate_end(der)


def test_a_certificate_cut_anywhere_is_rejected():
    der = der_of(trustme.CA().issue_cert("bridge.example")).public_bytes(Encoding.DER)
    for end in range(120):
        with pytest.raises(ValueError, match="certificate"):
            certificate_end(der[:end])
