"""Memory of the machine: how much is free, and whether what a file claims to hold fits. Standard library alone."""

import os
import pathlib

SHARE = 0.5  # of what is free, for one file: its columns are scaled, cut into parts and put on a device besides
CELL_BYTES = 56  # of a cell as an object of Python, beside its text


def free_bytes() -> int:
  """What the machine and this process's control group still have."""
  try:
    with open("/proc/meminfo", encoding="ascii") as file:
      free = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
  except OSError:  # no Linux
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  return min([free, *group_free_bytes("/sys/fs/cgroup")])


def group_free_bytes(folder: str) -> list[int]:
  """Memory left to the process's control group, such as a container's or a Slurm job's; [] where there is no limit."""
  try:
    limit, used = (pathlib.Path(folder, name).read_text().strip() for name in ("memory.max", "memory.current"))
    return [int(limit) - int(used)] if limit != "max" else []
  except OSError:  # no such groups here
    return []


def room() -> int:
  """Bytes that may be read from one file."""
  return int(SHARE * free_bytes())


class TooMuch(ValueError):
  """What a file holds does not fit."""


def check(claimed: int, what: str, most: int | None = None) -> None:
  """Raises TooMuch where something of a file unfolds to more bytes than may be read; before it is read.

  Args:
    claimed: bytes.
    what: of what the file holds, for the message.
    most: `room()` of before, for a caller that asks often.
  """
  most = room() if most is None else most
  if claimed > most:
    raise TooMuch(f"{what} unfolds to {claimed / 2**30:,.1f} GiB, and {most / 2**30:,.1f} GiB may be read here "
                     f"({SHARE:.0%} of the memory that is free)")
