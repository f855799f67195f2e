"""The time of ``dit status`` on a study of many runs: python benchmarks/status_scale.py [runs]."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dit.rundir import write_json


def main(n_runs: int) -> None:
    """Writes plan and statuses, and prints the best of five times."""
    with tempfile.TemporaryDirectory() as folder:
        readings = [{"images": 10**6, "budget_flops": 1e18}]
        runs = [{"name": f"w{index:04d}", "flops": 1e18, "readings": readings} for index in range(n_runs)]
        write_json(Path(folder) / "plan.json", {"runs": runs})
        for index, run in enumerate(runs):
            (path := Path(folder) / "runs" / run["name"]).mkdir(parents=True)
            facts = {"images_seen": 10**5, "host": "elsewhere", "pid": 1, "loss": 0.5}
            state = "running" if index % 2 else "stopped"
            write_json(path / "status.json", {"state": state, "heartbeat": time.time(), **facts})
        for form in ("table", "json"):
            command = [sys.executable, "-m", "dit", "status", f"study.directory={folder}", f"format={form}"]
            times = []
            for _ in range(5):
                begun = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                times.append(time.perf_counter() - begun)
            print(f"{n_runs} runs, format={form}: best {min(times):.2f} s, median {sorted(times)[2]:.2f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
