/* The C side of the ABI: starts Python where the host has not, and passes every call on to
 * sparsehess.hosts.capi.handle.Handle. Pointers travel as numbers. */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sparsehess.h"

#define UNUSABLE 2
#define ADDRESS(pointer) ((unsigned long long)(uintptr_t)(pointer))

struct sparsehess {
    PyObject *object; /* the Handle */
    char *message;
};

static char failure[2048]; /* why there is no handle */

static void keep(sparsehess_t handle, const char *text)
{
    if (handle == NULL) {
        snprintf(failure, sizeof failure, "%s", text);
        return;
    }
    free(handle->message);
    handle->message = strdup(text);
}

static int no_handle(void)
{
    snprintf(failure, sizeof failure, "the handle is NULL: sparsehess_create comes first");
    return UNUSABLE;
}

/* Finalise the MPI that sparsehess_create has initialised, when the process exits. */
static void finalize_mpi(void)
{
    int done = 0;
    MPI_Finalized(&done);
    if (!done) MPI_Finalize();
}

static int start_mpi(void)
{
    int there = 0, gone = 0, level;
    MPI_Initialized(&there);
    MPI_Finalized(&gone);
    if (gone) {
        keep(NULL, "MPI is finalised already");
        return UNUSABLE;
    }
    if (!there) {
        MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &level);
        atexit(finalize_mpi);
    }
    return 0;
}

static int start_python(void)
{
    const char *python = getenv("SPARSEHESS_PYTHON");
    PyConfig config;
    PyStatus status;
    Dl_info library;

    if (Py_IsInitialized()) return 0;
    /* Extension modules look for Python's symbols among the global ones, where they are not if the host has
     * opened this library by dlopen. */
    if (dladdr((void *)Py_IsInitialized, &library) && library.dli_fname != NULL)
        dlopen(library.dli_fname, RTLD_LAZY | RTLD_GLOBAL | RTLD_NOLOAD);
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0; /* signals are the host's */
    config.parse_argv = 0;
    /* The interpreter's place tells where its packages are, those of a virtual environment too. */
    status = PyConfig_SetBytesString(&config, &config.program_name, python ? python : SPARSEHESS_PYTHON);
    if (!PyStatus_Exception(status)) status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status)) {
        keep(NULL, status.err_msg ? status.err_msg : "Python does not start");
        return UNUSABLE;
    }
    PyEval_SaveThread(); /* every call takes the interpreter's lock for itself, from any thread */
    return 0;
}

/* Keep what Python has raised as the message; return its status. */
static int raised(sparsehess_t handle)
{
    PyObject *type, *value, *trace, *status = NULL, *text = NULL;
    const char *words = NULL;
    int code = 1;

    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    if (value != NULL) {
        if (getenv("SPARSEHESS_TRACEBACK") != NULL) PyErr_Display(type, value, trace);
        if (PyErr_GivenExceptionMatches(value, PyExc_ImportError)) code = UNUSABLE; /* the environment lacks it */
        if (PyErr_GivenExceptionMatches(value, PyExc_UnicodeDecodeError)) code = UNUSABLE; /* a text in no UTF-8 */
        status = PyObject_GetAttrString(value, "status");
        if (status != NULL && PyLong_Check(status)) {
            code = (int)PyLong_AsLong(status);
            text = PyObject_Str(value);
        } else {
            PyErr_Clear();
            text = PyUnicode_FromFormat("%s: %S", Py_TYPE(value)->tp_name, value);
        }
        if (text != NULL) words = PyUnicode_AsUTF8(text);
    }
    keep(handle, words != NULL ? words : "an error without a text");
    PyErr_Clear();
    Py_XDECREF(text);
    Py_XDECREF(status);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    return code;
}

/* Call a method of the Handle with arguments in the format of Py_BuildValue, a tuple. */
static int call(sparsehess_t handle, const char *method, const char *format, ...)
{
    PyObject *function, *arguments, *result = NULL;
    PyGILState_STATE lock;
    va_list list;
    int status = 0;

    if (handle == NULL) return no_handle();
    lock = PyGILState_Ensure();
    keep(handle, "");
    function = PyObject_GetAttrString(handle->object, method);
    va_start(list, format);
    arguments = Py_VaBuildValue(format, list);
    va_end(list);
    if (function != NULL && arguments != NULL) result = PyObject_CallObject(function, arguments);
    if (result == NULL) status = raised(handle);
    Py_XDECREF(result);
    Py_XDECREF(arguments);
    Py_XDECREF(function);
    PyGILState_Release(lock);
    return status;
}

int sparsehess_create_f(MPI_Fint comm, sparsehess_t *handle)
{
    PyObject *module, *object = NULL;
    PyGILState_STATE lock;
    int status;

    failure[0] = 0;
    if (handle == NULL) return no_handle();
    *handle = NULL;
    if ((status = start_mpi()) != 0 || (status = start_python()) != 0) return status;
    lock = PyGILState_Ensure();
    module = PyImport_ImportModule("sparsehess.hosts.capi.handle");
    if (module != NULL) object = PyObject_CallMethod(module, "Handle", "(i)", (int)comm);
    if (object == NULL) {
        status = raised(NULL);
    } else if ((*handle = calloc(1, sizeof **handle)) == NULL) {
        keep(NULL, "out of memory");
        status = UNUSABLE;
        Py_DECREF(object);
    } else {
        (*handle)->object = object;
    }
    Py_XDECREF(module);
    PyGILState_Release(lock);
    return status;
}

int sparsehess_create(MPI_Comm comm, sparsehess_t *handle)
{
    int status = start_mpi(); /* before a communicator is looked at */
    if (status != 0) return status;
    if (comm == MPI_COMM_NULL) {
        if (handle != NULL) *handle = NULL;
        keep(NULL, "the communicator is MPI_COMM_NULL");
        return UNUSABLE;
    }
    return sparsehess_create_f(MPI_Comm_c2f(comm), handle);
}

int sparsehess_destroy(sparsehess_t *handle)
{
    PyGILState_STATE lock;
    int status, gone = 0;

    if (handle == NULL || *handle == NULL) return 0;
    MPI_Finalized(&gone);
    if (gone) { /* as by a destructor at the end of main; nothing collective can be done any more */
        keep(NULL, "MPI is finalised already: destroy the handle before MPI_Finalize");
        *handle = NULL;
        return UNUSABLE;
    }
    status = call(*handle, "close", "()");
    if (status != 0) keep(NULL, (*handle)->message);
    lock = PyGILState_Ensure();
    Py_DECREF((*handle)->object);
    PyGILState_Release(lock);
    free((*handle)->message);
    free(*handle);
    *handle = NULL;
    return status;
}

const char *sparsehess_error(sparsehess_t handle)
{
    if (handle == NULL) return failure;
    return handle->message != NULL ? handle->message : "";
}

int sparsehess_set_sizes(sparsehess_t handle, int64_t n_local)
{
    return call(handle, "set_sizes", "(L)", (long long)n_local);
}

int sparsehess_set_point(sparsehess_t handle, const double *x_local)
{
    return call(handle, "set_point", "(K)", ADDRESS(x_local));
}

int sparsehess_set_gradient(sparsehess_t handle, sparsehess_gradient_t gradient, void *context)
{
    return call(handle, "set_gradient", "(KK)", ADDRESS(gradient), ADDRESS(context));
}

int sparsehess_set_hvp(sparsehess_t handle, sparsehess_hvp_t hvp, void *context)
{
    return call(handle, "set_hvp", "(KK)", ADDRESS(hvp), ADDRESS(context));
}

int sparsehess_set_pattern32(sparsehess_t handle, int base, const int32_t *indptr, const int32_t *indices)
{
    return call(handle, "set_pattern", "(iiKK)", 32, base, ADDRESS(indptr), ADDRESS(indices));
}

int sparsehess_set_pattern64(sparsehess_t handle, int base, const int64_t *indptr, const int64_t *indices)
{
    return call(handle, "set_pattern", "(iiKK)", 64, base, ADDRESS(indptr), ADDRESS(indices));
}

int sparsehess_set_mass(sparsehess_t handle, const double *diagonal_local)
{
    return call(handle, "set_mass", "(K)", ADDRESS(diagonal_local));
}

int sparsehess_set_mass_csr32(sparsehess_t handle, int base, const int32_t *indptr, const int32_t *indices,
                              const double *values)
{
    return call(handle, "set_mass_csr", "(iiKKK)", 32, base, ADDRESS(indptr), ADDRESS(indices), ADDRESS(values));
}

int sparsehess_set_mass_csr64(sparsehess_t handle, int base, const int64_t *indptr, const int64_t *indices,
                              const double *values)
{
    return call(handle, "set_mass_csr", "(iiKKK)", 64, base, ADDRESS(indptr), ADDRESS(indices), ADDRESS(values));
}

int sparsehess_set_mass_coo32(sparsehess_t handle, int base, int64_t count, const int32_t *rows,
                              const int32_t *columns, const double *values)
{
    return call(handle, "set_mass_coo", "(iiLKKK)", 32, base, (long long)count, ADDRESS(rows), ADDRESS(columns),
                ADDRESS(values));
}

int sparsehess_set_mass_coo64(sparsehess_t handle, int base, int64_t count, const int64_t *rows,
                              const int64_t *columns, const double *values)
{
    return call(handle, "set_mass_coo", "(iiLKKK)", 64, base, (long long)count, ADDRESS(rows), ADDRESS(columns),
                ADDRESS(values));
}

int sparsehess_set_option(sparsehess_t handle, const char *name, const char *value)
{
    return call(handle, "set_option", "(zz)", name, value);
}

int sparsehess_set_patience(sparsehess_t handle, double seconds)
{
    return call(handle, "set_patience", "(d)", seconds);
}

int sparsehess_solve(sparsehess_t handle, int k, const char *which, double tol, const char *method)
{
    return call(handle, "solve", "(izdz)", k, which, tol, method);
}

int sparsehess_count_inertia(sparsehess_t handle, double zero)
{
    return call(handle, "count_inertia", "(d)", zero);
}

int sparsehess_get_inertia(sparsehess_t handle, int64_t *negative, int64_t *zero, int64_t *positive,
                           int64_t *infinite)
{
    return call(handle, "get_inertia", "(KKKK)", ADDRESS(negative), ADDRESS(zero), ADDRESS(positive),
                ADDRESS(infinite));
}

int sparsehess_get_inertia_certified(sparsehess_t handle, int *certified)
{
    return call(handle, "get_inertia_certified", "(K)", ADDRESS(certified));
}

int sparsehess_get_converged(sparsehess_t handle, int *converged)
{
    return call(handle, "get_converged", "(K)", ADDRESS(converged));
}

int sparsehess_get_eigenvalues(sparsehess_t handle, double *eigenvalues)
{
    return call(handle, "get_eigenvalues", "(K)", ADDRESS(eigenvalues));
}

int sparsehess_get_residuals(sparsehess_t handle, double *residuals)
{
    return call(handle, "get_residuals", "(K)", ADDRESS(residuals));
}

int sparsehess_get_vectors(sparsehess_t handle, int first, int many, double *vectors_local)
{
    return call(handle, "get_vectors", "(iiK)", first, many, ADDRESS(vectors_local));
}

int sparsehess_get_certified(sparsehess_t handle, int *certified)
{
    return call(handle, "get_certified", "(K)", ADDRESS(certified));
}

int sparsehess_get_count(sparsehess_t handle, int64_t *inertia, int64_t *found)
{
    return call(handle, "get_count", "(KK)", ADDRESS(inertia), ADDRESS(found));
}

int sparsehess_get_evaluations(sparsehess_t handle, int64_t *gradients, int64_t *products)
{
    return call(handle, "get_evaluations", "(KK)", ADDRESS(gradients), ADDRESS(products));
}
