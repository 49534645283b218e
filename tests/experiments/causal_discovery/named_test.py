"""Named families of tasks: lines, what is wrong with them, sources that follow each other; and the suites."""

import numpy as np
import pytest

from jaxtrain import config as config_lib
from jaxtrain.errors import UserError
from jaxtrain.experiments.causal_discovery import (corruptions, families, graphs, mechanisms, named, noises,
                                                    suites, tasks, training)

CONFIG = "configs/causal_discovery.py:smoke"


def config_with(**fields):
  """The smoke variant, which has 4 or 6 variables, with other fields; `__` stands for a dot."""
  config = config_lib.read_file(CONFIG)
  return config_lib.resolve(config_lib.with_values(config, {key.replace("__", "."): value
                                                            for key, value in fields.items()}))


def test_a_line_changes_what_it_says_and_nothing_else():
  config = config_with()
  line = ("ood graphs=sbm:n_blocks=2:p_intra=0.7+er"
          " mechanisms=square:weight=3+periodic noises=laplace noise_share=0.2:0.4 num_nodes=5:7 num_rows=9 "
          "num_rows_int=0 mixture=task corruptions=missing:share=0.1")
  found, training_spec = named.parse("data.test_families", line, config.data), tasks.make_spec(config.data)
  assert found.name == "ood" and found.num_nodes == (5, 7) and found.text == line
  assert [(g.name, g.weight) for g in found.spec.graphs] == [("sbm", 0.5), ("er", 0.5)]
  assert found.spec.graphs[0].params == graphs.KNOWN["sbm"] | {"n_blocks": 2, "p_intra": 0.7}
  assert [(m.name, m.weight) for m in found.spec.mechanisms] == [("square", 0.75), ("periodic", 0.25)]
  assert found.spec.corruptions[0].params == {"share": 0.1} and found.spec.noise_share == (0.2, 0.4)
  assert (found.spec.num_rows, found.spec.num_rows_int, found.spec.mixture) == (9, 0, "task")
  alone = named.parse("data.test_families", "same", config.data)
  assert alone.spec == training_spec and alone.num_nodes == tuple(config.data.num_nodes)


@pytest.mark.parametrize("line, words", [
    ("", "got '' in '', allowed a name of letters"), ("a-b", "got 'a-b'"), ("id", "that is not 'id'"),
    ("a graph=er", "got 'graph=er' in 'a graph=er', allowed FIELD=VALUE of graphs, mechanisms"),
    ("a graphs", "got 'graphs' in"), ("a num_rows=x", "got 'num_rows=x'"), ("a num_rows=3:4", "got 'num_rows=3:4'"),
    ("a noise_share=0.5", "got 'noise_share=0.5'"), ("a noise_share=0.5:0.2", "got noise_share=(0.5, 0.2)"),
    ("a num_nodes=1", "got num_nodes=(1,)"), ("a num_rows=1", "got num_rows=1"), ("a mixture=both", "mixture=both"),
    ("a graphs=er:edge_prob=2", "in 'a graphs=er:edge_prob=2': data.graphs: got edge_prob=2.0"),
    ("a mechanisms=cubic", "data.mechanisms: got 'cubic', allowed linear"),
    ("a corruptions=rounded:steps=2", "data.corruptions: got 'steps=2'"),
    ("a graphs=sf:m=9 num_nodes=5", "data.graphs: got m=9")])
def test_lines_that_are_refused(line, words):
  with pytest.raises(UserError, match="config.data.test_families: ") as caught:
    named.parse("data.test_families", line, config_with().data)
  assert words in caught.value.message and "\n" not in caught.value.message


def test_families_of_a_config_are_those_of_its_suite_and_its_own():
  config = config_with(eval__suite="chaos", data__test_families=("mine noises=laplace",),
                       data__val_families=("other num_nodes=5",))
  assert [family.name for family in named.of_config(config, "test")] == ["ood_logistic_map", "ref_gp", "mine"]
  assert [family.name for family in named.of_config(config, "val")] == ["other"]
  twice = config_with(eval__suite="chaos", data__test_families=("ref_gp noises=laplace",))
  with pytest.raises(UserError, match="got the name 'ref_gp' twice"):
    named.of_config(twice, "test")
  with pytest.raises(UserError, match="config.eval.suite: got 'audit', allowed empty or competence | full_audit"):
    config_with(eval__suite="audit")


def test_sources_follow_each_other():
  config = config_with(eval__max_val_tasks=20, train__batch_size=8, data__val_families=(
      "a num_nodes=4", "b num_nodes=5:6 noises=laplace", "c num_nodes=4 mechanisms=square"))
  loaded = training.load(config)
  assert loaded.val.num_rows == 60 and loaded.meta["edge_probs"].keys() == {"4", "5", "6"}
  assert loaded.val.num_batches == 3 + 2 * 2 + 3
  assert [loaded.val.bucket(step) for step in range(10)] == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]
  counts = [loaded.val.data["counts"][step].sum() for step in range(10)]
  assert counts == [8, 8, 4, 8, 2, 8, 2, 8, 8, 4]
  alone = named.source(named.of_config(config, "val")[1], config, "val")
  np.testing.assert_array_equal(loaded.val.data["numbers"][3:7], alone.data["numbers"])
  assert named.join([alone]).num_rows == 20 and len(loaded.val.buckets) == 4


def test_the_suites_are_those_of_the_originals():
  names = {suite: [line.split()[0] for line in suites.lines(suite)] for suite in suites.SUITES}
  assert names["full_audit"] == ["ood_square", "ood_periodic", "ood_logistic_map", "ood_pnl_cube", "ood_pnl_sigmoid",
                                 "ood_pnl_tanh", "ood_sbm_strong", "ood_sbm_weak", "ref_linear", "ref_gp"]
  assert names["functional"] == ["ood_square", "ood_periodic", "ref_linear"]
  assert names["structural"] == ["ood_sbm_strong", "ood_sbm_weak", "ref_er"]
  assert names["pnl"] == [f"ood_pnl_{name}" for name in ("cube", "sigmoid", "tanh")]
  assert names["chaos"] == ["ood_logistic_map", "ref_gp"] and names["competence"] == ["id_test"]
  count = lambda prefix: sum(name.startswith(prefix) for name in names["causal_benchmark"])
  assert [count(prefix) for prefix in ("id_", "ood_mech_", "ood_graph_", "ood_both_")] == [18, 24, 9, 12]
  assert count("ctrl_") == 9 and 120 <= len(names["causal_benchmark"]) <= 150 and len(names["paper"]) == 9
  for suite, found in names.items():
    assert len(set(found)) == len(found), suite


@pytest.mark.parametrize("suite", [suite for suite in suites.SUITES if suite])
def test_each_family_of_a_suite_writes_every_parameter_out(suite):
  """So that a default that changes shifts no suite; all but what a family takes from the run."""
  config = config_with(eval__suite=suite)
  known = {"graphs": graphs.KNOWN, "mechanisms": mechanisms.KNOWN, "noises": noises.NOISES,
           "corruptions": corruptions.KNOWN}
  modes = {"er": {"edges_per_node", "num_edges", "edge_prob"}}  # one of several ways
  for family, line in zip(named.of_config(config, "test"), suites.lines(suite)):
    fields = {word.partition("=")[0] for word in line.split()[1:]}
    assert {*known, "num_nodes", "noise_share", "mixture", "noise_mixture"} <= fields and family.text == line
    for field, possible in known.items():
      for one in getattr(family.spec, field):
        said = {word.partition("=")[0] for word in one.text.split()[1:]}
        assert possible[one.name].keys() - modes.get(one.name, set()) <= said, one.text


def test_runs_of_other_training_tasks_are_judged_by_the_same_suite():
  """The number of rows alone is the run's own."""
  other = config_with(eval__suite="causal_benchmark", data__noises=("laplace",), data__noise_share=(0.3, 0.4),
                      data__mixture="task", data__corruptions=("missing",), data__mechanisms=("square",))
  own = named.of_config(config_with(eval__suite="causal_benchmark"), "test")
  assert named.of_config(other, "test") == own
  base = next(family for family in own if family.name == "id_er40_linear")
  assert base.spec.noise_share == (0.1, 0.9) and base.spec.num_rows == 20


def test_the_paper_has_exact_edges_and_a_thousand_rows():
  for family in named.of_config(config_with(eval__suite="paper"), "test"):
    edges = int(family.name[-2:])
    assert graphs.expected_edges(family.spec.graphs[0], 20) == edges and family.spec.num_rows == 1000
    assert family.spec.mechanisms[0].name.startswith("bcnp_") and family.num_nodes == (20,)


def test_matched_densities_have_as_many_edges_as_what_they_match():
  """To 2 %, which is how exactly the probabilities are written."""
  edges = lambda words: graphs.expected_edges(
      families.parse("data.graphs", (words.replace(":", " "),), graphs.KNOWN)[0], 20)
  for name, words in suites.OTHER_GRAPHS.items():
    assert edges(f"er edge_prob={suites.MATCHED[name]}") == pytest.approx(edges(words), rel=0.02), name
