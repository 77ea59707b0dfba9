#include "array.hpp"

#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#include <numpy/arrayobject.h>

namespace nb = nanobind;

namespace throughtime {
namespace {

// float32, float64, int64 and uint8, in the order of Entry.
constexpr int TYPES[] = {NPY_FLOAT32, NPY_FLOAT64, NPY_INT64, NPY_UINT8};
constexpr const char* NAMES[] = {"float32", "float64", "int64", "uint8"};

PyArrayObject* numpy(nb::handle array) { return reinterpret_cast<PyArrayObject*>(array.ptr()); }

// Of the same kind: float64 becomes float32, but no fraction a whole number.
nb::object converted(nb::handle value, int type, int dimensions, int flags) noexcept {
    nb::object made;
    const nb::object any = nb::steal(PyArray_FromAny(value.ptr(), nullptr, 0, 0, 0, nullptr));
    if (any.is_valid() && (dimensions == ANY || PyArray_NDIM(numpy(any)) == dimensions)) {
        PyArray_Descr* wanted = PyArray_DescrFromType(type);
        if (PyArray_CanCastArrayTo(numpy(any), wanted, NPY_SAME_KIND_CASTING)) {
            Py_INCREF(wanted);  // for FromArray, which takes it over
            made = nb::steal(PyArray_FromArray(numpy(any), wanted, flags | NPY_ARRAY_FORCECAST));
        }
        Py_DECREF(wanted);
    }
    if (!made.is_valid()) PyErr_Clear();
    return made;
}

}  // namespace

const char* name_of(Entry entry) { return NAMES[(int)entry]; }

void load_numpy() {
    if (PyArray_ImportNumPyAPI() < 0) throw nb::python_error();
}

namespace dense {

nb::object of(nb::handle value, Entry entry, int dimensions, bool writable, bool convert) noexcept {
    const int type = TYPES[(int)entry], flags = writable ? NPY_ARRAY_CARRAY : NPY_ARRAY_CARRAY_RO;
    const bool is_array = PyArray_Check(value.ptr());
    if (is_array && (dimensions == ANY || PyArray_NDIM(numpy(value)) == dimensions)) {
        PyArrayObject* array = numpy(value);
        const bool same = PyArray_TYPE(array) == type || PyArray_EquivTypenums(PyArray_TYPE(array), type);
        if (same && PyArray_CHKFLAGS(array, flags) && PyArray_ISNOTSWAPPED(array)) return nb::borrow(value);
    }
    return convert ? converted(value, type, dimensions, flags) : nb::object();
}

View view(nb::handle array) noexcept {
    return {PyArray_DATA(numpy(array)), PyArray_DIMS(numpy(array)), PyArray_NDIM(numpy(array))};
}

nb::object unwritten(Entry entry, int dimensions, const intptr_t* shape) {
    PyObject* made = PyArray_SimpleNew(dimensions, shape, TYPES[(int)entry]);
    if (!made) throw nb::python_error();
    return nb::steal(made);
}

nb::object on(void* data, Entry entry, int dimensions, const intptr_t* shape, nb::capsule owner) {
    PyObject* made = PyArray_SimpleNewFromData(dimensions, shape, TYPES[(int)entry], data);
    if (!made) throw nb::python_error();
    const nb::object array = nb::steal(made);
    if (PyArray_SetBaseObject(numpy(array), owner.release().ptr()) < 0) throw nb::python_error();
    return array;
}

}  // namespace dense
}  // namespace throughtime
