"""The adapter of other packages' methods, and the verdicts of the paper's table; no package is needed."""

import itertools

import numpy as np
import pytest

import bench
import discovery_methods as methods
import discovery_paper as paper


def is_acyclic(graph):
  """Whether no power of a graph has a trace."""
  return all(np.trace(np.linalg.matrix_power(graph, k)) == 0 for k in range(1, len(graph) + 1))


def colliders(graph):
  """Triples a -> c <- b whose ends are not joined."""
  joined, D = graph + graph.T, len(graph)
  return {(a, c, b) for c in range(D) for a in range(D) for b in range(a) if graph[a, c] and graph[b, c]
          and not joined[a, b]}


def class_of(graph):
  """(marks, members) of the equivalence class of a graph: an edge is open where members differ on it."""
  D = len(graph)
  edges = np.argwhere(graph)
  found = []
  for flips in itertools.product((False, True), repeat=len(edges)):
    other = np.zeros((D, D))
    for (i, j), flip in zip(edges, flips):
      other[(j, i) if flip else (i, j)] = 1
    if is_acyclic(other) and colliders(other) == colliders(graph):
      found.append(other)
  mean = np.mean(found, 0)
  return np.where((mean > 0) & (mean < 1), methods.OPEN, mean), found


def test_marks_of_endpoints():
  """0 -> 1, 1 - 2, 2 <-> 3, as causal-learn writes them."""
  ends = np.zeros((4, 4))
  ends[0, 1], ends[1, 0], ends[1, 2], ends[2, 1], ends[2, 3], ends[3, 2] = -1, 1, -1, -1, 1, 1
  marks = methods.of_endpoints(ends)
  assert marks[0, 1] == 1 and marks[1, 0] == 0 and marks[1, 2] == marks[2, 1] == marks[2, 3] == marks[3, 2] == 0.5
  assert marks.sum() == 3


@pytest.mark.parametrize("seed", range(12))
def test_an_extension_is_a_graph_of_the_class_by_brute_force(seed):
  random = np.random.RandomState(seed)
  order = random.permutation(5)
  graph = (np.triu(random.rand(5, 5) < 0.5, 1)[order][:, order]).astype(float)
  marks, members = class_of(graph)
  seen = {methods.extend(marks, np.random.default_rng(k)).tobytes() for k in range(40)}
  assert seen <= {member.tobytes() for member in members}
  assert len(seen) > 1 or len(members) == 1


def test_what_has_no_extension_is_tossed():
  """An open square of four variables: any direction makes a collider or a cycle."""
  marks = np.zeros((4, 4))
  for i in range(4):
    marks[i, (i + 1) % 4] = marks[(i + 1) % 4, i] = methods.OPEN
  graph = methods.extend(marks, np.random.default_rng(0))
  assert graph.sum() == 4 and ((graph + graph.T) == (marks > 0)).all()


def test_probabilities_are_means_of_marks_over_resamples():
  """A method that fails on some resamples, whose first mark is open."""
  calls = []
  def method(rows):
    calls.append(rows)
    if len(calls) % 2:
      raise np.linalg.LinAlgError("singular")
    marks = np.zeros((3, 3))
    marks[0, 1], marks[1, 2], marks[2, 1] = 1, methods.OPEN, methods.OPEN
    return marks
  x = np.random.RandomState(0).normal(size=(50, 3))
  probs, graphs = methods.bootstrapped(method, x, 10, seed=3)
  assert probs[0, 1] == 0.5 and probs[1, 2] == probs[2, 1] == 0.25 and graphs.shape == (10, 3, 3)
  assert graphs[:, 0, 1].sum() == 5 and (graphs[1::2].sum((1, 2)) == 2).all()
  assert len({rows.tobytes() for rows in calls}) == 10 and all(len(rows) == 50 for rows in calls)


def test_verdicts_take_both_intervals():
  assert paper.verdict(0.90, 0.01, 0.84, 0.02, "higher") == 1  # .06 against sqrt(.01^2 + .0392^2) = .0405
  assert paper.verdict(0.88, 0.01, 0.84, 0.02, "higher") == 0
  assert paper.verdict(30.0, 1.0, 22.0, 2.0, "lower") == -1
  assert paper.verdict(22.0, 1.0, 30.0, 2.0, "lower") == 1


def test_the_table_has_every_cell_and_the_empty_graph():
  values = {"auroc": 0.8, "e_shd": 25.0, "e_edge_f1": 0.3, "graph_log_prob_nats": -60.0}
  scalars = {f"{name}{end}/paper_{cell}": value if not end else 0.01 for name, value in values.items()
             for end in ("", "_ci95") for cell in paper.PUBLISHED}
  cells = {name: paper.cell(name, scalars) for name in paper.PUBLISHED}
  assert cells["gp_er40"]["empty"]["e_shd"] == 40 and cells["gp_er40"]["log_prob"]["of"] == "graph_log_prob_nats"
  assert cells["linear_er20"]["auroc"]["verdict_bcnp_all_data"] == -1
  assert len(paper.lines(cells)) == 11
  mean = paper.mean_of(cells)["auroc"]
  assert mean["bcnp_all_data"] == pytest.approx(0.842, abs=5e-4) and "half" not in mean


@pytest.fixture
def comparators(monkeypatch):
  """The benchmark's module, which sets the number of threads for its process."""
  for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    monkeypatch.setenv(name, "1")
  import discovery_comparators
  return discovery_comparators


def test_answers_are_kept_for_what_they_are_about_alone(tmp_path):
  given, folder = {"run": "a", "data": "b", "resamples": 10}, str(tmp_path / "id")
  bench.check_given(folder, given)
  bench.check_given(folder, given)  # as after a stop
  with pytest.raises(SystemExit, match="holds answers with another run, resamples; choose another folder"):
    bench.check_given(folder, given | {"run": "c", "resamples": 20})
  (tmp_path / "id" / "given.json").unlink()
  (tmp_path / "id" / "pc").mkdir()
  with pytest.raises(SystemExit, match="no given.json"):
    bench.check_given(folder, given)


def test_tasks_of_several_sizes_are_judged_in_their_order(monkeypatch, comparators):
  monkeypatch.setattr(comparators.metrics, "of_tasks", lambda truth, probs, graphs, mask: {
      "e_shd": truth.sum((1, 2)), "size": mask.sum(1) + 0 * probs.sum((1, 2)) + 0 * graphs.sum((1, 2, 3))})
  sizes = [3, 5, 3, 4, 5]
  tasks = [{"adjacency": np.triu(np.full((d, d), k), 1)} for k, d in enumerate(sizes)]
  found = [{"probs": np.zeros((d, d)), "graphs": np.zeros((10, d, d))} for d in sizes]
  judged = comparators.judge(tasks, found)
  np.testing.assert_array_equal(judged["size"], sizes)
  np.testing.assert_array_equal(judged["e_shd"], [k * d * (d - 1) / 2 for k, d in enumerate(sizes)])


def test_what_answers_are_about_names_run_tasks_and_family(comparators):
  config = comparators.config_lib.resolve(comparators.config_lib.read_file("configs/causal_discovery.py:smoke"))
  of = lambda config: comparators.given_of(config, "abc", "chaos", 3)
  found, seed = of(config), of(comparators.config_lib.with_values(config, {"data.eval_seed": 1}))
  assert list(found) == ["id", "ood_logistic_map", "ref_gp"] and found["id"]["run"] == "abc"
  assert found["ref_gp"]["family"].startswith("ref_gp graphs=er") and found["id"]["data"] != seed["id"]["data"]
