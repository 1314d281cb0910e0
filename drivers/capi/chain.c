/* A chain of masses between two walls (Fermi, Pasta, Ulam and Tsingou), distributed over the ranks.
 *
 *     V(x) = sum over springs of d^2/2 + d^4/4,    d the difference of neighbours, walls at 0
 *
 * At rest its modes are lambda_j = 4 sin^2(j pi / 2(n+1)) / mass, with which the answers are compared.
 *
 *     make && mpiexec -n 2 build/chain [n] [k] [mass]
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "sparsehess.h"

struct chain {
    MPI_Comm comm;
    int left, right; /* neighbouring ranks, or MPI_PROC_NULL */
    int64_t n_local;
};

static double force(double d)
{
    return d + d * d * d;
}

/* The gradient on this rank's masses; the ends are exchanged with the neighbours. */
static int gradient(const double *x, double *g, void *context)
{
    const struct chain *chain = context;
    int64_t last = chain->n_local - 1;
    double before = 0, after = 0; /* the walls, where there is no neighbour */

    MPI_Sendrecv(&x[last], 1, MPI_DOUBLE, chain->right, 0, &before, 1, MPI_DOUBLE, chain->left, 0, chain->comm,
                 MPI_STATUS_IGNORE);
    MPI_Sendrecv(&x[0], 1, MPI_DOUBLE, chain->left, 1, &after, 1, MPI_DOUBLE, chain->right, 1, chain->comm,
                 MPI_STATUS_IGNORE);
    for (int64_t i = 0; i <= last; i++) {
        double left = i > 0 ? x[i - 1] : before, right = i < last ? x[i + 1] : after;
        g[i] = force(x[i] - left) - force(right - x[i]);
    }
    return 0;
}

/* Say what went wrong, once, and end; every rank has the same status. */
static void check(int status, sparsehess_t handle, int rank)
{
    if (status == 0) return;
    if (rank == 0) fprintf(stderr, "chain: %s\n", sparsehess_error(handle));
    sparsehess_destroy(&handle);
    MPI_Finalize();
    exit(status);
}

int main(int count, char **words)
{
    int64_t n = count > 1 ? atoll(words[1]) : 1000;
    int k = count > 2 ? atoi(words[2]) : 5;
    double mass = count > 3 ? atof(words[3]) : 1.0;
    int rank, size, converged, certified;
    sparsehess_t handle;

    MPI_Init(&count, &words);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (n < size || k < 1) {
        if (rank == 0) fprintf(stderr, "chain: n must be at least the number of ranks, and k at least 1\n");
        MPI_Finalize();
        return 2;
    }
    struct chain chain = {MPI_COMM_WORLD, rank > 0 ? rank - 1 : MPI_PROC_NULL,
                          rank < size - 1 ? rank + 1 : MPI_PROC_NULL, n / size + (rank < n % size)};
    int64_t start = rank * (n / size) + (rank < n % size ? rank : n % size);

    /* Every mass is coupled with itself and its neighbours. */
    int64_t *indptr = malloc((chain.n_local + 1) * sizeof *indptr);
    int64_t *indices = malloc(3 * chain.n_local * sizeof *indices);
    double *x = calloc(chain.n_local, sizeof *x), *masses = malloc(chain.n_local * sizeof *masses);
    indptr[0] = 0;
    for (int64_t i = 0, at = 0; i < chain.n_local; i++) {
        for (int64_t j = start + i - 1; j <= start + i + 1; j++)
            if (j >= 0 && j < n) indices[at++] = j;
        indptr[i + 1] = at;
        masses[i] = mass;
    }

    int status = sparsehess_create(MPI_COMM_WORLD, &handle);
    check(status, handle, rank);
    /* What a setter refuses, on whatever rank, is returned by solve on all. */
    sparsehess_set_sizes(handle, chain.n_local);
    sparsehess_set_option(handle, "name", "the chain");
    sparsehess_set_point(handle, x);
    sparsehess_set_gradient(handle, gradient, &chain);
    sparsehess_set_pattern64(handle, 0, indptr, indices);
    if (mass != 1.0) sparsehess_set_mass(handle, masses);
    check(sparsehess_solve(handle, k, "smallest", 1e-10, "auto"), handle, rank);

    sparsehess_get_converged(handle, &converged);
    sparsehess_get_certified(handle, &certified);
    double *values = malloc(converged * sizeof *values), *errors = malloc(converged * sizeof *errors);
    double *vectors = malloc(converged * chain.n_local * sizeof *vectors);
    sparsehess_get_eigenvalues(handle, values);
    sparsehess_get_residuals(handle, errors);
    sparsehess_get_vectors(handle, 0, converged, vectors);
    double worst = 0;
    for (int j = 0; j < converged; j++) {
        double half = sin((j + 1) * M_PI / (2.0 * (n + 1))), exact = 4 * half * half / mass, norm = 0;
        for (int64_t i = 0; i < chain.n_local; i++) {
            double v = vectors[j * chain.n_local + i];
            norm += mass * v * v;
        }
        MPI_Allreduce(MPI_IN_PLACE, &norm, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
        worst = fmax(worst, fmax(fabs(values[j] - exact) * mass, fabs(norm - 1)));
        if (rank == 0) printf("%3d  %.15e  exact %.15e  residual %.1e\n", j + 1, values[j], exact, errors[j]);
    }
    if (rank == 0) printf("%d of %d eigenpairs on %d ranks, %s\n", converged, k, size,
                          certified ? "certified" : "not certified");
    check(sparsehess_destroy(&handle), handle, rank);
    free(indptr), free(indices), free(x), free(masses), free(values), free(errors), free(vectors);
    MPI_Finalize();
    return worst < 1e-8 ? 0 : 4;
}
