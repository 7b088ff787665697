"""Render deploy/kubernetes/ from the Helm chart: `make manifests`. Needs requirements-release.txt."""

from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
CHART = REPOSITORY / "deploy" / "helm" / "bridge"
FOLDER = REPOSITORY / "deploy" / "kubernetes"

HEAD = "# Rendered from deploy/helm/bridge by `make manifests`. Change the chart, not this file.\n"

VALUES: dict[str, dict[str, Any]] = {
    "replicas.yaml": {"ingress": {"enabled": True}},
    "single.yaml": {
        "replicas": 1,
        "persistence": {"enabled": True},
        "store": {"url": "sqlite:////data/bridge.db", "spool": "/data/spool"},
        "secret": {"pgpass": False},
        "ingress": {"enabled": True},
    },
}
"""Values that differ from the chart's, for each file."""


def rendered(values: dict[str, Any]) -> str:
    """Return the manifests of the chart as one YAML text, in a stable order."""
    import helm_python  # noqa: PLC0415 -- 80 MB that only this function needs

    with helm_python.Chart.load(str(CHART)) as chart:
        templates = chart.render(values, name="bridge", namespace="bridge")
    # Helm indents empty lines of a text, too.
    parts = [
        "\n".join(line.rstrip() for line in text.strip().splitlines())
        for name, text in sorted(templates.items())
        if name.endswith(".yaml") and text.strip()
    ]
    return HEAD + "".join(f"---\n{part}\n" for part in parts)


if __name__ == "__main__":
    for file, values in VALUES.items():
        (FOLDER / file).write_text(rendered(values), encoding="utf-8")
