"""Named families of tasks that a model is judged on, each a line of words in a config.

  ood_sbm graphs=sbm:n_blocks=4:p_intra=0.6:p_inter=0.01 mechanisms=linear num_nodes=20 num_rows=256
  ood_mixed mechanisms=square:weight=2+periodic noises=laplace noise_share=0.1:0.9 corruptions=missing:share=0.2

A line is a name, then FIELD=VALUE for what differs from `config.data`, whose other fields are those of the training
tasks. Families are joined by +, their words by a colon; a range and several numbers of nodes are joined by a colon too.
The numbers of the tasks, and the key they are made from, are those of the tasks of the training distribution: where a
line changes the mechanism alone, task t has the same graph.
"""

import re
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from jaxtrain.config import limits
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import suites, tasks
from jaxtrain.types import Source

LISTS = ("graphs", "mechanisms", "noises", "corruptions")
NUMBERS = {"num_nodes": int, "num_rows": int, "num_rows_int": int, "p_obs_only": float, "noise_share": float}
MIXTURES = ("mixture", "noise_mixture")
WORDS = (*LISTS, *NUMBERS, *MIXTURES)
NAME = re.compile(r"[A-Za-z0-9_]+")
TRAINING = "id"  # the name of the part that judges the tasks of the training distribution


class Named(NamedTuple):
  """A family of tasks: its name, what its tasks are made of, their numbers of variables, the line it was given by."""
  name: str
  spec: tasks.Spec
  num_nodes: tuple[int, ...]
  text: str


def value_of(word: str, text: str):
  """The value of a field of `config.data` in a line. Raises ValueError for one of another kind."""
  if word in LISTS:
    return tuple(family.replace(":", " ") for family in text.split("+"))
  if word in MIXTURES:
    return text
  numbers = tuple(map(NUMBERS[word], text.split(":")))
  wanted = {"num_nodes": len(numbers), "noise_share": 2}.get(word, 1)
  if len(numbers) != wanted:
    raise ValueError
  return numbers if word in ("num_nodes", "noise_share") else numbers[0]


def parse(field: str, line: str, data) -> Named:
  """The family of a line; what it does not say is as in `data`, the section of a config.

  Raises:
    UserError: a name that is none, an unknown word, a value of another kind, families that do not exist.
  """
  name, *settings = line.split() or [""]
  if not NAME.fullmatch(name) or name == TRAINING:
    raise UserError(f"config.{field}: got {name!r} in {line!r}, allowed a name of letters, digits and underscores that "
                    f"is not {TRAINING!r}, then FIELD=VALUE")
  values = {word: data[word] for word in data}
  for setting in settings:
    word, equals, text = setting.partition("=")
    if word not in WORDS or not equals:
      raise UserError(f"config.{field}: got {setting!r} in {line!r}, allowed FIELD=VALUE of {', '.join(WORDS)}")
    try:
      values[word] = value_of(word, text)
    except ValueError:
      raise UserError(f"config.{field}: got {setting!r} in {line!r}, allowed values as of config.data.{word}, joined "
                      "by : in place of spaces and commas") from None
  for word, limit in tasks.LIMITS.items():
    if not limits.fits(limit, values[word]):
      raise UserError(f"config.{field}: got {word}={values[word]} in {line!r}, allowed {limit.words}")
  try:
    return Named(name, tasks.make_spec(SimpleNamespace(**values)), tuple(values["num_nodes"]), line)
  except UserError as error:
    raise UserError(f"config.{field}: in {line!r}: {error.message.removeprefix('config.')}") from None


def of_config(config, split: str) -> tuple[Named, ...]:
  """The families that a config judges a split by; () if only tasks of the training distribution are used.

  Those of `test` are the families of `eval.suite` and then of `data.test_families`.

  Raises:
    UserError: see `parse`; or a name twice.
  """
  own = tuple(config.data[f"{split}_families"])
  lines = [("eval.suite", line) for line in suites.lines(config.eval.suite)] if split == "test" else []
  lines += [(f"data.{split}_families", line) for line in own]
  found = [parse(field, line, config.data) for field, line in lines]
  names = [family.name for family in found]
  for name in names:
    if names.count(name) > 1:
      raise UserError(f"config.data.{split}_families: got the name {name!r} twice, allowed once, also beside those of "
                      f"config.eval.suite = {config.eval.suite!r}")
  return tuple(found)


def of_training(config) -> Named:
  """The training distribution as a family."""
  return Named(TRAINING, tasks.make_spec(config.data), tuple(config.data.num_nodes), TRAINING)


def source(family: Named, config, split: str) -> Source:
  """The tasks of a family, as many as the split has."""
  num, seeds = config.eval[f"max_{split}_tasks"], config.data[f"{split}_seeds"]
  return tasks.make_fixed(family.spec, tasks.make_buckets(family.num_nodes, ()),
                          config.eval.batch_size or config.train.batch_size, split, config.data.eval_seed, num, seeds)


def join(sources: list[Source]) -> Source:
  """Fixed sources one after the other; each bucket of each is a bucket of the whole."""
  ends = np.cumsum([0, *(one.num_batches for one in sources)])
  first = np.cumsum([0, *(len(one.buckets) or 1 for one in sources)])
  data = {name: np.concatenate([one.data[name] for one in sources]) for name in ("numbers", "counts")}

  def bucket_at(step):
    k = int(np.searchsorted(ends, step, side="right")) - 1
    return int(first[k]) + sources[k].bucket(int(step - ends[k]))
  each = tuple(batch_at for one in sources for batch_at in (one.buckets or (one.batch_at,)))
  if len(each) == 1:
    return sources[0]
  return Source(data, each[0], int(ends[-1]), sum(one.num_rows for one in sources), bucket_at=bucket_at, buckets=each)
