"""Commands under `accelerate launch` with two processes on CPUs, which `--cpu` alone does not give:
each leaves its rank before it begins.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from ropeconv.cli import main

ROOT = Path(__file__).resolve().parents[2]


def launch_two(ranks: Path, *arguments: str) -> str:
    """What `ropeconv ARGUMENTS` by two processes prints. ranks: an empty folder to be."""
    ranks.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    launcher += ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    launcher += ["--main_process_port", str(port), "-m", "tests.longctx.two_processes"]
    own = {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, str(ranks), *arguments],
        cwd=ROOT,
        env=os.environ | own,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]
    assert sorted(path.name for path in ranks.iterdir()) == ["0", "1"]
    return done.stdout


if __name__ == "__main__":
    (Path(sys.argv[1]) / os.environ["RANK"]).touch()
    main(sys.argv[2:])
