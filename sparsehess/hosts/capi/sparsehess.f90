! Sparse Hessians from gradients, and their certified eigenpairs: the Fortran face of sparsehess.h, which says
! what every function does. Functions return the same status, 0 where all is done. Compile this file with the
! compiler of the program, and link libsparsehess.so.
module sparsehess
    use, intrinsic :: iso_c_binding, only: c_ptr, c_int, c_int32_t, c_int64_t, c_double, c_char, &
        c_null_char, c_f_pointer, c_size_t
    implicit none
    private

    public :: sparsehess_gradient, sparsehess_hvp
    public :: sparsehess_create, sparsehess_destroy, sparsehess_error
    public :: sparsehess_set_sizes, sparsehess_set_point, sparsehess_set_gradient, sparsehess_set_hvp
    public :: sparsehess_set_pattern, sparsehess_set_mass, sparsehess_set_option, sparsehess_set_patience
    public :: sparsehess_set_mass_csr, sparsehess_set_mass_coo
    public :: sparsehess_solve, sparsehess_count_inertia
    public :: sparsehess_get_converged, sparsehess_get_eigenvalues, sparsehess_get_residuals
    public :: sparsehess_get_vectors, sparsehess_get_certified, sparsehess_get_count, sparsehess_get_evaluations
    public :: sparsehess_get_inertia, sparsehess_get_inertia_certified

    abstract interface
        ! The local pieces are of n_local numbers; context is what was given with the function.
        function sparsehess_gradient(x_local, g_local, context) bind(c) result(status)
            import :: c_int, c_double, c_ptr
            real(c_double), intent(in) :: x_local(*)
            real(c_double), intent(inout) :: g_local(*)
            type(c_ptr), value :: context
            integer(c_int) :: status
        end function

        function sparsehess_hvp(x_local, v_local, y_local, context) bind(c) result(status)
            import :: c_int, c_double, c_ptr
            real(c_double), intent(in) :: x_local(*), v_local(*)
            real(c_double), intent(inout) :: y_local(*)
            type(c_ptr), value :: context
            integer(c_int) :: status
        end function
    end interface

    interface
        ! comm: an integer communicator of mpi, or %MPI_VAL of mpi_f08.
        function sparsehess_create(comm, handle) bind(c, name="sparsehess_create_f") result(status)
            import :: c_int, c_ptr
            integer(c_int), value :: comm
            type(c_ptr), intent(out) :: handle
            integer(c_int) :: status
        end function

        function sparsehess_destroy(handle) bind(c) result(status)
            import :: c_int, c_ptr
            type(c_ptr), intent(inout) :: handle
            integer(c_int) :: status
        end function

        function sparsehess_set_sizes(handle, n_local) bind(c) result(status)
            import :: c_int, c_int64_t, c_ptr
            type(c_ptr), value :: handle
            integer(c_int64_t), value :: n_local
            integer(c_int) :: status
        end function

        function sparsehess_set_point(handle, x_local) bind(c) result(status)
            import :: c_int, c_double, c_ptr
            type(c_ptr), value :: handle
            real(c_double), intent(in) :: x_local(*)
            integer(c_int) :: status
        end function

        function sparsehess_set_gradient(handle, gradient, context) bind(c) result(status)
            import :: c_int, c_ptr, sparsehess_gradient
            type(c_ptr), value :: handle
            procedure(sparsehess_gradient) :: gradient
            type(c_ptr), value :: context
            integer(c_int) :: status
        end function

        function sparsehess_set_hvp(handle, hvp, context) bind(c) result(status)
            import :: c_int, c_ptr, sparsehess_hvp
            type(c_ptr), value :: handle
            procedure(sparsehess_hvp) :: hvp
            type(c_ptr), value :: context
            integer(c_int) :: status
        end function

        function sparsehess_set_mass(handle, diagonal_local) bind(c) result(status)
            import :: c_int, c_double, c_ptr
            type(c_ptr), value :: handle
            real(c_double), intent(in), optional :: diagonal_local(*)
            integer(c_int) :: status
        end function

        function sparsehess_set_patience(handle, seconds) bind(c) result(status)
            import :: c_int, c_double, c_ptr
            type(c_ptr), value :: handle
            real(c_double), value :: seconds
            integer(c_int) :: status
        end function

        function c_count_inertia(handle, zero) bind(c, name="sparsehess_count_inertia") result(status)
            import :: c_int, c_double, c_ptr
            type(c_ptr), value :: handle
            real(c_double), value :: zero
            integer(c_int) :: status
        end function

        function sparsehess_get_inertia(handle, negative, zero, positive, infinite) bind(c) result(status)
            import :: c_int, c_int64_t, c_ptr
            type(c_ptr), value :: handle
            integer(c_int64_t), intent(out) :: negative, zero, positive, infinite
            integer(c_int) :: status
        end function

        function sparsehess_get_inertia_certified(handle, certified) bind(c) result(status)
            import :: c_int, c_ptr
            type(c_ptr), value :: handle
            integer(c_int), intent(out) :: certified
            integer(c_int) :: status
        end function

        function sparsehess_get_converged(handle, converged) bind(c) result(status)
            import :: c_int, c_ptr
            type(c_ptr), value :: handle
            integer(c_int), intent(out) :: converged
            integer(c_int) :: status
        end function

        function sparsehess_get_eigenvalues(handle, eigenvalues) bind(c) result(status)
            import :: c_int, c_double, c_ptr
            type(c_ptr), value :: handle
            real(c_double), intent(inout) :: eigenvalues(*)
            integer(c_int) :: status
        end function

        function sparsehess_get_residuals(handle, residuals) bind(c) result(status)
            import :: c_int, c_double, c_ptr
            type(c_ptr), value :: handle
            real(c_double), intent(inout) :: residuals(*)
            integer(c_int) :: status
        end function

        ! first counts from 0, as in C; the vectors are columns.
        function sparsehess_get_vectors(handle, first, many, vectors_local) bind(c) result(status)
            import :: c_int, c_double, c_ptr
            type(c_ptr), value :: handle
            integer(c_int), value :: first, many
            real(c_double), intent(inout) :: vectors_local(*)
            integer(c_int) :: status
        end function

        function sparsehess_get_certified(handle, certified) bind(c) result(status)
            import :: c_int, c_ptr
            type(c_ptr), value :: handle
            integer(c_int), intent(out) :: certified
            integer(c_int) :: status
        end function

        function sparsehess_get_count(handle, inertia, found) bind(c) result(status)
            import :: c_int, c_int64_t, c_ptr
            type(c_ptr), value :: handle
            integer(c_int64_t), intent(out) :: inertia, found
            integer(c_int) :: status
        end function

        function sparsehess_get_evaluations(handle, gradients, products) bind(c) result(status)
            import :: c_int, c_int64_t, c_ptr
            type(c_ptr), value :: handle
            integer(c_int64_t), intent(out) :: gradients, products
            integer(c_int) :: status
        end function

        function c_solve(handle, k, which, tol, method) bind(c, name="sparsehess_solve") result(status)
            import :: c_int, c_double, c_char, c_ptr
            type(c_ptr), value :: handle
            integer(c_int), value :: k
            character(kind=c_char), intent(in) :: which(*), method(*)
            real(c_double), value :: tol
            integer(c_int) :: status
        end function

        function c_set_option(handle, name, text) bind(c, name="sparsehess_set_option") result(status)
            import :: c_int, c_char, c_ptr
            type(c_ptr), value :: handle
            character(kind=c_char), intent(in) :: name(*)
            character(kind=c_char), intent(in), optional :: text(*)
            integer(c_int) :: status
        end function

        function c_error(handle) bind(c, name="sparsehess_error") result(text)
            import :: c_ptr
            type(c_ptr), value :: handle
            type(c_ptr) :: text
        end function

        function c_strlen(text) bind(c, name="strlen") result(length)
            import :: c_ptr, c_size_t
            type(c_ptr), value :: text
            integer(c_size_t) :: length
        end function
    end interface

    ! Integers of either kind; numbers begin at base.
    interface sparsehess_set_pattern
        function set_pattern32(handle, base, indptr, indices) bind(c, name="sparsehess_set_pattern32") result(status)
            import :: c_int, c_int32_t, c_ptr
            type(c_ptr), value :: handle
            integer(c_int), value :: base
            integer(c_int32_t), intent(in) :: indptr(*), indices(*)
            integer(c_int) :: status
        end function

        function set_pattern64(handle, base, indptr, indices) bind(c, name="sparsehess_set_pattern64") result(status)
            import :: c_int, c_int64_t, c_ptr
            type(c_ptr), value :: handle
            integer(c_int), value :: base
            integer(c_int64_t), intent(in) :: indptr(*), indices(*)
            integer(c_int) :: status
        end function
    end interface

    ! A mass by local rows, with values beside global columns; integers of either kind.
    interface sparsehess_set_mass_csr
        function set_mass_csr32(handle, base, indptr, indices, values) bind(c, name="sparsehess_set_mass_csr32") &
            result(status)
            import :: c_int, c_int32_t, c_double, c_ptr
            type(c_ptr), value :: handle
            integer(c_int), value :: base
            integer(c_int32_t), intent(in) :: indptr(*), indices(*)
            real(c_double), intent(in) :: values(*)
            integer(c_int) :: status
        end function

        function set_mass_csr64(handle, base, indptr, indices, values) bind(c, name="sparsehess_set_mass_csr64") &
            result(status)
            import :: c_int, c_int64_t, c_double, c_ptr
            type(c_ptr), value :: handle
            integer(c_int), value :: base
            integer(c_int64_t), intent(in) :: indptr(*), indices(*)
            real(c_double), intent(in) :: values(*)
            integer(c_int) :: status
        end function
    end interface

    ! A mass by entries, in whichever global rows; those of one place add up. length is an integer(c_int64_t).
    interface sparsehess_set_mass_coo
        function set_mass_coo32(handle, base, length, rows, columns, values) &
            bind(c, name="sparsehess_set_mass_coo32") result(status)
            import :: c_int, c_int32_t, c_int64_t, c_double, c_ptr
            type(c_ptr), value :: handle
            integer(c_int), value :: base
            integer(c_int64_t), value :: length
            integer(c_int32_t), intent(in) :: rows(*), columns(*)
            real(c_double), intent(in) :: values(*)
            integer(c_int) :: status
        end function

        function set_mass_coo64(handle, base, length, rows, columns, values) &
            bind(c, name="sparsehess_set_mass_coo64") result(status)
            import :: c_int, c_int64_t, c_double, c_ptr
            type(c_ptr), value :: handle
            integer(c_int), value :: base
            integer(c_int64_t), value :: length
            integer(c_int64_t), intent(in) :: rows(*), columns(*)
            real(c_double), intent(in) :: values(*)
            integer(c_int) :: status
        end function
    end interface

contains

    ! Without a size the accuracy of the Hessian says what is zero.
    function sparsehess_count_inertia(handle, zero) result(status)
        type(c_ptr), intent(in) :: handle
        real(c_double), intent(in), optional :: zero
        integer(c_int) :: status

        if (present(zero)) then
            status = c_count_inertia(handle, zero)
        else
            status = c_count_inertia(handle, 0.0_c_double)
        end if
    end function

    ! What is left out is the default: 6 pairs, the smallest, to 1e-8, by a method that is chosen.
    function sparsehess_solve(handle, k, which, tol, method) result(status)
        type(c_ptr), intent(in) :: handle
        integer, intent(in), optional :: k
        character(len=*), intent(in), optional :: which, method
        real(c_double), intent(in), optional :: tol
        integer(c_int) :: status, pairs
        character(len=:), allocatable :: end_wanted, way
        real(c_double) :: accuracy

        pairs = 0
        accuracy = 0
        end_wanted = ""
        way = ""
        if (present(k)) pairs = int(k, c_int)
        if (present(which)) end_wanted = trim(which)
        if (present(tol)) accuracy = tol
        if (present(method)) way = trim(method)
        status = c_solve(handle, pairs, end_wanted//c_null_char, accuracy, way//c_null_char)
    end function

    ! Without a text the option is taken away.
    function sparsehess_set_option(handle, name, text) result(status)
        type(c_ptr), intent(in) :: handle
        character(len=*), intent(in) :: name
        character(len=*), intent(in), optional :: text
        integer(c_int) :: status

        if (present(text)) then
            status = c_set_option(handle, trim(name)//c_null_char, trim(text)//c_null_char)
        else
            status = c_set_option(handle, trim(name)//c_null_char)
        end if
    end function

    function sparsehess_error(handle) result(text)
        type(c_ptr), intent(in) :: handle
        character(len=:), allocatable :: text
        character(kind=c_char), pointer :: letters(:)
        type(c_ptr) :: place
        integer :: i, length

        place = c_error(handle)
        length = int(c_strlen(place))
        call c_f_pointer(place, letters, [length])
        allocate (character(len=length) :: text)
        do i = 1, length
            text(i:i) = letters(i)
        end do
    end function

end module
