#!/usr/bin/env bash
# Trains a deck on GPU nodes, one rank for each GPU. At the time limit the job checkpoints and goes
# back into the queue.
#   sbatch jobscripts/gpu/train.sh inputs/flame-38m.deck [--section.key=value ...]
# EDIT: account and partition, if your site asks for them; nodes, and their tasks and GPUs alike.
#SBATCH --job-name=train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
source jobscripts/gpu/env.sh
source jobscripts/common.sh
train "$@"
