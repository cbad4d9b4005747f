// Heads of queries and keys, normed and turned by their token's angles. One warp makes one head.
#include "machine.cuh"

// `x`, `out`: `[batch, tokens, heads, d]`, `rows` heads in all; `cos`, `sin`: `[tokens, d / 2]`; `d` is at most 256. With `halves`
// pairs are (i, i + d / 2), otherwise (2i, 2i + 1).
template <class T>
DEVICE void turn(T* out, const T* x, const float* weight, const float* cos, const float* sin, int rows, int tokens, int heads, int d,
                 int halves, float eps) {
    constexpr int MOST = 256 / 2 / WARP; // pairs of a lane
    int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (row >= rows) return;
    const T* from = x + static_cast<long>(row) * d;
    T* to = out + static_cast<long>(row) * d;
    int half = d / 2, token = row / heads % tokens;
    float first[MOST], second[MOST], sum = 0.0f;
#pragma unroll
    for (int k = 0; k < MOST; k++) {
        int pair = lane + k * WARP;
        bool real = pair < half;
        first[k] = real ? to_float(from[halves ? pair : 2 * pair]) : 0.0f;
        second[k] = real ? to_float(from[halves ? pair + half : 2 * pair + 1]) : 0.0f;
        sum += first[k] * first[k] + second[k] * second[k];
    }
    float factor = 1.0f / sqrtf(warp_sum(sum) / d + eps);
#pragma unroll
    for (int k = 0; k < MOST; k++) {
        int pair = lane + k * WARP;
        if (pair >= half) continue;
        int i = halves ? pair : 2 * pair, j = halves ? pair + half : 2 * pair + 1;
        float a = first[k] * factor * weight[i], b = second[k] * factor * weight[j];
        float c = cos[token * half + pair], s = sin[token * half + pair];
        round_to(to[i], a * c - b * s);
        round_to(to[j], a * s + b * c);
    }
}

KERNEL turn_f32(float* out, const float* x, const float* weight, const float* cos, const float* sin, int rows, int tokens, int heads, int d,
                int halves, float eps) {
    turn(out, x, weight, cos, sin, rows, tokens, heads, d, halves, eps);
}
KERNEL turn_bf16(bf16* out, const bf16* x, const float* weight, const float* cos, const float* sin, int rows, int tokens, int heads, int d,
                 int halves, float eps) {
    turn(out, x, weight, cos, sin, rows, tokens, heads, d, halves, eps);
}
