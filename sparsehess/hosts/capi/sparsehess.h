/* Sparse Hessians from gradients, and their certified eigenpairs, inside C, C++ and Fortran programs.
 *
 * Every function returns a status: 0 done, 1 a bug in sparsehess, 2 unusable arguments, functions or
 * environment, 3 fewer eigenpairs converged than were asked for (those that did can be read), 4 a check failed
 * (derivatives that are not finite or not symmetric, eigenvalues missed). sparsehess_error() says it in a
 * sentence, which is kept until the next call with the handle.
 *
 * Collective are create, solve, count_inertia and destroy: every rank of the communicator calls them, and an error of one rank
 * is returned on all. Everything else is local; what a setter has refused on one rank is told to all by solve, each
 * time, until the setter is called again with success (an option that is none: with NULL).
 * Arrays are copied, and are the caller's: local pieces, rank after rank, of n_local numbers.
 *
 * MPI may have been initialised by the program, or else sparsehess_create does so and the process finalises it
 * when it exits; PETSc the same, but it is never finalised here. A handle is to be destroyed before its
 * communicator is freed, and before MPI_Finalize or PetscFinalize.
 */
#ifndef SPARSEHESS_H
#define SPARSEHESS_H

#include <mpi.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sparsehess *sparsehess_t;

/* Fill g_local with the gradient at x_local. Collective: the ranks may exchange what they need, on a communicator
 * of the program. Anything but 0 is an error on this rank, which ends the solve on all. A C++ function must not
 * throw. Entries that are left as they were count as not finite. */
typedef int (*sparsehess_gradient_t)(const double *x_local, double *g_local, void *context);

/* Fill y_local with the product of the Hessian at x_local and v_local; the same rules. */
typedef int (*sparsehess_hvp_t)(const double *x_local, const double *v_local, double *y_local, void *context);

/* The communicator is duplicated; one of some of the ranks will do, and several may be in use at once. */
int sparsehess_create(MPI_Comm comm, sparsehess_t *handle);
int sparsehess_create_f(MPI_Fint comm, sparsehess_t *handle);

/* Destroys what belongs to the handle, and makes it NULL. NULL is no error. After MPI_Finalize it returns 2 and does
 * nothing else. */
int sparsehess_destroy(sparsehess_t *handle);

/* Why the last call did not return 0, or "". NULL: why create failed. */
const char *sparsehess_error(sparsehess_t handle);

/* How many variables are this rank's, perhaps 0. To be called first; called again, it forgets everything else
 * but functions and options. */
int sparsehess_set_sizes(sparsehess_t handle, int64_t n_local);

/* Where the Hessian is taken. Between solves this moves it: colouring, matrix and plan are used again. */
int sparsehess_set_point(sparsehess_t handle, const double *x_local);

int sparsehess_set_gradient(sparsehess_t handle, sparsehess_gradient_t gradient, void *context);

/* Optional: products instead of differences of gradients. NULL takes them away. */
int sparsehess_set_hvp(sparsehess_t handle, sparsehess_hvp_t hvp, void *context);

/* Which variables may be coupled: indptr of n_local + 1 numbers, global columns. Numbers begin at base, 0 or 1,
 * in both. Missing mirrors and diagonals are added. Without a pattern it is probed. */
int sparsehess_set_pattern32(sparsehess_t handle, int base, const int32_t *indptr, const int32_t *indices);
int sparsehess_set_pattern64(sparsehess_t handle, int base, const int64_t *indptr, const int64_t *indices);

/* Optional: M of H u = lambda M u, symmetric and positive semidefinite. The one set last holds, diagonal or not;
 * NULL takes any of them away. Both triangles are given. */
int sparsehess_set_mass(sparsehess_t handle, const double *diagonal_local);

/* M by its local rows, a consistent mass: indptr of n_local + 1 numbers, global columns, values. Numbers begin at
 * base, 0 or 1, in both. */
int sparsehess_set_mass_csr32(sparsehess_t handle, int base, const int32_t *indptr, const int32_t *indices,
                              const double *values);
int sparsehess_set_mass_csr64(sparsehess_t handle, int base, const int64_t *indptr, const int64_t *indices,
                              const double *values);

/* M by `count` entries in global rows and columns, whichever rank they belong to, as elements give them: those of
 * one place add up. A rank that has none passes 0. */
int sparsehess_set_mass_coo32(sparsehess_t handle, int base, int64_t count, const int32_t *rows,
                              const int32_t *columns, const double *values);
int sparsehess_set_mass_coo64(sparsehess_t handle, int base, int64_t count, const int64_t *rows,
                              const int64_t *columns, const double *values);

/* What `sparsehess eigs` has flags for: name, derivative, coloring, order, verify (0 or 1), count, seed, target,
 * interval ("low high"), groups, columns; with a dash, an option of PETSc: "-eps_ncv". NULL takes it away. */
int sparsehess_set_option(sparsehess_t handle, const char *name, const char *value);

/* How long a rank whose function failed waits for ranks that are in another call, in seconds, before it ends the
 * whole job by MPI_Abort; default 5. Negative: for ever, with a message. */
int sparsehess_set_patience(sparsehess_t handle, double seconds);

/* k of 0, tol of 0, and strings that are NULL or empty are the defaults: 6 (all in an interval), 1e-8, "smallest",
 * "auto". which: smallest, largest, magnitude, negative. */
int sparsehess_solve(sparsehess_t handle, int k, const char *which, double tol, const char *method);

/* How many eigenvalues of H, or of H u = lambda M u, are negative, zero and positive, by Sylvester's law; none is
 * computed. Collective. Up to the size `zero` they count as zero; 0 for the accuracy of the Hessian. Returns 4 where
 * the counts are not certain: they can be read all the same. */
int sparsehess_count_inertia(sparsehess_t handle, double zero);

/* The counts of the last one, the same on every rank; infinite ones are of a mass that is singular. */
int sparsehess_get_inertia(sparsehess_t handle, int64_t *negative, int64_t *zero, int64_t *positive,
                           int64_t *infinite);

/* 1 if two factorizations agree on each side of zero, else 0: estimates, of what cannot be factorized. */
int sparsehess_get_inertia_certified(sparsehess_t handle, int *certified);

/* --- the answers of the last solve, the same on every rank except for vectors --- */

int sparsehess_get_converged(sparsehess_t handle, int *converged);

/* Ascending, and the backward error of each; `converged` numbers. */
int sparsehess_get_eigenvalues(sparsehess_t handle, double *eigenvalues);
int sparsehess_get_residuals(sparsehess_t handle, double *residuals);

/* Local pieces of `many` vectors from `first` (0 is that of the first eigenvalue), one after another, n_local
 * numbers each. M-orthonormal. */
int sparsehess_get_vectors(sparsehess_t handle, int first, int many, double *vectors_local);

/* 1 if an inertia count has shown that none is missing, else 0; and the count, -1 where none was made. */
int sparsehess_get_certified(sparsehess_t handle, int *certified);
int sparsehess_get_count(sparsehess_t handle, int64_t *inertia, int64_t *found);

/* Calls of the gradient and of the products since create, those that measure noise and check included. */
int sparsehess_get_evaluations(sparsehess_t handle, int64_t *gradients, int64_t *products);

#ifdef __cplusplus
}
#endif

#endif
