#!/usr/bin/env bash
# Trains a deck on CPU nodes. At the time limit the job checkpoints and goes back into the queue.
#   sbatch jobscripts/cpu/train.sh inputs/flame-38m.deck [--section.key=value ...]
# EDIT: account and partition, if your site asks for them; nodes, ranks and cores to fit its nodes.
#SBATCH --job-name=train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
source jobscripts/cpu/env.sh
source jobscripts/common.sh
train "$@"
