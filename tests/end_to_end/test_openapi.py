"""The admin API keeps to its description: schemathesis plays valid and invalid requests against a real gateway."""

import asyncio
import sys

from tests.support.processes import GatewayProcess

EXAMPLES = 10
"""For each operation and phase."""

OMITTED = "positive_data_acceptance"
"""OpenAPI cannot say that build_no needs job_id, so a valid request may be rejected."""


async def test_the_api_answers_as_its_description_says(gateway: GatewayProcess) -> None:
    url = f"{gateway.admin_url}/api/v1/openapi.json"
    options = f"--max-examples {EXAMPLES} --seed 1 --generation-database none --phases coverage,fuzzing".split()
    done = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from schemathesis.cli import schemathesis; schemathesis()",
        "run",
        url,
        *options,
        "--exclude-checks",
        OMITTED,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await done.communicate()
    assert done.returncode == 0, output.decode()[-4000:]
