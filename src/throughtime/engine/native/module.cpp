// The levels as Python sees them: which there are, and their kernels, which take arrays by name.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "array.hpp"
#include "bindings.hpp"
#include "levels.hpp"
#include "memory.hpp"
#include "team.hpp"

namespace nb = nanobind;

namespace throughtime {

namespace {

struct Size {
    int64_t T, B, D, H, V;
};

// Finds the arrays of a call by their names, and refuses what the kernel would misread.
class Arrays {
    struct Given {
        const char* name;
        nb::handle value;
        bool known;
    };
    std::vector<Given> all;

    // Where its entries lie and how many they are; -1: it is no such array. Whoever has arrays of another library says
    // where they lie: (address, entries, kind).
    template <class T>
    static std::pair<T*, int64_t> read(nb::handle value) {
        std::tuple<uintptr_t, int64_t, const char*> lent;
        if (nb::isinstance<nb::tuple>(value)) {
            if (!nb::try_cast(value, lent) || strcmp(std::get<2>(lent), name_of(entry_of(T())))) return {nullptr, -1};
            return {reinterpret_cast<T*>(std::get<0>(lent)), std::get<1>(lent)};
        }
        // Without conversion: a converted copy would be gone before the kernel reads it.
        const auto array = Array<T, ANY>::take(value, false);
        return {array.data(), array.is_valid() ? array.size() : -1};
    }

 public:
    explicit Arrays(const nb::kwargs& given) {
        all.reserve(given.size());
        for (const auto& [name, value] : given) {
            const char* text = PyUnicode_AsUTF8(name.ptr());
            if (!text) throw nb::python_error();
            all.push_back({text, value, false});
        }
    }

    template <class T>
    T* find(const char* name, int64_t entries) {
        const auto given = std::find_if(all.begin(), all.end(), [&](const Given& g) { return !strcmp(g.name, name); });
        if (given == all.end()) return nullptr;
        given->known = true;
        if (given->value.is_none()) return nullptr;
        const auto [data, found] = read<T>(given->value);
        if (found < 0)
            throw nb::type_error((std::string(name) + " should be a dense" + (std::is_const_v<T> ? " " : " writable ") +
                                  name_of(entry_of(T())) + " array in main memory")
                                     .c_str());
        if (found != entries)
            throw nb::value_error((std::string(name) + " should have " + std::to_string(entries) + " entries, got " +
                                   std::to_string(found))
                                      .c_str());
        return data;
    }

    template <class T>
    T* need(const char* name, int64_t entries) {
        T* found = find<T>(name, entries);
        if (!found) throw nb::value_error((std::string(name) + " is missing").c_str());
        return found;
    }

    void all_known() const {
        for (const Given& given : all)
            if (!given.known) throw nb::type_error((std::string("this kernel knows no array ") + given.name).c_str());
    }
};

Layer layer_of(const Size& n, int threads) {
    if (n.T < 1 || n.B < 1 || n.D < 1 || n.H < 1 || n.V < 0) throw nb::value_error("every size must be at least 1");
    if (threads < 1) throw nb::value_error("threads must be at least 1");
    Layer l{};
    l.steps = n.T, l.lanes = n.B, l.inputs = n.D, l.units = n.H, l.vocabulary = n.V, l.threads = threads;
    return l;
}

// Copies of the index arrays of a call: no other thread can change them after they are checked.
struct Indices {
    std::vector<int64_t> starts, ids;
};

// Finds and checks `starts` (see Layer), where lanes are unequal. Returns the number of rows, the steps of all lanes.
int64_t find_starts(const Size& n, Arrays& arrays, Layer& l, Indices& indices) {
    const int64_t* given = arrays.find<const int64_t>("starts", n.T + 1);
    if (!given) return n.T * n.B;
    indices.starts.assign(given, given + n.T + 1);
    int64_t before = n.B;
    for (int64_t t = 0; t < n.T; t++) {
        const int64_t alive = indices.starts[t + 1] - indices.starts[t];
        if (indices.starts[0] != 0 || alive < 1 || alive > before || (t == 0 && alive != n.B))
            throw nb::value_error(
                "starts should begin with 0 and B, and grow by no more at a step than at the one before");
        before = alive;
    }
    l.starts = indices.starts.data();
    return indices.starts[n.T];
}

// Returns the number of rows.
int64_t common(const Recurrence& r, const Size& n, Arrays& arrays, Layer& l, Indices& indices) {
    const int64_t rows = find_starts(n, arrays, l, indices);
    l.W = arrays.need<const float>("W", r.gates * n.H * n.D);
    if (r.product) {
        l.U = arrays.need<const float>("U", r.gates * n.H * n.H);
        l.U_mask = arrays.find<const float>("U_mask", r.gates * n.H * n.H);
        l.state_mask = arrays.find<const float>("state_mask", n.B * n.H);
    }
    if (const int64_t* given = arrays.find<const int64_t>("ids", rows)) {
        indices.ids.assign(given, given + rows);
        l.ids = indices.ids.data();
    }
    if (!l.ids != !n.V) throw nb::value_error("ids and the size of their vocabulary go together");
    for (int64_t i = 0; l.ids && i < rows; i++)
        if (l.ids[i] < 0 || l.ids[i] >= n.V)
            throw nb::index_error(
                ("id " + std::to_string(l.ids[i]) + " is not in a vocabulary of " + std::to_string(n.V)).c_str());
    l.x = arrays.need<const float>("x", (l.ids ? n.V : rows) * n.D);
    l.vectors = arrays.need<const float>("vectors", r.vectors * n.H);
    l.fresh = arrays.find<const uint8_t>("fresh", rows);
    l.flow = arrays.find<const float>("flow", rows);
    l.hidden0 = arrays.need<const float>("hidden0", n.B * n.H);
    l.carried0 = r.carries_hidden ? l.hidden0 : arrays.need<const float>("carried0", n.B * n.H);
    const Sizes sizes = r.sizes(l);
    l.saved = arrays.find<float>("saved", sizes.saved / sizeof(float));
    l.read = arrays.find<uint8_t>("read", sizes.read);
    return rows;
}

typedef std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t> Shape;

Size size_of(const Shape& s) {
    return {std::get<0>(s), std::get<1>(s), std::get<2>(s), std::get<3>(s), std::get<4>(s)};
}

void forward(const Recurrence& r, const Shape& shape, int threads, const nb::kwargs& given) {
    const Size n = size_of(shape);
    Layer l = layer_of(n, threads);
    Arrays arrays(given);
    Indices indices;
    const int64_t rows = common(r, n, arrays, l, indices);
    l.y = arrays.need<float>("y", rows * n.H);
    l.hidden = arrays.need<float>("hidden", n.B * n.H);
    l.carried = r.carries_hidden ? nullptr : arrays.need<float>("carried", n.B * n.H);
    arrays.all_known();
    const Unlocked unlocked;
    r.forward(l);
}

void backward(const Recurrence& r, const Shape& shape, int threads, const nb::kwargs& given) {
    const Size n = size_of(shape);
    Layer l = layer_of(n, threads);
    Arrays arrays(given);
    Indices indices;
    const int64_t rows = common(r, n, arrays, l, indices);
    if (!r.backward) throw nb::value_error("this kernel has no way back");
    if (!l.saved || (r.product && !l.read)) throw nb::value_error("what the forward pass saved is missing");
    l.dy = arrays.find<const float>("dy", rows * n.H);
    l.dhidden = arrays.find<const float>("dhidden", n.B * n.H);
    if (!r.carries_hidden) l.dcarried = arrays.find<const float>("dcarried", n.B * n.H);
    l.dx = arrays.find<float>("dx", (l.ids ? n.V : rows) * n.D);
    l.dW = arrays.find<float>("dW", r.gates * n.H * n.D);
    if (r.product) l.dU = arrays.find<float>("dU", r.gates * n.H * n.H);
    l.dvectors = arrays.find<float>("dvectors", r.vectors * n.H);
    l.dhidden0 = arrays.find<float>("dhidden0", n.B * n.H);
    if (!r.carries_hidden) l.dcarried0 = arrays.find<float>("dcarried0", n.B * n.H);
    arrays.all_known();
    const Unlocked unlocked;
    r.backward(l);
}

// Bytes that the forward pass saves of the gates, and of the states that the products read.
std::pair<size_t, size_t> sizes(const Recurrence& r, const Shape& shape, const nb::kwargs& given) {
    const Size n = size_of(shape);
    Layer l = layer_of(n, 1);
    Arrays arrays(given);
    Indices indices;
    find_starts(n, arrays, l, indices);
    arrays.all_known();
    const Sizes found = r.sizes(l);
    return {found.saved, found.read};
}

// An array of bytes that goes back to the lender when nobody holds it any more.
Array<uint8_t, 1> memory(size_t bytes) {
    void* borrowed = borrow(bytes);
    const nb::capsule owner(borrowed, [](void* memory) noexcept { give_back(memory); });
    const intptr_t shape[] = {(intptr_t)bytes};
    return Array<uint8_t, 1>(dense::on(borrowed, Entry::UINT8, 1, shape, owner));
}

const Recurrence& recurrence(const std::string& level, const std::string& cell, bool bf16) {
    const Level* there = level_of(level);
    const Recurrence* found = there ? recurrence_of(*there, cell, bf16 ? "bf16" : "float32") : nullptr;
    if (!found) throw nb::key_error(("no kernel for " + cell + " at level " + level).c_str());
    return *found;
}

}  // namespace

NB_MODULE(_native, m) {
    // A script's last loss is mostly alive when Python goes, and with it the kernels of its graph: no mistake to report.
    nb::set_leak_warnings(false);
    load_numpy();
    bind_network(m);
    m.def("levels", [] {
        std::vector<std::string> names;
        for (const Level* level : levels()) names.emplace_back(level->name);
        return names;
    });
    m.def("thread_source", [] { return std::string(thread_source()); });
    m.def("memory", &memory, nb::arg("bytes"));
    m.def("recurrence", &recurrence, nb::arg("level"), nb::arg("cell"), nb::arg("bf16"), nb::rv_policy::reference);
    nb::class_<Recurrence>(m, "Recurrence")
        .def_ro("gates", &Recurrence::gates)
        .def_ro("vectors", &Recurrence::vectors)
        .def_ro("product", &Recurrence::product)
        .def_ro("carries_hidden", &Recurrence::carries_hidden)
        .def("sizes", &sizes, nb::arg("shape"), nb::arg("arrays"))
        .def("forward", &forward, nb::arg("shape"), nb::arg("threads"), nb::arg("arrays"))
        .def("backward", &backward, nb::arg("shape"), nb::arg("threads"), nb::arg("arrays"));
}

}  // namespace throughtime
