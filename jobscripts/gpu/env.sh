# shellcheck shell=bash
# What jobs on NVIDIA GPUs need to know of the site: edit it to fit yours.

# EDIT: the modules that Hearth was built with, for example
#   module purge; module load gcc cuda nccl openmpi hdf5-mpi boost python

export HEARTH=${HEARTH:-build/cuda/hearth}
export PYTHON=${PYTHON:-build/venv/bin/python}

# What starts the ranks, and how srun and MPI find each other: pmix for Open MPI 4 and 5, pmi2 for
# MPICH and Intel MPI; `srun --mpi=list` says what there is.
export HEARTH_LAUNCHER=${HEARTH_LAUNCHER:-srun}
export SLURM_MPI_TYPE=${SLURM_MPI_TYPE:-pmix}

# Every rank must see all GPUs of the job on its node, as with --gpus-per-node in the scripts: it
# takes the one of its number there, and NCCL reaches directly only those that it sees. With
# --gpus-per-task each rank would see its own alone.

# EDIT: NCCL chooses its network itself. Where it takes a slow one, name the interface:
#   export NCCL_SOCKET_IFNAME=ib0
# and see what it does with
#   export NCCL_DEBUG=INFO
