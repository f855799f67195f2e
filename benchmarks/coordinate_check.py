"""Writes the data of the muP figure: activation scale by width, layer and step, with muP and without.

    python -m benchmarks.coordinate_check coordinates.csv

Rows: parametrization, width, seed, step, layer, scale. Prints the slope of log scale on log width after the
last step: within +-0.05 everywhere with muP. Draws the figure beside the file, as PNG; in a study's directory the file
is drawn by the study's report too. One core: about 20 s.
"""

import argparse
import csv
from pathlib import Path

from dit.network.config import PARAMETRIZATIONS
from dit.network.coordinates import Coordinate, coordinate_check, slopes
from dit.report.figures_networks import draw_coordinates


def main() -> None:
    """Runs both parametrizations and writes their rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the CSV file to write")
    out = parser.parse_args().out
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(Coordinate.__annotations__))
        writer.writeheader()
        for parametrization in PARAMETRIZATIONS:
            rows = coordinate_check(parametrization)
            writer.writerows(rows)
            for layer, slope in slopes(rows).items():
                print(f"{parametrization:9s} {layer:20s} {slope:+.3f}")
    figure, _ = draw_coordinates(out)
    figure.savefig(out.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()
