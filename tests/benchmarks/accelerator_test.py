"""The benchmark for accelerators: what it writes whatever fails, and that it runs whole, tiny, on a CPU."""

import json
import os
import signal
import subprocess
import sys
import time

import accelerator
import accelerator_plan
import child
import flops
import pytest

from jaxtrain import config as config_lib
from jaxtrain.run import setup

SCRIPT = os.path.join(child.ROOT, "tests", "benchmarks", "accelerator.py")
PARTS = ("step avici*", "step vae*", "step [bceps]*", "members*,digests", "device,attention*,generator*")
BLOCKED = ("grain", "tensorflow_datasets", "tensorflow", "sklearn", "matplotlib", "numpyro", "tqdm", "h5py", "pandas",
           "torch")

# A worker without a device: it answers with its process, fails, ends or hangs.
WORKER = """
import json, os, sys, time
for line in sys.stdin:
  asked = json.loads(line)
  if asked["function"] == "dies":
    print("no such device", file=sys.stderr)
    os._exit(9)
  time.sleep(60 if asked["function"] == "hangs" else 0)
  answer = {"error": "out of memory"} if asked["function"] == "fails" else {
    "result": {"device": "none", "pid": os.getpid(), **asked["arguments"]}}
  print(json.dumps(answer), flush=True)
"""


def one(name: str, function: str = "works", seconds: float = 0.0, **more) -> accelerator_plan.Measurement:
  """A measurement of `WORKER`."""
  return accelerator_plan.Measurement(name, function, {"value": name}, seconds, **more)


@pytest.fixture
def session(tmp_path, monkeypatch):
  monkeypatch.setattr(accelerator, "LONGEST_START", 5.0)
  made = accelerator.Session([sys.executable, "-c", WORKER], str(tmp_path / "out.jsonl"), 60.0, dict(os.environ),
                             3.0)
  yield made
  made.close()


def records(path) -> dict[str, dict]:
  """Records of a file by name; every line is whole."""
  with open(path, encoding="utf-8") as file:
    text = file.read()
  assert text.endswith("\n")
  return {record["name"]: record for record in map(json.loads, text.splitlines())}


def test_a_measurement_that_fails_does_not_end_the_rest(session):
  for name, function in (("a", "works"), ("b", "fails"), ("c", "works"), ("d", "dies"), ("e", "works")):
    session.measure(one(name, function))
  found = records(session.path)
  assert list(found) == ["a", "b", "c", "d", "e"]
  assert found["b"]["error"] == "out of memory"
  assert found["d"]["error"] == "the process ended with 9: no such device"
  a, c, e = (found[name]["result"] for name in "ace")
  assert (a["value"], c["value"], e["value"]) == ("a", "c", "e")
  assert a["pid"] == c["pid"] != e["pid"]  # a failure costs no new process, an end does


def test_a_measurement_that_hangs_is_ended(session, monkeypatch):
  monkeypatch.setattr(accelerator, "LONGEST_START", 0.5)
  session.measure(one("a", "hangs", seconds=0.1))
  session.measure(one("b", seconds=5.0))
  found = records(session.path)
  assert found["a"]["error"] == "took longer than 1 s"  # three times 0.1 s and the start
  assert found["b"]["result"]["value"] == "b"


def test_processes_of_their_own(session):
  session.measure(one("a"))
  session.measure(one("b", processes={"first": {"k": 1}, "second": {"k": 2}}))
  session.measure(one("c", processes={"only": {"k": 3}}))
  session.measure(one("d", "dies", processes={"first": {}, "second": {}}))
  found = records(session.path)
  first, second = (found["b"]["result"][label] for label in ("first", "second"))
  assert (first["k"], second["k"], found["c"]["result"]["k"]) == (1, 2, 3)
  assert len({first["pid"], second["pid"], found["a"]["result"]["pid"], found["c"]["result"]["pid"]}) == 4
  assert found["d"]["error"] == "first: the process ended with 9: no such device"


def test_what_does_not_fit_the_budget_is_skipped(session):
  session.measure(one("a", seconds=100.0))
  session.measure(one("b"))
  found = records(session.path)
  assert found["a"]["skipped"] == "estimated 100 s, 60 s left"
  assert "result" in found["b"]


def test_goes_on_with_what_has_no_result(session, tmp_path):
  for name, function in (("a", "works"), ("b", "fails")):
    session.measure(one(name, function))
  with open(session.path, "a", encoding="utf-8") as file:
    file.write('{"name": "c", "resu')  # the machine failed
  again = accelerator.Session(session.command, session.path, 60.0, session.environ, 3.0)
  try:
    for name in ("a", "b", "c"):
      again.measure(one(name))
  finally:
    again.close()
  with open(session.path, encoding="utf-8") as file:
    lines = [json.loads(line) for line in file]
  assert [(line["name"], "result" in line) for line in lines] == [("a", True), ("b", False), ("b", True), ("c", True)]


CUT_SHORT = """
import sys, accelerator, accelerator_plan
session = accelerator.Session([sys.executable, "-c", sys.argv[1]], sys.argv[2], 60.0, {}, 3.0)
for k in range(10 ** 6):
  session.measure(accelerator_plan.Measurement(f"m{k}", "works", {"long": "x" * 5000}, 0.0))
"""


def test_what_is_cut_short_has_left_whole_lines(tmp_path):
  path = tmp_path / "out.jsonl"
  environ = os.environ | {"PYTHONPATH": os.path.dirname(SCRIPT)}
  process = subprocess.Popen([sys.executable, "-c", CUT_SHORT, WORKER, str(path)], env=environ,
                             stdout=subprocess.DEVNULL)
  deadline = time.monotonic() + 60
  while time.monotonic() < deadline and not (path.exists() and path.stat().st_size > 20_000):
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.wait()
  found = accelerator.read(str(path))  # without the line that the kill may have cut
  assert len(found) >= 4 and all(record["result"]["long"] == "x" * 5000 for record in found)


def test_what_follows_from_several():
  before = {"device": {"bfloat16_tflops_per_s": 500.0, "float32_tflops_per_s": 400.0, "copy_gb_per_s": 3000.0},
            "step avici": {"step_ms": 10.0}}
  step = {"device": "NVIDIA H200", "precision": "bfloat16", "step_ms": 25.0, "tflops_per_s": 98.9}
  found = accelerator.complete("step avici canonical", dict(step), before)
  assert (found["utilisation"], found["of_product"]) == pytest.approx((0.1, 0.1978))
  assert (found["against"], found["times_as_long"]) == ("step avici", 2.5)
  found = accelerator.complete("step avici float32", step | {"precision": "float32"}, before)
  assert found["utilisation"] == pytest.approx(98.9 / 494)
  assert accelerator.complete("x", dict(step), {}, peak_tflops=200.0)["utilisation"] == pytest.approx(0.4945)
  assert "utilisation" not in accelerator.complete("x", step | {"device": "cpu"}, {})
  found = accelerator.complete("x", {"device": "NVIDIA H200", "gb_per_s": 1200.0}, before)
  assert (found["of_peak_bandwidth"], found["of_copy"]) == pytest.approx((0.25, 0.4))


def test_digests_are_compared():
  run = lambda *digests: {"digests": {"vae": list(digests)}}
  runs = {"plain 1": run("a", "b"), "plain 2": run("a", "a"), "deterministic 1": run("c", "c"),
          "deterministic 2": run("d", "d")}
  found = accelerator.complete("digests", runs, {})
  assert found["plain equal"] == {"vae": {"in_one_process": False, "in_two_processes": True}}
  assert found["deterministic equal"] == {"vae": {"in_one_process": True, "in_two_processes": False}}


def test_plan():
  full, toy = accelerator_plan.measurements(False), accelerator_plan.measurements(True)
  names = [measured.name for measured in full]
  assert len(set(names)) == len(names) and [measured.name for measured in toy] == names
  for name, against in accelerator_plan.AGAINST.items():
    assert names.index(against) < names.index(name)
  for name in names:
    assert sum(accelerator.is_chosen(name, only) for only in PARTS) == 1
  assert all(json.loads(json.dumps(measured.arguments)) == measured.arguments for measured in full + toy)


def shapes_of(config):
  """Abstract parameters of a config."""
  return setup.assemble(config_lib.resolve(config)).abstract.params


def test_operations_of_a_table_step():
  config = config_lib.read_file(os.path.join(child.ROOT, "configs", "vae.py:smoke"))
  features, latent = 6, config.model.latent_dim
  widths = [(features, 64), (64, 32), (32, 2 * latent), (latent, 32), (32, 64), (64, features)]
  expected = 6 * 256 * sum(d * f for d, f in widths)
  assert flops.of_step(config, shapes_of(config)) == expected


@pytest.mark.slow
def test_operations_of_a_tasks_step():
  config = config_lib.read_file(os.path.join(child.ROOT, "configs", "causal_discovery.py:smoke"))
  config.train.monitor = "train_loss"
  tasks, nodes, rows, dim, inner, hidden = 16, 6, 24, 16, 2 * 8, 32
  tokens = tasks * nodes * rows
  block = 2 * tokens * (3 * dim * inner + inner * dim + 2 * dim * hidden)
  attended = 2 * 2 * inner * tokens * (nodes + rows)  # scores and means: one block over variables, one over samples
  ends = 2 * tokens * 2 * dim + 2 * tasks * nodes * 2 * dim * dim  # embedding; causes and effects
  assert flops.of_step(config, shapes_of(config)) == 3 * (2 * block + attended + ends)
  config.experiment = "somewhere.else"
  assert flops.of_step(config, {}) is None


def test_operations_of_a_joint_step():
  """p(y | x) and p(y | x, z) once, p(z | x, y) and p(x | y, z) for each of two classes; x and z are one number each."""
  config = config_lib.read_file(os.path.join(child.ROOT, "configs", "causal_consistency.py:smoke"))
  hidden = lambda inputs, outputs: inputs * 32 + 32 * 32 + 32 * outputs
  expected = 6 * 64 * (hidden(1, 2) + hidden(2, 2) + 2 * hidden(1, 2) + 2 * hidden(1, 2))
  assert flops.of_step(config, shapes_of(config)) == expected


def test_operations_of_an_event_step():
  """MLPs of 18 slots, of the event, and of its globals given a latent of 8; 19 latents and 32 codes."""
  config = config_lib.read_file(os.path.join(child.ROOT, "configs", "autoencoder.py:smoke"))
  slots = (5 + 8) * 32 + 32 * 8 + 8 * 32 + 32 * (5 + 7 + 1)
  event = (3 + 8) * 32 + 32 * 8 + 8 * 32 + 8 * 32 + 32 * 3
  assert flops.of_step(config, shapes_of(config)) == 64 * (6 * (18 * slots + event) + 2 * 19 * 32 * 8)


def run_toy(folder, only: str) -> tuple[dict[str, dict], str]:
  """(records, what was printed) of the command at toy size, where optional libraries cannot be imported."""
  blocked = folder / "blocked"
  blocked.mkdir()
  for name in BLOCKED:
    (blocked / f"{name}.py").write_text(f"raise ImportError('{name} is not to be needed')\n", encoding="utf-8")
  path = folder / "toy.jsonl"
  environ = os.environ | {"PYTHONPATH": str(blocked), "JAX_PLATFORMS": "cpu"}
  done = subprocess.run([sys.executable, SCRIPT, "--toy", f"--output={path}", f"--only={only}", "--seconds=1200",
                         "--patience=50"], env=environ, capture_output=True, text=True, timeout=1500)
  assert done.returncode == 0, done.stderr
  return records(path), done.stdout


@pytest.mark.slow
def test_command(tmp_path):
  found, printed = run_toy(tmp_path, "device,step avici fused attention,step vae")
  assert list(found) == ["about", "device", "step vae", "step avici fused attention"]
  assert "error" in found["step avici fused attention"]  # a CPU has none
  step = found["step vae"]["result"]
  assert step["steps_per_s"] == pytest.approx(1e3 / step["step_ms"])
  assert 0 < step["data_share"] < 1 and step["compile_s"] > 0 and step["temporary_mib"] > 0
  assert step["of_product"] == pytest.approx(step["tflops_per_s"] / found["device"]["result"]["float32_tflops_per_s"])
  assert "\nmeasurement " in printed and "\nstep vae " in printed


@pytest.mark.slow
@pytest.mark.parametrize("only", PARTS)
def test_all_measurements(tmp_path, only):
  found, _ = run_toy(tmp_path, only)
  failed = {name: record for name, record in found.items() if "result" not in record}
  assert set(failed) <= {"attention cudnn bfloat16", "step avici fused attention"}, failed  # no CPU has these
  for name, against in accelerator_plan.AGAINST.items():
    assert name not in found or name in failed or found[name]["result"]["against"] == against
  if "digests" in found:
    digests = found["digests"]["result"]
    for kind in ("plain equal", "deterministic equal"):
      assert all(equal == {"in_one_process": True, "in_two_processes": True} for equal in digests[kind].values())
    assert "deterministic_ops" in digests["deterministic 1"]["xla_flags"]
    assert digests["plain 1"]["xla_flags"] == ""
    assert found["members 512"]["result"]["members"] == 2 and found["members 1"]["result"]["members"] == 1
  if "generator in chunks of 8" in found:
    assert found["generator in chunks of 256"]["result"]["gb_per_s"] > 0
    assert "gb_per_s" not in found["generator in chunks of 8"]["result"]  # XLA counts one chunk of several
