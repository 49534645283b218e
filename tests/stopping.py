"""Runs that are asked to stop again and again, in this process."""

import threading

from jaxtrain import loop
from jaxtrain.errors import Stopped
from jaxtrain.run import stops as stops_lib


def train(config, workdir: str, monkeypatch, every: int, num_steps: int) -> tuple[loop.Result, int]:
  """Trains in dispatches of `num_steps`, asked to stop at every n-th question; returns (result, number of stops)."""
  asked = []

  def reason(self, begun=True):
    if threading.current_thread() is not threading.main_thread():
      return None  # the watcher of an assessment asks too, at no certain times
    asked.append(1)
    return "test" if len(asked) % every == 0 else None

  monkeypatch.setattr(loop.Pace, "num_steps", lambda self: num_steps)
  monkeypatch.setattr(stops_lib.Stop, "reason", reason)
  stops = 0
  while True:
    try:
      return loop.train(config, workdir), stops
    except Stopped:
      stops += 1
