#!/usr/bin/env bash
# One run over several machines that ssh reaches, a process on each; the first is process 0 and writes the files.
#
#   launch/ssh.sh [--dry_run] --hosts=a,b,c [--port=29400] [--folder=DIR] -- --config=configs/vae.py --workdir=runs/a
#
# All hosts need the clone in the same folder (default: this one) and the same data; what follows -- goes to
# jaxtrain.main as it is, under $PYTHON of this shell or python3. A signal to this script reaches all processes, which
# save and exit 85; the same command goes on.
set -euo pipefail

die() { echo "launch/ssh.sh: $*" >&2; exit 2; }

dry_run=0 hosts='' port=29400 folder=$(cd "$(dirname "$0")/.." && pwd)
while [[ $# -gt 0 && $1 != -- ]]; do
  case $1 in
    --dry_run) dry_run=1 ;;
    --hosts=?*) hosts=${1#*=} ;;
    --port=*) port=${1#*=} ;;
    --folder=?*) folder=${1#*=} ;;
    *) die "$1: no such flag; what follows -- goes to jaxtrain.main" ;;
  esac
  shift
done
[[ $# -gt 0 ]] || die "the run's own flags are missing: -- --config=configs/vae.py --workdir=runs/a"
shift
[[ $hosts =~ ^[A-Za-z0-9_.@,-]+$ ]] || die "--hosts=a,b,c is required: names that ssh knows, with commas between"
[[ $port =~ ^[0-9]+$ ]] || die "--port: got '$port', allowed a number"
workdir=0
for argument in "$@"; do
  case $argument in --workdir=?*|-workdir=?*) workdir=1 ;; esac
done
[[ $workdir == 1 ]] || die "--workdir=DIR is required after --"

IFS=, read -r -a names <<< "$hosts"
first=${names[0]##*@}
flags=$(printf ' %q' "$@")
where="--coordinator=$first:$port --num_processes=${#names[@]}"
pid_file() { echo "\$HOME/.jaxtrain-$port-$1.pid"; }  # on the host, so that a signal finds its process

remote() {
  printf 'cd %q && echo $$ > %s && exec %q -m jaxtrain.main%s %s --process_id=%s' "$folder" "$(pid_file "$1")" \
    "${PYTHON:-python3}" "$flags" "$where" "$1"
}

if [[ $dry_run == 1 ]]; then
  for k in "${!names[@]}"; do printf 'ssh %q %q\n' "${names[k]}" "$(remote "$k")"; done
  exit 0
fi

# shellcheck disable=SC2029,SC2317  # expands here on purpose; called by the traps
pass_on() {
  for k in "${!names[@]}"; do ssh "${names[k]}" "kill -$1 \$(cat $(pid_file "$k"))" < /dev/null & done
}
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT

pids=()
for k in "${!names[@]}"; do
  # shellcheck disable=SC2029  # expands here on purpose
  ssh "${names[k]}" "$(remote "$k")" < /dev/null &
  pids+=($!)
done
code=0
for pid in "${pids[@]}"; do
  status=0
  while kill -0 "$pid" 2> /dev/null; do wait "$pid" || true; done  # a trapped signal interrupts wait
  wait "$pid" || status=$?  # remembered by the shell
  if [[ $status != 0 && $code == 0 ]]; then code=$status; fi
done
exit "$code"
