"""What deploy/ offers is valid, current and consistent: linted by installed tools, and loaded as settings."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

import bridge
from bridge.server.http.requests import UPLOAD_PATH
from bridge.settings import Settings, load
from bridge.settings.model import format_size
from bridge.telemetry.metrics import Metrics
from tools import render_manifests

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
SINGLE, REPLICAS = DEPLOY / "compose" / "single", DEPLOY / "compose" / "replicas"
UNIT = (DEPLOY / "systemd" / "bridge.service").read_text(encoding="utf-8")
SOCKET = (DEPLOY / "systemd" / "bridge.socket").read_text(encoding="utf-8")
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
SINGLE_VALUES = render_manifests.VALUES["single.yaml"]
STOP_SECONDS = 4  # of `bridge serve`, after server.shutdown_timeout

BESIDE_PYTHON = Path(sys.executable).parent  # the tools of requirements-release.txt


def tool(name: str) -> str:
    """Return the path of a tool; skip the test if it is not installed."""
    found = shutil.which(name, path=f"{BESIDE_PYTHON}:{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed.")
    return found


def expect_no_fault(*command: str | Path, folder: Path = REPOSITORY) -> None:
    """Run a linter; fail with its output if it finds a fault."""
    done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


def compose(folder: Path) -> dict[str, Any]:
    (content,) = documents(folder / "compose.yaml")
    return content


# -- linters -----------------------------------------------------------------------------------------------------------


def test_yaml_is_as_yamllint_wants_it() -> None:
    expect_no_fault(tool("yamllint"), "--strict", "-c", ".yamllint.yaml", "deploy")


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    expect_no_fault(tool("hadolint"), "Dockerfile")


@pytest.mark.parametrize("folder", [DEPLOY / "caddy", SINGLE], ids=["front", "compose"])
def test_caddy_reads_its_files(folder: Path) -> None:
    caddy = tool("caddy")
    expect_no_fault(caddy, "validate", "--adapter", "caddyfile", "--config", folder / "Caddyfile")
    expect_no_fault(caddy, "fmt", "--diff", folder / "Caddyfile")


@pytest.mark.parametrize(
    "path", [DEPLOY / "nginx" / "bridge.conf", REPLICAS / "balancer.conf"], ids=["front", "balancer"]
)
def test_nginx_reads_its_files(path: Path, tmp_path: Path) -> None:
    nginx = tool("nginx")
    authority = trustme.CA().issue_cert("bridge.example.com")
    authority.cert_chain_pems[0].write_to_path(tmp_path / "bridge.pem")
    authority.private_key_pem.write_to_path(tmp_path / "bridge.key")
    text = path.read_text(encoding="utf-8").replace("/etc/nginx/tls/", f"{tmp_path}/")
    text = re.sub(r"server bridge-\d:", "server 127.0.0.1:", text)  # names of the compose network
    text = re.sub(r"listen (\[::\]:)?(\d+)", rf"listen unix:{tmp_path}/\g<2>", text)
    text = re.sub(rf"(?m)^ *listen unix:{tmp_path}/\d+.*;$\n(?=.*listen unix)", "", text)
    (tmp_path / "site.conf").write_text(text)
    folders = "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {tmp_path}/body; {folders} include {tmp_path}/site.conf; }}\n"
    )
    expect_no_fault(nginx, "-t", "-q", "-p", tmp_path, "-c", tmp_path / "nginx.conf")


def test_systemd_reads_its_units(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    (tmp_path / "bridge.service").write_text(UNIT.replace("/opt/bridge/bin/bridge", shutil.which("true") or ""))
    (tmp_path / "bridge.socket").write_text(SOCKET)
    done = subprocess.run(
        [analyze, "verify", tmp_path / "bridge.service", tmp_path / "bridge.socket"],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert [line for line in done.stderr.splitlines() if "bridge" in line] == []


@pytest.mark.parametrize("folder", [SINGLE, REPLICAS], ids=["single", "replicas"])
def test_compose_files_follow_the_specification(folder: Path) -> None:
    compose_spec = pytest.importorskip("compose_spec", reason="compose-spec is not installed.")
    compose_spec.PyCompose.from_yaml(yaml.safe_dump(compose(folder)))  # it does not merge `<<` itself


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_follow_the_schemas_of_kubernetes(path: Path) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed.")
    kinds = set()
    for document in documents(path):
        kinds.add(document["kind"])
        kubernetes_validate.validate(document, "1.33", strict=True)
    assert {"ConfigMap", "Deployment", "Ingress", "NetworkPolicy", "Service", "ServiceAccount"} <= kinds
    assert ("PersistentVolumeClaim" in kinds) is (path.name == "single.yaml")
    assert ("PodDisruptionBudget" in kinds) is (path.name == "replicas.yaml")
    # A cluster without Prometheus Operator and an adapter of metrics takes them.
    assert kinds & {"HorizontalPodAutoscaler", "ServiceMonitor"} == set()
    (deployment,) = (document for document in documents(path) if document["kind"] == "Deployment")
    assert deployment["spec"]["replicas"] == (1 if path.name == "single.yaml" else 3)


# -- the chart ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def helm() -> Any:
    return pytest.importorskip("helm_python", reason="helm-python-sdk is not installed.")


def test_helm_finds_nothing_in_the_chart(helm: Any) -> None:
    found = helm.lint(str(render_manifests.CHART), strict=True)
    assert [message for message in found["messages"] if message["error"] != "icon is recommended"] == []
    assert found["errors"] == []


@pytest.mark.parametrize("name", render_manifests.VALUES)
def test_the_manifests_are_those_of_the_chart(name: str, helm: Any) -> None:
    assert helm
    current = render_manifests.rendered(render_manifests.VALUES[name])
    assert (render_manifests.FOLDER / name).read_text(encoding="utf-8") == current, "Run `make manifests`."


@pytest.mark.parametrize(
    "values",
    [
        {"store": {"url": "sqlite:////data/bridge.db", "spool": "/data/spool"}},
        {"store": {"spool": "/data/spool"}},
        {"store": {"spool": "/srv/spool"}},
        {"config": '[store]\narchive = "/data/archive"\n'},
        SINGLE_VALUES | {"store": {"url": "sqlite:////srv/bridge.db"}},
        SINGLE_VALUES | {"store": {"url": "sqlite:///bridge.db"}},
        SINGLE_VALUES | {"store": {"url": "sqlite:////data/../srv/bridge.db"}},
        SINGLE_VALUES | {"store": {"url": "sqlite:////data/bridge.db", "spool": "/srv/spool"}},
        SINGLE_VALUES | {"store": {"url": "sqlite:////data/bridge.db", "spool": "/database/spool"}},
        SINGLE_VALUES | {"persistence": {"enabled": None}},
        SINGLE_VALUES | {"persistence": None},
        SINGLE_VALUES | {"replicas": 2},
        SINGLE_VALUES | {"autoscaling": {"enabled": True}},
        {"networkPolicy": {"egressPorts": ["s3"]}},
        {"replicas": "3"},
        {"persistence": {"enabled": True}},
        {"store": {"url": "mysql://bridge@db/bridge", "spool": "s3://reports"}},
        {"podDisruptionBudget": {"maxUnavailable": 0}},
        {"temporarySpace": "lots"},
        {"replicaCount": 2},
    ],
    ids=str,
)
def test_the_schema_rejects_values_that_cannot_work(values: dict[str, Any], helm: Any) -> None:
    with helm.Chart.load(str(render_manifests.CHART)) as chart, pytest.raises(helm.HelmError):
        chart.validate_schema(values)


@pytest.mark.parametrize(
    "values",
    [
        {},
        SINGLE_VALUES,
        SINGLE_VALUES | {"store": {"url": "sqlite:////data/bridge.db", "spool": "s3://reports/bridge"}},
        {"config": '[store]\narchive = "s3://reports/archive"\n'},
        {"store": {"url": "postgres://bridge@db/bridge", "spool": "s3://reports"}},
    ],
    ids=str,
)
def test_the_schema_accepts_values_that_work(values: dict[str, Any], helm: Any) -> None:
    with helm.Chart.load(str(render_manifests.CHART)) as chart:
        chart.validate_schema(values)


@pytest.mark.parametrize(
    ("values", "least"),
    [
        ({"preStopSeconds": 16}, 45),
        ({"terminationGracePeriodSeconds": 39}, 39),
        ({"config": '[server]\nshutdown_timeout = "31s"\n'}, 45),
        ({"config": '[server]\nshutdown_timeout = "1m30s"\n'}, 104),
    ],
    ids=str,
)
def test_the_chart_rejects_a_stop_that_does_not_fit_the_grace_period(
    values: dict[str, Any], least: int, helm: Any
) -> None:
    with pytest.raises(helm.HelmError, match=f"must be more than {least}:"):
        render_manifests.rendered(values)
    fitting = render_manifests.rendered(values | {"terminationGracePeriodSeconds": least + 1})
    assert f"terminationGracePeriodSeconds: {least + 1}" in fitting


def test_autoscaling_monitoring_and_further_ports_render(helm: Any) -> None:
    assert helm
    values = {
        "autoscaling": {"enabled": True},
        "serviceMonitor": {"enabled": True},
        "networkPolicy": {"egressPorts": [8333]},
    }
    found = {d["kind"]: d for d in yaml.safe_load_all(render_manifests.rendered(values)) if d}
    assert {"HorizontalPodAutoscaler", "ServiceMonitor"} <= set(found)
    assert "replicas" not in found["Deployment"]["spec"]
    ports = {port["port"] for rule in found["NetworkPolicy"]["spec"]["egress"] for port in rule["ports"]}
    assert ports == {53, 443, 5432, 8333}
    assert found["PodDisruptionBudget"]["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed.")
    kubernetes_validate.validate(found["HorizontalPodAutoscaler"], "1.33", strict=True)


def test_the_schema_lists_every_value_of_the_chart() -> None:
    schema = json.loads((render_manifests.CHART / "values.schema.json").read_text(encoding="utf-8"))
    (values,) = documents(render_manifests.CHART / "values.yaml")
    assert set(values) == set(schema["properties"]) - {"global"}
    for name, value in values.items():
        properties = schema["properties"][name].get("properties")
        assert properties is None or set(value) == set(properties), name


def test_chart_images_and_package_have_one_version() -> None:
    (chart,) = documents(render_manifests.CHART / "Chart.yaml")
    assert (chart["version"], chart["appVersion"]) == (bridge.__version__, bridge.__version__)
    images = re.findall(r"image: (bridge:\S+)", "\n".join(path.read_text() for path in DEPLOY.rglob("*.yaml")))
    assert set(images) == {f"bridge:{bridge.__version__}"}


# -- settings ----------------------------------------------------------------------------------------------------------


def settings_of(text: str, environ: dict[str, str], folder: Path) -> Settings:
    """Load settings of a deployment with bridge's own loader: every secret file that they name is below `folder`."""

    def below(path: str) -> str:
        file = folder / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("canary-of-deploy\n")
        return str(file)

    named = re.compile(r'(?<=_file = ")[^"]+')
    path = folder / "bridge.toml"
    path.write_text(named.sub(lambda match: below(match[0]), text))
    return load(path, {name: below(value) if name.endswith("_FILE") else value for name, value in environ.items()})


def image_environ() -> dict[str, str]:
    return dict(re.findall(r"(BRIDGE_\w+)=(\S+)", DOCKERFILE))


def manifest_environ(deployment: dict[str, Any]) -> dict[str, str]:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"]}


def test_the_settings_of_the_unit_load_and_listen_where_the_socket_does(tmp_path: Path) -> None:
    environ = {
        name: value.replace("%d", "/run/credentials") for name, value in re.findall(r"Environment=(\w+)=(\S+)", UNIT)
    }
    credentials = re.findall(r"LoadCredential=([\w-]+):", UNIT)
    assert sorted(credentials) == sorted(value.rpartition("/")[2] for value in environ.values())

    settings = settings_of((DEPLOY / "systemd" / "bridge.toml").read_text(), environ, tmp_path)

    assert [token.name for token in settings.callers.tokens] == ["ci"]
    assert re.findall(r"ListenStream=(\S+)", SOCKET) == [f"{settings.server.host}:{settings.server.port}"]
    assert re.findall(r"FileDescriptorName=(\S+)", SOCKET) == ["server"]
    stop = settings.server.shutdown_timeout.total_seconds() + STOP_SECONDS
    assert int(re.findall(r"TimeoutStopSec=(\d+)", UNIT)[0]) > stop


@pytest.mark.parametrize("folder", [SINGLE, REPLICAS], ids=["single", "replicas"])
def test_the_settings_of_compose_load_and_fit_the_services(folder: Path, tmp_path: Path) -> None:
    content = compose(folder)
    gateways = {name: service for name, service in content["services"].items() if service["image"].startswith("bridge")}
    assert len(gateways) == (1 if folder is SINGLE else 3)
    for gateway in gateways.values():
        environ = image_environ() | gateway["environment"]
        text = (folder / "bridge.toml").read_text(encoding="utf-8")
        settings = settings_of(text, environ, tmp_path)

        files = set(re.findall(r"/run/secrets/([\w-]+)", text + str(environ)))
        assert files == set(gateway["secrets"]) <= set(content["secrets"])
        subnet = content["networks"]["front"]["ipam"]["config"][0]["subnet"]
        assert settings.server.trusted_proxies == (subnet,)
        (published,) = gateway["ports"]
        assert published.startswith("127.0.0.1:")
        assert published.endswith(f":{settings.admin.port}")
        grace = int(gateway["stop_grace_period"].removesuffix("s"))
        assert grace > settings.server.shutdown_timeout.total_seconds() + STOP_SECONDS
        assert "healthcheck" not in gateway, "the image has one"
        assert "user" not in gateway, "the image has one"
    if folder is SINGLE:
        (volume,) = re.findall(r"(?m)^VOLUME (\S+)$", DOCKERFILE)
        assert f"data:{volume}" in gateways["bridge"]["volumes"]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_the_settings_of_kubernetes_load_and_fit_the_pods(path: Path, tmp_path: Path) -> None:
    found = documents(path)
    (deployment,) = (document for document in found if document["kind"] == "Deployment")
    (config,) = (document for document in found if document["kind"] == "ConfigMap")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    settings = settings_of(config["data"]["bridge.toml"], image_environ() | manifest_environ(deployment), tmp_path)

    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"server": settings.server.port, "admin": settings.admin.port}
    assert {container[probe]["httpGet"]["port"] for probe in container if probe.endswith("Probe")} == {"server"}
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert container["args"][-1].rpartition("/")[0] in mounts
    wait = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    stop = settings.server.shutdown_timeout.total_seconds() + STOP_SECONDS
    assert pod["terminationGracePeriodSeconds"] > wait + stop
    user = pod["securityContext"]["runAsUser"]
    assert f"USER {user}:{user}" in DOCKERFILE
    if path.name == "single.yaml":
        assert deployment["spec"]["strategy"] == {"type": "Recreate"}
        assert settings.store.url.removeprefix("sqlite:///").rpartition("/")[0] in mounts


def test_no_deployment_polls_codearts_with_a_token_that_ends_after_a_day() -> None:
    files = [path for path in DEPLOY.rglob("*") if path.suffix in {".toml", ".yaml", ".yml", ".service"}]
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    polling = {path for path, text in texts.items() if "[codearts]" in text}
    assert len(polling) == 6
    assert {path for path in polling if 'auth = "aksk"' not in texts[path]} == set()
    assert [path for path, text in texts.items() if re.search("(?i)codearts[-_]+token", text)] == []


# -- what several files name -------------------------------------------------------------------------------------------


def test_the_image_has_the_ports_user_and_health_check_that_deployments_rely_on() -> None:
    settings = Settings()
    assert re.findall(r"(?m)^EXPOSE (.+)$", DOCKERFILE) == [f"{settings.server.port} {settings.admin.port}"]
    assert f"127.0.0.1:{settings.admin.port}/livez" in DOCKERFILE
    assert re.findall(r"--uid (\d+)", DOCKERFILE) == re.findall(r"(?m)^USER (\d+):\d+$", DOCKERFILE)
    assert 'ENTRYPOINT ["python", "-m", "bridge"]' in DOCKERFILE
    for folder in (SINGLE, REPLICAS):
        for service in compose(folder)["services"].values():
            if service["image"].startswith("bridge"):
                assert "./bridge.toml:/etc/bridge/bridge.toml:ro" in service["volumes"]
    assert '"/etc/bridge/bridge.toml"]' in DOCKERFILE


def test_fronts_accept_what_the_gateway_accepts() -> None:
    size = format_size(Settings().server.max_request_size)
    assert size == "256 MiB"
    for path in (DEPLOY / "nginx" / "bridge.conf", REPLICAS / "balancer.conf"):
        assert "client_max_body_size 256m;" in path.read_text()
    for folder in (DEPLOY / "caddy", SINGLE):
        assert "max_size 256MiB" in (folder / "Caddyfile").read_text()
    assert "proxy-body-size: 256m" in (render_manifests.CHART / "values.yaml").read_text()
    assert UPLOAD_PATH.startswith("/")  # all of these pass every path on


def test_the_s3_server_of_compose_reads_its_secret_and_writes_its_volume() -> None:
    services = compose(REPLICAS)["services"]
    (user,) = re.findall(r"(?m)^USER (.+)$", DOCKERFILE)
    server, owner = services["s3"], services["s3-volume"]
    assert server["user"] == user, "secrets are readable by this user only"
    assert server["depends_on"] == {"s3-volume": {"condition": "service_completed_successfully"}}
    assert server["volumes"] == owner["volumes"]
    assert (owner["user"], owner["entrypoint"]) == ("0:0", ["chown", "-R", user, "/data"])


def test_the_caddyfile_of_compose_is_the_front_with_another_address() -> None:
    front, composed = ((folder / "Caddyfile").read_text().splitlines() for folder in (DEPLOY / "caddy", SINGLE))
    differing = [pair for pair in zip(front[2:], composed[1:], strict=True) if pair[0] != pair[1]]
    assert differing == [("\treverse_proxy 127.0.0.1:8080 {", "\treverse_proxy bridge:8080 {")]


def test_metrics_that_deployments_name_exist() -> None:
    exported = Metrics().render().decode()
    files = [path for path in (DEPLOY / "helm").rglob("*") if path.is_file()]
    named = {name for path in files for name in re.findall(r"metric: (bridge_\w+)", path.read_text())}
    assert named
    assert [name for name in named if f"# HELP {name} " not in exported] == []


def test_pages_stop_the_socket_with_the_service() -> None:
    """`systemctl stop bridge` alone leaves the socket open, and the next upload starts the gateway."""
    for page in (REPOSITORY / "docs" / "operate.md", DEPLOY / "README.md"):
        stops = re.findall(r"(?m)^systemctl stop (.+)$", page.read_text(encoding="utf-8"))
        assert stops == ["bridge.socket bridge.service"], page
