// Group norms of images whose channels lie last: sums, factors from the sums, and the norm with SiLU.
#include "machine.cuh"

// Sums and sums of squares of every channel over `chunk` pixels, `[batch, chunks, 2, channels]`. `x`: `[batch, pixels, channels]`.
// A block has 256 threads and takes one chunk; the launch gives shared memory for 512 float32.
KERNEL channel_sums(float* sums, const float* x, int pixels, int channels, int chunk) {
    float* partial = reinterpret_cast<float*>(dynamic_shared());
    int threads = blockDim.x, lanes = channels < threads ? channels : threads;
    int beside = threads / lanes, lane = threadIdx.x % lanes, part = threadIdx.x / lanes;
    int first = blockIdx.x * chunk, end = first + chunk < pixels ? first + chunk : pixels;
    const float* image = x + static_cast<long>(blockIdx.y) * pixels * channels;
    float* out = sums + (static_cast<long>(blockIdx.y) * gridDim.x + blockIdx.x) * 2 * channels;
    for (int base = 0; base < channels; base += lanes) {
        int channel = base + lane;
        float sum = 0.0f, squares = 0.0f;
        if (channel < channels && part < beside) {
            for (int pixel = first + part; pixel < end; pixel += beside) {
                float value = image[static_cast<long>(pixel) * channels + channel];
                sum += value;
                squares += value * value;
            }
        }
        partial[threadIdx.x] = sum;
        partial[threads + threadIdx.x] = squares;
        block_barrier();
        if (part == 0 && channel < channels) {
            for (int other = 1; other < beside; other++) {
                sum += partial[other * lanes + lane];
                squares += partial[threads + other * lanes + lane];
            }
            out[channel] = sum;
            out[channels + channel] = squares;
        }
        block_barrier();
    }
}

// Factors and offsets of every channel, `[batch, 2, channels]`, from the sums of all chunks, in float64. A block of one warp takes one
// group of one image.
KERNEL group_factors(float* factors, const float* sums, const float* weight, const float* bias, int chunks, int pixels, int channels,
                     int groups, float eps) {
    int of_group = channels / groups, first = blockIdx.x * of_group;
    const float* image = sums + static_cast<long>(blockIdx.y) * chunks * 2 * channels;
    double sum = 0.0, squares = 0.0;
    for (int i = threadIdx.x; i < chunks * of_group; i += WARP) {
        const float* chunk = image + static_cast<long>(i / of_group) * 2 * channels;
        int channel = first + i % of_group;
        sum += chunk[channel];
        squares += chunk[channels + channel];
    }
    __shared__ double of_lanes[2 * WARP];
    of_lanes[threadIdx.x] = sum;
    of_lanes[WARP + threadIdx.x] = squares;
    block_barrier();
    sum = squares = 0.0;
    for (int i = 0; i < WARP; i++) {
        sum += of_lanes[i];
        squares += of_lanes[WARP + i];
    }
    double count = static_cast<double>(pixels) * of_group, mean = sum / count;
    double variance = squares / count - mean * mean;
    double root = 1.0 / sqrt((variance > 0.0 ? variance : 0.0) + eps);
    for (int i = threadIdx.x; i < of_group; i += WARP) {
        double factor = weight[first + i] * root;
        float* of_image = factors + static_cast<long>(blockIdx.y) * 2 * channels;
        of_image[first + i] = static_cast<float>(factor);
        of_image[channels + first + i] = static_cast<float>(bias[first + i] - mean * factor);
    }
}

template <int N, class Out>
DEVICE void apply_packets(Out* out, const float* x, const float* factors, long values, int channels, int activate) {
    const float* offsets = factors + channels;
    long step = static_cast<long>(gridDim.x) * blockDim.x * N;
    for (long i = (static_cast<long>(blockIdx.x) * blockDim.x + threadIdx.x) * N; i < values; i += step) {
        int channel = static_cast<int>(i % channels);
        Packet<float, N> y = load<N>(x + i), f = load<N>(factors + channel), o = load<N>(offsets + channel);
#pragma unroll
        for (int k = 0; k < N; k++) {
            float value = y.values[k] * f.values[k] + o.values[k];
            y.values[k] = activate ? silu(value) : value;
        }
        store<N>(out + i, y);
    }
}

// x · factor + offset, through SiLU where it is to `activate`. `values` are those of one image; `factors` as above.
template <class Out> DEVICE void apply(Out* out, const float* x, const float* factors, long values, int channels, int activate) {
    out += blockIdx.y * values;
    x += blockIdx.y * values;
    factors += static_cast<long>(blockIdx.y) * 2 * channels;
    if (channels % 4 == 0) {
        apply_packets<4>(out, x, factors, values, channels, activate);
    } else {
        apply_packets<1>(out, x, factors, values, channels, activate);
    }
}
KERNEL apply_f32(float* out, const float* x, const float* factors, long values, int channels, int activate) {
    apply(out, x, factors, values, channels, activate);
}
KERNEL apply_bf16(bf16* out, const float* x, const float* factors, long values, int channels, int activate) {
    apply(out, x, factors, values, channels, activate);
}

// float32 to bfloat16.
KERNEL narrow(bf16* out, const float* x, long values) {
    long step = static_cast<long>(gridDim.x) * blockDim.x;
    for (long i = static_cast<long>(blockIdx.x) * blockDim.x + threadIdx.x; i < values; i += step) round_to(out[i], x[i]);
}
