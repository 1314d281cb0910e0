// A bar between two walls, of linear finite elements with their consistent mass, distributed over the ranks: how the
// C ABI is used from C++17, by a small class that owns a handle and throws.
//
//     V(u) = sum over elements of e^2/2 + e^4/4, e the difference of their ends;  M = [2 1; 1 2] / 6 of each
//
// At rest its modes are lambda_j = 6 (1 - cos t) / (2 + cos t), t = j pi / (n + 1), with which answers are compared,
// and its Hessian is positive definite, as its inertia says.
//
//     make cxx && mpiexec -n 2 build/bar [n] [k]
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "sparsehess.h"

// A handle: made by its constructor, destroyed by its destructor, not copied. What the library refuses is thrown on
// every rank alike.
class Problem {
public:
    using Gradient = std::function<void(const double *u, double *g)>;

    struct Failure : std::runtime_error {
        int status;
        Failure(int status, const std::string &what) : std::runtime_error(what), status(status) {}
    };

    struct Inertia {
        std::int64_t negative, zero, positive, infinite;
        bool certified;
    };

    // Collective, as the destructor is.
    Problem(MPI_Comm comm, std::int64_t n_local, Gradient gradient) : gradient_(std::move(gradient))
    {
        if (int status = sparsehess_create(comm, &handle_)) throw Failure(status, sparsehess_error(nullptr));
        sparsehess_set_sizes(handle_, n_local);  // what a setter refuses, on whatever rank, solve returns on all
        sparsehess_set_gradient(handle_, &Problem::call, this);
    }
    ~Problem() { sparsehess_destroy(&handle_); }
    Problem(const Problem &) = delete;
    Problem &operator=(const Problem &) = delete;

    void name(const std::string &text) { sparsehess_set_option(handle_, "name", text.c_str()); }
    void point(const std::vector<double> &u) { sparsehess_set_point(handle_, u.data()); }
    void mass(const std::vector<std::int64_t> &rows, const std::vector<std::int64_t> &columns,
              const std::vector<double> &values)
    {
        sparsehess_set_mass_coo64(handle_, 0, rows.size(), rows.data(), columns.data(), values.data());
    }

    // Collective.
    std::vector<double> eigenvalues(int k, double tol = 1e-10)
    {
        check(sparsehess_solve(handle_, k, "smallest", tol, "auto"));
        int converged = 0;
        check(sparsehess_get_converged(handle_, &converged));
        std::vector<double> values(converged);
        check(sparsehess_get_eigenvalues(handle_, values.data()));
        return values;
    }
    bool certified() const
    {
        int certified = 0;
        check(sparsehess_get_certified(handle_, &certified));
        return certified == 1;
    }
    // Collective.
    Inertia inertia(double zero = 0)
    {
        Inertia found{};
        int certified = 0;
        check(sparsehess_count_inertia(handle_, zero));
        check(sparsehess_get_inertia(handle_, &found.negative, &found.zero, &found.positive, &found.infinite));
        check(sparsehess_get_inertia_certified(handle_, &certified));
        found.certified = certified == 1;
        return found;
    }

private:
    Gradient gradient_;
    sparsehess_t handle_ = nullptr;

    // An exception may not leave a function that C calls: it becomes a status.
    static int call(const double *u, double *g, void *context) noexcept
    {
        try {
            static_cast<Problem *>(context)->gradient_(u, g);
            return 0;
        } catch (const std::exception &error) {
            std::fprintf(stderr, "bar: %s\n", error.what());
            return 1;
        }
    }
    void check(int status) const
    {
        if (status != 0) throw Failure(status, sparsehess_error(handle_));
    }
};

// The piece of the bar that a rank has: nodes from `start`, and the ranks beside it.
struct Piece {
    MPI_Comm comm;
    int rank, size;
    std::int64_t n, start, n_local;

    Piece(MPI_Comm comm, std::int64_t n) : comm(comm), n(n)
    {
        MPI_Comm_rank(comm, &rank);
        MPI_Comm_size(comm, &size);
        start = rank * (n / size) + std::min<std::int64_t>(rank, n % size);
        n_local = n / size + (rank < n % size);
    }

    static double force(double e) { return e + e * e * e; }

    void gradient(const double *u, double *g) const
    {
        int left = rank > 0 ? rank - 1 : MPI_PROC_NULL, right = rank < size - 1 ? rank + 1 : MPI_PROC_NULL;
        double before = 0, after = 0;  // the walls, where there is no neighbour
        MPI_Sendrecv(&u[n_local - 1], 1, MPI_DOUBLE, right, 0, &before, 1, MPI_DOUBLE, left, 0, comm,
                     MPI_STATUS_IGNORE);
        MPI_Sendrecv(&u[0], 1, MPI_DOUBLE, left, 1, &after, 1, MPI_DOUBLE, right, 1, comm, MPI_STATUS_IGNORE);
        for (std::int64_t i = 0; i < n_local; i++) {
            double low = i > 0 ? u[i - 1] : before, high = i < n_local - 1 ? u[i + 1] : after;
            g[i] = force(u[i] - low) - force(high - u[i]);
        }
    }

    // Element e lies between nodes e - 1 and e. This rank brings those that end at its nodes, the last one also the
    // element at the wall; entries may belong to rows of the rank before.
    void mass(std::vector<std::int64_t> &rows, std::vector<std::int64_t> &columns, std::vector<double> &values) const
    {
        std::int64_t last = start + n_local + (rank == size - 1 ? 1 : 0);
        for (std::int64_t e = start; e < last; e++)
            for (std::int64_t i : {e - 1, e})
                for (std::int64_t j : {e - 1, e})
                    if (i >= 0 && j >= 0 && i < n && j < n) {
                        rows.push_back(i);
                        columns.push_back(j);
                        values.push_back(i == j ? 2.0 / 6.0 : 1.0 / 6.0);
                    }
    }
};

static int run(std::int64_t n, int k)
{
    Piece piece(MPI_COMM_WORLD, n);
    if (n < piece.size || k < 1) {
        if (piece.rank == 0) std::fprintf(stderr, "bar: n must be at least the number of ranks, and k at least 1\n");
        return 2;
    }
    try {
        Problem problem(piece.comm, piece.n_local, [&](const double *u, double *g) { piece.gradient(u, g); });
        std::vector<std::int64_t> rows, columns;
        std::vector<double> values;
        piece.mass(rows, columns, values);
        problem.name("the bar");
        problem.point(std::vector<double>(piece.n_local, 0.0));
        problem.mass(rows, columns, values);

        auto found = problem.eigenvalues(k);
        double worst = 0;
        for (std::size_t j = 0; j < found.size(); j++) {
            double t = std::cos((j + 1) * std::acos(-1.0) / (n + 1)), exact = 6 * (1 - t) / (2 + t);
            worst = std::max(worst, std::fabs(found[j] - exact));
            if (piece.rank == 0) std::printf("%3zu  %.15e  exact %.15e\n", j + 1, found[j], exact);
        }
        auto signs = problem.inertia();
        if (piece.rank == 0) {
            std::printf("%zu of %d eigenpairs on %d ranks, %s\n", found.size(), k, piece.size,
                        problem.certified() ? "certified" : "not certified");
            std::printf("inertia: %lld negative, %lld zero, %lld positive, %s\n", (long long)signs.negative,
                        (long long)signs.zero, (long long)signs.positive,
                        signs.certified ? "certified" : "not certified");
        }
        return worst < 1e-8 && signs.positive == n ? 0 : 4;
    } catch (const Problem::Failure &failure) {
        if (piece.rank == 0) std::fprintf(stderr, "bar: %s\n", failure.what());
        return failure.status;
    }
}

int main(int count, char **words)
{
    MPI_Init(&count, &words);
    int status = run(count > 1 ? std::stoll(words[1]) : 1000, count > 2 ? std::stoi(words[2]) : 5);
    MPI_Finalize();
    return status;
}
