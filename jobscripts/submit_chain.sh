#!/usr/bin/env bash
# Submits training, evaluation and plots of a deck, each to start when the one before is done.
#   jobscripts/submit_chain.sh MACHINE DECK [--section.key=value ...]
# MACHINE is a folder of jobscripts/. Prints the numbers of the three jobs.
set -euo pipefail
if [[ $# -lt 2 || ! -f jobscripts/$1/train.sh ]]; then
  echo "usage, from Hearth's folder: jobscripts/submit_chain.sh cpu|gpu|... DECK [--section.key=value ...]" >&2
  exit 2
fi
folder=jobscripts/$1
shift
deck=("$@")  # and what is changed in it

# submit SCRIPT [SBATCH OPTION]: prints the job's number.
submit() {
  sbatch --parsable "${@:2}" "$folder/$1" "${deck[@]}" | cut -d';' -f1
}
# A job that requeues itself keeps its number: the next one waits until training has ended with 0.
# --kill-on-invalid-dep: no job waits for ever for one that failed.
training=$(submit train.sh)
evaluation=$(submit evaluate.sh --dependency="afterok:$training" --kill-on-invalid-dep=yes)
plots=$(submit plot.sh --dependency="afterok:$evaluation" --kill-on-invalid-dep=yes)
echo "train $training, evaluate $evaluation, plot $plots"
