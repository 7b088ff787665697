"""Makes `python -m bridge` the same as `bridge`."""

from bridge.cli import main

main()
