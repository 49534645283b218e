"""Data of a source on the devices: all of it, or window by window, the next one fetched while the devices work."""

from typing import Any, Callable, Iterator

import jax

from jaxtrain.types import Source


class Feed:
  """What compiled steps of a source read, by step."""

  def __init__(self, source: Source, put: Callable[[Any], Any], put_slices: Callable[[Any, Any], Any], key: jax.Array):
    self.source, self.put_slices, self.key = source, put_slices, key
    self.size = source.window_steps
    self.whole = put(source.data) if not self.size else None
    self.windows: Iterator[Any] | None = None
    self.start = -1  # first step of the window at hand
    self.at_hand: Any = None
    self.next_one: Any = None  # the window after it, already on the devices

  def end(self, step: int, target: int) -> int:
    """The last step before which `data(step)` holds, at most `target`."""
    return min(target, (step // self.size + 1) * self.size) if self.size else target

  def data(self, step: int) -> Any:
    """The data that holds a step; jumps are allowed and cost a seek."""
    if not self.size:
      return self.whole
    start = step // self.size * self.size
    if start != self.start:
      straight = self.windows is not None and start == self.start + self.size
      if not straight:
        self.windows, self.next_one = self.source.windows(self.key, start), None
      self.at_hand = self.next_one if self.next_one is not None else self.fetch()
      self.start, self.next_one = start, None
    return self.at_hand

  def fetch_ahead(self) -> None:
    """Puts the next window on the devices; called while they work on this one."""
    if self.size and self.windows is not None and self.next_one is None:
      self.next_one = self.fetch()

  def fetch(self) -> Any:
    """The next window on the devices; None after the last."""
    window = next(self.windows, None)
    return None if window is None else self.put_slices(window, self.source.data)
