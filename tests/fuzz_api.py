"""Requests made up from the description of the HTTP API: `python -m tests.fuzz_api URL [SECONDS]`.

It sends to a running worker for so long, and ends with 1 if an answer is a bug, is not as
described, or is a 503 without Retry-After.
"""

import subprocess
import sys
from pathlib import Path

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)

STREAM = "/v1/users/{user_id}/stream"
"""It answers until the client goes, so it is left out."""


def main(url: str, seconds: str = "300") -> int:
    """Run schemathesis on a worker; return its exit status."""
    program = Path(sys.executable).with_name("schemathesis")
    command = [
        str(program), "run", f"{url.rstrip('/')}/v1/openapi.json",
        "--url", url, "--checks", ",".join(CHECKS), "--exclude-path", STREAM,
        "--max-time", seconds, "--phases", "examples,coverage,fuzzing", "--no-color",
    ]  # fmt: skip
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
