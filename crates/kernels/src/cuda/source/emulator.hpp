// A GPU's block on one thread of the processor, for tests: every thread of a block is a coroutine, and whatever threads do
// together makes each of them wait for the others. Instructions do what the PTX manual (ISA 9.0) says, lane by lane. Shared memory begins
// as NaN, copies arrive at once or only when they are waited for, by chance, and threads run in an order that is another one every time.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#define DEVICE inline
#define KERNEL extern "C" void
#define AT_MOST(threads, blocks)
#define __shared__ static // blocks run one after another

struct Dimensions {
    unsigned x = 1, y = 1, z = 1;
};
inline Dimensions threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

// Threads that wait for one another.
struct Meeting {
    int size = 0, arrived = 0;
    long round = 0;
};

struct Copy {
    void* to;
    std::vector<unsigned char> bytes;
};

struct Thread {
    ucontext_t context;
    std::unique_ptr<unsigned char[]> stack;
    bool ended = false;
    std::deque<std::vector<Copy>> groups{1}; // the last is not committed
};

inline ucontext_t scheduler;
inline std::vector<Thread> threads;
inline int running;
inline Meeting block;
inline std::vector<Meeting> warps;
inline std::vector<std::vector<uint64_t>> exchanged; // of each warp, eight values a lane
inline std::vector<unsigned char> shared_memory;
inline std::function<void()> body;
inline std::mt19937 chance(1);
inline long progress; // counts whatever brings a block nearer to its end

inline void meet(Meeting& meeting) {
    long round = meeting.round;
    if (++meeting.arrived == meeting.size) {
        meeting.arrived = 0;
        meeting.round++;
        progress++;
        return;
    }
    while (meeting.round == round) swapcontext(&threads[running].context, &scheduler);
}

// Gives every lane what `give` says, and calls `take` with what all lanes gave, eight values a lane.
template <class Give, class Take> void exchange(Give give, Take take) {
    int warp = running / 32, lane = running % 32;
    give(&exchanged[warp][lane * 8]);
    meet(warps[warp]);
    take(lane, exchanged[warp].data());
    meet(warps[warp]);
}

inline void run_thread() {
    body();
    threads[running].ended = true;
    swapcontext(&threads[running].context, &scheduler);
}

inline void run_block(int count, size_t shared_bytes) {
    constexpr size_t STACK = 256 << 10;
    shared_memory.assign(shared_bytes, 0xff);
    threads.clear();
    threads.resize(count);
    block = {count};
    warps.assign(count / 32, {32});
    exchanged.assign(count / 32, std::vector<uint64_t>(32 * 8));
    std::vector<int> order(count);
    for (int i = 0; i < count; i++) {
        order[i] = i;
        threads[i].stack.reset(new unsigned char[STACK]);
        getcontext(&threads[i].context);
        threads[i].context.uc_stack.ss_sp = threads[i].stack.get();
        threads[i].context.uc_stack.ss_size = STACK;
        makecontext(&threads[i].context, run_thread, 0);
    }
    std::shuffle(order.begin(), order.end(), chance);
    // Now and then a warp sleeps, so that the others come as far ahead of it as barriers let them.
    int asleep = -1, until = 0;
    for (int left = count, pass = 0; left > 0; pass++) {
        if (pass >= until) {
            asleep = int(chance() % (count / 32 + 1)) - 1;
            until = pass + int(chance() % 500);
        }
        long before = progress;
        for (int i : order) {
            if (threads[i].ended || i / 32 == asleep) continue;
            running = i;
            threadIdx = {unsigned(i), 0, 0};
            swapcontext(&scheduler, &threads[i].context);
            if (threads[i].ended) left--, progress++;
        }
        if (progress != before) continue;
        if (asleep < 0) {
            std::fprintf(stderr, "threads wait for others that never come\n");
            std::exit(1);
        }
        asleep = -1;
        until = pass + 2;
    }
}

// A kernel over a grid of blocks, each a row of threads.
inline void launch(Dimensions grid, int count, size_t shared_bytes, std::function<void()> kernel) {
    body = std::move(kernel);
    gridDim = grid;
    blockDim = {unsigned(count), 1, 1};
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                blockIdx = {x, y, z};
                run_block(count, shared_bytes);
            }
}

} // namespace emulator

DEVICE unsigned char* dynamic_shared() { return emulator::shared_memory.data(); }
DEVICE void block_barrier() { emulator::meet(emulator::block); }

DEVICE unsigned float_to_bits(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}
DEVICE float bits_to_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

DEVICE float shuffle_xor(float value, int mask) {
    unsigned got = 0;
    emulator::exchange([&](uint64_t* own) { own[0] = float_to_bits(value); },
                       [&](int lane, const uint64_t* all) { got = unsigned(all[(lane ^ mask) * 8]); });
    return bits_to_float(got);
}

DEVICE float exp2_rough(float x) { return x < -126.0f ? 0.0f : exp2f(x); }

DEVICE unsigned round_bf16(float value) {
    unsigned bits = float_to_bits(value);
    if (value != value) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
DEVICE unsigned pack_bf16(float low, float high) { return round_bf16(low) | round_bf16(high) << 16; }

DEVICE void copy_16(void* shared, const void* global, bool real) {
    std::vector<unsigned char> bytes(16, 0);
    if (real) std::memcpy(bytes.data(), global, 16);
    if (emulator::chance() % 2) {
        std::memcpy(shared, bytes.data(), 16);
    } else {
        emulator::threads[emulator::running].groups.back().push_back({shared, std::move(bytes)});
    }
}
DEVICE void commit_copies() { emulator::threads[emulator::running].groups.emplace_back(); }
template <int left> DEVICE void wait_for_copies() {
    auto& groups = emulator::threads[emulator::running].groups;
    while (groups.size() > left + 1) {
        for (const auto& copy : groups.front()) std::memcpy(copy.to, copy.bytes.data(), 16);
        groups.pop_front();
    }
}

// Lane `i` of matrix `m` gets values 2 · (i % 4) and the next of row i / 4, or of column i / 4 where it is transposed.
DEVICE void load_matrices_of(unsigned (&to)[4], const void* row, bool transposed) {
    auto take = [&](int lane, const uint64_t* all) {
        for (int m = 0; m < 4; m++) {
            auto value = [&](int r, int c) {
                uint16_t bits;
                std::memcpy(&bits, reinterpret_cast<const unsigned char*>(all[(m * 8 + r) * 8]) + 2 * c, 2);
                return unsigned(bits);
            };
            int i = lane / 4, j = lane % 4 * 2;
            to[m] = transposed ? value(j, i) | value(j + 1, i) << 16 : value(i, j) | value(i, j + 1) << 16;
        }
    };
    emulator::exchange([&](uint64_t* own) { own[0] = reinterpret_cast<uint64_t>(row); }, take);
}
DEVICE void load_matrices(unsigned (&to)[4], const void* row) { load_matrices_of(to, row, false); }
DEVICE void load_matrices_transposed(unsigned (&to)[4], const void* row) { load_matrices_of(to, row, true); }

// Figures of mma.m16n8k16: with group = lane / 4 and place = lane % 4, a's register r holds row group + 8 · (r % 2), columns
// 2 · place + 8 · (r / 2) and the next; b's register r rows 2 · place + 8 · r and the next of column group; the sums are row
// group + 8 · (i / 2), column 2 · place + i % 2.
DEVICE void multiply_add(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    auto give = [&](uint64_t* own) {
        for (int i = 0; i < 4; i++) own[i] = a[i];
        own[4] = b0;
        own[5] = b1;
    };
    auto part = [](uint64_t packed, int high) { return bits_to_float(unsigned(high ? packed >> 16 & 0xffff : packed & 0xffff) << 16); };
    auto take = [&](int lane, const uint64_t* all) {
        auto of_a = [&](int row, int k) { return part(all[(row % 8 * 4 + k % 8 / 2) * 8 + row / 8 + k / 8 * 2], k % 2); };
        auto of_b = [&](int k, int column) { return part(all[(column * 4 + k % 8 / 2) * 8 + 4 + k / 8], k % 2); };
        for (int i = 0; i < 4; i++) {
            int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            for (int k = 0; k < 16; k++) sum[i] += of_a(row, k) * of_b(k, column);
        }
    };
    emulator::exchange(give, take);
}
