"""One listening address and the application behind it, with the limits that every listener has.

It knows no handler but those it is given.
"""

from aiohttp import web

MAX_HEADER_BYTES = 128 * 1024  # IAM tokens are documented up to 100,000 characters; aiohttp's own limit is 8,190
MAX_LINE_BYTES = 32 * 1024  # of the request line: paths and queries of CodeArts stay far below


class Listener:
    """Serves one application on one address."""

    def __init__(self, app: web.Application, host: str, port: int, *, patience_seconds: float) -> None:
        self._host = host
        self._port = port
        self._runner = web.AppRunner(
            app,
            access_log=None,
            auto_decompress=False,  # a 20 KB body would unfold to 20 MiB before anybody counted
            max_field_size=MAX_HEADER_BYTES,
            max_line_size=MAX_LINE_BYTES,
            shutdown_timeout=patience_seconds,
        )

    async def start(self) -> str:
        """Begin to listen; return the address as a URL, with the port that a 0 became."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port, reuse_address=True)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def close(self) -> None:
        """Accept no more connections, wait for the requests under way, then close what is left; twice is once."""
        await self._runner.cleanup()
