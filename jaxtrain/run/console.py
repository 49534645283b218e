"""What a run prints: a first line, a progress bar on a terminal or plain lines elsewhere, last lines."""

import math
import sys
import time
from typing import Callable

from jaxtrain import streams

from jaxtrain.workdir import atomic

SHOWN = 6  # metrics in a line
MAX_LINES = 20  # of progress, where standard output is no terminal and nobody asked for more
WIDTH = 9  # letters of a value
ROUND = (1, 2, 3, 4, 5, 10)  # times a power of ten: epochs between two lines


class Lines:
  """Which progress lines of a run of `total` steps are printed: the first, the last, and those between at equal
  distances, a round number of epochs (of evaluations of a stream) apart, each of which has `unit` steps.
  """

  def __init__(self, total: int, unit: int = 1):
    needed = total / unit / MAX_LINES
    tens = 10 ** max(math.floor(math.log10(max(needed, 1))), 0)
    self.stride = unit * next(tens * k for k in ROUND if tens * k >= needed)
    self.total, self.part = total, -1

  def is_due(self, step: int) -> bool:
    """Whether the line of a step is printed."""
    part = step // self.stride
    due = part > self.part or step >= self.total
    self.part = max(part, self.part)
    return due


class Console:
  """Prints a run's progress. `enabled` switches bar and lines off; the first and last lines come unless `silent`.

  Of the plain lines up to about `MAX_LINES` are printed, evenly over the run, with `every` all of them; log.txt has
  all.
  """

  def __init__(self, enabled: bool, log_file: str | None, silent: bool = False, every: bool = False):
    self.enabled, self.every = enabled and not silent, every
    self.lines = Lines(0)
    self.columns: list[str] = []  # names of metrics in a line, those of the first
    self.log = atomic.open_own(log_file, "a", encoding="utf-8", errors="backslashreplace") if log_file else None
    self.bar = None
    self.deaf = silent  # nobody reads standard output (any more)

  def say(self, text: str) -> None:
    """Prints a line and keeps it in log.txt."""
    self.on_bar(lambda bar: bar.clear())
    # `| head` has read enough, or the terminal is gone: the run goes on, and its log has the rest
    self.deaf = self.deaf or not streams.say(text)
    self.note(text)

  def warn(self, text: str) -> None:
    """Prints a line on standard error and keeps it in log.txt."""
    if self.bar is not None:
      self.bar.clear()
    print(text, file=sys.stderr, flush=True)
    self.note(text)

  def note(self, text: str) -> None:
    """Keeps a line in log.txt without printing it."""
    if self.log:
      self.log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}\n")
      self.log.flush()

  def start(self, step: int, total: int, unit: int = 1) -> None:
    """Starts the bar where standard error is a terminal; `unit` as of `Lines`."""
    self.lines = Lines(total, unit)
    try:
      if self.enabled and sys.stderr.isatty():
        from tqdm import tqdm
        self.bar = tqdm(total=total, initial=step, unit="step", dynamic_ncols=True)
    except (OSError, ValueError):
      streams.lose(sys.stderr)

  def on_bar(self, do: Callable) -> None:
    """Does something to the bar, if there is one; a terminal that is gone ends the bar, not the run."""
    try:
      if self.bar is not None:
        do(self.bar)
    except (OSError, ValueError):
      self.bar = None
      streams.lose(sys.stderr)

  def advance(self, num_steps: int) -> None:
    """Moves the bar."""
    self.on_bar(lambda bar: bar.update(num_steps))

  def report(self, position: str, step: int, means: dict[str, float], throughput: float | None) -> None:
    """Shows metrics behind the bar, or as a plain line, always the same ones in the same order."""
    self.columns = self.columns or list(means)[:SHOWN]
    shown = [f"{name} {f'{means[name]:.4g}' if name in means else '–':<{WIDTH}}" for name in self.columns]
    if throughput:
      shown.append(f"{throughput:>9,.0f} rows/s")
    (word, place), total = position.partition("/")[0].split(), position.partition("/")[2]
    line = f"{word} {place:>{len(total)}}/{total}  {'  '.join(shown)}"
    if self.bar is not None:
      self.bar.set_postfix_str("  ".join(" ".join(part.split()) for part in shown[:4]), refresh=False)
      self.note(line)
    elif self.enabled and (self.every or self.lines.is_due(step)):
      self.say(line.rstrip())
    else:
      self.note(line.rstrip())

  def close(self) -> None:
    """Ends bar and log."""
    self.on_bar(lambda bar: bar.close())
    self.bar = None
    if self.log:
      self.log.close()
      self.log = None


def describe_data(meta: dict) -> str:
  """What the facts of a table and its split say, in a line."""
  return describe_table(meta["table"]) + describe_classes(meta) + describe_parts(meta)


def describe_table(table: dict) -> str:
  """What a table's facts say of its rows: how many there are, were dropped, have holes, have no label; the classes."""
  dropped = table["rows_dropped"] if "rows_dropped" in table else 0
  unlabelled = table["rows_unlabelled"] if "rows_unlabelled" in table else 0
  words = [f"{table['source']}, {table['rows']:,} rows"]
  beyond = table["rows_beyond_limit"] if "rows_beyond_limit" in table else 0
  missing = describe_missing(table["missing"]) if "missing" in table else ""
  holes = table["rows_incomplete"] if "rows_incomplete" in table else None
  why = "missing features" if holes is None else "missing all features"
  why += missing if holes is None else ""
  words += [f"{dropped:,} of {table['rows'] + beyond + dropped:,} rows dropped for {why}"] * bool(dropped)
  words += [f"{holes or 0:,} rows with missing features used by what they have{missing}"] * (holes is not None)
  hidden = table["labels_hidden"] if "labels_hidden" in table else 0
  called = table["unlabelled"] if "unlabelled" in table else "unlabelled"
  words += [f"{unlabelled:,} rows {called}"] * bool(unlabelled)
  return "; ".join(words + [f"{hidden:,} labels of training rows hidden"] * bool(hidden))


def describe_missing(missing: dict) -> str:
  """The columns with the most missing cells, in brackets; nothing where none is missing."""
  pairs = sorted(zip(missing["cells"], missing["columns"]), key=lambda pair: -pair[0])
  more = f" and {len(pairs) - SHOWN} columns more" if len(pairs) > SHOWN else ""
  return f" ({', '.join(f'{name} {count:,}' for count, name in pairs[:SHOWN])}{more})" if pairs else ""


def describe_classes(meta: dict) -> str:
  """Classes with their rows; nothing where there are none, or a run of before did not count them."""
  if "class_rows" not in meta["table"]:
    return ""
  pairs = list(zip(meta["class_names"], meta["table"]["class_rows"]))
  more = f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
  return f"; {len(pairs)} classes: {', '.join(f'{name} {count:,}' for name, count in pairs[:SHOWN])}{more}"


def describe_parts(meta: dict) -> str:
  """Rows and groups of each part; nothing where there is one part."""
  rows = {part: n for part, n in meta["rows"].items() if n} if "rows" in meta else {}
  if len(rows) < 2:
    return ""
  groups = meta["groups"] if "groups" in meta else {}
  return "; " + ", ".join(f"{part} {n:,} rows" + (f" in {groups[part]:,} groups" if part in groups else "")
                          for part, n in rows.items())
