#!/usr/bin/env bash
# Validation losses of a run's newest checkpoint, on a CPU node.
#   sbatch jobscripts/cpu/evaluate.sh inputs/flame-38m.deck [--section.key=value ...]
# EDIT: as in train.sh. Any number of ranks reads any checkpoint.
#SBATCH --job-name=evaluate
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00
#SBATCH --output=%x-%j.log
source jobscripts/cpu/env.sh
source jobscripts/common.sh
evaluate "$@"
