"""The certificate authorities of `client.ca_file`, besides those of this machine.

It opens that one file, and knows no connection.
"""

import ssl


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
