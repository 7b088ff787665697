"""`bridge sandbox`: stand-ins of CodeArts, TestNod and S3 as a process.

It must not know how they behave.
"""

import asyncio

import typer

from bridge.commands.serve import stop_asked
from bridge.sandbox.sandbox import Sandbox, banner


def run_sandbox(sandbox: Sandbox) -> None:
    """Print how to use the sandbox once it listens, and run it until it is asked to stop."""
    asyncio.run(_run(sandbox))


async def _run(sandbox: Sandbox) -> None:
    stop = stop_asked()
    async with sandbox:
        # Colourless and unwrapped: settings and commands in it are there to be copied.
        typer.echo(banner(sandbox))
        await stop
