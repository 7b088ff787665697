"""`bridge check-config`: what is wrong with the settings, or what to think about, before a gateway runs on them.

It must not open anything but the settings and the secret files that they name.
"""

from pathlib import Path

from bridge.commands.configuration import advice_on, read_settings
from bridge.commands.screen import keyed, remark, say


def check_config(path: Path) -> None:
    """Print advice and one line that all is well; raise SettingsError with every complaint."""
    settings = read_settings(path)
    sentences = advice_on(settings)
    for sentence in sentences:
        remark(keyed(sentence, "yellow"))
    routes = ", ".join(route.name for route in settings.routes)
    say(f"{path} is OK: {_counted(len(settings.routes), 'route')} ({routes}), {_advice(len(sentences))}.")


def _advice(number: int) -> str:
    return f"{_counted(number, 'line')} of advice above" if number else "no advice"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
