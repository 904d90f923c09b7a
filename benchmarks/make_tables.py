"""Remake all or some of the accuracy tables in benchmarks/results, the quickest first.

    python benchmarks/make_tables.py                 # all
    python benchmarks/make_tables.py NAME ...        # these
    python benchmarks/make_tables.py --list          # what there is, and when it was made

Each table is made by its own script, in a separate process. If one fails, the others are still made, and the
failure is reported at the end. A table made before tables had a head is shown as old.
"""

import argparse
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass

from common import RESULTS, ROOT

MADE = re.compile(r"^- made: (\d{4}-\d{2}-\d{2}) by ", re.MULTILINE)


@dataclass(frozen=True)
class Table:
    """A table, the script and arguments that make it, and roughly how long that takes on two cores."""

    name: str
    command: str
    minutes: float

    @property
    def made(self) -> str:
        """The date at the head of the stored table; "old" where it has no head, "-" where there is none."""
        path = RESULTS / f"{self.name}.md"
        if not path.exists():
            return "-"
        head = MADE.search(path.read_text())
        return head[1] if head else "old"

    def make(self) -> bool:
        """Run the script; return whether it made the table."""
        script, *arguments = shlex.split(self.command)
        print(f"{self.name}: python benchmarks/{self.command}", flush=True)
        done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / script), *arguments], check=False)
        return done.returncode == 0


TABLES = sorted(
    [
        Table("impute_auto_osmfish", "impute_auto.py osmfish", 9),
        Table("impute_auto_starmap", "impute_auto.py starmap", 8),
        Table("impute_auto_hypothalamus-plain", "impute_auto.py hypothalamus-plain", 12),
        Table("impute_auto_molcart", "impute_auto.py molcart", 20),
        Table("impute_auto_embryo", "impute_auto.py embryo --seeds 1", 25),
        Table("default", "default.py", 60),
        Table("level_share", "level_share.py", 25),
        Table("impute_osmfish", "impute_accuracy.py osmfish", 7),
        Table("impute_starmap", "impute_accuracy.py starmap", 5),
        Table("impute_hypothalamus", "impute_accuracy.py hypothalamus --seeds 1", 10),
        Table("ablations_starmap", "impute_ablations.py starmap", 8),
        Table("ablations_osmfish", "impute_ablations.py osmfish", 12),
        Table("ablations_hypothalamus", "impute_ablations.py hypothalamus", 25),
        Table(
            "graph_osmfish",
            "graph_ablation.py osmfish --seeds 3 --methods expression ESM-2 'ESM-2 and expression'",
            15,
        ),
        Table(
            "graph_hypothalamus",
            "graph_ablation.py hypothalamus --seeds 1 --methods expression ESM-2 'ESM-2 and expression'",
            35,
        ),
        Table("impute_tried", "impute_tried.py osmfish", 20),
        Table("intervals", "intervals.py", 25),
        Table("predictability", "predictability.py", 15),
        Table("counts", "counts.py", 60),
        Table("denoised_panel", "denoised_panel.py", 20),
        Table("annotate", "annotate.py --seeds 0,1,2 --left-out 7", 30),
        Table("reliability", "impute_reliability.py osmfish hypothalamus starmap", 30),
        Table("panel_size", "panel_size.py", 40),
        Table("reference_batches_tried", "reference_quality.py --parts candidates --seeds 3 --cells 800", 10),
        Table("reference_batches", "reference_quality.py --parts joins --seeds 1 --cells 600", 10),
        Table("reference_quality", "reference_quality.py --parts qualities --seeds 1 --cells 800", 12),
        Table("place_embryo", "place_accuracy.py --seeds 3", 15),
        Table("place_pdac", "place_tissues.py pdac", 7),
        Table("place_planes", "place_tissues.py planes", 6),
        Table("place_molcart", "place_tissues.py molcart", 6),
        Table("place_semi_tissues", "place_semi.py tissues", 15),
        Table("place_coarse", "place_coarse.py", 20),
        Table("place_radius", "place_radius.py", 20),
        Table("place_semi_noise", "place_semi.py noise", 15),
        Table("place_semi_kernels", "place_semi.py kernels", 15),
        Table("place_semi_resolutions", "place_semi.py resolutions", 15),
        Table("place_evidence", "place_evidence.py", 15),
        Table("place_why", "place_why.py", 5),
        Table("place_threads", "place_threads.py", 20),
    ],
    key=lambda table: table.minutes,
)


def main() -> None:
    names = [table.name for table in TABLES]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(names)}")
    parser.add_argument("--list", action="store_true", help="only say which tables there are")
    asked = parser.parse_args()
    if unknown := [name for name in asked.names if name not in names]:
        parser.error(f"no such table: {', '.join(unknown)}; there are {', '.join(names)}")
    wanted = [table for table in TABLES if table.name in (asked.names or names)]
    if asked.list:
        for table in wanted:
            print(f"{table.name:32} {table.made:10} about {table.minutes:g} min  {table.command}")
        return
    failed = [table.name for table in wanted if not table.make()]
    if failed:
        raise SystemExit(f"not made: {', '.join(failed)}")


if __name__ == "__main__":
    main()
