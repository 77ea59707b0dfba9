// Arrays of NumPy's, read and made by its own functions: through the protocols of exchange each would take as long to
// cross as a small layer takes for a step.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <type_traits>
#include <utility>

namespace throughtime {

enum class Entry { FLOAT32, FLOAT64, INT64, UINT8 };
constexpr Entry entry_of(float) { return Entry::FLOAT32; }
constexpr Entry entry_of(double) { return Entry::FLOAT64; }
constexpr Entry entry_of(int64_t) { return Entry::INT64; }
constexpr Entry entry_of(uint8_t) { return Entry::UINT8; }
const char* name_of(Entry entry);

constexpr int ANY = -1;  // number of dimensions

// Before the first array; throws nanobind::python_error where NumPy cannot be loaded.
void load_numpy();

namespace dense {

struct View {
    void* data;
    const intptr_t* shape;
    int dimensions;
};

// The array, dense and aligned, if it is one of such entries; else what it can be converted to, if it may. Null: neither.
nanobind::object of(nanobind::handle value, Entry entry, int dimensions, bool writable, bool convert) noexcept;
View view(nanobind::handle array) noexcept;
nanobind::object unwritten(Entry entry, int dimensions, const intptr_t* shape);
nanobind::object on(void* data, Entry entry, int dimensions, const intptr_t* shape, nanobind::capsule owner);

}  // namespace dense

// A dense array and its memory, which stays while this does. What a function takes as `T` it may write to: that is never
// a converted copy, whose entries would be lost.
template <class T, int DIMENSIONS>
class Array {
    nanobind::object array;
    dense::View is{};

 public:
    Array() = default;
    explicit Array(nanobind::object given) : array(std::move(given)) {
        if (array.is_valid()) is = dense::view(array);
    }
    static Array take(nanobind::handle value, bool convert) noexcept {
        constexpr bool WRITABLE = !std::is_const_v<T>;
        return Array(dense::of(value, entry_of(T()), DIMENSIONS, WRITABLE, convert && !WRITABLE));
    }
    template <class... Sizes>
    static Array unwritten(Sizes... sizes) {
        const intptr_t shape[] = {(intptr_t)sizes...};
        return Array(dense::unwritten(entry_of(T()), sizeof...(sizes), shape));
    }

    bool is_valid() const { return array.is_valid(); }
    T* data() const { return static_cast<T*>(is.data); }
    int64_t shape(int axis) const { return is.shape[axis]; }
    int64_t size() const {
        int64_t entries = 1;
        for (int axis = 0; axis < is.dimensions; axis++) entries *= is.shape[axis];
        return entries;
    }
    const nanobind::object& object() const { return array; }
};

}  // namespace throughtime

namespace nanobind::detail {

template <class T, int DIMENSIONS>
struct type_caster<throughtime::Array<T, DIMENSIONS>> {
    typedef throughtime::Array<T, DIMENSIONS> Array;
    static constexpr auto described() {
        constexpr throughtime::Entry entry = throughtime::entry_of(std::remove_const_t<T>());
        if constexpr (entry == throughtime::Entry::FLOAT32) return const_name("numpy.ndarray[float32]");
        if constexpr (entry == throughtime::Entry::FLOAT64) return const_name("numpy.ndarray[float64]");
        if constexpr (entry == throughtime::Entry::INT64) return const_name("numpy.ndarray[int64]");
        if constexpr (entry == throughtime::Entry::UINT8) return const_name("numpy.ndarray[uint8]");
    }
    NB_TYPE_CASTER(Array, described())

    bool from_python(handle source, uint32_t flags, cleanup_list*) noexcept {
        value = Array::take(source, flags & (uint32_t)cast_flags::convert);
        return value.is_valid();
    }

    static handle from_cpp(const Array& array, rv_policy, cleanup_list*) noexcept { return array.object().inc_ref(); }
};

}  // namespace nanobind::detail
