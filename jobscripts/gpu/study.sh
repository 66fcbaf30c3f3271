#!/usr/bin/env bash
# Trains and evaluates the routing study (inputs/study/README.md) on GPU nodes, one rank for each GPU:
# an array, a task for each run.
#   sbatch jobscripts/gpu/study.sh [--match-flops] [--section.key=value ...]
# EDIT: as in train.sh; --array to decks times seeds, %4 to how many may run at a time.
#SBATCH --job-name=study
#SBATCH --array=1-27%4
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log
source jobscripts/gpu/env.sh
source jobscripts/common.sh
study_point "$@"
