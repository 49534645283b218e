"""A built wheel is whole: in an empty folder, away from the checkout, it imports and writes the pages of a run."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

import made_runs
import pages

ROOT = pathlib.Path(__file__).resolve().parents[1]
PIP_SECONDS, PAGE_SECONDS = 300, 120
CODE = """
import json, sys
import jaxtrain
from jaxtrain.report import run_page, sweep_page
run_page.write_run(sys.argv[1], "end")
sweep_page.write(sys.argv[1:], "comparison.html")
print(json.dumps([module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "jaxtrain"]))
"""


def pip(*arguments) -> None:
  """Runs pip without network; its output is in the failure."""
  command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
  done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PIP_SECONDS)
  assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
  """Folder into which the wheel is installed; built from a copy, because building leaves files beside the source."""
  work = tmp_path_factory.mktemp("wheel")
  shutil.copytree(ROOT / "jaxtrain", work / "copy" / "jaxtrain", ignore=shutil.ignore_patterns("__pycache__"))
  for name in ("pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(ROOT / name, work / "copy")
  pip("wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", work, work / "copy")
  [wheel] = work.glob("*.whl")
  pip("install", "--no-index", "--no-deps", "--target", work / "site", wheel)
  return work / "site"


@pytest.mark.slow
def test_an_editable_install_is_a_path(tmp_path):
  """A finder would come after the path: beside a clone named jaxtrain, its folder would be an empty package."""
  clone = tmp_path / "jaxtrain"
  shutil.copytree(ROOT / "jaxtrain", clone / "jaxtrain", ignore=shutil.ignore_patterns("__pycache__", "pretrained"))
  for name in ("pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(ROOT / name, clone)
  pip("install", "--no-index", "--no-deps", "--no-build-isolation", "--target", tmp_path / "site", "-e", clone)
  [path] = (tmp_path / "site").glob("__editable__*")
  assert path.suffix == ".pth" and path.read_text(encoding="utf-8").strip() == str(clone)


@pytest.mark.slow
def test_wheel_holds_the_files_of_the_package(installed):
  files = {path.relative_to(ROOT) for path in (ROOT / "jaxtrain").rglob("*")
           if path.suffix in (".py", ".js") or "pretrained" in path.parts and path.is_file()}
  assert files <= {path.relative_to(installed) for path in installed.rglob("*")}
  assert any(path.suffix == ".js" for path in files)
  kept = [len(list(folder.iterdir())) for folder in installed.rglob("pretrained/checkpoints")]
  assert kept and set(kept) == {1}  # a kept model is one state
  assert not (installed / "tests").exists() and not (installed / "configs").exists()


@pytest.mark.slow
def test_wheel_writes_pages_in_an_empty_folder(installed, tmp_path):
  runs = [made_runs.make_run(tmp_path / name) for name in ("a", "b")]
  empty = tmp_path / "empty"
  empty.mkdir()
  environment = {"PATH": "", "PYTHONPATH": str(installed), "MPLCONFIGDIR": str(tmp_path / "matplotlib")}
  done = subprocess.run([sys.executable, "-W", "error", "-c", CODE, *runs], cwd=empty, env=environment,
                        capture_output=True, text=True, timeout=PAGE_SECONDS)
  assert done.returncode == 0, done.stderr
  files = [pathlib.Path(file) for file in json.loads(done.stdout.splitlines()[-1])]
  assert len(files) > 5 and all(file.is_relative_to(installed) for file in files)
  assert len(pages.Page(f"{runs[0]}/report.html").all("img", "src")) > 2
  script = (ROOT / "jaxtrain/report/plots.js").read_text(encoding="utf-8")
  assert script.strip() in pages.Page(empty / "comparison.html").source
