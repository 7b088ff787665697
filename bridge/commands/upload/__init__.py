"""`bridge upload`: send a build's reports to a gateway. It starts quickly: no aiohttp, no pydantic."""
