"""The command line: which commands there are, what they take, and how a failure is told.

It must not know how a command does its work: each imports its module when it is called, so that help is quick.
"""
# ruff: noqa: PLC0415 -- what a command needs is imported when it is called

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
    help="Takes JUnit reports where CodeArts Build uploads them and delivers them to TestNod.",
    epilog="New here? Try: bridge demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Config = Annotated[
    Path, typer.Option("--config", metavar="FILE", envvar=CONFIG_VARIABLE, help="The settings.", show_default=False)
]
Port = Annotated[int, typer.Option(min=0, max=HIGHEST_PORT, help="0 takes a free one.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that `arguments` (those of the process when None) name, and exit as it went.

    0: done; 1: it could not be done, and stderr says why in sentences; 2: it was not asked rightly.
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
        bool, typer.Option("--keep", metavar="", help="Go on running afterwards, and print the addresses.")
    ] = False,
    postgres: Annotated[
        bool, typer.Option("--postgres", metavar="", help="Keep the ledger in a PostgreSQL server of the demo's own.")
    ] = False,
    s3: Annotated[
        bool, typer.Option("--s3", metavar="", help="Keep spool and archive in an S3 server of the demo's own.")
    ] = False,
) -> None:
    """Play four builds from upload to finalized run.

    Gateway and sandbox run on this machine: it takes seconds, needs no account, and leaves nothing behind.
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
            help="Judge as for a route with repair = true, and write what it would send into this new folder.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Say which files the gateway would accept as JUnit reports, and what is wrong with the others.

    Needs no settings. Ends with 1 on any fault; XML of another kind is one only where the file itself was named.
    """
    from bridge.commands.check.run import check_files

    if not check_files(files, json_wanted=as_json, repaired_folder=repair):
        raise typer.Exit(1)


@app.command(rich_help_panel=TRY)
def sandbox(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    codearts_port: Port = 8181,
    testnod_port: Port = 8182,
    s3_port: Port = 8183,
    control_port: Port = 8184,
    check_port: Port = 8185,
    iam_port: Port = 8186,
) -> None:
    """Run stand-ins of CodeArts with Check and IAM, of TestNod and S3.

    Prints settings that point a gateway at them, and how to play a build. Everything is forgotten at the end.
    """
    from bridge.commands.sandbox import run_sandbox
    from bridge.sandbox.sandbox import Sandbox

    run_sandbox(
        Sandbox(
            host=host,
            codearts_port=codearts_port,
            testnod_port=testnod_port,
            s3_port=s3_port,
            control_port=control_port,
            check_port=check_port,
            iam_port=iam_port,
        )
    )


@app.command(rich_help_panel=RUN)
def serve(
    config: Config,
    *,
    held: Annotated[
        bool, typer.Option("--held", metavar="", help="Take uploads and send nothing until `bridge resume`.")
    ] = False,
) -> None:
    """Run the gateway.

    SIGTERM and Ctrl-C let it finish what is under way, for at most server.drain; a second one ends it at once.
    """
    from bridge.commands.serve import serve

    serve(config, held=held)


@app.command(rich_help_panel=RUN)
def backup(
    folder: Annotated[Path, typer.Argument(metavar="DEST", help="A new folder for the copy.", show_default=False)],
    config: Config,
) -> None:
    """Copy the ledger, also of a running gateway, with the spool it needs.

    Whatever is started on the copy is held until `bridge resume`.
    """
    from bridge.commands.backup import back_up_ledger

    back_up_ledger(config, folder)


@app.command(rich_help_panel=RUN)
def resume(
    config: Config,
    *,
    assume_delivered: Annotated[
        bool, typer.Option("--assume-delivered", metavar="", help="What is doubtful was delivered: do not send it.")
    ] = False,
    redeliver: Annotated[
        bool, typer.Option("--redeliver", metavar="", help="Send what is doubtful, though it may then be there twice.")
    ] = False,
) -> None:
    """Let a restored ledger go.

    Where reports may have been delivered since the copy was made, it lists them and wants one of the two options.
    """
    from bridge.commands.backup import resume

    if assume_delivered and redeliver:
        raise typer.BadParameter("Choose one of --assume-delivered and --redeliver.")
    resume(config, doubtful="assume-delivered" if assume_delivered else "redeliver" if redeliver else None)


@app.command(rich_help_panel=RUN)
def check_config(config: Config) -> None:
    """Say all that is wrong with the settings.

    Reads them as serve would, with the environment and secret files; where all is well, it says what to think about.
    """
    from bridge.commands.config import check_config

    check_config(config)


@app.command(rich_help_panel=RUN)
def migrate(config: Config) -> None:
    """Bring the ledger to this version's schema.

    The gateway does so too when it starts.
    """
    from bridge.commands.config import migrate_ledger

    migrate_ledger(config)


@app.command(rich_help_panel=RUN)
def why(
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="The job_id of the build task.", show_default=False)],
    build_no: Annotated[str, typer.Argument(metavar="NO", help="Its build_no, INCREASENUM.", show_default=False)],
    config: Config,
) -> None:
    """Say in one sentence why a build is, or is not, in TestNod.

    Asks the running gateway; where none runs, its ledger.
    """
    from bridge.commands.why import print_why
    from bridge.server.http.parameters import read_parameters

    try:
        asked = read_parameters({"job_id": job_id, "build_no": build_no})
    except BadParameter as error:  # in the words that the upload has for it: BUILDNUMBER is none
        raise typer.BadParameter(str(error)) from None
    print_why(config, asked.job_id, asked.build_no)


@app.command(rich_help_panel=RUN)
def hash_token() -> None:
    """Print the hash of a caller's token, for the settings.

    The token is asked for without being shown, or read from a pipe.
    """
    from bridge.commands.hash_token import print_hash

    print_hash()


@app.callback()
def _options(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            metavar="",
            is_eager=True,
            callback=lambda asked: _print_version(asked=asked),
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    pass


def _print_version(*, asked: bool) -> None:
    if not asked:
        return
    typer.echo(f"bridge {__version__}")
    raise typer.Exit


if __name__ == "__main__":
    main()
