"""What fields mean, read from the comments of config files; and their list, for `--mode=fields`."""

import glob
import json
import os

import pytest

import child
from jaxtrain import commands, config as config_lib, jsonable
from jaxtrain.config import defaults, listing, meanings
from jaxtrain.errors import UserError

FILES = sorted(glob.glob(os.path.join(child.ROOT, "configs", "*.py")))
ALL = [f"{path}:{variant}" for path in FILES for variant in config_lib.list_variants(path)]
SOURCE = '''
"""A config file."""
from jaxtrain.config import common, optimiser
from ml_collections import ConfigDict

KEPT = {
    "left": 1,  # from a dict with a name
}

def get_config():
  config = common()
  config.model.dim = 128  # width # of a token
  # heads of each
  # attention layer
  config.model.num_heads = 8
  config.model.first, config.model.second = 1, 2  # of two
  config.loss.weights = {
      "edge": 1.0,  # behind
      # above
      "acyclic": 1.0,
      "plain": 1.0,
  }
  config.loss["extra"] = ConfigDict({"a": {"b": 1}})  # nested
  config.loss.kept = KEPT
  config.eval.shares = dict(
      small=1,  # by keyword
  )
  config.model.long = (1,
                       2)  # at the end
  config.model.wide = 1  # goes on in a line
                         # of its own
  config.model.next = 2
  m = config.model
  m.depth = 3  # by another name
  config.eval.every_steps = config.eval.every = 5  # two targets
  config.optim_critic = optimiser()

  # a line that stands alone

  config.model.alone = 0
  config.model.text = "# no comment"
  return config

def other():
  config = get_config()
  config.model.dim = 8  # smaller, because it must be fast
  return config
'''
SAID = {
    "model.dim": "width # of a token", "model.num_heads": "heads of each attention layer", "model.first": "of two",
    "model.second": "of two", "loss.weights.edge": "behind", "loss.weights.acyclic": "above",
    "loss.extra.a.b": "nested", "loss.kept.left": "from a dict with a name", "eval.shares.small": "by keyword",
    "model.long": "at the end", "model.wide": "goes on in a line of its own", "model.depth": "by another name",
    "eval.every_steps": "two targets", "eval.every": "two targets"}


def test_comments_are_found_wherever_a_config_file_sets_a_field():
  assert meanings.of_source(SOURCE) == SAID


@pytest.mark.parametrize("text", [b"def get_config(:\n", b"\xff\xfe\0", b"'''", b"(" * 2000, b"x = 1\n  y = 2\n"])
def test_a_file_that_is_no_source_says_nothing(text, tmp_path):
  (tmp_path / "a.py").write_bytes(text)
  assert meanings.of_file(str(tmp_path / "a.py")) == {}


def test_what_is_no_regular_file_of_python_is_not_read(tmp_path):
  os.mkfifo(tmp_path / "pipe.py")
  (tmp_path / "a.txt").write_text("config.a = 1  # a\n")
  for name in ("pipe.py", "a.txt", "none.py", ""):
    assert meanings.of_file(str(tmp_path / name)) == {}


def test_the_file_of_a_command_line(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text(SOURCE.replace("config.model.dim = 128", "config.seed = 3  # mine\n  config.model.dim = 128"))
  own = {key: text for key, text in SAID.items() if key != "eval.every_steps"}  # all have that field
  for argv in (["main", f"--config={path}:other"], ["main", "--mode=check", "--config", str(path)]):
    assert meanings.of_command(argv) == own
  assert meanings.of_command(["main", "--config.seed=3"]) == meanings.of_command(["main", "--config"]) == {}


@pytest.mark.parametrize("argument", ALL, ids=[os.path.basename(argument) for argument in ALL])
def test_every_field_of_every_config_has_a_meaning(argument):
  """A field that fails here: write in plain words what it means, behind it, in the config file that sets it."""
  keys = [key for key, _ in jsonable.flatten(config_lib.read_file(argument))]
  said = meanings.explain(keys, meanings.of_file(argument.partition(":")[0]))
  assert not set(keys) - set(said)
  assert all(len(text) < 160 for text in said.values())


def test_every_field_that_all_share_has_a_meaning():
  keys = [key for key, _ in jsonable.flatten(defaults.DEFAULTS | {"data": defaults.TABLES})]
  assert set(meanings.of_all()) >= set(keys) and all(meanings.of_all().values())


def test_a_shared_field_means_the_same_everywhere():
  config = config_lib.common()
  config.optim_critic, config.data = config_lib.optimiser(), {"label": "a"}
  keys = [key for key, _ in jsonable.flatten(config)]
  said = meanings.explain(keys, {"optim.eps": "mine", "data.label": "mine", "train.num_epochs": 3})
  assert said["optim.eps"] == said["optim_critic.eps"] == meanings.of_all()["optim.eps"] != "mine"
  assert said["data.label"] == "mine"  # this `data` is not that of tables
  config.data = config_lib.tables()
  keys = [key for key, _ in jsonable.flatten(config)]
  assert meanings.explain(keys, {"data.label": "mine"})["data.label"] == meanings.of_all()["data.label"]


SMOKE = os.path.join(child.ROOT, "configs", "vae.py:smoke")


@pytest.fixture(scope="module")
def described():
  """The fields of the smallest config, one set by a flag and one by the environment."""
  flags = [f"--config={SMOKE}", "--config.loss.weights.kl=2"]
  given = commands.parse(commands.new_flags(has_config=True), ["main", *flags], "About.")
  config, origins = commands.read_config(given, {"OPTIM__EPS": "0.5"})
  return listing.describe(config, origins, meanings.of_file(SMOKE.partition(":")[0]), "file")


def test_a_field_is_listed_with_all_that_is_known_of_it(described):
  found = {field.key: field for field in described}
  assert found["loss.weights.kl"] == ("loss.weights.kl", 2.0, "weight of the KL term (beta) at the end of its schedule",
                                      "0 to 1e+12", "flag")
  assert found["optim.eps"][1] == 0.5 and found["optim.eps"].origin == "environment"
  assert found["train.num_epochs"][1] == 2 and found["train.num_epochs"].origin == "file"
  assert found["train.patience"].origin == "default" and found["train.patience"].allowed == "0 to 2147483647"
  assert found["model.kind"].allowed == "unsup | semisup" and all(field.allowed for field in described
                                                                  if field.key != "stages")
  sections = list(dict.fromkeys(key.partition(".")[0] for key in found))
  assert sections == ["experiment", "seed", "stages", "data", "model", "loss", "optim", "train", "eval", "checkpoint",
                      "log", "parallel"]
  assert [key for key in found if key.startswith("optim.")][:2] == ["optim.name", "optim.learning_rate"]


def test_the_list_on_a_terminal_is_aligned(described):
  for width in (80, 120, 200):
    lines = listing.as_lines(described, width)
    assert "" in lines and not any(line != line.rstrip() for line in lines)
    begins = {line.index("  'adam'") for line in lines if line.startswith("optim.name ")}
    begins |= {line.index("  (64, 32)") for line in lines if line.startswith("model.hidden_dims ")}
    assert len(begins) == 1
    assert max(map(len, lines)) <= max(width, 120)
  text = " ".join(" ".join(lines).split())
  assert "loss.weights.kl 2.0 flag weight of the KL term (beta) at the end of its schedule [0 to 1e+12]" in text
  assert "optim.name 'adam' default optimiser: adam | adamw | sgd | lamb | lion optim.learning_rate" in text


def test_fields_are_selected_by_how_they_begin(described):
  keys = lambda prefix: [field.key for field in listing.select(described, prefix)]
  assert keys("optim.pla") == ["optim.plateau.factor", "optim.plateau.patience", "optim.plateau.threshold",
                               "optim.plateau.monitor"]
  assert keys("--config.seed") == keys("seed") == ["seed"] and len(keys("")) == len(described)
  for wrong, words in (("lr", "did you mean --fields=optim.learning_rate?"), ("xyz", "such as experiment, seed")):
    with pytest.raises(UserError, match="with which no field begins") as refused:
      keys(wrong)
    assert words in str(refused.value)


def test_the_list_as_json(described):
  found = json.loads(json.dumps(listing.as_json(described)))
  assert found["model.hidden_dims"] == {"value": [64, 32], "meaning": "encoder widths; the decoder mirrors them",
                                        "allowed": "numbers, each 1 to 65536", "origin": "file"}


def test_a_run_has_noted_what_its_fields_mean_or_names_the_file_that_says_it(tmp_path):
  (tmp_path / "mine.py").write_text(SOURCE)
  argv = ["main", f"--config={tmp_path / 'mine.py'}"]
  assert meanings.of_run({"meanings": {"a": "b"}, "argv": argv}) == {"a": "b"}
  assert meanings.of_run({"argv": argv})["model.dim"] == SAID["model.dim"]
  for made in ({"argv": argv[:1]}, {"argv": 5, "meanings": []}, {}):
    assert meanings.of_run(made) == {}
