#!/usr/bin/env bash
# Trains a grid of models and budgets, one task of the array for each point.
#   sbatch jobscripts/template/scaling_grid.sh jobscripts/scaling_grid.txt [--section.key=value ...]
# EDIT: every value down to --time.
#SBATCH --job-name=scaling
#SBATCH --array=1-25%4
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
train_grid_point "$@"
