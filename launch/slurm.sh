#!/usr/bin/env bash
# Submits a run to Slurm and lets it be requeued until it is done: 120 s before the time limit the run is told to stop,
# saves and exits 85, and the job goes back into the queue, where the same command goes on.
#
#   launch/slurm.sh [--dry_run] [--time=1-00:00:00] [--tasks=1] [--nodes=1] [--cpus=4] [--mem=16G] [--gpus=1]
#                   [--partition=P] [--account=A] [--name=jaxtrain] -- --config=configs/vae.py --workdir=runs/a
#
# --tasks=N makes N processes of one run, best one per GPU; --gpus and --cpus are per task, --mem is per node. What
# follows -- goes to jaxtrain.main as it is. --dry_run prints the job script instead of submitting it. The Python is that
# of the shell which submits (or $PYTHON), the folder the clone that this file is in.
set -euo pipefail

die() { echo "launch/slurm.sh: $*" >&2; exit 2; }

dry_run=0 time=1-00:00:00 tasks=1 nodes='' cpus=4 mem=16G gpus='' partition='' account='' name=jaxtrain
while [[ $# -gt 0 && $1 != -- ]]; do
  case $1 in
    --dry_run) dry_run=1 ;;
    --time=*|--tasks=*|--nodes=*|--cpus=*|--mem=*|--gpus=*|--partition=*|--account=*|--name=*)
      flag=${1#--}
      [[ ${flag#*=} =~ ^[A-Za-z0-9_.:,=-]+$ ]] || die "$1: allowed letters, digits and _ . : , = -"
      printf -v "${flag%%=*}" '%s' "${flag#*=}" ;;
    *) die "$1: no such flag; what follows -- goes to jaxtrain.main" ;;
  esac
  shift
done
[[ $# -gt 0 ]] || die "the run's own flags are missing: -- --config=configs/vae.py --workdir=runs/a"
shift
workdir=0
for argument in "$@"; do
  case $argument in --workdir=?*|-workdir=?*) workdir=1 ;; esac
done
[[ $workdir == 1 ]] || die "--workdir=DIR is required after --, because a requeued job goes on in the same folder"

# JAX gives each of several tasks the GPU of its number on the node, so all must be visible to all.
[[ $tasks == 1 || -z $gpus || $gpus == 1 ]] || die "--gpus: got $gpus with --tasks=$tasks, allowed 1 for each task"

folder=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$(command -v python3 || echo python3)}

render() {
  cat << SCRIPT
#!/usr/bin/env bash
#SBATCH --job-name=$name
#SBATCH --time=$time
#SBATCH --ntasks=$tasks
${nodes:+#SBATCH --nodes=$nodes
}#SBATCH --cpus-per-task=$cpus
#SBATCH --mem=$mem
${gpus:+#SBATCH --gpus-per-task=$gpus
}${partition:+#SBATCH --partition=$partition
}${account:+#SBATCH --account=$account
}#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
cd $(printf '%q' "$folder") || exit 1
code=0
srun --kill-on-bad-exit=0${gpus:+ --gpu-bind=none}$(printf ' %q' "$python" -m jaxtrain.main "$@") || code=\$?
if [[ \$code == 85 ]]; then scontrol requeue "\$SLURM_JOB_ID"; fi
exit "\$code"
SCRIPT
}

if [[ $dry_run == 1 ]]; then render "$@"; else render "$@" | sbatch; fi
