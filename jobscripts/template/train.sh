#!/usr/bin/env bash
# Trains a deck. At the time limit the job checkpoints and goes back into the queue.
#   sbatch jobscripts/template/train.sh inputs/flame-38m.deck [--section.key=value ...]
# EDIT: every value down to --time.
#SBATCH --job-name=train
#SBATCH --account=EDIT
#SBATCH --partition=EDIT
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
source jobscripts/template/env.sh
source jobscripts/common.sh
train "$@"
