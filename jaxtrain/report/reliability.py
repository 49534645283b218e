"""The reliability diagram of class probabilities, which the figures of several families share."""

import numpy as np
from matplotlib.figure import Figure

from jaxtrain.report.figures import COLORS, GREY, MUTED, new_figure
from jaxtrain.statistics import wilson


def draw_reliability(bins: np.ndarray, title: str) -> Figure:
  """The share of right predictions against the probability of the predicted class, with 95 % intervals, over a
  histogram of that probability; bins [3, bins] are those of `statistics.calibration`.
  """
  rows, confidence, accuracy = bins
  edges, there = np.linspace(0, 1, len(rows) + 1), rows > 0
  width, middle = edges[1] - edges[0], (edges[:-1] + edges[1:]) / 2
  figure = new_figure(5.2, 4.9)
  top, low = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
  share, least, most = (one[there] for one in wilson(accuracy * rows, rows))
  top.errorbar(confidence[there], share, yerr=np.stack([share - least, most - share]), fmt="o", color=COLORS["train"],
               markersize=4.5, elinewidth=1.3, label="share that is right")
  top.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), label="calibrated")
  top.set(xlim=(0, 1.01), ylim=(-0.02, 1.04), ylabel="share of right predictions")
  top.set_title(title, fontsize=8.5)
  figure.legend(*top.get_legend_handles_labels(), loc="outside upper left", ncols=2)
  low.bar(middle[there], rows[there], 0.94 * width, color=GREY)
  low.set(xlabel="probability of the predicted class", ylabel="rows")
  low.yaxis.set_major_formatter(lambda v, _: f"{v:,.12g}")
  return figure
