// Convolutions as products: rows are pixels of the result, depth is every pixel under the filter times its channels. bfloat16 values,
// float32 sums. The pixels are gathered as they are multiplied and never stand in memory as a matrix.
#include "machine.cuh"

namespace conv {
constexpr int PIXELS = 128, OUTPUTS = 128, DEPTH = 32, STAGES = 3, THREADS = 256;
constexpr int CHUNKS = DEPTH / 8;                           // of 16 bytes
constexpr int TILE = PIXELS * DEPTH;                        // values
static_assert(PIXELS == OUTPUTS, "both tiles are filled alike");

// Where a row's chunk is, so that eight rows' chunks fall into different banks.
DEVICE int place(int row, int chunk) { return (row * CHUNKS + (chunk ^ (row >> 1 & 3))) * 8; }

struct Shape {
    int height, width, channels; // of the image
    int rows, columns, outputs;  // of the result
    int size, stride, padding;   // of the filter; padding at the left and top
    int doubled;                 // whether every pixel stands for 2 × 2
    int wraps;                   // 1: beyond the top is the bottom, 2: beyond the left is the right
};

// Row or column `i` of `length`, or the one at the other edge.
DEVICE int around(int i, int length) { return i < 0 ? i + length : i >= length ? i - length : i; }
} // namespace conv

// `x`: `[batch, height, width, channels]`, channels a multiple of 8; `filter`: `[size · size, outputs, channels]`; `out`, `residual`:
// `[batch, rows, columns, outputs]`.
KERNEL AT_MOST(256, 2) convolve(float* out, const bf16* x, const bf16* filter, const float* bias, const float* residual, int height, int width,
                                int channels, int rows, int columns, int outputs, int size, int stride, int padding, int doubled, int wraps) {
    using namespace conv;
    bf16* tiles = reinterpret_cast<bf16*>(dynamic_shared()); // STAGES times pixels, then filters
    Shape shape{height, width, channels, rows, columns, outputs, size, stride, padding, doubled, wraps};
    int thread = threadIdx.x, lane = thread % WARP, warp = thread / WARP;
    int pixels = shape.rows * shape.columns, first_pixel = blockIdx.x * PIXELS, first_output = blockIdx.y * OUTPUTS;
    x += static_cast<long>(blockIdx.z) * shape.height * shape.width * shape.channels;

    int seen_height = shape.doubled ? 2 * shape.height : shape.height, seen_width = shape.doubled ? 2 * shape.width : shape.width;
    int depth_steps = (shape.channels + DEPTH - 1) / DEPTH, steps = shape.size * shape.size * depth_steps;

    // Each thread fetches the same chunk of two rows, 64 rows apart, of either side.
    int chunk = thread % CHUNKS, fetch_row = thread / CHUNKS;
    int tops[2], lefts[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int pixel = first_pixel + fetch_row + 64 * i;
        bool real = pixel < pixels;
        tops[i] = real ? pixel / shape.columns * shape.stride - shape.padding : -(1 << 20);
        lefts[i] = real ? pixel % shape.columns * shape.stride - shape.padding : 0;
    }
    auto fetch = [&](int step, int stage) {
        int tap = step / depth_steps, channel = step % depth_steps * DEPTH + chunk * 8;
        int down = tap / shape.size, right = tap % shape.size;
        bf16* to = tiles + stage * 2 * TILE;
        bool within = channel < shape.channels;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int row = fetch_row + 64 * i, top = tops[i] + down, left = lefts[i] + right;
            if (shape.wraps & 1) top = around(top, seen_height);
            if (shape.wraps & 2) left = around(left, seen_width);
            bool real = within && top >= 0 && top < seen_height && left >= 0 && left < seen_width;
            int from_row = shape.doubled ? top >> 1 : top, from_column = shape.doubled ? left >> 1 : left;
            long from = real ? (static_cast<long>(from_row) * shape.width + from_column) * shape.channels + channel : 0;
            copy_16(to + place(row, chunk), x + from, real);
            int output = first_output + row;
            real = within && output < shape.outputs;
            from = real ? (static_cast<long>(tap) * shape.outputs + output) * shape.channels + channel : 0;
            copy_16(to + TILE + place(row, chunk), filter + from, real);
        }
    };

    // Eight warps, two along pixels and four along outputs: each has 64 × 32 sums.
    int pixel_of_warp = warp / 4 * 64, output_of_warp = warp % 4 * 32;
    float sums[4][4][4] = {};
#pragma unroll
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < steps) fetch(step, step);
        commit_copies();
    }
    for (int step = 0; step < steps; step++) {
        wait_for_copies<STAGES - 2>();
        block_barrier(); // this step's tiles are there, and the last step's are read
        if (step + STAGES - 1 < steps) fetch(step + STAGES - 1, (step + STAGES - 1) % STAGES);
        commit_copies();
        const bf16* pixel_tile = tiles + step % STAGES * 2 * TILE;
        const bf16* filter_tile = pixel_tile + TILE;
#pragma unroll
        for (int k = 0; k < DEPTH / 16; k++) {
            unsigned left[4][4], right[2][4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                load_matrices(left[i], pixel_tile + place(pixel_of_warp + i * 16 + lane % 16, 2 * k + lane / 16));
            }
#pragma unroll
            for (int j = 0; j < 2; j++) {
                int row = output_of_warp + j * 16 + lane % 8 + lane / 16 * 8;
                load_matrices(right[j], filter_tile + place(row, 2 * k + lane / 8 % 2));
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
#pragma unroll
                for (int j = 0; j < 4; j++) multiply_add(sums[i][j], left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
            }
        }
    }

    long image = static_cast<long>(blockIdx.z) * pixels * shape.outputs;
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
#pragma unroll
            for (int k = 0; k < 4; k++) {
                int pixel = first_pixel + pixel_of_warp + i * 16 + lane / 4 + k / 2 * 8;
                int output = first_output + output_of_warp + j * 8 + lane % 4 * 2 + k % 2;
                if (pixel >= pixels || output >= shape.outputs) continue;
                long at = image + static_cast<long>(pixel) * shape.outputs + output;
                float value = sums[i][j][k] + bias[output];
                out[at] = residual == nullptr ? value : value + residual[at];
            }
        }
    }
}
