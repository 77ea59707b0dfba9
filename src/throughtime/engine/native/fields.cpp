#include "fields.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <stdexcept>

namespace throughtime {
namespace {

constexpr char MAGIC[] = "throughtime embedded #\n";  // with the version where the # is
constexpr size_t MAGIC_SIZE = sizeof MAGIC - 1, VERSION = MAGIC_SIZE - 2;

[[noreturn]] void damaged(const std::string& why) { throw std::runtime_error("the file is damaged: " + why); }

uint32_t crc32(const uint8_t* data, size_t size) {
    static const std::array<uint32_t, 256> table = [] {
        std::array<uint32_t, 256> made{};
        for (uint32_t i = 0; i < 256; i++) {
            made[i] = i;
            for (int bit = 0; bit < 8; bit++) made[i] = made[i] >> 1 ^ (made[i] & 1 ? 0xedb88320u : 0);
        }
        return made;
    }();
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < size; i++) crc = crc >> 8 ^ table[(crc ^ data[i]) & 0xff];
    return ~crc;
}

// An open file, and how it is read.
class File {
    int handle;

    [[noreturn]] static void fail(const char* what) {
        throw std::runtime_error(std::string("the file cannot be ") + what + ": " + strerror(errno));
    }

 public:
    int64_t size;

    // A pipe or a device is refused before it is opened, for that alone may have effects; and after, for another file may
    // have taken the place of the first.
    explicit File(const char* path) {
        check(path, [](const char* path, struct stat* found) { return stat(path, found); });
        handle = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (handle < 0) fail("opened");
        try {
            check(handle, [](int handle, struct stat* found) { return fstat(handle, found); });
        } catch (...) {
            close(handle);
            throw;
        }
    }
    File(const File&) = delete;
    ~File() { close(handle); }

    template <class Name, class Ask>
    void check(Name name, Ask ask) {
        struct stat found;
        if (ask(name, &found) != 0) fail("opened");
        if (!S_ISREG(found.st_mode)) throw std::runtime_error("it is not a regular file");
        size = (int64_t)found.st_size;
    }

    void read(uint8_t* to, size_t count) {
        while (count) {
            const ssize_t got = ::read(handle, to, count);
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) fail("read");
            if (!got) damaged("it ended while it was read");
            to += got, count -= (size_t)got;
        }
    }
};

}  // namespace

Fields::Fields(const char* path) {
    File file(path);
    uint8_t magic[MAGIC_SIZE];
    if (file.size < (int64_t)MAGIC_SIZE || (file.read(magic, MAGIC_SIZE), memcmp(magic, MAGIC, VERSION) != 0))
        throw std::runtime_error("the file was not written by `throughtime embed`");
    number_of_version = (char)magic[VERSION];
    if ((version() != ONE_SIZE && version() != SIZES) || magic[VERSION + 1] != MAGIC[VERSION + 1])
        throw std::runtime_error(
            "the file is of another version than this library; write it anew by `throughtime embed`");
    if (file.size > LARGEST)
        throw std::runtime_error("the file has " + std::to_string(file.size) + " bytes, and it may have at most " +
                                 std::to_string(LARGEST));
    content.resize((size_t)file.size - MAGIC_SIZE);
    file.read(content.data(), content.size());
    const int64_t check = number();
    if (check != (int64_t)crc32(content.data() + at, left())) damaged("its check sum is another");
}

void Fields::take(void* to, size_t size) {
    if (size > left()) damaged("it ends too early");
    memcpy(to, content.data() + at, size);
    at += size;
}

int64_t Fields::number() {
    int64_t found;
    take(&found, sizeof found);
    return found;
}

int64_t Fields::number(int64_t least, int64_t most, const char* what) {
    const int64_t found = number();
    if (found < least || found > most) damaged(std::string(what) + " is out of range");
    return found;
}

int64_t Fields::count(const char* what) { return number(1, (int64_t)(left() / sizeof(int64_t)), what); }

std::string Fields::text() {
    std::string found((size_t)number(0, (int64_t)left(), "the length of a text"), '\0');
    take(&found[0], found.size());
    return found;
}

std::vector<float> Fields::numbers(int64_t count) {
    std::vector<float> found((size_t)count);
    take(found.data(), found.size() * sizeof(float));
    return found;
}

std::vector<float> Fields::array(int64_t rows, int64_t& columns, const char* what) {
    const bool whole = number(0, 1, "the kind of an array") == 1;
    const int64_t held_rows = number(), held_columns = number();
    if (held_rows != rows || held_columns < 1 || (columns && held_columns != columns))
        damaged(std::string(what) + " has another shape");
    columns = held_columns;
    const int64_t room = (int64_t)left() - (whole ? 4 * rows : 0);
    if (room < 1 || columns > room / (whole ? 1 : 4) / rows) damaged("it ends too early");
    std::vector<float> found;
    if (whole) {
        const std::vector<float> scales = numbers(rows);
        found.resize((size_t)(rows * columns));
        const int8_t* from = reinterpret_cast<const int8_t*>(content.data() + at);
        for (int64_t i = 0; i < rows * columns; i++) found[i] = from[i] * scales[i / columns];
        at += found.size();
    } else {
        found = numbers(rows * columns);
    }
    for (const float value : found)
        if (!std::isfinite(value)) damaged(std::string(what) + " holds a value that is not finite");
    return found;
}

void Fields::end() const {
    if (left()) damaged("something follows its end");
}

}  // namespace throughtime
