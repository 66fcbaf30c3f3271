# shellcheck shell=bash
# What jobs need to know of the site. Copy this folder to one named after your machine and edit
# every line that says EDIT, here and in the scripts; ../cpu and ../gpu are worked examples.

# EDIT: the modules that Hearth was built with.
#   module purge; module load ...

# EDIT: the program, of the preset that fits, and a Python with h5py, NumPy and Matplotlib.
export HEARTH=${HEARTH:-build/release/hearth}
export PYTHON=${PYTHON:-build/venv/bin/python}

# EDIT: what starts the ranks (srun, mpirun -q ..., the site's own), and for srun how it and MPI
# find each other (srun --mpi=list).
export HEARTH_LAUNCHER=${HEARTH_LAUNCHER:-srun}
export SLURM_MPI_TYPE=${SLURM_MPI_TYPE:-pmix}

# EDIT on CPUs: close instead of false, where Slurm binds tasks to cores (TaskPlugin=task/affinity).
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
export OMP_PROC_BIND=${OMP_PROC_BIND:-false}
