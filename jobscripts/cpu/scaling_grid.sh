#!/usr/bin/env bash
# Trains a grid of models and budgets on CPU nodes, one task of the array for each point.
#   sbatch jobscripts/cpu/scaling_grid.sh jobscripts/scaling_grid.txt [--section.key=value ...]
# EDIT: as in train.sh; --array to the grid's number of points, %4 to how many may run at a time.
#SBATCH --job-name=scaling
#SBATCH --array=1-25%4
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log
source jobscripts/cpu/env.sh
source jobscripts/common.sh
train_grid_point "$@"
