"""Figures of many panels, and what stands above them."""

import re

import numpy as np
from matplotlib.figure import Figure

from jaxtrain.report.figures import clip_text, new_figure


def panel_grid(num: int, across: int, width: float, height: float, beside: tuple[float, float] = (0.0, 0.0),
               heights: tuple[float, ...] = (1.0,), **share) -> tuple[Figure, np.ndarray]:
  """(figure, axes [num, len(heights)]) of panels in rows.

  Args:
    num: of panels, one at least.
    across: panels side by side, at most.
    width, height: of a panel, inches. beside: what the figure has in addition.
    heights: of the axes that stand on each other in a panel, in proportion.
    share: `sharex` and `sharey` of matplotlib's `subplots`.
  """
  across = min(across, num)
  down = -(-num // across)
  figure = new_figure(beside[0] + width * across, beside[1] + height * down)
  grid = figure.subplots(len(heights) * down, across, height_ratios=heights * down, squeeze=False, **share)
  panels = grid.reshape(down, len(heights), across).swapaxes(1, 2).reshape(-1, len(heights))
  for ax in panels[num:].ravel():
    ax.set_visible(False)
  return figure, panels[:num]


def field_lines(label: str, width: int) -> str:
  """A label of a group, such as `rate=0.1, weights.kl=1`, with a line for each of its fields, none longer than `width`.
  """
  return "\n".join(clip_text(part, width) for part in re.split(r", (?=[\w.]+=)", label))
