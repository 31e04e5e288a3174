"""Run the README's session against a running demo: `readme_session.py README.md DEMO_JSON`. A failing line fails it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

EXPECTED = ('"process":"running"', '"process":"stopped"', '"process":"running"')


def main(readme: Path, demo: Path) -> int:
    found = re.search(r"<!-- session -->\n```sh\n(.*?)```", readme.read_text(), re.DOTALL)
    if found is None:
        print(f"{readme} has no session block", file=sys.stderr)
        return 1
    script = found.group(1).replace("demo-data/demo.json", str(demo))
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, timeout=180)
    print(done.stdout, done.stderr, sep="\n")
    if done.returncode:
        print(f"the README's session failed with status {done.returncode}", file=sys.stderr)
        return 1
    server = json.loads(demo.read_text())["gameServers"][0]
    if server not in done.stdout:
        print(f"the list does not name {server}", file=sys.stderr)
        return 1
    at = 0
    for expected in EXPECTED:
        at = done.stdout.find(expected, at) + 1
        if not at:
            print(f"the states do not go {' → '.join(EXPECTED)}", file=sys.stderr)
            return 1
    last_state = done.stdout[done.stdout.rfind('{"connection":') :]
    if '"ready":true' not in last_state:
        print("the server is not ready after its start", file=sys.stderr)
        return 1
    print("the README's session works")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
