#!/usr/bin/env bash
# A Cloud TPU slice: asks for it, runs on all its workers, gives it back. Needs gcloud. Not run by the tests: no TPU was
# at hand; they compare what --dry_run prints.
#
#   launch/tpu_pod.sh create --name=pod --zone=us-west4-a --type=v5litepod-16 [--runtime=v2-alpha-tpuv5-lite] [--spot]
#   launch/tpu_pod.sh setup  --name=pod --zone=us-west4-a --repository=https://...     clones and installs everywhere
#   launch/tpu_pod.sh run    --name=pod --zone=us-west4-a -- --config=configs/vae.py --workdir=/mnt/shared/a
#   launch/tpu_pod.sh delete --name=pod --zone=us-west4-a
#
# --dry_run prints the command. What follows -- goes to jaxtrain.main as it is; worker 0 writes the workdir. Exit code 85
# of `run` asks for the same command again.
set -euo pipefail

die() { echo "launch/tpu_pod.sh: $*" >&2; exit 2; }

verb=${1:-}
case $verb in create|setup|run|delete) shift ;; *) die "got '$verb', allowed create | setup | run | delete" ;; esac
dry_run=0 name='' zone='' type='' runtime=tpu-ubuntu2204-base spot=0 repository=''
while [[ $# -gt 0 && $1 != -- ]]; do
  case $1 in
    --dry_run) dry_run=1 ;;
    --spot) spot=1 ;;
    --name=?*|--zone=?*|--type=?*|--runtime=?*|--repository=?*)
      flag=${1#--}
      printf -v "${flag%%=*}" '%s' "${flag#*=}" ;;
    *) die "$1: no such flag; what follows -- goes to jaxtrain.main" ;;
  esac
  shift
done
if [[ $# -gt 0 ]]; then shift; fi
[[ -n $name && -n $zone ]] || die "--name and --zone are required"

on_all() { command=(gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" --worker=all "--command=$1"); }

case $verb in
  create)
    [[ -n $type ]] || die "--type is required, such as v5litepod-16"
    command=(gcloud compute tpus queued-resources create "$name" "--node-id=$name" "--zone=$zone"
             "--accelerator-type=$type" "--runtime-version=$runtime")
    if [[ $spot == 1 ]]; then command+=(--spot); fi ;;
  setup)
    [[ -n $repository ]] || die "--repository is required"
    on_all "git clone $(printf '%q' "$repository") jaxtrain; cd jaxtrain && git pull && pip install -e '.[tpu]'" ;;
  run)
    case " $*" in *" --workdir="?*|*" -workdir="?*) ;; *) die "--workdir=DIR is required after --" ;; esac
    flags=$(printf ' %q' "$@")
    on_all "cd jaxtrain && python3 -m jaxtrain.main --distributed$flags" ;;
  delete)
    command=(gcloud compute tpus queued-resources delete "$name" "--zone=$zone" --force --quiet) ;;
esac
if [[ $dry_run == 1 ]]; then printf '%q ' "${command[@]}"; echo; else "${command[@]}"; fi
