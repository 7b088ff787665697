"""Prints for people: sentences that wrap on a terminal and stay one a line in a file.

It must not know what is said. Answers go to stdout, everything beside them to stderr.
"""

from rich.console import Console
from rich.text import Text

from bridge.errors import BridgeError, SettingsError


def say(text: str | Text) -> None:
    """Print an answer."""
    _print(Console(highlight=False), text)


def remark(text: str | Text) -> None:
    """Print what is beside the answer."""
    _print(Console(stderr=True, highlight=False), text)


def print_failure(error: BridgeError | OSError) -> None:
    """Print what an error says of itself, a complaint about the settings each on a line of its own."""
    match error:
        case SettingsError():
            for complaint in error.problems:
                remark(keyed(complaint, "red"))
        case OSError():
            where = f" ({error.filename})" if error.filename else ""
            remark(
                f"The system refused: {error.strerror or error}{where}. Correct the address or path, or what is there."
            )
        case _:
            remark(str(error))


def keyed(sentence: str, colour: str) -> Text:
    """Return `key: sentence` with its key made to stand out."""
    key, colon, rest = sentence.partition(": ")
    return Text.assemble((key, f"bold {colour}"), colon, rest)


def _print(console: Console, text: str | Text) -> None:
    console.print(text, markup=False, soft_wrap=not console.is_terminal)
