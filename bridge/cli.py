"""The command line: commands, their options, and exit codes.

Each command imports its module only when it runs, so that `--help` starts quickly.
"""
# ruff: noqa: PLC0415 -- imported when the command runs, see above

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bridge import __version__
from bridge.commands import CONFIG_VARIABLE
from bridge.errors import BadParameter, BridgeError

HIGHEST_PORT = 65_535
TRY = "Try it"
CI = "In a build"
RUN = "Run it"
OPERATE = "Look and repair"

app = typer.Typer(
    name="bridge",
    help="Accept JUnit reports that CodeArts Build uploads and deliver them to TestNod.",
    epilog="To begin, run: bridge demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Config = Annotated[
    Path, typer.Option("--config", "-c", metavar="FILE", envvar=CONFIG_VARIABLE, help="The settings file.")
]
File = Annotated[Path | None, typer.Argument(metavar="FILE", help="Short for --config FILE.", show_default=False)]
DEFAULT_CONFIG = Path("bridge.toml")
Port = Annotated[int, typer.Option(min=0, max=HIGHEST_PORT, help="0 takes any free port.")]


class BuildStateName(StrEnum):
    """The states of a build, for --state."""

    OPEN = "open"
    ENDED = "ended"
    FINALIZED = "finalized"
    NO_RUN = "no_run"


class RouteAction(StrEnum):
    """What `bridge routes` can do with a route."""

    PAUSE = "pause"
    RESUME = "resume"


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
    rewrite: Annotated[
        Path | None,
        typer.Option(
            metavar="RULES",
            help="Try the [[routes.rewrite]] tables of this TOML file: show names before and after.",
            show_default=False,
        ),
    ] = None,
    route: Annotated[
        str, typer.Option(metavar="NAME", help="The route whose rules --rewrite tries.", show_default=False)
    ] = "",
) -> None:
    """Check whether the gateway would accept files as JUnit reports.

    Needs no settings. Exits with 1 if a file would be rejected. XML of another kind counts only if the file was named.
    """
    from bridge.commands.check.run import check_files

    options = {"output_folder": repair, "html_path": html, "rules_path": rewrite}
    if not check_files(files, json_wanted=as_json, route=route, **options):
        raise typer.Exit(1)


@app.command(
    rich_help_panel=CI,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def upload(context: typer.Context) -> None:
    """Upload the reports of a build, as a build step.

    Its options are in `commands/upload/options.py`, which starts in a third of the time: builds wait for it.
    """
    from bridge.commands.upload.options import main as run_upload

    raise typer.Exit(run_upload(context.args))


@app.command(rich_help_panel=RUN)
def backfill(  # noqa: PLR0913 -- one parameter for each option
    source: Annotated[
        Path | None,
        typer.Argument(metavar="SOURCE", help="A folder or an archive (zip, tar, tar.gz).", show_default=False),
    ] = None,
    *,
    template: Annotated[
        str, typer.Option(metavar="PATH", help="Where reports are: {job}, {no}, {node}, {branch}, {commit}, *, **.")
    ] = "{job}/{no}/…",
    job: Annotated[
        list[str] | None,
        typer.Option(
            "--job",
            metavar="ID",
            help="Only this job, with branch and commit from its history at CodeArts; repeat it for several.",
            show_default=False,
        ),
    ] = None,
    project: Annotated[
        str,
        typer.Option(
            metavar="ID", help="The CodeArts project of the builds, which routes may match.", show_default=False
        ),
    ] = "",
    since: Annotated[
        str,
        typer.Option(metavar="DAY", help="Begin the history here, as 2026-01-31; else a year ago.", show_default=False),
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", metavar="", help="Show totals, and send nothing.")] = False,
    rate: Annotated[float, typer.Option(min=0.1, max=600, metavar="N", help="Builds a minute, at most.")] = 30,
    time_budget: Annotated[str, typer.Option(metavar="TIME", help="How long it waits while nothing moves.")] = "30m",
    state: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The progress; else SOURCE.backfill.", show_default=False)
    ] = None,
    url: Annotated[str, typer.Option(envvar="BRIDGE_URL", help="The gateway.", show_default=False)] = "",
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The caller's token; else BRIDGE_TOKEN.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Print JSON on a terminal, too.")] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Send past builds to the gateway, oldest first, as if they had just ended.

    Reports come from SOURCE; without it, builds of the history are sent without reports.

    A build follows when the run of the one before it in its job is finalized.

    If it is cut off, run it again: it goes on where it ended, and sends nothing twice.

    Exits with 1 if something was rejected, 2 for wrong usage, 3 if it could not finish.
    """
    from bridge.commands.backfill.run import BackfillOptions, backfill
    from bridge.commands.upload.options import read_seconds

    try:
        options = BackfillOptions(
            source=source,
            template=template,
            jobs=job or [],
            since=since,
            project_id=project,
            state=state,
            rate=rate,
            budget=read_seconds(time_budget),
            url=url,
            token_file=token_file,
            config=config,
            dry_run=dry_run,
            json_wanted=as_json,
        )
        code = backfill(options)
    except BadParameter as error:
        raise typer.BadParameter(str(error)) from None
    raise typer.Exit(code)


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
def init(  # noqa: PLR0913 -- one parameter for each option
    config: Config = DEFAULT_CONFIG,
    *,
    route: Annotated[str | None, typer.Option(metavar="NAME", help="The route.", show_default=False)] = None,
    project_token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The TestNod project's token.", show_default=False)
    ] = None,
    region: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of CodeArts; empty: none.", show_default=False)
    ] = None,
    codearts_token_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="An IAM token for CodeArts; empty: none.", show_default=False)
    ] = None,
    behind_tls_proxy: Annotated[
        bool | None,
        typer.Option(
            "--behind-tls-proxy/--this-machine-only", metavar="", help="Who reaches the gateway.", show_default=False
        ),
    ] = None,
    data: Annotated[Path, typer.Option(metavar="DIR", help="For the ledger and the spool.")] = Path("data"),
    example: Annotated[
        bool, typer.Option("--example", metavar="", help="Write every setting with its default instead.")
    ] = False,
) -> None:
    """Write a settings file from five answers, and a token for CI.

    What no option gives is asked for. Existing files are not overwritten.
    """
    from bridge.commands.init import InitOptions, write_example, write_settings

    if example:
        write_example(config)
        return
    options = InitOptions(
        route=route,
        project_token_file=project_token_file,
        region=region,
        codearts_token_file=codearts_token_file,
        behind_tls_proxy=behind_tls_proxy,
        data=data,
    )
    write_settings(config, options)


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
    from bridge.commands.serve_arguments import run_gateway

    run_gateway(file or config, paused=paused)


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
def move(
    *,
    source: Annotated[
        str, typer.Option("--from", metavar="URL", help="The ledger, as in store.url.", show_default=False)
    ],
    target: Annotated[
        str, typer.Option("--to", metavar="URL", help="A new ledger in another database.", show_default=False)
    ],
    source_spool: Annotated[
        str | None,
        typer.Option("--from-spool", metavar="PLACE", help="The spool; store.spool if missing.", show_default=False),
    ] = None,
    target_spool: Annotated[
        str | None,
        typer.Option(
            "--to-spool",
            metavar="PLACE",
            help="Move the spool too, to this folder or s3://bucket/prefix.",
            show_default=False,
        ),
    ] = None,
    take_back: Annotated[
        bool, typer.Option("--undo", metavar="", help="Take the move back, until the first upload to the new ledger.")
    ] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Move the ledger to another database, such as from SQLite to PostgreSQL.

    Stop the gateway first. If it is cut off, run it again: it goes on. The old ledger is kept, and no gateway starts on
    it any more. A password is better in PGPASSWORD or ~/.pgpass than in the URL, which others may see in the process
    list.
    """
    from bridge.commands.move import move_ledger

    move_ledger(
        config,
        source=source,
        target=target,
        source_spool=source_spool,
        target_spool=target_spool,
        take_back=take_back,
    )


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


notices = typer.Typer(help="Notices to chats and webhooks.", no_args_is_help=True)
app.add_typer(notices, name="notices", rich_help_panel=RUN)


@notices.command("test")
def notices_test(file: File = None, config: Config = DEFAULT_CONFIG) -> None:
    """Send a test notice to each target of the settings.

    The gateway need not run. Exits with 1 if a notice did not arrive.
    """
    from bridge.commands.notices import send_test_notices

    if not send_test_notices(file or config):
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


Which = Annotated[
    list[str] | None,
    typer.Argument(metavar="[JOB [NO]]", help="A job, or one build of it, or the id of a build.", show_default=False),
]
OneBuild = Annotated[
    list[str], typer.Argument(metavar="JOB NO", help="The build, or its id alone.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON on a terminal, too.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many rows.")]
After = Annotated[str, typer.Option(metavar="ID", help="Continue a page.", show_default=False)]
RouteName = Annotated[str, typer.Option("--route", metavar="NAME", help="Only of this route.", show_default=False)]


def _filters(**values: str | int | None) -> dict[str, str | int]:
    return {name: value for name, value in values.items() if value}


def _require_build(which: list[str]) -> list[str]:
    if len(which) not in (1, 2) or (len(which) == 1 and not which[0].isdecimal()):
        raise typer.BadParameter("Name a build by its job and number, or by its id.")
    return which


@app.command(rich_help_panel=OPERATE)
def builds(  # noqa: PLR0913 -- one parameter for each option
    which: Which = None,
    *,
    state: Annotated[BuildStateName | None, typer.Option(help="Only in this state.", show_default=False)] = None,
    route: RouteName = "",
    branch: Annotated[str, typer.Option(metavar="NAME", help="Only of this branch.", show_default=False)] = "",
    commit: Annotated[str, typer.Option(metavar="SHA", help="Only of this commit.", show_default=False)] = "",
    problems: Annotated[bool, typer.Option("--problems", metavar="", help="Only those to look at.")] = False,
    mirror_differs: Annotated[
        bool, typer.Option("--mirror-differs", metavar="", help="Only those whose mirror does not agree.")
    ] = False,
    limit: Limit = 20,
    after: After = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", metavar="", help="Print changes as they happen.")] = False,
    as_json: AsJson = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """List builds, newest first, or show one.

    In a pipe the output is JSON; with --follow, one object a line.
    """
    from bridge.commands.operate import AdminCommands

    if which and len(which) > 2:
        raise typer.BadParameter("Name a build by its job and number, or by its id.")
    filters = _filters(
        state=state and state.value,
        route=route,
        branch=branch,
        commit=commit,
        problems="true" if problems else "",
        mirror_differs="true" if mirror_differs else "",
        limit=limit,
        after=after,
    )
    AdminCommands(config, json_wanted=as_json).builds(which or [], filters, follow=follow)


@app.command(rich_help_panel=OPERATE)
def rejections(
    which: Which = None,
    *,
    route: RouteName = "",
    limit: Limit = 20,
    after: After = "",
    as_json: AsJson = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """List rejected files and uploads, newest first."""
    from bridge.commands.operate import AdminCommands

    job, no = [*(which or []), "", ""][:2]
    filters = _filters(job_id=job, build_no=no, route=route, limit=limit, after=after)
    AdminCommands(config, json_wanted=as_json).rejections(filters)


@app.command(rich_help_panel=OPERATE)
def retry(
    which: Annotated[
        list[str] | None,
        typer.Argument(metavar="[JOB NO]", help="A build whose dead reports are sent again, or its id alone."),
    ] = None,
    *,
    delivery: Annotated[int | None, typer.Option(metavar="ID", help="One dead delivery.", show_default=False)] = None,
    route: Annotated[str, typer.Option(metavar="NAME", help="All of a route.", show_default=False)] = "",
    rejection: Annotated[int | None, typer.Option(metavar="ID", help="A rejected file.", show_default=False)] = None,
    repair: Annotated[bool, typer.Option("--repair", metavar="", help="Repair the rejected file before.")] = False,
    as_json: AsJson = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Send dead reports again, or a rejected file."""
    from urllib.parse import quote

    from bridge.commands.operate import AdminCommands

    if sum(map(bool, (which, delivery is not None, route, rejection is not None))) != 1:
        raise typer.BadParameter("Name one of: a build, --delivery, --route, --rejection.")
    if repair and rejection is None:
        raise typer.BadParameter("--repair needs --rejection.")
    commands = AdminCommands(config, json_wanted=as_json)
    if which:
        commands.act_on_build(_require_build(which), "retry")
    elif rejection is not None:
        commands.act(f"/api/v1/rejections/{rejection}/send", {"repair": repair})
    elif delivery is not None:
        commands.act(f"/api/v1/deliveries/{delivery}/retry")
    else:
        commands.act(f"/api/v1/routes/{quote(route, safe='')}/retry")


@app.command(rich_help_panel=OPERATE)
def finalize(which: OneBuild, *, as_json: AsJson = False, config: Config = DEFAULT_CONFIG) -> None:
    """End a build now, so that its run is finalized once its reports are delivered."""
    from bridge.commands.operate import AdminCommands

    AdminCommands(config, json_wanted=as_json).act_on_build(_require_build(which), "finalize")


@app.command(rich_help_panel=OPERATE)
def forget(
    which: Annotated[
        list[str] | None,
        typer.Argument(metavar="[JOB [NO]]", help="A build, or its id, or a job with all its builds."),
    ] = None,
    *,
    caller: Annotated[
        str, typer.Option(metavar="NAME", help="Replace this name of a caller in all uploads.", show_default=False)
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", metavar="", help="Do not ask.")] = False,
    as_json: AsJson = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Delete builds with their reports and rejections, or the name of a person.

    What was delivered stays in TestNod. Without a terminal, --yes is required.
    """
    from urllib.parse import quote

    from bridge.commands.operate import AdminCommands

    if bool(which) is bool(caller) or len(which or []) > 2:
        raise typer.BadParameter("Name one of: a build, a job, --caller.")

    def sure(question: str) -> bool:
        if not yes and not sys.stdin.isatty():
            raise BridgeError("Without a terminal to ask at, --yes is required.")
        return yes or typer.confirm(f"{question}?", err=True)

    commands = AdminCommands(config, json_wanted=as_json)
    if which:
        commands.forget(which, sure=sure)
    elif sure(f"Replace the name {caller} in all uploads"):
        commands.act(f"/api/v1/callers/{quote(caller, safe='')}/forget")


@app.command(rich_help_panel=OPERATE)
def routes(
    action: Annotated[RouteAction | None, typer.Argument(help="What to do with a route.", show_default=False)] = None,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="The route.", show_default=False)] = "",
    *,
    as_json: AsJson = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """List the routes with their state, or pause or resume one.

    A paused route accepts reports, and sends nothing.
    """
    from urllib.parse import quote

    from bridge.commands.operate import AdminCommands

    commands = AdminCommands(config, json_wanted=as_json)
    if action is None:
        commands.routes()
    elif not name:
        raise typer.BadParameter(f"Name the route: bridge routes {action.value} NAME.")
    else:
        commands.act(f"/api/v1/routes/{quote(name, safe='')}/{action.value}")


@app.command(rich_help_panel=OPERATE)
def plan(
    projects: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROJECT", help="Ids of projects; else those that routes name.", show_default=False),
    ] = None,
    *,
    routes_only: Annotated[
        bool, typer.Option("--routes", metavar="", help="Print skeletons of missing routes.")
    ] = False,
    as_json: AsJson = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """List the jobs of CodeArts projects, and how far each has moved to the bridge.

    A job is silent, mirrored, delivering, or its latest build ended without reports.
    """
    from bridge.commands.plan import plan as print_plan

    try:
        print_plan(config, projects or [], routes_only=routes_only, json_wanted=as_json)
    except BadParameter as error:
        raise typer.BadParameter(str(error)) from None


@app.command(rich_help_panel=RUN)
def hash_token() -> None:
    """Print the hash of a caller's token, for the settings.

    Prompts for the token without showing it, or reads it from a pipe.
    """
    from bridge.commands.config import print_hash

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
