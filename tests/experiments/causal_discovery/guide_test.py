"""The guide of causal discovery: its commands, its families, and every right-hand side of its table."""

import re
import shlex

import pytest

import child
import guides
import runs
from jaxtrain.experiments.causal_discovery import baselines, metrics, named, suites, threshold, training

ROWS = guides.rows(guides.CAUSAL, "| causal-meta's command | here |")
FEW_TASKS = {"data.num_nodes": "5,", "data.num_rows": 12, "data.task_chunk": 2, "train.batch_size": 4,
             "eval.max_val_tasks": 2, "eval.max_test_tasks": 0, "eval.test_num_samples": 4, "train.num_steps": 2,
             "log.figures": "none", "optim.warmup_steps": 1, "train.microbatch": 0}
TINY_NETS = {"avici": {"model.num_blocks": 2, "model.key_size": 4},
             "bcnp": {"model.num_layers": 2, "model.num_layers_decoder": 2, "model.n_perm_samples": 3,
                      "model.sinkhorn_iter": 3}}


def few_tasks(flags: list[str]) -> list[str]:
  """The flags with a size of seconds for what they do not set themselves; graphs that so few variables can have."""
  variant = [flag for flag in flags if flag.startswith("--config=")][0].partition(":")[2]
  kind = "avici" if variant in ("avici", "benchmark") else "random" if variant == "random" else "bcnp"
  values = FEW_TASKS | ({} if kind == "random" else {"model.dim": 8, "model.num_heads": 2, "model.ff_dim": 8} |
                        TINY_NETS[kind])
  if kind == "random":
    values.pop("train.num_steps")
  if variant == "paper_all_data":
    values["data.graphs"] = "er num_edges=2,sf m=2"
  given = {flag.split("=")[0] for flag in flags}
  more = [f"--config.{key}={value}" for key, value in values.items() if f"--config.{key}" not in given]
  return [flag.replace("num_steps=20000", "num_steps=2") for flag in flags] + more


def test_every_metric_stands_in_the_guide_with_its_direction():
  """Each name that is assessed, once, in the table of metrics; and each baseline in the table of baselines."""
  table, others = (guides.read(guides.CAUSAL).split(header)[1].split("\n\n")[0]
                   for header in ("| metric | formula | better |", "| baseline | what it does |"))
  described = training.METRICS
  told = {}
  for line in table.splitlines()[2:]:
    names, better = re.findall(r"`(\w+)`", line.split("|")[1]), line.rstrip(" |").split("|")[-1].strip()
    told |= dict(zip(names, better.split(", ") if ", " in better else [better] * len(names)))
  densities = {"edge_prob", "edge_density", "sampled_density"}
  own = {"joint_log_prob_nats", "inil_nats", "inil_node_nats", "ece_pooled", *threshold.METRICS}
  assert set(told) == (set(metrics.DESCRIBED) | own) - densities
  for name, better in told.items():
    if better in ("higher", "lower"):
      assert described[name].direction == better, name
  assert re.findall(r"^\| `(\w+)` \|", others, re.MULTILINE) == list(baselines.NAMES)


@pytest.mark.parametrize("original, ours", ROWS, ids=[row[0][:40] for row in ROWS])
def test_each_causal_command_is_a_config_that_fits(original, ours):
  module = guides.config_of(shlex.split(ours)).experiment
  assert module.startswith("jaxtrain.experiments.causal_discovery.")
  assert guides.config_of(few_tasks(shlex.split(ours))).experiment == module


@pytest.mark.slow
@pytest.mark.parametrize("original, ours", ROWS, ids=[row[0][:40] for row in ROWS])
def test_causal_command_and_ours(original, ours, tmp_path):
  done = child.run(*few_tasks(shlex.split(ours)), f"--workdir={tmp_path / 'run'}", timeout=400)
  assert done.returncode == 0, done.stderr


def test_families_and_suites_of_the_guide_are_there():
  block, = [block for block in guides.blocks(guides.read(guides.CAUSAL)) if "data.test_families" in block]
  config = guides.config_of(["--config=configs/causal_discovery.py:avici", *shlex.split(block)])
  assert [family.name for family in named.of_config(config, "val")] == ["heavy"]
  names = [family.name for family in named.of_config(config, "test")]
  assert len(names) == 12 and names[-2:] == ["blocks", "cells"]
  table = guides.read(guides.CAUSAL).split("| `eval.suite` | families |")[1].split("\n\n")[0]
  told = re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in table.splitlines()[2:]))
  assert told == [suite for suite in suites.SUITES if suite]
  assert f"{len(suites.lines('causal_benchmark'))} families: graphs by mechanisms" in table


@pytest.mark.slow
def test_commands_and_families_of_the_causal_section_run(tmp_path):
  """The three commands, checked at full size or run small; then the lines of families together."""
  section = guides.read(guides.CAUSAL)
  commands, families = (block.strip().splitlines() for block in section.split("```")[1:4:2])
  for k, line in enumerate(commands):
    flags = shlex.split(line.split("#")[0])[3:]
    if "--mode=check" not in flags:
      flags = few_tasks([flag if ":" in flag else flag + ":avici" for flag in flags])
      flags.append(f"--workdir={tmp_path / str(k)}")
    done = child.run(*flags, timeout=400)
    assert done.returncode == 0, (line, done.stderr)
    assert ("signal linear" in done.stdout) == ("--mode=check" in flags)
  flags = [word for line in families for word in shlex.split(line.split("#")[0])]
  done = child.run("--config=configs/causal_discovery.py:smoke", "--mode=check", *flags, timeout=400)
  assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_predict_commands_of_the_causal_section_run(tmp_path, shared):
  shared.copy(tmp_path / "runs" / "c", *runs.smoke("causal_discovery"))
  (tmp_path / "measured.csv").write_text("a,b,c\n" + "".join(f"{i % 7},{i % 5},{(3 * i) % 11}\n" for i in range(40)),
                                         encoding="utf-8")
  guides.run_lines(guides.read(guides.CAUSAL).split("```")[5], tmp_path)
  assert len((tmp_path / "edges.csv").read_text(encoding="utf-8").splitlines()) == 7
  assert len((tmp_path / "graphs.csv").read_text(encoding="utf-8").splitlines()) == 1001
