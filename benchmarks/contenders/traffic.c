/* Counts of what a process hands to MPI, by stage: a library that is loaded before MPI's (LD_PRELOAD).
 *
 * MPI_Pcontrol(s), 0 <= s < STAGES, begins stage s. What mpi4py, PETSc, SLEPc, ScaLAPACK and hypre call is C; MUMPS
 * calls Fortran, whose wrappers in MPI go straight to PMPI, so that those that MUMPS 5.5 calls are here too (`nm -D`
 * lists them). What a call does inside another is not counted twice. Left out: a rank's messages to itself,
 * communicators of one rank, files of MPI, windows of shared memory.
 *
 * A message is one from a rank to another: of a send, of a neighbour in a neighbourhood collective, of a part that is
 * not empty in an all-to-all, of a put, a get or an accumulate. Collectives are counted as calls, with the bytes that
 * this rank gives and gets; how many messages they make is MPI's.
 */
#include <mpi.h>
#include <stdint.h>
#include <stdlib.h>

enum { STAGES = 32, RANKS = 1024 };
enum { REDUCE, BCAST, GATHER, ALLGATHER, ALLTOALL, BARRIER, COMM, KINDS };

int64_t traffic_sent[STAGES][RANKS][2];         /* messages, bytes, by the rank in MPI_COMM_WORLD that gets them */
int64_t traffic_collective[STAGES][KINDS][3];   /* calls, bytes given, bytes got */
static int stage, depth;                        /* depth: inside a call of Fortran */

int MPI_Pcontrol(const int level, ...) {
    if (level >= 0 && level < STAGES) stage = level;
    return MPI_SUCCESS;
}

static int64_t bytes(int64_t count, MPI_Datatype type) {
    int size = 0;
    if (count > 0) PMPI_Type_size(type, &size);
    return count * size;
}

static void to_member(MPI_Group group, int rank, int64_t size) {
    MPI_Group world;
    int there = MPI_UNDEFINED, here;
    PMPI_Comm_group(MPI_COMM_WORLD, &world);
    PMPI_Group_translate_ranks(group, 1, &rank, world, &there);
    PMPI_Group_free(&world);
    PMPI_Comm_rank(MPI_COMM_WORLD, &here);
    if (there == MPI_UNDEFINED || there == here || there >= RANKS) return;
    traffic_sent[stage][there][0]++;
    traffic_sent[stage][there][1] += size;
}

static void message(int rank, int64_t size, MPI_Comm comm) {
    MPI_Group group;
    if (depth || rank == MPI_PROC_NULL) return;
    PMPI_Comm_group(comm, &group);
    to_member(group, rank, size);
    PMPI_Group_free(&group);
}

static void window(int rank, int64_t size, MPI_Win win) {
    MPI_Group group;
    if (depth || rank == MPI_PROC_NULL) return;
    PMPI_Win_get_group(win, &group);
    to_member(group, rank, size);
    PMPI_Group_free(&group);
}

static int ranks(MPI_Comm comm) {
    int size;
    PMPI_Comm_size(comm, &size);
    return size;
}

static int rank_in(MPI_Comm comm) {
    int rank;
    PMPI_Comm_rank(comm, &rank);
    return rank;
}

static void collective(int kind, MPI_Comm comm, int64_t given, int64_t got) {
    if (depth || ranks(comm) == 1) return;
    traffic_collective[stage][kind][0]++;
    traffic_collective[stage][kind][1] += given;
    traffic_collective[stage][kind][2] += got;
}

static int64_t total(const int *counts, MPI_Comm comm) {
    int64_t sum = 0;
    for (int i = 0; i < ranks(comm); i++) sum += counts[i];
    return sum;
}

/* ---- messages ---- */

#define V const void *
#define WRAP(name, params, args, count) int MPI_##name params { count; return PMPI_##name args; }
#define TO V b, int n, MPI_Datatype t, int to, int tag
#define SEND(name) \
    WRAP(name, (TO, MPI_Comm c), (b, n, t, to, tag, c), message(to, bytes(n, t), c))
#define ISEND(name) \
    WRAP(name, (TO, MPI_Comm c, MPI_Request *r), (b, n, t, to, tag, c, r), message(to, bytes(n, t), c))
SEND(Send) SEND(Ssend) SEND(Bsend) SEND(Rsend)
ISEND(Isend) ISEND(Issend) ISEND(Ibsend) ISEND(Irsend)

WRAP(Sendrecv, (TO, void *rb, int rn, MPI_Datatype rt, int from, int rtag, MPI_Comm c, MPI_Status *s),
     (b, n, t, to, tag, rb, rn, rt, from, rtag, c, s), message(to, bytes(n, t), c))
WRAP(Sendrecv_replace,
     (void *b, int n, MPI_Datatype t, int to, int tag, int from, int rtag, MPI_Comm c, MPI_Status *s),
     (b, n, t, to, tag, from, rtag, c, s), message(to, bytes(n, t), c))

/* Persistent requests: handles are used again, so that the last one made with a handle is meant. */
static struct { MPI_Request handle; MPI_Comm comm; int to; int64_t size; } *made;
static int many, room;

static void remember(MPI_Request handle, int to, int64_t size, MPI_Comm comm) {
    int i = 0;
    while (i < many && made[i].handle != handle) i++;
    if (i == many && many++ == room) made = realloc(made, (room = 2 * room + 64) * sizeof *made);
    made[i].handle = handle, made[i].comm = comm, made[i].to = to, made[i].size = size;
}
static void started(MPI_Request handle) {
    for (int i = 0; i < many; i++)
        if (made[i].handle == handle) message(made[i].to, made[i].size, made[i].comm);
}
#define INIT(name) \
    int MPI_##name(TO, MPI_Comm c, MPI_Request *r) { \
        int status = PMPI_##name(b, n, t, to, tag, c, r); \
        remember(*r, to, bytes(n, t), c); return status; }
INIT(Send_init) INIT(Ssend_init) INIT(Bsend_init) INIT(Rsend_init)
int MPI_Recv_init(void *b, int n, MPI_Datatype t, int from, int tag, MPI_Comm c, MPI_Request *r) {
    int status = PMPI_Recv_init(b, n, t, from, tag, c, r);
    remember(*r, MPI_PROC_NULL, 0, c);
    return status;
}
WRAP(Start, (MPI_Request *r), (r), started(*r))
WRAP(Startall, (int n, MPI_Request r[]), (n, r), for (int i = 0; i < n; i++) started(r[i]))

#define RMA(name, B) \
    int MPI_##name(B b, int n, MPI_Datatype t, int to, MPI_Aint d, int m, MPI_Datatype u, MPI_Win w) { \
        window(to, bytes(n, t), w); return PMPI_##name(b, n, t, to, d, m, u, w); }
RMA(Put, V) RMA(Get, void *)
WRAP(Accumulate, (V b, int n, MPI_Datatype t, int to, MPI_Aint d, int m, MPI_Datatype u, MPI_Op o, MPI_Win w),
     (b, n, t, to, d, m, u, o, w), window(to, bytes(n, t), w))

static void to_neighbours(const int *counts, MPI_Datatype type, MPI_Comm comm) {
    int in, out, weighted;
    PMPI_Dist_graph_neighbors_count(comm, &in, &out, &weighted);
    int *list = malloc((2 * in + 2 * out + 1) * sizeof *list);
    PMPI_Dist_graph_neighbors(comm, in, list + 2 * out, list + 2 * out + in, out, list, list + out);
    for (int i = 0; i < out; i++)
        if (counts[i]) message(list[i], bytes(counts[i], type), comm);
    free(list);
}
#define NV V b, const int *n, const int *d, MPI_Datatype t, void *rb, const int *rn, const int *rd, MPI_Datatype rt, \
           MPI_Comm c
WRAP(Neighbor_alltoallv, (NV), (b, n, d, t, rb, rn, rd, rt, c), to_neighbours(n, t, c))
WRAP(Ineighbor_alltoallv, (NV, MPI_Request *r), (b, n, d, t, rb, rn, rd, rt, c, r), to_neighbours(n, t, c))

/* ---- collectives ---- */

static void reduced(int64_t size, MPI_Comm comm) { collective(REDUCE, comm, size, size); }
static void rooted(int kind, int root, int64_t given, int64_t at_root, MPI_Comm comm) {
    collective(kind, comm, given, rank_in(comm) == root ? at_root : 0);
}
static void cast(int root, int64_t size, MPI_Comm comm) {
    int here = rank_in(comm) == root;
    collective(BCAST, comm, here ? size : 0, here ? 0 : size);
}
static void exchanged(const int *counts, int each, MPI_Datatype type, MPI_Comm comm) {
    int64_t size = 0;
    collective(ALLTOALL, comm, 0, 0);
    for (int i = 0; i < ranks(comm); i++) {
        size = bytes(counts ? counts[i] : each, type);
        if (size) message(i, size, comm);
    }
}

#define RED V b, void *rb, int n, MPI_Datatype t, MPI_Op o
WRAP(Allreduce, (RED, MPI_Comm c), (b, rb, n, t, o, c), reduced(bytes(n, t), c))
WRAP(Scan, (RED, MPI_Comm c), (b, rb, n, t, o, c), reduced(bytes(n, t), c))
WRAP(Exscan, (RED, MPI_Comm c), (b, rb, n, t, o, c), reduced(bytes(n, t), c))
WRAP(Reduce, (RED, int root, MPI_Comm c), (b, rb, n, t, o, root, c),
     rooted(REDUCE, root, bytes(n, t), bytes(n, t), c))
WRAP(Iallreduce, (RED, MPI_Comm c, MPI_Request *r), (b, rb, n, t, o, c, r), reduced(bytes(n, t), c))
WRAP(Reduce_scatter, (V b, void *rb, const int *n, MPI_Datatype t, MPI_Op o, MPI_Comm c), (b, rb, n, t, o, c),
     collective(REDUCE, c, bytes(total(n, c), t), bytes(n[rank_in(c)], t)))
WRAP(Reduce_scatter_block, (RED, MPI_Comm c), (b, rb, n, t, o, c),
     collective(REDUCE, c, ranks(c) * bytes(n, t), bytes(n, t)))
WRAP(Bcast, (void *b, int n, MPI_Datatype t, int root, MPI_Comm c), (b, n, t, root, c), cast(root, bytes(n, t), c))
WRAP(Ibcast, (void *b, int n, MPI_Datatype t, int root, MPI_Comm c, MPI_Request *r), (b, n, t, root, c, r),
     cast(root, bytes(n, t), c))
WRAP(Barrier, (MPI_Comm c), (c), collective(BARRIER, c, 0, 0))
WRAP(Ibarrier, (MPI_Comm c, MPI_Request *r), (c, r), collective(BARRIER, c, 0, 0))

/* In place, what is given stands where it is received. */
#define HEAD V b, int n, MPI_Datatype t, void *rb
WRAP(Allgather, (HEAD, int rn, MPI_Datatype rt, MPI_Comm c), (b, n, t, rb, rn, rt, c),
     collective(ALLGATHER, c, bytes(rn, rt), ranks(c) * bytes(rn, rt)))
WRAP(Allgatherv, (HEAD, const int *rn, const int *d, MPI_Datatype rt, MPI_Comm c), (b, n, t, rb, rn, d, rt, c),
     collective(ALLGATHER, c, bytes(rn[rank_in(c)], rt), bytes(total(rn, c), rt)))
#define AT(yes, no) (rank_in(c) == root ? (yes) : (no))
WRAP(Gather, (HEAD, int rn, MPI_Datatype rt, int root, MPI_Comm c), (b, n, t, rb, rn, rt, root, c),
     collective(GATHER, c, AT(bytes(rn, rt), bytes(n, t)), AT(ranks(c) * bytes(rn, rt), 0)))
WRAP(Gatherv, (HEAD, const int *rn, const int *d, MPI_Datatype rt, int root, MPI_Comm c),
     (b, n, t, rb, rn, d, rt, root, c),
     collective(GATHER, c, AT(bytes(rn[root], rt), bytes(n, t)), AT(bytes(total(rn, c), rt), 0)))
WRAP(Scatter, (HEAD, int rn, MPI_Datatype rt, int root, MPI_Comm c), (b, n, t, rb, rn, rt, root, c),
     collective(GATHER, c, AT(ranks(c) * bytes(n, t), 0), AT(bytes(n, t), bytes(rn, rt))))
WRAP(Scatterv, (V b, const int *n, const int *d, MPI_Datatype t, void *rb, int rn, MPI_Datatype rt, int root,
     MPI_Comm c), (b, n, d, t, rb, rn, rt, root, c),
     collective(GATHER, c, AT(bytes(total(n, c), t), 0), AT(bytes(n[root], t), bytes(rn, rt))))
WRAP(Alltoall, (HEAD, int rn, MPI_Datatype rt, MPI_Comm c), (b, n, t, rb, rn, rt, c), exchanged(NULL, rn, rt, c))
WRAP(Alltoallv, (NV),
     (b, n, d, t, rb, rn, rd, rt, c), exchanged(b == MPI_IN_PLACE ? rn : n, 0, b == MPI_IN_PLACE ? rt : t, c))

/* Communicators and windows are made by all of their ranks. */
WRAP(Comm_dup, (MPI_Comm c, MPI_Comm *o), (c, o), collective(COMM, c, 0, 0))
WRAP(Comm_split, (MPI_Comm c, int color, int key, MPI_Comm *o), (c, color, key, o), collective(COMM, c, 0, 0))
WRAP(Comm_split_type, (MPI_Comm c, int k, int key, MPI_Info i, MPI_Comm *o),
     (c, k, key, i, o), collective(COMM, c, 0, 0))
WRAP(Comm_create, (MPI_Comm c, MPI_Group g, MPI_Comm *o), (c, g, o), collective(COMM, c, 0, 0))
WRAP(Dist_graph_create_adjacent,
     (MPI_Comm c, int n, const int *s, const int *v, int m, const int *d, const int *w, MPI_Info i, int r, MPI_Comm *o),
     (c, n, s, v, m, d, w, i, r, o), collective(COMM, c, 0, 0))
WRAP(Win_create, (void *b, MPI_Aint n, int u, MPI_Info i, MPI_Comm c, MPI_Win *w),
     (b, n, u, i, c, w), collective(COMM, c, 0, 0))

/* ---- Fortran: integers for handles, everything by address; constants such as in place stay Fortran's ---- */

#define F int *
#define C(handle) MPI_Comm_f2c(*(handle))
#define T(handle) MPI_Type_f2c(*(handle))
#define FORTRAN(name, params, args, count) \
    void p##name params; \
    void name params { count; depth++; p##name args; depth--; }
FORTRAN(mpi_send_, (void *b, F n, F t, F to, F tag, F c, F e), (b, n, t, to, tag, c, e),
        message(*to, bytes(*n, T(t)), C(c)))
FORTRAN(mpi_ssend_, (void *b, F n, F t, F to, F tag, F c, F e), (b, n, t, to, tag, c, e),
        message(*to, bytes(*n, T(t)), C(c)))
FORTRAN(mpi_isend_, (void *b, F n, F t, F to, F tag, F c, F r, F e), (b, n, t, to, tag, c, r, e),
        message(*to, bytes(*n, T(t)), C(c)))
FORTRAN(mpi_allreduce_, (void *b, void *rb, F n, F t, F o, F c, F e), (b, rb, n, t, o, c, e),
        reduced(bytes(*n, T(t)), C(c)))
FORTRAN(mpi_reduce_, (void *b, void *rb, F n, F t, F o, F root, F c, F e), (b, rb, n, t, o, root, c, e),
        rooted(REDUCE, *root, bytes(*n, T(t)), bytes(*n, T(t)), C(c)))
FORTRAN(mpi_reduce_scatter_, (void *b, void *rb, F n, F t, F o, F c, F e), (b, rb, n, t, o, c, e),
        collective(REDUCE, C(c), bytes(total(n, C(c)), T(t)), bytes(n[rank_in(C(c))], T(t))))
FORTRAN(mpi_bcast_, (void *b, F n, F t, F root, F c, F e), (b, n, t, root, c, e), cast(*root, bytes(*n, T(t)), C(c)))
FORTRAN(mpi_gather_, (void *b, F n, F t, void *rb, F rn, F rt, F root, F c, F e), (b, n, t, rb, rn, rt, root, c, e),
        rooted(GATHER, *root, bytes(*n, T(t)), ranks(C(c)) * bytes(*n, T(t)), C(c)))
FORTRAN(mpi_alltoall_, (void *b, F n, F t, void *rb, F rn, F rt, F c, F e), (b, n, t, rb, rn, rt, c, e),
        exchanged(NULL, *rn, T(rt), C(c)))
FORTRAN(mpi_barrier_, (F c, F e), (c, e), collective(BARRIER, C(c), 0, 0))
FORTRAN(mpi_comm_dup_, (F c, F o, F e), (c, o, e), collective(COMM, C(c), 0, 0))
FORTRAN(mpi_comm_split_, (F c, F color, F key, F o, F e), (c, color, key, o, e), collective(COMM, C(c), 0, 0))
