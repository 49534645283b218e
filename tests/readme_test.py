"""The front page, and what holds for every page: commands have flags and configs that fit, links and files exist."""

import ast
import os
import re
import shlex

import pytest

import child
import guides
from jaxtrain import commands, config as config_lib, predict
from jaxtrain.experiments.causal_discovery import __main__ as discovery
from jaxtrain.experiments.tabular_vae import __main__ as lithology
from jaxtrain.report import __main__ as report
from jaxtrain.sweep import __main__ as sweep
from runs import QUIET

README = "README.md"
FLAGS = {"jaxtrain.predict": predict.make_flags, "jaxtrain.sweep": sweep.make_flags,
         "jaxtrain.report": report.make_flags, "jaxtrain.experiments.causal_discovery": discovery.make_flags,
         "jaxtrain.experiments.tabular_vae": lithology.make_flags}


def test_the_front_page_is_short():
  assert len(guides.read(README).splitlines()) < 200


@pytest.mark.parametrize("page", guides.PAGES)
def test_links_lead_somewhere(page):
  folder = (guides.ROOT / page).parent
  targets = re.findall(r"\]\(([^)#]+)[^)]*\)", guides.read(page))
  missing = [target for target in targets if "://" not in target and not (folder / target).exists()]
  assert not missing


@pytest.mark.parametrize("page", guides.PAGES)
def test_files_that_are_named_exist(page):
  """Scripts and tests of the repository, by their path from its root."""
  path = r"(?<![\w/.])((?:tests|launch|jaxtrain|configs)/[\w./]*\w\.(?:py|sh|sub|txt|md))"
  named = re.findall(path, guides.read(page))
  assert not [path for path in named if not (guides.ROOT / path).exists()]


def all_lines() -> list:
  return [pytest.param(line, id=f"{page.removesuffix('/README.md')}-{k}") for page in guides.PAGES
          for k, line in enumerate(guides.command_lines(page))]


@pytest.mark.parametrize("line", all_lines())
def test_each_command_has_flags_and_fields_that_exist(line, tmp_path):
  """Parsed as the command does; a config that is named is read with the fields that are set."""
  words = shlex.split(line.split(" && ")[-1])
  module, flags = words[2], [word for word in words[3:] if word != "..."]
  if module == "jaxtrain":
    return
  if module != "jaxtrain.main":
    given = commands.parse(FLAGS[module](), [module, *flags], "", takes_arguments=module == "jaxtrain.report")
    own = [flag for flag in flags if flag.startswith("--config")]
    if module not in ("jaxtrain.sweep", "jaxtrain.experiments.causal_discovery") or not own:
      assert not given.fields
      return
    flags = own
  if not any(flag.startswith("--config=") for flag in flags):
    commands.parse(guides.main.make_flags(), ["main", *flags], "")
  elif not any(name in line for page in guides.PAGES for name in guides.modules(page)):
    assert isinstance(guides.config_of(flags), config_lib.fields.ConfigDict)


def test_an_experiment_of_ones_own(tmp_path):
  environ = guides.write_modules(README, tmp_path)
  done = child.run(f"--config={tmp_path / 'ten_lines.py'}", f"--workdir={tmp_path / 'run'}",
                   "--config.log.figures=none", environ=environ)
  assert done.returncode == 0, done.stderr
  assert '"error"' in (tmp_path / "run" / "history.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", guides.PAGES)
def test_the_shown_functions_are_short(page):
  """Ten lines each; the experiment's own functions together with its config stay under thirty."""
  for name, text in guides.modules(page).items():
    for node in ast.parse(text).body:
      if isinstance(node, ast.FunctionDef):
        assert node.end_lineno - node.lineno < 10, (name, node.name)


def test_commands_of_the_modes_section_run_in_order(tmp_path):
  for line in guides.blocks(guides.section(README, "## Modes, stops and exit codes"))[0].strip().splitlines():
    flags = [flag.replace("runs/", f"{tmp_path}/") for flag in shlex.split(line.split("#")[0])[3:]]
    done = child.run(*flags, *["--config.log.figures=none"] * any(f.startswith("--config=") for f in flags))
    assert done.returncode == 0, (line, done.stderr)


def snippets() -> list:
  """Blocks of Python that are no modules, as they are (slow) and at a small size."""
  blocks = lambda page: enumerate(guides.blocks(guides.read(page), "python"))
  found = [(page, k, block) for page in guides.PAGES for k, block in blocks(page)
           if not re.match(r"# \S+\.py\n", block)]
  plain = lambda block: re.sub(r'(train\("[^"]*:smoke", "[^"]*")\)', r'\1, **{"log.figures": "none"})', block)
  small = lambda block: re.sub(r'"train.num_epochs": \d+', '"train.num_epochs": 1, "log.figures": "none"', plain(block))
  cases = [pytest.param(small(block), id=f"{page.removesuffix('/README.md')}-{k}") for page, k, block in found]
  return cases + [pytest.param(block, id=f"{page.removesuffix('/README.md')}-{k}-whole", marks=pytest.mark.slow)
                  for page, k, block in found if small(block) != block]


@pytest.mark.parametrize("block", snippets())
def test_each_block_of_python_runs(block, shared, tmp_path, monkeypatch):
  """In a folder with the configs and a run runs/a."""
  os.mkdir(tmp_path / "runs")
  os.symlink(guides.ROOT / "configs", tmp_path / "configs")
  if "runs/a/" in block or '"runs/a"' in block:
    flags = ("--config=configs/vae.py:breast_cancer", "--config.train.num_epochs=2", *QUIET)
    os.symlink(shared.run(*flags), tmp_path / "runs" / "a")
  monkeypatch.chdir(tmp_path)
  found = {}
  exec(block, found)
  if "events.jsonl" in block:
    assert len(found["rows"]) == 5 and list(found["events"].moment)[0] == "on_start"
