"""Curves of a drawn graph's edges that keep clear of the boxes of other nodes.

An edge is a quadratic Bezier curve between the centres of two boxes, whose control point is off the middle by `bend`
times the distance, to the left of the way as y grows upwards. Of some bends, the flattest first, that is taken which
runs least through boxes that are not its ends, then least out of the picture.
"""

import numpy as np

BENDS = (0.06, -0.06, 0.15, -0.15, 0.25, -0.25, 0.4, -0.4, 0.55, -0.55, 0.75, -0.75, 1.0, -1.0)
POINTS = 80  # of a curve that are looked at
MARGIN = 0.2  # of half the height of a box, to be kept free about it


def control(start: np.ndarray, end: np.ndarray, bend: float) -> np.ndarray:
  """The control point of an edge from one point to another, [2] each."""
  along = end - start
  return (start + end) / 2 + bend * np.array([-along[1], along[0]])


def points_of(start: np.ndarray, end: np.ndarray, bend: float) -> np.ndarray:
  """Points [POINTS, 2] of an edge in their order."""
  t = np.linspace(0, 1, POINTS)[:, None]
  return (1 - t) ** 2 * start + 2 * t * (1 - t) * control(start, end, bend) + t ** 2 * end


def covered(points: np.ndarray, at: np.ndarray, half: np.ndarray) -> np.ndarray:
  """Which points [N, 2] lie in which boxes, [N, D] bool; boxes are about at [D, 2], half [D, 2] their size."""
  return (np.abs(points[:, None] - at[None]) < half[None]).all(axis=-1)


def choose_bends(at: np.ndarray, half: np.ndarray, edges: list[tuple[int, int]], low: np.ndarray, high: np.ndarray
                 ) -> list[float]:
  """The bend of each edge.

  Args:
    at: [D, 2] centres of boxes. half: [D, 2] half their width and height.
    edges: pairs of boxes.
    low, high: [2] corners of the picture.
  """
  found = []
  for i, j in edges:
    others = [k for k in range(len(at)) if k not in (i, j)]
    costs = []
    for bend in BENDS:
      points = points_of(at[i], at[j], bend)
      inside = covered(points, at[others], half[others] + MARGIN * half[others, 1:]).sum()
      costs.append((int(inside), int(((points < low) | (points > high)).any(axis=1).sum())))
      if costs[-1] == (0, 0):
        break
    found.append(BENDS[costs.index(min(costs))])  # the first of those alike
  return found


def between_boxes(at: np.ndarray, half: np.ndarray, edge: tuple[int, int], bend: float) -> np.ndarray:
  """The part of an edge between its boxes as start, control point and end of a Bezier curve, [3, 2]."""
  i, j = edge
  points, t = points_of(at[i], at[j], bend), np.linspace(0, 1, POINTS)
  leaves = t[~covered(points, at[[i]], half[[i]])[:, 0]]
  enters = t[~covered(points, at[[j]], half[[j]])[:, 0]]
  a, b = (leaves[0], enters[-1]) if len(leaves) and len(enters) and leaves[0] < enters[-1] else (0.0, 1.0)
  start, middle, end = at[i], control(at[i], at[j], bend), at[j]
  place = lambda s, t: (1 - s) * (1 - t) * start + (s * (1 - t) + t * (1 - s)) * middle + s * t * end  # its polar form
  return np.stack([place(a, a), place(a, b), place(b, b)])
