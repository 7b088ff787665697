"""The command line: commands, their options, and exit codes.

Each command imports its module only when it runs, so that `--help` starts quickly.
"""
# ruff: noqa: PLC0415 -- imported when the command runs, see above

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bridge import __version__
from bridge.commands import CONFIG_VARIABLE
from bridge.errors import BadParameter, BridgeError

HIGHEST_PORT = 65_535
TRY = "Try it"
RUN = "Run it"

app = typer.Typer(
    name="bridge",
    help="Accept JUnit reports that CodeArts Build uploads and deliver them to TestNod.",
    epilog="To begin, run: bridge demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Config = Annotated[
    Path, typer.Option("--config", "-c", metavar="FILE", envvar=CONFIG_VARIABLE, help="The settings file.")
]
File = Annotated[Path | None, typer.Argument(metavar="FILE", help="Short for --config FILE.", show_default=False)]
DEFAULT_CONFIG = Path("bridge.toml")
Port = Annotated[int, typer.Option(min=0, max=HIGHEST_PORT, help="0 takes any free port.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command in `arguments` (None: those of the process) and exit.

    Exit codes: 0 success; 1 failure, with cause and remedy on stderr; 2 wrong usage.
    """
    try:
        app(args=arguments, prog_name="bridge")
    except (BridgeError, OSError) as error:
        from bridge.commands.console import print_failure

        print_failure(error)
        sys.exit(1)


@app.command(rich_help_panel=TRY)
def demo(
    *,
    keep: Annotated[
        bool, typer.Option("--keep", metavar="", help="Keep running afterwards, and print the addresses.")
    ] = False,
    postgres: Annotated[
        bool, typer.Option("--postgres", metavar="", help="Start a PostgreSQL server for the ledger.")
    ] = False,
    s3: Annotated[bool, typer.Option("--s3", metavar="", help="Start an S3 server for spool and archive.")] = False,
) -> None:
    """Play four builds from upload to finalized run.

    Gateway and sandbox run on this machine. It takes seconds, needs no account, and leaves no files.
    """
    from bridge.demo.demo import run_demo

    if not run_demo(keep=keep, postgres=postgres, s3=s3):
        raise typer.Exit(1)


@app.command(rich_help_panel=TRY)
def check(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE…", help="Reports, archives of them, patterns, and folders to search.", show_default=False
        ),
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Print JSON.")] = False,
    repair: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            help="Check as for a route with repair = true, and write the repaired files to this new folder.",
            show_default=False,
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Write the reports to this new file, as a page to read.", show_default=False),
    ] = None,
) -> None:
    """Check whether the gateway would accept files as JUnit reports.

    Needs no settings. Exits with 1 if a file would be rejected. XML of another kind counts only if the file was named.
    """
    from bridge.commands.check.run import check_files

    if not check_files(files, json_wanted=as_json, output_folder=repair, html_path=html):
        raise typer.Exit(1)


@app.command(rich_help_panel=TRY)
def sandbox(  # noqa: PLR0913, PLR0917 -- one parameter for each option
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    codearts_port: Port = 8181,
    testnod_port: Port = 8182,
    s3_port: Port = 8183,
    control_port: Port = 8184,
    check_port: Port = 8185,
    iam_port: Port = 8186,
    calls_per_minute: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[CALL=]N",
            help="Answer 429 to more calls of one API of CodeArts. CALL is a name such as codearts.build_info, "
            "or a pattern; repeat the option for several.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run test servers for CodeArts (Build, Check, IAM), TestNod and S3.

    Prints settings for a gateway and the commands to play a build. All data is in memory.
    """
    import asyncio

    from bridge.commands.console import stop_requested
    from bridge.sandbox.call_limits import read_limits
    from bridge.sandbox.sandbox import Sandbox, banner
    from bridge.sandbox.state import Behavior

    try:
        behavior = Behavior().changed({"calls_per_minute": read_limits(calls_per_minute or [])})
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    sandbox = Sandbox(
        host=host,
        codearts_port=codearts_port,
        testnod_port=testnod_port,
        s3_port=s3_port,
        control_port=control_port,
        check_port=check_port,
        iam_port=iam_port,
        behavior=behavior,
    )

    async def run() -> None:
        stop = stop_requested()
        async with sandbox:
            typer.echo(banner(sandbox))  # without color and wrapping, because it is copied
            await stop

    asyncio.run(run())


@app.command(rich_help_panel=RUN)
def serve(
    file: File = None,
    config: Config = DEFAULT_CONFIG,
    *,
    paused: Annotated[
        bool, typer.Option("--paused", metavar="", help="Accept uploads, but send nothing until `bridge resume`.")
    ] = False,
) -> None:
    """Run the gateway.

    On SIGTERM or Ctrl-C it finishes uploads in flight, for at most server.shutdown_timeout. A second one ends it.
    """
    import gc

    gc.disable()  # until the gateway runs: what a start creates stays
    _import_structlog_alone()
    from bridge.commands.serve import serve

    serve(file or config, paused=paused)


@app.command(rich_help_panel=RUN)
def backup(
    folder: Annotated[Path, typer.Argument(metavar="DEST", help="A new folder for the copy.", show_default=False)],
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Copy the ledger and the spool files it needs. The gateway may be running.

    A gateway that is started on the copy sends nothing until `bridge resume`.
    """
    from bridge.commands.backup import back_up_ledger

    back_up_ledger(config, folder)


@app.command(rich_help_panel=RUN)
def resume(
    file: File = None,
    config: Config = DEFAULT_CONFIG,
    *,
    assume_delivered: Annotated[
        bool, typer.Option("--assume-delivered", metavar="", help="Treat uncertain reports as delivered.")
    ] = False,
    redeliver: Annotated[
        bool, typer.Option("--redeliver", metavar="", help="Send uncertain reports again. Some may then appear twice.")
    ] = False,
) -> None:
    """Resume deliveries from a restored ledger.

    If reports may have been delivered since the copy was made, it lists them and requires one of the two options.
    """
    from bridge.commands.backup import resume

    if assume_delivered and redeliver:
        raise typer.BadParameter("Choose one of --assume-delivered and --redeliver.")
    resume(file or config, uncertain="assume-delivered" if assume_delivered else "redeliver" if redeliver else None)


@app.command(rich_help_panel=RUN)
def check_config(
    file: File = None,
    config: Config = DEFAULT_CONFIG,
    *,
    online: Annotated[
        bool, typer.Option("--online", metavar="", help="Ask each configured upstream one harmless question too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Print JSON.")] = False,
) -> None:
    """Check the settings and list every problem.

    Reads the file, the environment and secret files as `serve` does. If there is no problem, it prints warnings. Exits
    with 1 if a question failed.
    """
    from bridge.commands.config import check_config

    if not check_config(file or config, online=online, json_wanted=as_json):
        raise typer.Exit(1)


@app.command(rich_help_panel=RUN)
def migrate(file: File = None, config: Config = DEFAULT_CONFIG) -> None:
    """Migrate the ledger to the schema of this version.

    `serve` does the same when it starts.
    """
    from bridge.commands.config import migrate_ledger

    migrate_ledger(file or config)


@app.command(rich_help_panel=RUN)
def why(
    job_id: Annotated[
        str, typer.Argument(metavar="JOB", help="A build task's job_id, or a route.", show_default=False)
    ],
    build_no: Annotated[str, typer.Argument(metavar="NO", help="INCREASENUM, or a build_id.", show_default=False)],
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Explain why a build is, or is not, in TestNod: status, cause and what to do.

    Asks the running gateway. If none is running, it reads the ledger.
    """
    from bridge.commands.why import print_why
    from bridge.server.http.requests import read_build_name

    try:
        print_why(config, read_build_name({"job_id": job_id, "build_no": build_no}))
    except BadParameter as error:  # the same message as an upload gets
        raise typer.BadParameter(str(error)) from None


@app.command(rich_help_panel=RUN)
def hash_token() -> None:
    """Print the hash of a caller's token, for the settings.

    Prompts for the token without showing it, or reads it from a pipe.
    """
    from bridge.commands.config import print_hash

    print_hash()


def _import_structlog_alone() -> None:
    """Import structlog without rich, which it imports for a formatter of tracebacks that the gateway does not use.

    That saves 7 MB, and a tenth of a second.
    """
    if "rich" not in sys.modules:
        sys.modules["rich"] = None  # type: ignore[assignment]  # importing it raises ImportError
        import structlog  # noqa: F401

        del sys.modules["rich"]


@app.callback()
def _options(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            metavar="",
            is_eager=True,
            callback=lambda value: _print_version(wanted=value),
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    pass


def _print_version(*, wanted: bool) -> None:
    if not wanted:
        return
    typer.echo(f"bridge {__version__}")
    raise typer.Exit


if __name__ == "__main__":
    main()
