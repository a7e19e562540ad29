"""What features of a sparse autoencoder show of a dataset, each table with the random dictionary of the same shape as an arm.

Texts are real and of three kinds: sentences of novels, docstrings and package descriptions of this environment. Properties of
form are taken out of one half, and each arm must find them; halves that lack nothing must show nothing. Every part is stored when
it is measured, so an interrupted measurement resumes. The benchmark fails if the random dictionary finds as many planted gaps.

    python -m benchmarks.features [--work FOLDER] [--small] [--long | --stored]
"""

import argparse
import sys
from pathlib import Path

from benchmarks.features.measured_texts import FULL, SMALL
from benchmarks.features.tables import WORK_FOLDER, table

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--work", type=Path, default=WORK_FOLDER)
parser.add_argument("--small", action="store_true", help="few texts and steps, to see that it runs")
parser.add_argument("--long", action="store_true", help="the students too, an hour or more")
parser.add_argument("--stored", action="store_true", help="measure nothing: the tables of what is stored in FOLDER")
options = parser.parse_args()
sys.stdout.write(
    table(options.work, SMALL if options.small else FULL, long=options.long, stored_only=options.stored) + "\n"
)
