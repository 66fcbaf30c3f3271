# shellcheck shell=bash
# What the job scripts of all machines share; they source it after their env.sh.
set -euo pipefail

# How often a job may put itself back into the queue, so that none does so for ever.
HEARTH_MAX_RESTARTS=${HEARTH_MAX_RESTARTS:-100}
# Since 22.05 srun does not take this from sbatch.
if [[ -n ${SLURM_CPUS_PER_TASK-} ]]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi

# The number of an array is that of one of its jobs too: only this names a single job.
job=$SLURM_JOB_ID
if [[ -n ${SLURM_ARRAY_JOB_ID-} ]]; then job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; fi

say() { printf 'job %s on %s: %s\n' "$job" "$SLURM_JOB_NODELIST" "$*" >&2; }

# A signal that comes before there is a step to pass it on to: hearth's clock stops the run as well.
trap : USR1

# When the job ends, in seconds since 1970: hearth stops in time for it. Newer Slurm sets the
# variable itself; in older ones it may have come along from the job that submitted this one.
set_job_end() {
  local end
  if end=$(squeue --noheader --jobs="$job" --format=%e) && [[ -n $end ]] &&
    SLURM_JOB_END_TIME=$(date --date="$end" +%s 2>/dev/null); then
    export SLURM_JOB_END_TIME
  else
    unset SLURM_JOB_END_TIME
    say "Slurm does not tell when the job ends: only its signal stops the run in time"
  fi
}

# hearth_step ARGUMENTS...: `hearth ARGUMENTS` on all tasks of the job; returns its exit status.
# SIGUSR1 to this script (from sbatch --signal=B:USR1@..., or scancel --batch) goes on to the ranks.
hearth_step() {
  local launcher step start status interrupted
  set_job_end
  read -ra launcher <<<"$HEARTH_LAUNCHER"
  say "start $((${SLURM_RESTART_COUNT:-0} + 1)) on $SLURM_NTASKS ranks: ${launcher[*]} $HEARTH $*"
  "${launcher[@]}" "$HEARTH" "$@" &
  step=$!
  # shellcheck disable=SC2034  # the trap reads it
  start=$SECONDS
  # A launcher or a rank that has only just begun would die of it.
  trap 'interrupted=1
    if [[ $((SECONDS - start)) -lt 5 ]]; then sleep 5; fi
    kill -USR1 "$step" 2>/dev/null || true' USR1
  # Slurm sends SIGTERM to end the job, to the ranks too: wait for the checkpoint that they write.
  trap 'interrupted=1 ended_by_slurm=1' TERM
  while true; do
    interrupted='' status=0
    wait "$step" || status=$?
    if [[ -z $interrupted ]]; then break; fi
  done
  trap : USR1  # too late for it
  say "exit status $status"
  return "$status"
}

# train DECK [--section.key=value ...]: as hearth_step, and puts the job back into the queue where
# it stopped early at a good checkpoint. Any other status ends the job.
train() {
  local status=0
  ended_by_slurm=
  hearth_step train "$@" || status=$?
  # A job that Slurm ends is Slurm's to requeue (preemption) or not (scancel).
  if [[ $status -eq 75 && -z $ended_by_slurm ]]; then requeue; fi
  return "$status"
}

requeue() {
  if [[ ${SLURM_RESTART_COUNT:-0} -ge $HEARTH_MAX_RESTARTS ]]; then
    say "not requeued: HEARTH_MAX_RESTARTS = $HEARTH_MAX_RESTARTS; sbatch it again to go on"
  else
    scontrol requeue "$job"
  fi
}

# resolved DECK [--section.key=value ...] KEY: a value of the resolved deck, as `output` of [run].
resolved() {
  "$HEARTH" check "${@:1:$#-1}" | sed -n "s/^${*: -1} = //p"
}

# evaluate DECK [--section.key=value ...]: validation losses, to the job's log and to
# evaluation.txt in the run's folder.
evaluate() {
  local output
  output=$(resolved "$@" output)
  hearth_step evaluate "$@" | tee "$output/evaluation.txt"
}

# plot DECK [--section.key=value ...]: every figure of the run, into plots/ in its folder, and
# report.html beside it. One that cannot be drawn keeps none of the others back; the last such status
# is returned.
plot() {
  local output script file status=0
  output=$(resolved "$@" output)
  for script in postprocess/plot_*.py; do
    file=routing.h5
    if [[ $script == */plot_loss.py ]]; then file=training.h5; fi
    [[ -f $output/$file ]] || continue  # a dense model routes nothing
    "$PYTHON" "$script" "$output/$file" --output "$output/plots" || status=$?
  done
  "$PYTHON" postprocess/report.py "$output" || status=$?
  return "$status"
}

# grid_points GRID: one line for each point of a scaling grid, deck and budget.
grid_points() {
  awk '!/^#/ { for (i = 2; i <= NF; ++i) print $1, $i }' "$1"
}

# train_grid_point GRID [--section.key=value ...]: trains the point of the grid that this task of an
# array stands for. The run's length follows from the budget: budget / (6 N D) steps with N active
# parameters as the paper counts them and D tokens a step.
train_grid_point() {
  local deck budget steps
  if ! read -r deck budget < <(grid_points "$1" | sed -n "${SLURM_ARRAY_TASK_ID}p"); then
    say "$1 has $(grid_points "$1" | wc -l) points, no number $SLURM_ARRAY_TASK_ID; see --array"
    return 2
  fi
  steps=$("$HEARTH" check "$deck" | awk -v budget="$budget" '
    /^active parameters, as the paper counts/ { active = $NF }
    /^tokens per step/ { tokens = $NF }
    END { printf "%d", budget / (6 * active * tokens) }')
  train "$deck" --run.steps="$steps" \
    --run.output="runs/scaling/$(basename "$deck" .deck)-$budget" "${@:2}"
}

# study_point [--match-flops] [--section.key=value ...]: trains and evaluates the run of inputs/study
# that this task of an array stands for.
study_point() {
  local deck seed folder steps option options=() list
  list=$(inputs/study/run --list "$@") || return "$?"
  if ! read -r deck seed folder steps < <(sed -n "${SLURM_ARRAY_TASK_ID}p" <<<"$list"); then
    say "the study has no run number $SLURM_ARRAY_TASK_ID: nothing to do; see --array"
    return 0
  fi
  for option in "$@"; do
    if [[ $option == --*.*=* ]]; then options+=("$option"); fi
  done
  if [[ $steps != - ]]; then options+=(--run.steps="$steps"); fi
  train "$deck" --run.seed="$seed" --run.output="$folder" "${options[@]}" || return "$?"
  # It finds the training done, and evaluates.
  inputs/study/run --only "$SLURM_ARRAY_TASK_ID" "$@"
}
