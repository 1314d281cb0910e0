# cython: language_level=3
"""What looks on from outside of the interpreter: the first interrupt, and calls that do not end.

A thread of the C library reads the clock, whoever holds the interpreter: a rank that loops, sleeps, or waits in a
call of MPI or of the system is seen as well. Its Python stack is written by `faulthandler`, at a signal, into a pipe
that the thread reads. Nothing here takes the interpreter's lock but what Python calls.
"""

from libc.errno cimport EINTR, errno
from libc.signal cimport SIG_DFL, SIGINT, raise_ as raise_signal, signal as set_signal
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memchr, strlen, strncpy, strstr

cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t
    int pthread_create(pthread_t *, void *, void *(*)(void *) noexcept nogil, void *)
    int pthread_kill(pthread_t, int)
    int pthread_detach(pthread_t)
    pthread_t pthread_self()

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int POLLIN
    int poll(pollfd *, unsigned long, int)

cdef extern from "<unistd.h>" nogil:
    long write(int, const void *, size_t)
    long read(int, void *, size_t)
    int usleep(unsigned int)
    unsigned int alarm(unsigned int)
    void _exit(int)
    int getpid()

cdef extern from "<signal.h>" nogil:
    int kill(int, int)
    int SIGALRM

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int, timespec *)

cdef extern from "<dlfcn.h>" nogil:
    void *RTLD_DEFAULT
    void *dlsym(void *, const char *)

ctypedef int (*AbortPointer)(void *, int) noexcept nogil
ctypedef int (*AbortNumber)(int, int) noexcept nogil

cdef enum:
    MOST = 256  # processes of this host that are asked where they are
    TEXT = 400
    PAGE = 65536
    FRAMES = 6  # of a stack that are told

# --- the first interrupt ---

cdef char _said[TEXT]
cdef int _wait = 0


cdef void _interrupted(int number) noexcept nogil:
    if _wait:
        usleep(_wait)  # the launcher ends this rank meanwhile, if the first has heard of it too
    write(2, _said, strlen(_said))
    set_signal(SIGINT, SIG_DFL)
    raise_signal(SIGINT)


def end_when_interrupted(line: str, seconds: float) -> None:
    """Have SIGINT end this process at once, after a line on standard error, whatever it is doing.

    Not collective.

    Parameters
    ----------
    line
        What is said.
    seconds
        To wait before it is said, less than one.
    """
    global _wait
    text = line.encode(errors="replace")[: TEXT - 2] + b"\n"
    strncpy(_said, text, TEXT - 1)
    _wait = int(1e6 * seconds)
    set_signal(SIGINT, _interrupted)


# --- calls that do not end ---

cdef volatile double _deadline = 0.0
cdef volatile double _began = 0.0
cdef char _doing[TEXT]
cdef char _rank_text[TEXT]
cdef char _advice[TEXT]
cdef int _pipe = -1
cdef int _number = 0
cdef int _status = 2
cdef int _process = 0
cdef pthread_t _main
cdef int _others[MOST]
cdef int _count = 0
cdef char _handle[8]
cdef int _handle_size = 0
cdef char _page[PAGE]


cdef double _now() noexcept nogil:
    cdef timespec moment
    clock_gettime(CLOCK_MONOTONIC, &moment)
    return moment.tv_sec + 1e-9 * moment.tv_nsec


cdef void _say(const char *text, size_t length) noexcept nogil:
    cdef long done
    while length > 0:
        done = write(2, text, length)
        if done < 0:
            if errno == EINTR:
                continue
            return
        text += done
        length -= done


cdef void _tell_stack(int milliseconds) noexcept nogil:
    """Read what faulthandler writes, and tell the frames, the innermost first; give up after so long."""
    cdef pollfd one
    cdef size_t there = 0
    cdef long got
    cdef char out[4096]
    cdef size_t used = 0
    cdef char *at
    cdef char *end
    cdef int frames = 0
    one.fd, one.events = _pipe, POLLIN
    while there < PAGE - 1 and poll(&one, 1, milliseconds) > 0:
        got = read(_pipe, _page + there, PAGE - 1 - there)
        if got <= 0:
            break
        there += got
        milliseconds = 50  # the rest comes at once
    _page[there] = 0
    used = snprintf(out, 500, "sparsehess: %s is at\n", _rank_text)
    at = _page
    while frames < FRAMES:
        at = strstr(at, "  File ")
        if at == NULL:
            break
        end = <char *> memchr(at, 10, there - (at - _page))
        if end == NULL or used + (end - at) + 80 > sizeof(out):
            break
        memcpy(out + used, at, end - at + 1)
        used += end - at + 1
        at = end
        frames += 1
    if frames == 0:
        used += snprintf(out + used, 80, "  no place in Python that can be told\n")
    _say(out, used)


cdef void _left(int number) noexcept nogil:
    _exit(_status)


cdef void _end_all(double seconds) noexcept nogil:
    cdef char line[1200]
    cdef int length, i
    cdef void *abort
    # Noted first: the signal may wake a call of the system, and the rank goes on.
    length = snprintf(line, 1200, "sparsehess: %s has been %s for %.0f s%s: ending all\n", _rank_text, _doing, seconds,
                      _advice)
    pthread_kill(_main, _number)
    _tell_stack(2000)
    for i in range(_count):
        if _others[i] != _process:
            kill(_others[i], _number)
    if _count > 1:
        usleep(600000)
    _say(line, length)
    usleep(300000)  # the launcher passes on what was said
    set_signal(SIGALRM, _left)
    alarm(3)
    abort = dlsym(RTLD_DEFAULT, "MPI_Abort")
    if abort != NULL and _handle_size == 8:
        (<AbortPointer> abort)((<void **> _handle)[0], _status)
    elif abort != NULL and _handle_size == 4:
        (<AbortNumber> abort)((<int *> _handle)[0], _status)
    _exit(_status)


cdef void *_look_on(void *nothing) noexcept nogil:
    cdef pollfd one
    cdef double until
    one.fd, one.events = _pipe, POLLIN
    while True:
        if poll(&one, 1, 100) > 0:
            _tell_stack(0)  # another rank wants to know
        until = _deadline
        if until > 0 and _now() > until and until == _deadline:
            _end_all(_now() - _began)
    return NULL


def start(reads: int, number: int, rank: str, advice: str, status: int, handle: bytes) -> None:
    """Start the thread, once for a process; later calls change what is told.

    Not collective. Called by the main thread.

    Parameters
    ----------
    reads
        The end of the pipe to read stacks from.
    number
        The signal at which `faulthandler` writes one.
    rank, advice
        How this process is called, and what is told beside the seconds.
    status
        With which the process ends.
    handle
        Bytes of the handle of a communicator, by which all are ended; empty for this process alone.
    """
    global _pipe, _number, _status, _process, _main, _handle_size
    cdef pthread_t thread
    strncpy(_rank_text, rank.encode(errors="replace"), TEXT - 1)
    strncpy(_advice, advice.encode(errors="replace"), TEXT - 1)
    _number, _status = number, status
    _handle_size = len(handle) if len(handle) in (4, 8) else 0
    if _handle_size:
        memcpy(_handle, <char *> handle, _handle_size)
    if _process == getpid():
        return
    _pipe, _process, _main = reads, getpid(), pthread_self()
    if pthread_create(&thread, NULL, _look_on, NULL):
        raise OSError("no thread can be started to look on")
    pthread_detach(thread)


def ask(processes: list) -> None:
    """Note which processes of this host are asked where they are. Not collective."""
    global _count
    _count = 0
    for one in processes[:MOST]:
        _others[_count] = one
        _count += 1


def enter(what: bytes, seconds: float) -> tuple:
    """Begin to look on; return what `leave` takes. Not collective."""
    global _deadline, _began
    before = (_deadline, _began, <bytes> _doing)
    _deadline = 0.0
    strncpy(_doing, what, TEXT - 1)
    _began = _now()
    _deadline = _began + seconds
    return before


def leave(before: tuple) -> None:
    """Look on as before. Not collective."""
    global _deadline, _began
    _deadline = 0.0
    strncpy(_doing, before[2], TEXT - 1)
    _began = before[1]
    _deadline = before[0]
