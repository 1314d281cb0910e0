"""The C ABI as hosts in C, C++ and Fortran use it: compiled, linked and run under mpiexec."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from sparsehess.hosts.capi.build import build, fortran_advice, main
from support import ROOT

# A free chain with a spring of its own at each place, V = sum d^2/2 + sum x^4/4, whose Hessian at x = c everywhere
# has the eigenvalues 4 sin^2(j pi / 2n) + 3 c^2. The first word says what is tried with it.
HOST = r"""
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>
#include <time.h>
#include <unistd.h>
#ifdef WITH_PETSC
#include <petsc.h>
#endif
#include "sparsehess.h"

static const int64_t SHARE = 20;

struct Chain {
    MPI_Comm comm;
    int rank, size, fails_on = -1, calls = 0;
    std::string when;
    int64_t n() const { return SHARE * size; }
};

static void exchange(const Chain &chain, const double *x, double &before, double &after)
{
    int left = chain.rank > 0 ? chain.rank - 1 : MPI_PROC_NULL;
    int right = chain.rank < chain.size - 1 ? chain.rank + 1 : MPI_PROC_NULL;
    before = x[0], after = x[SHARE - 1];
    MPI_Sendrecv(&x[SHARE - 1], 1, MPI_DOUBLE, right, 0, &before, 1, MPI_DOUBLE, left, 0, chain.comm,
                 MPI_STATUS_IGNORE);
    MPI_Sendrecv(&x[0], 1, MPI_DOUBLE, left, 1, &after, 1, MPI_DOUBLE, right, 1, chain.comm, MPI_STATUS_IGNORE);
}

static void springs(const Chain &chain, const double *x, double *out)
{
    double before, after;
    exchange(chain, x, before, after);
    for (int64_t i = 0; i < SHARE; i++)
        out[i] = 2 * x[i] - (i > 0 ? x[i - 1] : before) - (i < SHARE - 1 ? x[i + 1] : after);
}

static void say_when(const char *what)
{
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    std::printf("%s at %.3f\n", what, now.tv_sec + 1e-9 * now.tv_nsec);
    std::fflush(stdout);
}

extern "C" int gradient(const double *x, double *g, void *context)
{
    Chain &chain = *static_cast<Chain *>(context);
    bool fails = ++chain.calls > 4 && chain.rank == chain.fails_on;
    if (fails) say_when("fails");
    if (fails && chain.when == "before") return 7;
    springs(chain, x, g);
    for (int64_t i = 0; i < SHARE; i++) g[i] += x[i] * x[i] * x[i];
    if (fails && chain.when == "nan") g[3] = NAN;
    return fails && chain.when == "after" ? 7 : 0;
}

extern "C" int product(const double *x, const double *v, double *y, void *context)
{
    Chain &chain = *static_cast<Chain *>(context);
    springs(chain, v, y);
    for (int64_t i = 0; i < SHARE; i++) y[i] += 3 * x[i] * x[i] * v[i];
    return 0;
}

#define EXPECT(what)                                                                                    \
    if (!(what)) {                                                                                      \
        std::printf("line %d: %s [%s]\n", __LINE__, #what, sparsehess_error(handle));                   \
        std::fflush(stdout);                                                                            \
        MPI_Abort(MPI_COMM_WORLD, 99);                                                                  \
    }

static Chain chain_on(MPI_Comm comm)
{
    Chain chain;
    chain.comm = comm;
    MPI_Comm_rank(comm, &chain.rank);
    MPI_Comm_size(comm, &chain.size);
    return chain;
}

static sparsehess_t made(Chain &chain, double c, int base = 0)
{
    sparsehess_t handle;
    std::vector<int32_t> indptr{base}, indices;
    std::vector<double> x(SHARE, c);
    for (int64_t i = chain.rank * SHARE; i < (chain.rank + 1) * SHARE; i++) {
        for (int64_t j = i; j <= i + 1 && j < chain.n(); j++) indices.push_back(j + base);  // mirrors are added
        indptr.push_back(indices.size() + base);
    }
    int status = sparsehess_create(chain.comm, &handle);
    if (status) std::printf("%s\n", sparsehess_error(NULL)), std::exit(status);
    EXPECT(sparsehess_set_sizes(handle, SHARE) == 0);
    EXPECT(sparsehess_set_point(handle, x.data()) == 0);
    EXPECT(sparsehess_set_gradient(handle, gradient, &chain) == 0);
    EXPECT(sparsehess_set_pattern32(handle, base, indptr.data(), indices.data()) == 0);
    return handle;
}

static double distance(sparsehess_t handle, int64_t n, int k, double c, double mass = 1)
{
    double worst = 0;
    int converged, certified;
    EXPECT(sparsehess_get_converged(handle, &converged) == 0 && converged == k);
    EXPECT(sparsehess_get_certified(handle, &certified) == 0 && certified == 1);
    std::vector<double> values(k), residuals(k), vectors(k * SHARE);
    EXPECT(sparsehess_get_eigenvalues(handle, values.data()) == 0);
    EXPECT(sparsehess_get_residuals(handle, residuals.data()) == 0);
    EXPECT(sparsehess_get_vectors(handle, 0, k, vectors.data()) == 0);
    for (int j = 0; j < k; j++) {
        double half = std::sin(j * M_PI / (2.0 * n));
        worst = std::fmax(worst, std::fabs(values[j] - (4 * half * half + 3 * c * c) / mass));
        worst = std::fmax(worst, residuals[j]);
    }
    return worst;
}

static long resident()
{
    long pages = 0, mine = 0;
    std::FILE *file = std::fopen("/proc/self/statm", "r");
    if (std::fscanf(file, "%ld %ld", &pages, &mine) != 2) mine = 0;
    std::fclose(file);
    return mine * sysconf(_SC_PAGESIZE);
}

static int fault(int rank, const char *when)
{
    Chain chain = chain_on(MPI_COMM_WORLD);
    chain.fails_on = rank, chain.when = when;
    sparsehess_t handle = made(chain, 0.5);
    EXPECT(sparsehess_set_patience(handle, 2) == 0);
    int status = sparsehess_solve(handle, 3, "smallest", 0, "auto");
    say_when("returns");
    std::printf("rank %d status %d: %s\n", chain.rank, status, sparsehess_error(handle));
    std::fflush(stdout);
    chain.fails_on = -1;  // mended: the handle goes on
    EXPECT(sparsehess_solve(handle, 3, "smallest", 0, "auto") == 0);
    EXPECT(distance(handle, chain.n(), 3, 0.5) < 1e-7);
    sparsehess_destroy(&handle);
    return status;
}

static void cycles(int many)
{
    Chain chain = chain_on(MPI_COMM_WORLD);
    long before = 0, growth, most;
    for (int cycle = 0; cycle < many; cycle++) {
        sparsehess_t handle = made(chain, 0.5);
        EXPECT(sparsehess_solve(handle, 3, NULL, 0, NULL) == 0);
        EXPECT(distance(handle, chain.n(), 3, 0.5) < 1e-7);
        EXPECT(sparsehess_destroy(&handle) == 0 && handle == NULL);
        if (cycle == many / 4) before = resident();
    }
    growth = resident() - before;
    MPI_Allreduce(&growth, &most, 1, MPI_LONG, MPI_MAX, MPI_COMM_WORLD);
    if (chain.rank == 0) std::printf("growth %ld\n", most);
}

/* Everything else, on communicators of some of the ranks, which PETSc is started on one after another. */
static void parts()
{
    Chain whole = chain_on(MPI_COMM_WORLD);
    MPI_Comm comm;
    int many = 0;
    int64_t gradients, products, inertia, found, later;
    std::vector<double> mass(SHARE, 2.0), x(SHARE, 0.75), room(SHARE);
    sparsehess_t handle = NULL, other;
    EXPECT(sparsehess_solve(handle, 3, "", 0, "") == 2 && *sparsehess_error(NULL));
    EXPECT(sparsehess_create(MPI_COMM_NULL, &handle) == 2 && handle == NULL && *sparsehess_error(NULL));
    MPI_Comm_split(MPI_COMM_WORLD, whole.rank % 2, whole.rank, &comm);
    if (whole.rank % 2 == 1) usleep(300000);
    Chain chain = chain_on(comm), second = chain_on(comm);
    handle = made(chain, 0.25, 1);
    other = made(second, 0.5);
    EXPECT(sparsehess_get_converged(handle, &many) == 2);
    EXPECT(sparsehess_solve(handle, 3, "smallest", 1e-9, "krylovschur") == 0);
    EXPECT(sparsehess_solve(other, 2, "largest", 0, NULL) == 0);
    EXPECT(distance(handle, chain.n(), 3, 0.25) < 1e-7);
    EXPECT(sparsehess_get_count(handle, &inertia, &found) == 0 && inertia == 3 && found == 3);

    /* The point moves, the pattern stays: as many gradients as colours, less those for noise. */
    EXPECT(sparsehess_get_evaluations(handle, &gradients, &products) == 0 && gradients > 0 && products == 0);
    EXPECT(sparsehess_set_point(handle, x.data()) == 0);
    EXPECT(sparsehess_solve(handle, 3, "smallest", 0, NULL) == 0);
    EXPECT(distance(handle, chain.n(), 3, 0.75) < 1e-7);
    EXPECT(sparsehess_get_evaluations(handle, &later, &products) == 0 && later - gradients < gradients);

    /* A mass evaluates nothing anew. */
    EXPECT(sparsehess_set_mass(handle, mass.data()) == 0);
    EXPECT(sparsehess_solve(handle, 3, "smallest", 0, NULL) == 0);
    EXPECT(distance(handle, chain.n(), 3, 0.75, 2.0) < 1e-7);
    EXPECT(sparsehess_get_evaluations(handle, &gradients, &products) == 0 && later == gradients);
    EXPECT(sparsehess_set_mass(handle, NULL) == 0);

    /* Products; options of ours and of PETSc. */
    EXPECT(sparsehess_set_hvp(handle, product, &chain) == 0);
    EXPECT(sparsehess_set_option(handle, "order", "natural") == 0);
    EXPECT(sparsehess_set_option(handle, "-eps_ncv", "18") == 0);
    EXPECT(sparsehess_solve(handle, 3, "smallest", 0, NULL) == 0);
    EXPECT(distance(handle, chain.n(), 3, 0.75) < 1e-8);
    EXPECT(sparsehess_get_evaluations(handle, &gradients, &products) == 0 && products > 0);

    /* An interval, and vectors that are not there. */
    EXPECT(sparsehess_set_option(handle, "interval", "0 1.7") == 0);
    EXPECT(sparsehess_solve(handle, 0, NULL, 0, NULL) == 0);
    EXPECT(sparsehess_get_converged(handle, &many) == 0 && many >= 1);
    EXPECT(sparsehess_get_vectors(handle, many, 1, room.data()) == 2 && *sparsehess_error(handle));
    EXPECT(sparsehess_set_option(handle, "interval", NULL) == 0);

    /* What one rank gets wrong, all are told; then all is well again. */
    bool last = chain.rank == chain.size - 1;
    EXPECT(sparsehess_set_point(handle, last ? NULL : x.data()) == (last ? 2 : 0));
    EXPECT(sparsehess_solve(handle, 3, NULL, 0, NULL) == 2 && std::strstr(sparsehess_error(handle), "set_point"));
    EXPECT(sparsehess_set_point(handle, x.data()) == 0);
    if (chain.size > 1) EXPECT(sparsehess_solve(handle, 2 + last, NULL, 0, NULL) == 2);
    EXPECT(sparsehess_set_option(handle, "colour", "red") == 2);
    EXPECT(sparsehess_solve(handle, 3, NULL, 0, NULL) == 2);
    EXPECT(sparsehess_destroy(&handle) == 0);
    handle = made(chain, 0.25);
    int32_t wrong[SHARE + 1] = {5};
    EXPECT(sparsehess_set_pattern32(handle, 0, wrong, wrong) == 2);
    EXPECT(sparsehess_solve(handle, 3, NULL, 0, NULL) == 2);
    EXPECT(sparsehess_set_sizes(handle, SHARE) == 0);
    EXPECT(sparsehess_solve(handle, 3, NULL, 0, NULL) == 2);
    EXPECT(sparsehess_solve(other, 100000, NULL, 0, NULL) == 2);
    EXPECT(sparsehess_solve(other, 3, "sideways", 0, NULL) == 2);
    EXPECT(std::strstr(sparsehess_error(other), "sideways"));
    EXPECT(sparsehess_destroy(&handle) == 0 && sparsehess_destroy(&other) == 0);
    MPI_Comm_free(&comm);
    if (whole.rank == 0) std::printf("all parts\n");
}

/* M = I + K/10, which has the vectors of K, the springs alone: by rows, and by elements that rank 0 brings. */
static void masses()
{
    Chain chain = chain_on(MPI_COMM_WORLD);
    const double c = 0.5;
    int64_t n = chain.n(), start = chain.rank * SHARE, negative, zero, positive, infinite, expected = 0;
    int certified;
    sparsehess_t handle = made(chain, c);
    EXPECT(sparsehess_get_inertia(handle, &negative, &zero, &positive, &infinite) == 2);
    std::vector<double> x(SHARE, c), exact, values(3);
    for (int64_t j = 0; j < n; j++) {
        double half = std::sin(j * M_PI / (2.0 * n)), k = 4 * half * half;
        exact.push_back((k + 3 * c * c) / (1 + 0.1 * k));
        expected += k + 3 * c * c <= 1.1;
    }
    auto agrees = [&] {
        EXPECT(sparsehess_solve(handle, 3, "smallest", 1e-10, NULL) == 0);
        EXPECT(sparsehess_get_eigenvalues(handle, values.data()) == 0);
        for (int j = 0; j < 3; j++) EXPECT(std::fabs(values[j] - exact[j]) < 1e-7);
        EXPECT(sparsehess_get_certified(handle, &certified) == 0 && certified == 1);
    };

    std::vector<int32_t> indptr{1}, indices;
    std::vector<double> entries;
    for (int64_t i = start; i < start + SHARE; i++) {
        for (int64_t j = i - 1; j <= i + 1; j++) {
            if (j < 0 || j >= n) continue;
            indices.push_back(j + 1);
            entries.push_back(i == j ? 1 + 0.1 * ((i > 0) + (i < n - 1)) : -0.1);
        }
        indptr.push_back(indices.size() + 1);
    }
    EXPECT(sparsehess_set_mass_csr32(handle, 1, indptr.data(), indices.data(), entries.data()) == 0);
    agrees();

    /* Rank 0 brings all of it, the others nothing. */
    std::vector<int64_t> rows, columns;
    std::vector<double> parts;
    auto add = [&](int64_t i, int64_t j, double value) {
        rows.push_back(i), columns.push_back(j), parts.push_back(value);
    };
    for (int64_t i = 0; chain.rank == 0 && i < n; i++) {
        add(i, i, 1);
        if (i < n - 1) add(i, i, 0.1), add(i, i + 1, -0.1), add(i + 1, i, -0.1), add(i + 1, i + 1, 0.1);
    }
    EXPECT(sparsehess_set_mass_coo64(handle, 0, rows.size(), rows.data(), columns.data(), parts.data()) == 0);
    agrees();
    EXPECT(sparsehess_count_inertia(handle, 0) == 0);
    EXPECT(sparsehess_get_inertia(handle, &negative, &zero, &positive, &infinite) == 0);
    EXPECT(negative == 0 && zero == 0 && positive == n && infinite == 0);
    EXPECT(sparsehess_get_inertia_certified(handle, &certified) == 0 && certified == 1);

    /* Without a mass, and with zeros of a size near which there are more: uncertain counts can be read. */
    EXPECT(sparsehess_set_mass(handle, NULL) == 0);
    EXPECT(sparsehess_count_inertia(handle, 1.1) == 4 && std::strstr(sparsehess_error(handle), "not certain"));
    EXPECT(sparsehess_get_inertia_certified(handle, &certified) == 0 && certified == 0);
    EXPECT(sparsehess_get_inertia(handle, &negative, &zero, &positive, &infinite) == 0);
    EXPECT(negative == 0 && zero == expected && positive == n - expected);
    EXPECT(sparsehess_solve(handle, 3, NULL, 0, NULL) == 0);
    EXPECT(distance(handle, n, 3, c) < 1e-7);

    /* What one rank gets wrong, all are told. */
    bool last = chain.rank == chain.size - 1;
    int64_t far = last ? n : 0;
    double one = 1;
    EXPECT(sparsehess_set_mass_coo64(handle, 0, 1, &far, &far, &one) == 0);
    EXPECT(sparsehess_solve(handle, 3, NULL, 0, NULL) == 2);
    EXPECT(std::strstr(sparsehess_error(handle), "the mass on rank"));
    EXPECT(sparsehess_set_mass_coo64(handle, 0, last ? -1 : 0, NULL, NULL, NULL) == (last ? 2 : 0));
    EXPECT(sparsehess_count_inertia(handle, 0) == 2 && std::strstr(sparsehess_error(handle), "count=-1"));
    EXPECT(sparsehess_set_mass_coo64(handle, 2, 0, NULL, NULL, NULL) == 2);
    EXPECT(sparsehess_set_mass_coo64(handle, 0, 0, NULL, NULL, NULL) == 0);
    entries[1] += 1;  /* no longer symmetric */
    EXPECT(sparsehess_set_mass_csr32(handle, 1, indptr.data(), indices.data(), entries.data()) == 0);
    EXPECT(sparsehess_solve(handle, 3, NULL, 0, NULL) == 2);
    EXPECT(std::strstr(sparsehess_error(handle), "mass matrix is not symmetric"));
    EXPECT(sparsehess_count_inertia(handle, NAN) == 2 && sparsehess_count_inertia(handle, -1) == 2);
    EXPECT(sparsehess_set_mass(handle, NULL) == 0);
    EXPECT(sparsehess_solve(handle, 3, NULL, 0, NULL) == 0);

    // What was refused stays so until it is taken back, by whichever setter of the same thing.
    EXPECT(sparsehess_set_mass_coo64(handle, 0, -1, NULL, NULL, NULL) == 2);
    EXPECT(sparsehess_solve(handle, 3, NULL, 0, NULL) == 2);
    EXPECT(sparsehess_set_mass(handle, NULL) == 0 && sparsehess_solve(handle, 3, NULL, 0, NULL) == 0);
    EXPECT(sparsehess_set_option(handle, "colouring", NULL) == 2);
    EXPECT(sparsehess_set_option(handle, "colouring", NULL) == 0);
    EXPECT(sparsehess_set_option(handle, "colouring", "star") == 2);
    EXPECT(sparsehess_solve(handle, 3, NULL, 0, NULL) == 2);
    EXPECT(std::strstr(sparsehess_error(handle), "did you mean coloring"));
    EXPECT(sparsehess_set_option(handle, "colouring", NULL) == 0);
    EXPECT(sparsehess_solve(handle, 3, NULL, 0, NULL) == 0);
    EXPECT(sparsehess_destroy(&handle) == 0);
    if (chain.rank == 0) std::printf("all masses\n");
}

int main(int count, char **words)
{
    std::string what = words[1];
    int status = 0;
#ifdef WITH_PETSC
    PetscInt many, later;
    PetscInitialize(&count, &words, NULL, NULL);
    PetscOptionsLeftGet(NULL, &many, NULL, NULL);
#else
    if (what != "alone") MPI_Init(&count, &words);
#endif
    if (what == "fault") status = fault(std::atoi(words[2]), words[3]);
    if (what == "cycles") cycles(std::atoi(words[2]));
    if (what == "parts") parts();
    if (what == "masses") masses();
    if (what == "late") {  // as a destructor at the end of main does
        sparsehess_t handle;
        EXPECT(sparsehess_create(MPI_COMM_WORLD, &handle) == 0);
        MPI_Finalize();
        EXPECT(sparsehess_destroy(&handle) == 2 && handle == NULL && sparsehess_destroy(&handle) == 0);
        std::printf("%s\n", sparsehess_error(NULL));
        return 0;
    }
    if (what == "alone") {  // creating a handle initialises MPI
        sparsehess_t handle;
        EXPECT(sparsehess_create(MPI_COMM_WORLD, &handle) == 0 && sparsehess_destroy(&handle) == 0);
        cycles(2);
    }
#ifdef WITH_PETSC
    PetscOptionsLeftGet(NULL, &later, NULL, NULL);
    std::printf("options %d %d\n", int(many), int(later));
    PetscFinalize();
#else
    if (what != "alone") MPI_Finalize();
#endif
    return status;
}
"""


# Uncoupled springs x^4/4 with masses of 2, by rows and by entries, of either integers.
FORTRAN = """
module springs
    use, intrinsic :: iso_c_binding
    implicit none
    integer, parameter :: n_local = 6
contains
    function gradient(x, g, context) bind(c) result(status)
        real(c_double), intent(in) :: x(*)
        real(c_double), intent(inout) :: g(*)
        type(c_ptr), value :: context
        integer(c_int) :: status
        g(1:n_local) = x(1:n_local)**3
        status = merge(1, 0, c_associated(context))
    end function
end module

program masses
    use mpi
    use springs
    use sparsehess
    implicit none
    type(c_ptr) :: handle
    integer(c_int32_t) :: indptr(n_local + 1), indices(n_local)
    integer(c_int64_t) :: rows(n_local), negative, zero, positive, infinite
    real(c_double) :: x(n_local), values(2)
    integer(c_int) :: certified
    integer :: rank, ranks, error, i

    call MPI_Init(error)
    call MPI_Comm_rank(MPI_COMM_WORLD, rank, error)
    call MPI_Comm_size(MPI_COMM_WORLD, ranks, error)
    x = [(1 + rank*n_local + i, i=1, n_local)]
    rows = [(rank*n_local + i, i=1, n_local)]
    indptr = [(i, i=1, n_local + 1)]
    indices = int(rows, c_int32_t)
    call must(sparsehess_create(MPI_COMM_WORLD, handle))
    call must(sparsehess_set_sizes(handle, int(n_local, c_int64_t)))
    call must(sparsehess_set_point(handle, x))
    call must(sparsehess_set_gradient(handle, gradient, c_null_ptr))
    call must(sparsehess_set_pattern(handle, 1_c_int, indptr, indices))
    call must(sparsehess_set_mass_csr(handle, 1_c_int, indptr, indices, spread(2.0_c_double, 1, n_local)))
    call must(sparsehess_solve(handle, 2))
    call must(sparsehess_get_eigenvalues(handle, values))
    if (any(abs(values - [6.0_c_double, 13.5_c_double]) > 1e-5)) stop 9
    call must(sparsehess_set_mass_coo(handle, 1_c_int, int(n_local, c_int64_t), rows, rows, &
        spread(4.0_c_double, 1, n_local)))
    call must(sparsehess_solve(handle, 2))
    call must(sparsehess_get_eigenvalues(handle, values))
    if (any(abs(values - [3.0_c_double, 6.75_c_double]) > 1e-5)) stop 9
    call must(sparsehess_count_inertia(handle))
    call must(sparsehess_get_inertia(handle, negative, zero, positive, infinite))
    call must(sparsehess_get_inertia_certified(handle, certified))
    if (negative + zero + infinite /= 0 .or. positive /= ranks*n_local .or. certified /= 1) stop 9
    if (sparsehess_count_inertia(handle, 5.0_c_double) /= 4) stop 9
    call must(sparsehess_get_inertia(handle, negative, zero, positive, infinite))
    if (zero /= 1) stop 9
    call must(sparsehess_destroy(handle))
    if (rank == 0) print "(a)", "all masses"
    call MPI_Finalize(error)
contains
    subroutine must(status)
        integer(c_int), intent(in) :: status
        if (status == 0) return
        print "(a)", sparsehess_error(handle)
        stop 9
    end subroutine
end program
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if shutil.which("mpicc") is None:
        pytest.skip("there is no C compiler of an MPI (mpicc)")
    path = tmp_path_factory.mktemp("capi")
    build(path)
    return path


@pytest.fixture(scope="module")
def host(folder):
    return compiled(folder, "host")


def compiled(folder, name, *flags):
    if shutil.which("mpicxx") is None:
        pytest.skip("there is no C++ compiler of an MPI (mpicxx)")
    source, program = folder / "host.cpp", folder / name
    source.write_text(HOST)
    link = [f"-L{folder}", f"-Wl,-rpath,{folder}", "-lsparsehess"]
    shell(["mpicxx", "-O1", "-Wall", f"-I{folder}", str(source), "-o", str(program), *link, *flags])
    return program


def shell(command, **more):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)
    assert done.returncode == 0, done.stderr
    return done


def mpiexec(ranks, program, *words):
    """Run as an outsider does: neither this test's MPI nor its virtual environment on the path."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OMPI_", "PMIX_", "PRTE_"))}
    plain |= {"OMPI_MCA_mpi_yield_when_idle": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1"}
    plain |= {"OMPI_MCA_hwloc_base_binding_policy": "none", "OMPI_MCA_reachable": "weighted"}
    plain |= {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
    if os.getuid() == 0:
        plain |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    venv, places = str(ROOT / ".venv"), plain["PATH"].split(os.pathsep)
    plain["PATH"] = os.pathsep.join(place for place in places if not place.startswith(venv))
    command = ["mpiexec", "-n", str(ranks), str(program), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=plain, cwd="/")


def moments(done, what):
    """Return when the host said that something happened, by the clock of `time.monotonic`.

    The start of interpreters and what comes afterwards may take any time on a machine that has much to do.
    """
    return [float(at) for at in re.findall(rf"^{what} at (\S+)$", done.stdout, re.MULTILINE)]


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("language", ["c", "fortran"])
def test_the_example_finds_the_modes_of_the_chain(folder, language, ranks):
    if language == "fortran" and shutil.which("mpifort") is None:
        pytest.skip("there is no Fortran compiler of an MPI (mpifort)")
    shell(["make", "-s", "-C", str(ROOT / "drivers" / "capi"), f"BUILD={folder}", language])
    mass = 2.5 if language == "c" else 1.0
    done = mpiexec(ranks, folder / ("chain" if language == "c" else "chain-fortran"), 200, 4, mass)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    values = [float(value) for value in re.findall(r"^ +\d+ +(\S+) +exact", done.stdout, re.MULTILINE)]
    exact = 4 * np.sin(np.arange(1, 5) * np.pi / 402) ** 2 / mass
    assert values == pytest.approx(exact, abs=1e-10)
    assert f"4 of 4 eigenpairs on {ranks} ranks, certified" in done.stdout


def test_an_error_of_one_rank_is_returned_on_all(host):
    done = mpiexec(3, host, "fault", 1, "after")
    returns = moments(done, "returns")
    assert len(returns) == 3 and max(returns) - moments(done, "fails")[0] < 10  # patience is 2
    lines = [line for line in done.stdout.splitlines() if line.startswith("rank")]
    assert len(lines) == 3, done.stdout + done.stderr
    assert all("status 2: " in line and "on rank 1" in line and "returned 7" in line for line in lines)
    assert done.returncode == 2


def test_nan_is_a_failed_check_on_all_ranks(host):
    done = mpiexec(2, host, "fault", 1, "nan")
    assert done.stdout.count("status 4: ") == 2, done.stdout + done.stderr
    assert "not finite" in done.stdout and "variable 23" in done.stdout


def test_ranks_that_are_stuck_in_the_hosts_calls_are_ended(host):
    done = mpiexec(2, host, "fault", 1, "before")
    assert time.monotonic() - moments(done, "fails")[0] < 10  # patience is 2
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("sparsehess: ") == 1 and "on rank 1" in done.stderr and "ending all" in done.stderr


@pytest.mark.parametrize(("ranks", "cycles"), [(1, 200), (2, 60)])
def test_memory_is_flat_over_cycles(host, ranks, cycles):
    done = mpiexec(ranks, host, "cycles", cycles)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"growth (-?\d+)", done.stdout)[1]) < 2**19


@pytest.mark.parametrize("ranks", [1, 3])
def test_parts_of_the_ranks_by_themselves(host, ranks):
    done = mpiexec(ranks, host, "parts")
    assert done.returncode == 0 and "all parts" in done.stdout, done.stdout + done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_masses_that_are_no_diagonal_and_inertia(host, ranks):
    done = mpiexec(ranks, host, "masses")
    assert done.returncode == 0 and "all masses" in done.stdout, done.stdout + done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("ranks", [1, 2])
def test_masses_and_inertia_in_fortran(folder, ranks):
    if shutil.which("mpifort") is None:
        pytest.skip("there is no Fortran compiler of an MPI (mpifort)")
    source, program = folder / "masses.f90", folder / "masses"
    source.write_text(FORTRAN)
    link = [f"-L{folder}", f"-Wl,-rpath,{folder}", "-lsparsehess"]
    made = [f"-J{folder}", str(folder / "sparsehess.f90"), str(source), "-o", str(program)]
    shell(["mpifort", "-O1", "-Wall", *made, *link])
    done = mpiexec(ranks, program)
    assert done.returncode == 0 and "all masses" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_bar_in_cpp_has_the_modes_of_its_consistent_mass(folder, ranks):
    if shutil.which("mpicxx") is None:
        pytest.skip("there is no C++ compiler of an MPI (mpicxx)")
    shell(["make", "-s", "-C", str(ROOT / "drivers" / "capi"), f"BUILD={folder}", "cxx"])
    done = mpiexec(ranks, folder / "bar", 100, 4)
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    values = [float(value) for value in re.findall(r"^ +\d+ +(\S+) +exact", done.stdout, re.MULTILINE)]
    cosines = np.cos(np.arange(1, 5) * np.pi / 101)
    assert values == pytest.approx(6 * (1 - cosines) / (2 + cosines), abs=1e-9)
    assert f"4 of 4 eigenpairs on {ranks} ranks, certified" in done.stdout
    assert "inertia: 0 negative, 0 zero, 100 positive, certified" in done.stdout
    wrong = mpiexec(ranks, folder / "bar", 100, 1000)
    assert wrong.returncode == 2 and wrong.stderr.startswith("bar: k=1000 eigenpairs of a matrix with 100 rows")


def test_a_host_without_mpi_of_its_own(host):
    done = mpiexec(2, host, "alone")
    assert done.returncode == 0 and "growth" in done.stdout, done.stdout + done.stderr


def test_a_handle_that_outlives_mpi_is_told_so(host):
    done = mpiexec(2, host, "late")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("MPI is finalised already: destroy the handle before MPI_Finalize") == 2


def test_petsc_of_the_host_is_left_as_it_is(folder):
    from petsc4py import PETSc

    place = Path(PETSc.__file__).parents[5]  # of PETSc, where petsc4py is the distribution's
    if not (place / "include" / "petsc.h").exists():
        pytest.skip("there are no headers of PETSc beside petsc4py")
    more = ["-DWITH_PETSC", f"-I{place}/include", f"-L{place}/lib", f"-Wl,-rpath,{place}/lib"]
    program = compiled(folder, "host-petsc", *more, "-lpetsc_real")
    done = mpiexec(2, program, "parts")
    assert done.returncode == 0 and "all parts" in done.stdout, done.stdout + done.stderr
    assert re.findall(r"options (\d+) (\d+)", done.stdout) == [("0", "0")] * 2


def test_an_environment_without_sparsehess_says_so(host, monkeypatch):
    monkeypatch.setenv("SPARSEHESS_PYTHON", "/nowhere/python3")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    done = mpiexec(1, host, "cycles", 1)
    assert done.returncode == 2 and "sparsehess" in done.stdout


def test_what_is_missing_is_named_by_its_packages(tmp_path, capsys, monkeypatch):
    """All of it at once, not one after another."""
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / "none"))
    monkeypatch.setenv("PATH", "")
    assert main([str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "apt-get install libopenmpi-dev python3-dev" in said and "Python.h" in said and said.count("\n") == 1
    assert fortran_advice().endswith("apt-get install libopenmpi-dev gfortran")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("complaint", "package"),
    [
        ("embedding.c:12: fatal error: mpi.h: No such file or directory", "libopenmpi-dev"),
        ("/usr/bin/ld: cannot find -lpython3.11: No such file or directory", "libpython3-dev"),
        ("The Open MPI wrapper compiler was unable to find the specified compiler\ngcc in your PATH.", "gcc"),
    ],
)
def test_a_compiler_that_lacks_something_is_understood(complaint, package, tmp_path, capsys):
    compiler, fortran = tmp_path / "mpicc", tmp_path / "mpifort"
    for script in (compiler, fortran):
        script.write_text(f"#!/bin/sh\necho '{complaint}' >&2\nexit 1\n")
        script.chmod(0o755)
    assert main([str(tmp_path / "out"), "--mpicc", str(compiler)]) == 2
    assert f"apt-get install {package}" in capsys.readouterr().err
    assert fortran_advice(str(fortran)).endswith("apt-get install gfortran")


def test_a_library_that_cannot_be_built_says_why(tmp_path, capsys):
    assert main([str(tmp_path), "--mpicc", "no-such-mpicc"]) == 2
    assert "no-such-mpicc" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
