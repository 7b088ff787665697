"""`bridge sandbox`: stand-ins of CodeArts, TestNod and S3 as a process.

It must not know how they behave.
"""

import asyncio

import typer

from bridge.commands.signals import stop_asked
from bridge.sandbox.guide import banner
from bridge.sandbox.sandbox import Sandbox


def run_sandbox(*, host: str, codearts_port: int, testnod_port: int, s3_port: int, control_port: int) -> None:
    """Print how to use the sandbox once it listens, and run it until it is asked to stop."""
    sandbox = Sandbox(
        host=host, codearts_port=codearts_port, testnod_port=testnod_port, s3_port=s3_port, control_port=control_port
    )
    asyncio.run(_run(sandbox))


async def _run(sandbox: Sandbox) -> None:
    stop = stop_asked()
    async with sandbox:
        # Colourless and unwrapped: settings and commands in it are there to be copied.
        typer.echo(banner(sandbox))
        await stop
