! A chain of masses between two walls (Fermi, Pasta, Ulam and Tsingou), distributed over the ranks.
!
!     V(x) = sum over springs of d^2/2 + d^4/4,    d the difference of neighbours, walls at 0
!
! At rest its modes are lambda_j = 4 sin^2(j pi / 2(n+1)), with which the answers are compared.
!
!     make && mpiexec -n 2 build/chain-fortran [n] [k]
module chain_of_masses
    use, intrinsic :: iso_c_binding
    use mpi
    implicit none

    integer :: left, right  ! neighbouring ranks, or MPI_PROC_NULL
    integer(c_int64_t) :: n_local

contains

    ! The gradient on this rank's masses; the ends are exchanged with the neighbours.
    function gradient(x, g, context) bind(c) result(status)
        real(c_double), intent(in) :: x(*)
        real(c_double), intent(inout) :: g(*)
        type(c_ptr), value :: context
        integer(c_int) :: status
        real(c_double) :: line(0:n_local + 1)
        integer :: error

        line(0) = 0  ! the walls, where there is no neighbour
        line(n_local + 1) = 0
        line(1:n_local) = x(1:n_local)
        call MPI_Sendrecv(line(n_local), 1, MPI_DOUBLE_PRECISION, right, 0, line(0), 1, MPI_DOUBLE_PRECISION, &
            left, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE, error)
        call MPI_Sendrecv(line(1), 1, MPI_DOUBLE_PRECISION, left, 1, line(n_local + 1), 1, MPI_DOUBLE_PRECISION, &
            right, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE, error)
        g(1:n_local) = force(line(1:n_local) - line(0:n_local - 1)) - force(line(2:n_local + 1) - line(1:n_local))
        status = 0
    end function

    elemental function force(d)
        real(c_double), intent(in) :: d
        real(c_double) :: force

        force = d + d**3
    end function

end module

program chain
    use, intrinsic :: iso_fortran_env, only: error_unit
    use chain_of_masses
    use sparsehess
    implicit none

    real(c_double), parameter :: pi = acos(-1.0_c_double)
    type(c_ptr) :: handle
    integer(c_int64_t), allocatable :: indptr(:), indices(:)
    real(c_double), allocatable :: x(:), values(:), errors(:), vectors(:, :)
    real(c_double) :: exact, norm, total, worst
    integer(c_int64_t) :: start, i, j, at
    integer(c_int) :: converged, certified, status
    integer :: n, k, rank, ranks, error, mode

    n = argument(1, 1000)
    k = argument(2, 5)
    call MPI_Init(error)
    call MPI_Comm_rank(MPI_COMM_WORLD, rank, error)
    call MPI_Comm_size(MPI_COMM_WORLD, ranks, error)
    if (n < ranks .or. k < 1) then
        if (rank == 0) write (error_unit, "(a)") "chain: n must be at least the number of ranks, and k at least 1"
        call MPI_Finalize(error)
        stop 2, quiet=.true.
    end if
    left = merge(rank - 1, MPI_PROC_NULL, rank > 0)
    right = merge(rank + 1, MPI_PROC_NULL, rank < ranks - 1)
    n_local = n/ranks + merge(1, 0, rank < mod(n, ranks))
    start = rank*(n/ranks) + min(rank, mod(n, ranks))  ! masses of the ranks before

    ! Every mass is coupled with itself and its neighbours; numbers begin at 1.
    allocate (indptr(n_local + 1), indices(3*n_local), x(n_local))
    at = 1
    do i = 1, n_local
        indptr(i) = at
        do j = max(start + i - 1, 1_c_int64_t), min(start + i + 1, int(n, c_int64_t))
            indices(at) = j
            at = at + 1
        end do
    end do
    indptr(n_local + 1) = at
    x = 0

    call check(sparsehess_create(MPI_COMM_WORLD, handle))
    ! What a setter refuses, on whatever rank, is returned by solve on all.
    status = sparsehess_set_sizes(handle, n_local)
    status = sparsehess_set_option(handle, "name", "the chain")
    status = sparsehess_set_point(handle, x)
    status = sparsehess_set_gradient(handle, gradient, c_null_ptr)
    status = sparsehess_set_pattern(handle, 1_c_int, indptr, indices)
    call check(sparsehess_solve(handle, k, which="smallest", tol=1e-10_c_double))

    status = sparsehess_get_converged(handle, converged)
    status = sparsehess_get_certified(handle, certified)
    allocate (values(converged), errors(converged), vectors(n_local, converged))
    status = sparsehess_get_eigenvalues(handle, values)
    status = sparsehess_get_residuals(handle, errors)
    status = sparsehess_get_vectors(handle, 0_c_int, converged, vectors)
    worst = 0
    do mode = 1, converged
        exact = 4*sin(mode*pi/(2*(n + 1)))**2
        norm = sum(vectors(:, mode)**2)
        call MPI_Allreduce(norm, total, 1, MPI_DOUBLE_PRECISION, MPI_SUM, MPI_COMM_WORLD, error)
        worst = max(worst, abs(values(mode) - exact), abs(total - 1))
        if (rank == 0) print "(i3, 2x, es22.15, '  exact ', es22.15, '  residual ', es8.1)", mode, values(mode), &
            exact, errors(mode)
    end do
    if (rank == 0) print "(i0, ' of ', i0, ' eigenpairs on ', i0, ' ranks, ', a)", converged, k, ranks, &
        trim(merge("certified    ", "not certified", certified == 1))
    call check(sparsehess_destroy(handle))
    call MPI_Finalize(error)
    if (worst > 1e-8_c_double) stop 4

contains

    function argument(number, default) result(value)
        integer, intent(in) :: number, default
        integer :: value
        character(len=32) :: text

        value = default
        if (command_argument_count() < number) return
        call get_command_argument(number, text)
        read (text, *) value
    end function

    ! Say what went wrong, once, and end; every rank has the same status.
    subroutine check(status)
        integer(c_int), intent(in) :: status
        integer(c_int) :: ignored

        if (status == 0) return
        if (rank == 0) write (error_unit, "(2a)") "chain: ", sparsehess_error(handle)
        ignored = sparsehess_destroy(handle)
        call MPI_Finalize(error)
        stop status, quiet=.true.
    end subroutine

end program
