# shellcheck shell=bash
# What jobs on CPU nodes need to know of the site: edit it to fit yours.

# EDIT: the modules that Hearth was built with, for example
#   module purge; module load gcc openmpi hdf5-mpi boost python

export HEARTH=${HEARTH:-build/release/hearth}
export PYTHON=${PYTHON:-build/venv/bin/python}

# What starts the ranks, and how srun and MPI find each other: pmix for Open MPI 4 and 5, pmi2 for
# MPICH and Intel MPI; `srun --mpi=list` says what there is. Where that fails, Open MPI's own is
#   mpirun -q --map-by slot:PE=$SLURM_CPUS_PER_TASK
export HEARTH_LAUNCHER=${HEARTH_LAUNCHER:-srun}
export SLURM_MPI_TYPE=${SLURM_MPI_TYPE:-pmix}

# The threads of a rank are the cores of its task. Binding is left to Slurm: where it binds nothing,
# OpenMP would bind the threads of all ranks to the same cores.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
export OMP_PROC_BIND=${OMP_PROC_BIND:-false}
