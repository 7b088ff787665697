"""nginx as a proxy in front of the benchmark's upstream: from PATH, or from Debian's package.

The package is unpacked into a temporary folder, not installed.
"""

import os
import shutil
import subprocess
from pathlib import Path

from processes import ServerProcess, free_port

FETCH_SECONDS = 60

_CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    upstream behind {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://behind;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffer_size 64k;
            proxy_buffers 8 256k;
            proxy_busy_buffers_size 512k;
            proxy_max_temp_file_size 0;
        }}
    }}
}}
"""


def nginx(folder: Path, upstream_port: int) -> ServerProcess | None:
    """Return nginx in front of the upstream, as one process; None if nginx is not available."""
    program = shutil.which("nginx") or _unpacked(folder)
    if program is None:
        return None
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, port=port, upstream=upstream_port), encoding="utf-8")
    command = [program, "-e", "stderr", "-p", os.fspath(folder), "-c", os.fspath(config)]
    return ServerProcess("nginx", command, port=port, folder=folder, log=folder / "nginx.log")


def _unpacked(folder: Path) -> str | None:
    try:
        _run(folder, "apt-get", "download", "nginx")
        (package,) = folder.glob("nginx_*.deb")
        _run(folder, "dpkg", "-x", os.fspath(package), "nginx")
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    program = folder / "nginx/usr/sbin/nginx"
    return os.fspath(program) if program.exists() else None


def _run(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=FETCH_SECONDS)
