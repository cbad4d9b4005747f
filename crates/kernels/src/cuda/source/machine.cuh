// What kernels ask of the machine: a GPU's instructions here, and in tests the processor's imitation of them
// (`emulator.hpp`), which is written from the PTX manual and knows nothing of the kernels.
#pragma once

#ifdef __CUDACC__

#define DEVICE __device__ __forceinline__
#define KERNEL extern "C" __global__ void
#define AT_MOST(threads, blocks) __launch_bounds__(threads, blocks)

extern __shared__ __align__(128) unsigned char shared_by_launch[];
// Shared memory whose size the launch gives.
DEVICE unsigned char* dynamic_shared() { return shared_by_launch; }

DEVICE void block_barrier() { __syncthreads(); }
DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
DEVICE float bits_to_float(unsigned bits) { return __uint_as_float(bits); }
DEVICE unsigned float_to_bits(float value) { return __float_as_uint(value); }

// 2ˣ within two units of the last place; 0 below −126.
DEVICE float exp2_rough(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Two bfloat16 in one register, the first in the low half.
DEVICE unsigned pack_bf16(float low, float high) {
    unsigned packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

// 16 bytes to shared memory, without waiting; zeros where they are not `real`. PTX: cp.async.
DEVICE void copy_16(void* shared, const void* global, bool real) {
    unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    int size = real ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(size));
}
DEVICE void commit_copies() { asm volatile("cp.async.commit_group;"); }
// Waits for all groups of copies but the last `left`.
template <int left> DEVICE void wait_for_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory"); }

// Four 8 × 8 matrices of 16 bits, whose rows the lanes point to, eight lanes a matrix. PTX: ldmatrix.
DEVICE void load_matrices(unsigned (&to)[4], const void* row) {
    unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(from) : "memory");
}
DEVICE void load_matrices_transposed(unsigned (&to)[4], const void* row) {
    unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(from) : "memory");
}

// sum += a · b for 16 × 16 and 16 × 8 values of bfloat16. PTX: mma.m16n8k16.
DEVICE void multiply_add(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#else
#include "emulator.hpp"
#endif

constexpr int WARP = 32;

struct bf16 {
    unsigned short bits;
};

DEVICE float to_float(float value) { return value; }
DEVICE float to_float(bf16 value) { return bits_to_float(static_cast<unsigned>(value.bits) << 16); }

DEVICE void round_to(float& to, float value) { to = value; }
DEVICE void round_to(bf16& to, float value) { to.bits = static_cast<unsigned short>(pack_bf16(value, 0.0f)); }

// `N` values at once, so that a thread's loads are as wide as they may be.
template <class T, int N> struct alignas(sizeof(T) * N) Packet {
    T values[N];
};

template <int N, class T> DEVICE Packet<float, N> load(const T* from) {
    Packet<T, N> packet = *reinterpret_cast<const Packet<T, N>*>(from);
    Packet<float, N> wide;
#pragma unroll
    for (int i = 0; i < N; i++) wide.values[i] = to_float(packet.values[i]);
    return wide;
}

template <int N, class T> DEVICE void store(T* to, const Packet<float, N>& wide) {
    Packet<T, N> packet;
#pragma unroll
    for (int i = 0; i < N; i++) round_to(packet.values[i], wide.values[i]);
    *reinterpret_cast<Packet<T, N>*>(to) = packet;
}

DEVICE float warp_sum(float value) {
#pragma unroll
    for (int mask = WARP / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
    return value;
}

DEVICE float warp_most(float value) {
#pragma unroll
    for (int mask = WARP / 2; mask > 0; mask /= 2) value = fmaxf(value, shuffle_xor(value, mask));
    return value;
}

// What all threads of a block have together, in every one of them; blocks are whole warps.
template <class Reduce> DEVICE float of_block(float value, float neutral, Reduce reduce) {
    __shared__ float of_warps[WARP];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    value = reduce(value);
    block_barrier(); // an earlier call's results are read
    if (lane == 0) of_warps[warp] = value;
    block_barrier();
    value = lane < static_cast<int>(blockDim.x) / WARP ? of_warps[lane] : neutral;
    return reduce(value);
}

DEVICE float block_sum(float value) {
    return of_block(value, 0.0f, [](float v) { return warp_sum(v); });
}
DEVICE float block_most(float value) {
    return of_block(value, 0.0f, [](float v) { return warp_most(v); });
}

DEVICE float silu(float x) { return x / (1.0f + expf(-x)); }
