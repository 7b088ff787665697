"""What holds for every test."""

READABLE = 24  # longer bytes say nothing as a test's name


def pytest_make_parametrize_id(val):
    """Name packed bytes by their size: their content may hold the time, and workers must agree on names."""
    if isinstance(val, bytes) and len(val) > READABLE:
        return f"{len(val)}B"
    return None
