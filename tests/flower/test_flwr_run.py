"""`flwr run .` in a clone, on Flower's own simulation by Ray: the same bits as in one process."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest
import tomli_w
from test_agree import agree
from test_agree import config as short
from test_deployment import PATIENCE, free_port, until

import fcit
from fcit.flower import QUIET
from fcit.recipe.config import to_table

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("ray") is None,
        reason="Flower simulates by Ray, which is not installed: pip install 'flwr[simulation]==1.41.*'",
    ),
]

CLONE = Path(__file__).parents[2]

ALONE = QUIET | {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""What docs/deploy.md tells users to set."""


def test_flwr_run_of_a_clone_has_the_same_bits_as_one_process(table: dict, tmp_path: Path) -> None:
    """SCAFFOLD's clients keep what they drifted by, in the run's folder."""
    fcit.run(short(table, "local", "finetune", "scaffold"), tmp_path / "local")
    recipe, out, port = tmp_path / "recipe.toml", tmp_path / "flower", str(free_port())
    simulated = short(table, "flower", "finetune", "scaffold")
    recipe.write_text(tomli_w.dumps(to_table(simulated)))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"FLWR_HOME": str(tmp_path / "home"), "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": port}
    environment = os.environ | ALONE | own | {"PATH": path}
    link = ["flower-superlink", "--insecure", "--simulation", "--host", "127.0.0.1", "--port", port]
    nodes = f"num-supernodes={simulated.federation.clients} client-resources-num-cpus=1"
    given = f'recipe="{recipe}" out="{out}"'
    words = ["flwr", "run", str(CLONE), "local", "--stream"]
    words += ["--federation-config", nodes, "--run-config", given]
    with subprocess.Popen(link, env=environment) as process:
        try:
            until(
                lambda: process.poll() is not None or healthy(port),
                "the SuperLink does not come up",
            )
            done = subprocess.run(
                words, env=environment, capture_output=True, text=True, timeout=PATIENCE
            )
        finally:
            process.terminate()
    said = done.stdout + done.stderr
    if "node timed out during startup" in said:
        pytest.skip("Ray gives itself 15 seconds to start, which this machine was too busy for")
    assert (out / "matrix.json").is_file(), said
    agree(tmp_path / "local", out)


def healthy(port: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
            return answer.status == 200
    except OSError:
        return False
