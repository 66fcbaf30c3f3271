#!/usr/bin/env bash
# The figures of a run, on one core.
#   sbatch jobscripts/template/plot.sh inputs/flame-38m.deck [--section.key=value ...]
# EDIT: every value down to --time.
#SBATCH --job-name=plot
#SBATCH --account=EDIT
#SBATCH --partition=EDIT
#SBATCH --ntasks=1
#SBATCH --time=00:30:00
#SBATCH --output=%x-%j.log
source jobscripts/template/env.sh
source jobscripts/common.sh
plot "$@"
