#!/usr/bin/env bash
# The figures of a run, on one core.
#   sbatch jobscripts/gpu/plot.sh inputs/flame-38m.deck [--section.key=value ...]
# EDIT: as in train.sh.
#SBATCH --job-name=plot
#SBATCH --ntasks=1
#SBATCH --time=00:30:00
#SBATCH --output=%x-%j.log
source jobscripts/gpu/env.sh
source jobscripts/common.sh
plot "$@"
