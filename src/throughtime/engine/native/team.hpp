// Threads and barriers. Compiled once, for every processor.
#pragma once

namespace throughtime {

// Runs `work(data, thread, threads)` on up to `threads` threads, this one among them, and returns when all are done.
// `threads` as the work sees it can be fewer than asked for. Denormals are flushed to zero meanwhile.
void in_parallel(int threads, void (*work)(void* data, int thread, int threads), void* data);

// The threads come from: "openmp" (the pool of the OpenMP library that is in the process already) or "own".
const char* thread_source();

struct alignas(64) Barrier {
    int arrived = 0;
    alignas(64) int round = 0;
    int sleepers = 0;
};

// Returns when `members` threads have called it. It spins, for the steps it stands between are microseconds long, and
// goes to sleep where a member has lost its processor to someone else.
void wait(Barrier& barrier, int members);

}  // namespace throughtime
