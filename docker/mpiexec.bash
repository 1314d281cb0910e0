#!/bin/bash
# mpiexec of Open MPI as root, with more ranks than cores, one BLAS thread a rank. Of more ranks than cores Open MPI 5 is
# told as its launcher wants it; left to its own, it complains that the kernel knows no way from a host to itself.
# environment.sh writes the path of mpiexec into it.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OMPI_MCA_rmaps_base_oversubscribe=${OMPI_MCA_rmaps_base_oversubscribe:-1}
export PRTE_MCA_rmaps_default_mapping_policy=${PRTE_MCA_rmaps_default_mapping_policy:-:oversubscribe}
export OMPI_MCA_reachable=${OMPI_MCA_reachable:-weighted}
[ "$(id -u)" = 0 ] && export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# Where sparsehess has said why it ends, Open MPI's own blocks of lines on that are left out; where it has not, as where
# a rank was killed, they stay. Its parameter orte_execute_quiet would hide all that it says, and Open MPI 5 has none.
# mpiexec itself takes the place of this shell: signals and its exit status are its own.
for word in "$@"; do
    case $word in
        sparsehess | */sparsehess)
            exec "@MPIEXEC@" "$@" 2> >(
                trap '' HUP INT QUIT TERM USR1 USR2  # it ends when nobody writes any more
                exec sed -u -n -E '
                    /^sparsehess: /h
                    /^\[.*(ORTE_ERROR_LOG: .*show_help\.c|sent help message help-mpi-api|orte_base_help_aggregate)/ {
                        x
                        /^sparsehess: / {
                            x
                            d
                        }
                        x
                    }
                    /^-{70,}$/ {
                        $!N
                        /\n(Primary job .*terminated normally, but|.* detected that one or more processes exited with non-zero|MPI_ABORT was invoked on rank|.* has exited due to process rank [0-9]+ .*calling$)/ {
                            x
                            /^sparsehess: / {
                                x
                                :leave
                                n
                                /^-{70,}$/! b leave
                                d
                            }
                            x
                        }
                        p
                        :tell
                        n
                        p
                        /^-{70,}$/! b tell
                        d
                    }
                    p' >&2
            )
            ;;
    esac
done
exec "@MPIEXEC@" "$@"
