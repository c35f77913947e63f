"""Run the examples of examples/theory and write their pictures to docs/pictures.

python scripts/draw_theory.py [NAME ...]     # such as game or saturation; default: all
"""

import runpy
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples" / "theory"

sys.path.insert(0, str(EXAMPLES))  # for small_game
for script in sorted(EXAMPLES.glob("plot_*.py")):
    name = script.stem.removeprefix("plot_")
    if len(sys.argv) == 1 or name in sys.argv[1:]:
        runpy.run_path(str(script))
        pyplot.gcf().savefig(ROOT / "docs" / "pictures" / f"theory_{name}.png", dpi=110)
        pyplot.close("all")
