/* Disks that fail, for tests: calls of the system that change or read files fail, or the process
 * dies in one. Linked into a program, or loaded before it (LD_PRELOAD), which then is told by its
 * environment:
 *
 *   HEARTH_FAULT        "<effect> <call> <part of a path>": EIO 12 /checkpoints/
 *   HEARTH_FAULT_RANK   on this rank of mpirun only
 *   HEARTH_FAULT_CALLS  a file that gets a line for every such call: "<call> <function> <path>"
 *
 * Calls on paths that hold the part are counted from 1. Effects: EIO, ENOSPC, EDQUOT, EROFS (the
 * call fails so), KILL (SIGKILL in its place), WAIT (six seconds before it), EINTR and SHORT (of
 * writes, after which a caller must go on: interrupted, or a part only). These are of calls that
 * change files, and count no others. Of calls that read, which then are counted alone: READ_EIO,
 * READ_EINTR, READ_SHORT, and READ_END (nothing is left, as of a file cut short since). With
 * "<call>+" all later calls fail too. unlink counts with KILL only, since nobody looks at its
 * failure. */
#ifndef HEARTH_TESTS_FAULTS_H
#define HEARTH_TESTS_FAULTS_H

#ifdef __cplusplus
extern "C" {
#endif

/* As HEARTH_FAULT; null: no more faults. Counts from 1 again. */
void fault_arm(const char* fault);

/* Calls since then. */
int fault_calls(void);

#ifdef __cplusplus
}
#endif

#endif
