// The fields of a file for the C library, one after another; runtime/embedded.py says what they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace throughtime {

// A file that somebody else may have made: every size in it is compared with the bytes that are left before memory is
// taken for it. All functions throw std::runtime_error where the file is damaged, or cannot be read.
class Fields {
    std::vector<uint8_t> content;
    size_t at = 0;
    char number_of_version = 0;

    size_t left() const { return content.size() - at; }
    void take(void* to, size_t size);
    std::vector<float> numbers(int64_t count);

 public:
    // Reads a regular file of at most LARGEST bytes, and compares its check sum.
    static constexpr int64_t LARGEST = int64_t(1) << 32;
    explicit Fields(const char* path);

    // The version of the file: with the units of all layers before them, or with those of each layer at its beginning.
    static constexpr char ONE_SIZE = '2', SIZES = '3';
    char version() const { return number_of_version; }

    int64_t number();
    int64_t number(int64_t least, int64_t most, const char* what);
    int64_t count(const char* what);  // of things that take eight bytes each or more
    std::string text();
    // `rows` rows of `columns` finite numbers, as float32; 0 columns: as many as the file says, at least one.
    std::vector<float> array(int64_t rows, int64_t& columns, const char* what);
    std::vector<float> matrix(int64_t rows, int64_t columns, const char* what) { return array(rows, columns, what); }
    void end() const;  // there are no more
};

}  // namespace throughtime
