"""What a run prints: a first line, a progress bar on a terminal or plain lines elsewhere, last lines.

**Departs** from DESIGN 3, which lists no such module: the loop stays readable without the formatting.
"""

import os
import sys
import time

SHOWN = 8  # metrics in a line


class Console:
  """Prints a run's progress. `enabled` switches bar and lines off; the first and last lines always come."""

  def __init__(self, enabled: bool, log_file: str | None):
    self.enabled = enabled
    self.log = open(log_file, "a", encoding="utf-8") if log_file else None
    self.bar = None
    self.deaf = False  # nobody reads standard output any more

  def say(self, text: str) -> None:
    """Prints a line and keeps it in log.txt."""
    if self.bar is not None:
      self.bar.clear()
    try:
      if not self.deaf:
        print(text, flush=True)
    except BrokenPipeError:  # `| head` has read enough: the run goes on, and its log has the rest
      self.deaf = True
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    self.note(text)

  def note(self, text: str) -> None:
    """Keeps a line in log.txt without printing it."""
    if self.log:
      self.log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}\n")
      self.log.flush()

  def start(self, step: int, total: int) -> None:
    """Starts the bar where standard error is a terminal."""
    if self.enabled and sys.stderr.isatty():
      from tqdm import tqdm
      self.bar = tqdm(total=total, initial=step, unit="step", dynamic_ncols=True)

  def advance(self, num_steps: int) -> None:
    """Moves the bar."""
    if self.bar is not None:
      self.bar.update(num_steps)

  def report(self, position: str, means: dict[str, float], throughput: float | None) -> None:
    """Shows metrics behind the bar, or as a plain line."""
    shown = [f"{name} {value:.4g}" for name, value in list(means.items())[:SHOWN]]
    if throughput:
      shown.append(f"{throughput:,.0f} samples/s")
    line = f"{position}  " + "  ".join(shown)
    if self.bar is not None:
      self.bar.set_postfix_str("  ".join(shown), refresh=False)
      self.note(line)
    elif self.enabled:
      self.say(line)

  def close(self) -> None:
    """Ends bar and log."""
    if self.bar is not None:
      self.bar.close()
      self.bar = None
    if self.log:
      self.log.close()
      self.log = None
