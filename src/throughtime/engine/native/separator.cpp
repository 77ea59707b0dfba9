#include "separator.hpp"

#include <utility>

namespace throughtime {

Separator::Separator(std::vector<std::string> pieces, std::string text)
    : pieces(std::move(pieces)), text(std::move(text)), fallback(this->text.size()) {
    for (size_t i = 1; i < fallback.size(); i++) {
        int64_t length = fallback[i - 1];
        while (length && this->text[i] != this->text[length]) length = fallback[length - 1];
        fallback[i] = length + (this->text[i] == this->text[length]);
    }
}

int64_t Separator::after(int64_t matched, int64_t token) const {
    if (text.empty()) return 0;
    if (matched == size()) matched = 0;
    for (const char byte : pieces[token]) {
        if (matched == size()) matched = 0;
        while (matched && text[matched] != byte) matched = fallback[matched - 1];
        matched += text[matched] == byte;
    }
    return matched;
}

}  // namespace throughtime
