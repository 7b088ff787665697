"""What a person needs to use a running sandbox: settings for a gateway, and the first commands.

It must not know more of the bridge than its contract: names of settings and the upload's path.
"""

import json
from urllib.parse import urlsplit

from bridge.sandbox.sandbox import DEFAULT_KEY, DEFAULT_USER, Sandbox

GATEWAY_URL = "http://127.0.0.1:8080"
EXAMPLE_JOB_ID = "0123456789abcdef0123456789abcdef"


def settings_toml(sandbox: Sandbox) -> str:
    """Return a whole settings file that points a gateway on this machine at the sandbox."""
    storage_host = urlsplit(sandbox.s3_url).hostname
    return f"""\
[server]
host = "127.0.0.1"

[testnod]
base_url = {_quoted(sandbox.testnod_url)}
storage_hosts = [{_quoted(storage_host or "")}]
allow_private_storage = true

[codearts]
endpoint = {_quoted(sandbox.codearts_url)}
auth = "none"

[callers]
auth = "open"

[[routes]]
name = "sandbox"
project_token = {_quoted(sandbox.project_token)}
job_id = "*"
"""


def banner(sandbox: Sandbox) -> str:
    """Return the text that `bridge sandbox` prints: addresses, settings to paste, a build in three commands."""
    user, password, domain = DEFAULT_USER
    access_key, secret_key = DEFAULT_KEY
    build = f"{EXAMPLE_JOB_ID}/1"
    started = json.dumps({"job_id": EXAMPLE_JOB_ID, "build_no": 1})
    upload = f"{GATEWAY_URL}/v1/report/junit/report/upload?job_id={EXAMPLE_JOB_ID}&build_no=1&node_id=default"
    return f"""\
CodeArts  {sandbox.codearts_url}
Check     {sandbox.check_url}
IAM       {sandbox.iam_url} (user {user}, password {password}, domain {domain}; access key {access_key}, {secret_key})
TestNod   {sandbox.testnod_url}
S3        {sandbox.s3_url}
Control   {sandbox.control_url}

Settings for a gateway (save as bridge.toml, then: bridge serve --config bridge.toml):

{settings_toml(sandbox)}
Start a build, upload a report to the gateway, end the build:

curl -X POST {sandbox.control_url}/builds -d '{started}'
curl -F files=@report.xml '{upload}'
curl -X POST {sandbox.control_url}/builds/{build}/end

Then look at what TestNod received: curl {sandbox.control_url}/runs
"""


def _quoted(text: str) -> str:
    # A TOML basic string is a JSON string, but for the one character that JSON leaves as it is.
    return json.dumps(text).replace("\x7f", "\\u007f")
