"""The report of a study of 1,000 runs: time and memory (bars: 60 s, 2 GB; reading the records is part of it).

python benchmarks/report_scale.py [runs]
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dit.report.page import write_report  # noqa: E402
from tests.fits.synthetic import Surface, write_study  # noqa: E402


def main(runs: int = 1000) -> None:
    """Writes a synthetic study, then times its report in this process."""
    seeds = tuple(range(max(1, runs // len(Surface().widths))))
    with tempfile.TemporaryDirectory() as folder:
        study = write_study(Path(folder) / "study", samples=True, seeds=seeds)
        size = sum(file.stat().st_size for file in study.rglob("*.jsonl"))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        start = time.perf_counter()
        found = write_report(study, Path(folder) / "report").headline
        seconds = time.perf_counter() - start
        page = (Path(folder) / "report/report.html").stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{found['runs']} runs, {size / 1e6:.1f} MB of records: {seconds:.1f} s, peak {peak:.2f} GiB "
          f"({before:.2f} before), page {page / 1e6:.1f} MB")  # fmt: skip


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
