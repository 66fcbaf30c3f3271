#!/usr/bin/env bash
# Trains and evaluates the routing study (inputs/study/README.md): an array, a task for each run.
#   sbatch jobscripts/template/study.sh [--match-flops] [--section.key=value ...]
# EDIT: every value down to --time.
#SBATCH --job-name=study
#SBATCH --array=1-27%4
#SBATCH --account=EDIT
#SBATCH --partition=EDIT
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log
source jobscripts/template/env.sh
source jobscripts/common.sh
study_point "$@"
