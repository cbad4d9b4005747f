// Rows made of rows: norms with modulation, SwiGLU, and rows as they are; kept in float32 or bfloat16, added to others, or
// rounded to 8 bits with a scale each. One block makes one row.
#include "machine.cuh"

// norm(x) · weight · scale; `shared` rows in a row have one scale.
template <class In> struct Normed {
    const In* x;
    const float* weight;
    const float* scale;
    float eps;
    int shared;

    DEVICE float prepare(long row, int width) const {
        float sum = 0.0f;
        for (int i = threadIdx.x; i < width; i += blockDim.x) {
            float value = to_float(x[row * width + i]);
            sum += value * value;
        }
        return 1.0f / sqrtf(block_sum(sum) / width + eps);
    }

    template <int N> DEVICE Packet<float, N> values(long row, int width, int i, float factor) const {
        Packet<float, N> y = load<N>(x + row * width + i), w = load<N>(weight + i);
#pragma unroll
        for (int k = 0; k < N; k++) y.values[k] *= factor * w.values[k];
        if (scale == nullptr) return y;
        Packet<float, N> s = load<N>(scale + row / shared * width + i);
#pragma unroll
        for (int k = 0; k < N; k++) y.values[k] *= s.values[k];
        return y;
    }
};

// silu(gate) · up
template <class In> struct Gated {
    const In* gate;
    const In* up;

    DEVICE float prepare(long, int) const { return 0.0f; }

    template <int N> DEVICE Packet<float, N> values(long row, int width, int i, float) const {
        Packet<float, N> y = load<N>(gate + row * width + i), u = load<N>(up + row * width + i);
#pragma unroll
        for (int k = 0; k < N; k++) y.values[k] = silu(y.values[k]) * u.values[k];
        return y;
    }
};

template <class In> struct Kept {
    const In* x;

    DEVICE float prepare(long, int) const { return 0.0f; }

    template <int N> DEVICE Packet<float, N> values(long row, int width, int i, float) const {
        return load<N>(x + row * width + i);
    }
};

template <int N, class Source, class Out>
DEVICE void write_packets(const Source& source, Out* out, const float* added, int width, float factor) {
    long row = blockIdx.x;
    for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
        Packet<float, N> y = source.template values<N>(row, width, i, factor);
        if (added != nullptr) {
            Packet<float, N> a = load<N>(added + row * width + i);
#pragma unroll
            for (int k = 0; k < N; k++) y.values[k] += a.values[k];
        }
        store<N>(out + row * width + i, y);
    }
}

// Rows of `source`, plus those of `added` if there are any.
template <class Source, class Out>
DEVICE void write_rows(const Source& source, Out* out, const float* added, int width) {
    float factor = source.prepare(blockIdx.x, width);
    if (width % 4 == 0) {
        write_packets<4>(source, out, added, width, factor);
    } else {
        write_packets<1>(source, out, added, width, factor);
    }
}

// The nearest e4m3 value, ties to even, at most 448; NaN stays NaN.
DEVICE unsigned char to_fp8(float value) {
    unsigned bits = float_to_bits(value), sign = bits >> 24 & 0x80u;
    float size = fabsf(value);
    if (!(size == size)) return static_cast<unsigned char>(sign | 0x7fu);
    if (size >= 448.0f) return static_cast<unsigned char>(sign | 0x7eu);
    if (size < 0.015625f) { // below 2⁻⁶ steps are 2⁻⁹
        return static_cast<unsigned char>(sign | static_cast<unsigned>(rintf(size * 512.0f)));
    }
    unsigned from = float_to_bits(size);
    from += 0x7ffffu + (from >> 20 & 1u); // to three bits after the first
    return static_cast<unsigned char>(sign | ((from >> 20) - (120u << 3)));
}

template <int N, class Source> DEVICE float most_of_packets(const Source& source, float* kept, int width, float factor) {
    float most = 0.0f;
    for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
        Packet<float, N> y = source.template values<N>(blockIdx.x, width, i, factor);
        store<N>(kept + i, y);
#pragma unroll
        for (int k = 0; k < N; k++) most = fmaxf(most, fabsf(y.values[k]));
    }
    return most;
}

// Rows of `source` as e4m3 with `scales`, by which they are to be multiplied: the largest value of a row becomes 448. The
// launch gives shared memory for a row of float32.
template <class Source> DEVICE void write_fp8(const Source& source, unsigned char* out, float* scales, int width) {
    float* kept = reinterpret_cast<float*>(dynamic_shared());
    float factor = source.prepare(blockIdx.x, width);
    float most = width % 4 == 0 ? most_of_packets<4>(source, kept, width, factor)
                                : most_of_packets<1>(source, kept, width, factor);
    float scale = block_most(most) / 448.0f; // and every value is in place
    float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    if (threadIdx.x == 0) scales[blockIdx.x] = scale;
    long start = static_cast<long>(blockIdx.x) * width;
    for (int i = threadIdx.x; i < width; i += blockDim.x) out[start + i] = to_fp8(kept[i] * inverse);
}

#define NORM_ROWS(name, In, Out)                                                                                          \
    KERNEL name(Out* out, const In* x, const float* weight, const float* scale, const float* added, int width, int shared, \
                float eps) {                                                                                              \
        write_rows(Normed<In>{x, weight, scale, eps, shared}, out, added, width);                                         \
    }
NORM_ROWS(norm_f32_f32, float, float)
NORM_ROWS(norm_f32_bf16, float, bf16)
NORM_ROWS(norm_bf16_f32, bf16, float)
NORM_ROWS(norm_bf16_bf16, bf16, bf16)

#define NORM_FP8(name, In)                                                                                                \
    KERNEL name(unsigned char* out, float* scales, const In* x, const float* weight, const float* scale, int width,       \
                int shared, float eps) {                                                                                  \
        write_fp8(Normed<In>{x, weight, scale, eps, shared}, out, scales, width);                                         \
    }
NORM_FP8(norm_f32_fp8, float)
NORM_FP8(norm_bf16_fp8, bf16)

#define GATE_ROWS(name, In, Out)                                                                                          \
    KERNEL name(Out* out, const In* gate, const In* up, int width) {                                                      \
        write_rows(Gated<In>{gate, up}, out, nullptr, width);                                                             \
    }
GATE_ROWS(gate_f32_f32, float, float)
GATE_ROWS(gate_f32_bf16, float, bf16)
GATE_ROWS(gate_bf16_bf16, bf16, bf16)

#define GATE_FP8(name, In)                                                                                                \
    KERNEL name(unsigned char* out, float* scales, const In* gate, const In* up, int width) {                             \
        write_fp8(Gated<In>{gate, up}, out, scales, width);                                                               \
    }
GATE_FP8(gate_f32_fp8, float)
GATE_FP8(gate_bf16_fp8, bf16)

#define KEEP_FP8(name, In)                                                                                                \
    KERNEL name(unsigned char* out, float* scales, const In* x, int width) {                                              \
        write_fp8(Kept<In>{x}, out, scales, width);                                                                       \
    }
KEEP_FP8(keep_f32_fp8, float)
KEEP_FP8(keep_bf16_fp8, bf16)

// e4m3 values with a scale a row as bfloat16, for GPUs that do not multiply them.
KERNEL widen_fp8(bf16* out, const unsigned char* x, const float* scales, int width) {
    long start = static_cast<long>(blockIdx.x) * width;
    float scale = scales[blockIdx.x];
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        unsigned bits = x[start + i], size = bits & 0x7fu;
        float value = size < 8u ? static_cast<float>(size) / 512.0f : bits_to_float((size << 20) + (120u << 23));
        if (size == 0x7fu) value = bits_to_float(0x7fffffffu);
        round_to(out[start + i], (bits & 0x80u ? -value : value) * scale);
    }
}

// y[row, i] · rows[row] · columns[i], for products of 8-bit values on GPUs whose library cannot scale them so itself.
template <class T> DEVICE void scale_row(T* y, const float* rows, const float* columns, int width) {
    float of_row = rows[blockIdx.x];
    T* row = y + static_cast<long>(blockIdx.x) * width;
    for (int i = threadIdx.x; i < width; i += blockDim.x) round_to(row[i], to_float(row[i]) * of_row * columns[i]);
}
KERNEL scale_f32(float* y, const float* rows, const float* columns, int width) { scale_row(y, rows, columns, width); }
KERNEL scale_bf16(bf16* y, const float* rows, const float* columns, int width) { scale_row(y, rows, columns, width); }
