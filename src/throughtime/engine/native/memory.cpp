#include "memory.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

namespace throughtime {
namespace {

constexpr size_t SMALL_PAGE = 64, LARGE_PAGE = 2u << 20;

struct Free {
    void operator()(void* memory) const { free(memory); }
};
typedef std::unique_ptr<void, Free> Owned;

// Large pages where the system has them: a product touches more small ones than the processor keeps track of.
size_t page_for(size_t bytes) { return bytes >= LARGE_PAGE / 2 ? LARGE_PAGE : SMALL_PAGE; }

size_t in_pages(size_t bytes) { return (bytes + page_for(bytes) - 1) / page_for(bytes) * page_for(bytes); }

Owned allocate(size_t bytes) {
    void* memory = nullptr;
    if (posix_memalign(&memory, page_for(bytes), bytes) != 0) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
    if (page_for(bytes) == LARGE_PAGE) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    return Owned(memory);
}

class Lender {
    struct Block {
        Owned memory;
        size_t size;
    };
    std::mutex mutex;
    std::vector<Block> lent, idle;  // idle: the oldest first
    size_t lent_bytes = 0, idle_bytes = 0;
    // The most bytes lent at once in this period of CALLS calls of `borrow`, and in the period before it.
    static constexpr int CALLS = 512;
    size_t most_lent = 0, most_before = 0;
    int calls = 0;

    static void move(std::vector<Block>& from, std::vector<Block>::iterator block, std::vector<Block>& to) {
        to.push_back(std::move(*block));
        from.erase(block);
    }

    // Frees idle blocks until all blocks, with `more` bytes to come, are at most twice what was lent at once.
    void shrink(size_t more) {
        const size_t most = 2 * std::max({most_lent, most_before, lent_bytes + more});
        while (!idle.empty() && lent_bytes + more + idle_bytes > most) {
            idle_bytes -= idle.front().size;
            idle.erase(idle.begin());
        }
    }

    void count_call() {
        if (++calls < CALLS) return;
        calls = 0;
        most_before = std::exchange(most_lent, lent_bytes);
        shrink(0);
    }

 public:
    void* borrow(size_t bytes) {
        bytes = in_pages(bytes);
        std::lock_guard lock(mutex);
        count_call();
        lent.reserve(lent.size() + 1);
        idle.reserve(lent.size() + idle.size() + 1);  // so that giving back cannot fail
        // A block may be up to twice as large as asked for; a larger one is kept for who needs it.
        const auto found = std::find_if(idle.begin(), idle.end(), [&](const Block& block) {
            return block.size >= bytes && block.size / 2 <= bytes;
        });
        if (found != idle.end()) {
            idle_bytes -= found->size;
            move(idle, found, lent);
        } else {
            shrink(bytes);
            lent.push_back({allocate(bytes), bytes});
        }
        lent_bytes += lent.back().size;
        most_lent = std::max(most_lent, lent_bytes);
        return lent.back().memory.get();
    }

    void give_back(void* memory) {
        std::lock_guard lock(mutex);
        const auto found =
            std::find_if(lent.begin(), lent.end(), [&](const Block& block) { return block.memory.get() == memory; });
        lent_bytes -= found->size;
        idle_bytes += found->size;
        move(lent, found, idle);
    }
};

// Never destroyed: arrays may outlive it at the end of a process.
Lender& lender() {
    static Lender& lender = *new Lender;
    return lender;
}

}  // namespace

void* aligned(size_t bytes) { return allocate(in_pages(bytes)).release(); }

void* borrow(size_t bytes) { return lender().borrow(bytes); }

void give_back(void* memory) { lender().give_back(memory); }

void* Workspace::take(size_t bytes) {
    static thread_local Owned kept;
    static thread_local size_t size = 0;
    release();
    if (bytes > KEPT_BYTES) return lent = borrow(bytes);
    if (bytes > size) {
        kept.reset();
        size = 0;
        kept = allocate(in_pages(bytes));
        size = in_pages(bytes);
    }
    return kept.get();
}

void Workspace::release() {
    if (lent) give_back(lent);
    lent = nullptr;
}

}  // namespace throughtime
