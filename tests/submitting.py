"""What HTCondor makes of launch/htcondor.sub and of what stands on the submit line."""

import os
import re

import child

SUBMIT_FILE = os.path.join(child.ROOT, "launch", "htcondor.sub")
AUTOMATIC = {"Cluster": "7", "Process": "0", "run": "of the job's line"}


def submit(*given: str) -> tuple[dict[str, str], str]:
  """(commands with their values, arguments of `queue`) of launch/htcondor.sub, as HTCondor's manual says it is read.

  NAME=VALUE of the submit line stand at the beginning of the file; values are expanded when a job is made; `if defined`
  asks what stands above it.
  """
  with open(SUBMIT_FILE, encoding="utf-8") as file:
    lines = [*given, *(line.strip() for line in file if line.strip() and not line.startswith("#"))]
  values, taken, queued = {}, [], None
  for line in lines:
    assert queued is None, "something stands after the queue statement"
    if line.startswith("if "):
      taken.append(re.fullmatch(r"if defined (\w+)", line)[1] in values)
    elif line == "else":
      taken[-1] = not taken[-1]
    elif line == "endif":
      taken.pop()
    elif line.startswith("queue "):
      queued = line.removeprefix("queue ")
    elif all(taken):
      name, value = re.fullmatch(r"(\w+)\s*=\s*(\S.*)", line).groups()
      assert name not in values, f"{name} is set twice, and the second value wins over the submit line"
      values[name] = value
  assert not taken and queued
  known = AUTOMATIC | values
  return {name: expand(value, known) for name, value in values.items()}, expand(queued, known)


def expand(text: str, known: dict[str, str]) -> str:
  """Text with the values of `$(name)`, `$(name:default)` and `$ENV(NAME)`."""
  def value(found):
    text = known[found[1]] if found[1] in known else found[3]
    assert text is not None, f"$({found[1]}) is not set"
    return expand(text, known)
  text = re.sub(r"\$\((\w+)(:([^)]*))?\)", value, text)
  return re.sub(r"\$ENV\((\w+)\)", lambda found: os.environ[found[1]], text)
