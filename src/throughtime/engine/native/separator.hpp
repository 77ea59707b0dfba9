// Where documents end in a sequence of tokens: after a text that stands between them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace throughtime {

// A lane is described by one number: how many bytes of the separator its text ends with (0: none; all of them: a document
// has ended, and the next token begins another). The search is that of Knuth, Morris and Pratt over the tokens' bytes.
class Separator {
    std::vector<std::string> pieces;  // [V]: what a token stands for
    std::string text;
    std::vector<int64_t> fallback;  // of each beginning: the longest shorter one that it ends with

 public:
    Separator(std::vector<std::string> pieces, std::string text);
    const std::vector<std::string>& all_pieces() const { return pieces; }
    int64_t size() const { return (int64_t)text.size(); }
    bool ended(int64_t matched) const { return !text.empty() && matched == size(); }
    // The bytes matched after a token. A separator that ends inside a token ends no document: no state can be reset there.
    int64_t after(int64_t matched, int64_t token) const;
};

}  // namespace throughtime
