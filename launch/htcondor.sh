#!/usr/bin/env bash
# What launch/htcondor.sub runs on the execute machine: jaxtrain.main with the arguments of the job's line.
set -euo pipefail
cd "$(dirname "$0")/.."
for argument in "$@"; do
  case $argument in --workdir=?*|-workdir=?*) exec "${PYTHON:-python3}" -m jaxtrain.main "$@" ;; esac
done
echo "launch/htcondor.sh: --workdir=DIR is required, because a job that is started again goes on in the same folder" >&2
exit 2
