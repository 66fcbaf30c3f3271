#!/usr/bin/env bash
# Validation losses of a run's newest checkpoint.
#   sbatch jobscripts/template/evaluate.sh inputs/flame-38m.deck [--section.key=value ...]
# EDIT: every value down to --time.
#SBATCH --job-name=evaluate
#SBATCH --account=EDIT
#SBATCH --partition=EDIT
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00
#SBATCH --output=%x-%j.log
source jobscripts/template/env.sh
source jobscripts/common.sh
evaluate "$@"
