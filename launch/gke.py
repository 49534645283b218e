"""Fills launch/gke_jobset.yaml and hands it to kubectl; `--dry_run` prints it. Not run by the tests: no cluster was at
hand; they parse what it prints.

  python launch/gke.py --name=a --image=IMAGE --claim=runs [--topology=4x4] [--hosts=4] [--dry_run] -- \\
      --config=configs/vae.py --workdir=/data/a

The image holds the clone as its working folder, installed with the extra `tpu`. What follows -- goes to jaxtrain.main.
"""

import argparse
import json
import os
import re
import string
import subprocess
import sys

FIELDS = {"name": None, "image": None, "claim": None, "accelerator": "tpu-v5-lite-podslice", "topology": "4x4",
          "hosts": "4", "chips": "4", "restarts": "10"}


def render(settings: dict[str, str], flags: list[str]) -> str:
  """The YAML; flags as a JSON list, which is YAML too."""
  path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "gke_jobset.yaml")
  with open(path, encoding="utf-8") as file:
    text = "".join(line for line in file if not line.startswith("#"))
  return string.Template(text).substitute(settings | {"flags": json.dumps(flags)})


def main() -> int:
  """Reads flags; prints or applies."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
  parser.add_argument("--dry_run", action="store_true")
  for name, default in FIELDS.items():
    parser.add_argument(f"--{name}", default=default, required=default is None)
  cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
  settings, flags = vars(parser.parse_args(sys.argv[1:cut])), sys.argv[cut + 1:]
  dry_run = settings.pop("dry_run")
  for name, value in settings.items():
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*", value):
      parser.error(f"--{name}: got {value!r}, allowed letters, digits and . _ : / @ -")
  if not any(flag.startswith("--workdir=/") for flag in flags):
    parser.error("after -- the run's flags with --workdir=/data/... are required")
  text = render(settings, flags)
  if dry_run:
    print(text, end="")
    return 0
  return subprocess.run(["kubectl", "apply", "-f", "-"], input=text, text=True).returncode


if __name__ == "__main__":
  sys.exit(main())
