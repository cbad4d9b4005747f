// Attention over tiles of keys with a running softmax (Dao, 2023: FlashAttention-2): bfloat16 values, float32 scores and sums.
#include "machine.cuh"

namespace attention {
constexpr int QUERIES = 128, KEYS = 64, THREADS = 128, STAGES = 2;

// Where a tensor's heads lie: values from one picture, token and head to the next.
struct Strides {
    long batch, token, head;
};

template <int D> DEVICE int place(int row, int chunk) { return row * D + (chunk ^ (row & 7)) * 8; }

// `rows` rows of a head, from token `first` on, to shared memory; what is not there is zero.
template <int D, int ROWS> DEVICE void fetch(bf16* to, const bf16* from, long stride, int first, int count) {
    constexpr int CHUNKS = D / 8;
#pragma unroll
    for (int i = 0; i < ROWS * CHUNKS / THREADS; i++) {
        int at = threadIdx.x + i * THREADS, row = at / CHUNKS, chunk = at % CHUNKS;
        bool real = first + row < count;
        copy_16(to + place<D>(row, chunk), from + (real ? (first + row) * stride + chunk * 8 : 0), real);
    }
}

// What a query of this thread has seen: two rows of each of two fragments.
struct Running {
    float most[2][2], total[2][2];
};

// Scores to weights: scaled, masked where `edge` says that some may be, and with what was gathered before made smaller.
template <int D>
DEVICE void weigh(float (&scores)[2][KEYS / 8][4], float (&sums)[2][D / 8][4], Running& running, float scale, bool edge, int first_key,
                  int keys, int first_query, int ahead, int causal) {
    int lane = threadIdx.x % WARP;
#pragma unroll
    for (int f = 0; f < 2; f++) {
        if (edge) {
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++) {
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    int key = first_key + j * 8 + lane % 4 * 2 + k % 2;
                    int query = first_query + f * 16 + lane / 4 + k / 2 * 8;
                    if (key >= keys || (causal && key > query + ahead)) scores[f][j][k] = -INFINITY;
                }
            }
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = running.most[f][half];
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++) most = fmaxf(most, fmaxf(scores[f][j][2 * half], scores[f][j][2 * half + 1]));
            most = fmaxf(most, shuffle_xor(most, 1));
            most = fmaxf(most, shuffle_xor(most, 2));
            float base = most == -INFINITY ? 0.0f : most * scale; // a row that sees no key yet
            float smaller = exp2_rough(running.most[f][half] * scale - base);
            running.most[f][half] = most;
            float total = 0.0f;
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++) {
#pragma unroll
                for (int k = 2 * half; k < 2 * half + 2; k++) {
                    scores[f][j][k] = exp2_rough(scores[f][j][k] * scale - base);
                    total += scores[f][j][k];
                }
            }
            running.total[f][half] = running.total[f][half] * smaller + total;
#pragma unroll
            for (int j = 0; j < D / 8; j++) {
                sums[f][j][2 * half] *= smaller;
                sums[f][j][2 * half + 1] *= smaller;
            }
        }
    }
}

// Four warps of 32 queries each. `scale` is 1 / √d · log₂ e; `ahead` are the keys before the first query, where it is `causal`.
template <int D>
DEVICE void attend(bf16* out, const bf16* q, const bf16* k, const bf16* v, Strides of_out, Strides of_q, Strides of_k, Strides of_v,
                   int queries, int keys, int shared, int causal, float scale) {
    bf16* query_tile = reinterpret_cast<bf16*>(dynamic_shared());
    bf16* tiles = query_tile + QUERIES * D; // STAGES times keys, then values
    int lane = threadIdx.x % WARP, of_warp = threadIdx.x / WARP * 32;
    int first_query = blockIdx.x * QUERIES, head = blockIdx.y;
    long batch = blockIdx.z;
    q += batch * of_q.batch + head * of_q.head;
    k += batch * of_k.batch + head / shared * of_k.head;
    v += batch * of_v.batch + head / shared * of_v.head;
    int ahead = keys - queries, seen = causal ? first_query + QUERIES + ahead : keys;
    if (seen > keys) seen = keys;
    int steps = (seen + KEYS - 1) / KEYS;

    auto fetch_step = [&](int step) {
        bf16* to = tiles + step % STAGES * 2 * KEYS * D;
        fetch<D, KEYS>(to, k, of_k.token, step * KEYS, keys);
        fetch<D, KEYS>(to + KEYS * D, v, of_v.token, step * KEYS, keys);
    };
    fetch<D, QUERIES>(query_tile, q, of_q.token, first_query, queries);
    fetch_step(0);
    commit_copies();

    float sums[2][D / 8][4] = {};
    Running running;
#pragma unroll
    for (int f = 0; f < 2; f++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            running.most[f][half] = -INFINITY;
            running.total[f][half] = 0.0f;
        }
    }
    for (int step = 0; step < steps; step++) {
        if (step + 1 < steps) fetch_step(step + 1);
        commit_copies();
        wait_for_copies<1>();
        block_barrier();
        const bf16* key_tile = tiles + step % STAGES * 2 * KEYS * D;
        const bf16* value_tile = key_tile + KEYS * D;

        float scores[2][KEYS / 8][4] = {};
#pragma unroll
        for (int i = 0; i < D / 16; i++) {
            unsigned left[2][4];
#pragma unroll
            for (int f = 0; f < 2; f++) {
                load_matrices(left[f], query_tile + place<D>(of_warp + f * 16 + lane % 16, 2 * i + lane / 16));
            }
#pragma unroll
            for (int j = 0; j < KEYS / 16; j++) {
                unsigned right[4];
                load_matrices(right, key_tile + place<D>(j * 16 + lane % 8 + lane / 16 * 8, 2 * i + lane / 8 % 2));
#pragma unroll
                for (int f = 0; f < 2; f++) {
                    multiply_add(scores[f][2 * j], left[f], right[0], right[1]);
                    multiply_add(scores[f][2 * j + 1], left[f], right[2], right[3]);
                }
            }
        }
        int first_key = step * KEYS;
        bool edge = first_key + KEYS > keys || (causal && first_key + KEYS > first_query + ahead);
        weigh<D>(scores, sums, running, scale, edge, first_key, keys, first_query + of_warp, ahead, causal);
#pragma unroll
        for (int i = 0; i < KEYS / 16; i++) {
            unsigned left[2][4];
#pragma unroll
            for (int f = 0; f < 2; f++) {
                left[f][0] = pack_bf16(scores[f][2 * i][0], scores[f][2 * i][1]);
                left[f][1] = pack_bf16(scores[f][2 * i][2], scores[f][2 * i][3]);
                left[f][2] = pack_bf16(scores[f][2 * i + 1][0], scores[f][2 * i + 1][1]);
                left[f][3] = pack_bf16(scores[f][2 * i + 1][2], scores[f][2 * i + 1][3]);
            }
#pragma unroll
            for (int j = 0; j < D / 16; j++) {
                unsigned right[4];
                load_matrices_transposed(right, value_tile + place<D>(i * 16 + lane % 16, 2 * j + lane / 16));
#pragma unroll
                for (int f = 0; f < 2; f++) {
                    multiply_add(sums[f][2 * j], left[f], right[0], right[1]);
                    multiply_add(sums[f][2 * j + 1], left[f], right[2], right[3]);
                }
            }
        }
        block_barrier(); // the tile is read before the next but one takes its place
    }

    out += batch * of_out.batch + head * of_out.head;
#pragma unroll
    for (int f = 0; f < 2; f++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float total = running.total[f][half];
            total += shuffle_xor(total, 1);
            total += shuffle_xor(total, 2);
            int query = first_query + of_warp + f * 16 + lane / 4 + half * 8;
            if (query >= queries) continue;
            bf16* row = out + query * of_out.token;
#pragma unroll
            for (int j = 0; j < D / 8; j++) {
                unsigned both = pack_bf16(sums[f][j][2 * half] / total, sums[f][j][2 * half + 1] / total);
                *reinterpret_cast<unsigned*>(row + j * 8 + lane % 4 * 2) = both;
            }
        }
    }
}
} // namespace attention

#define ATTEND(name, D)                                                                                                                \
    KERNEL AT_MOST(128, 2) name(bf16* out, const bf16* q, const bf16* k, const bf16* v, long out_batch, long out_token, long out_head, \
                                long q_batch, long q_token, long q_head, long k_batch, long k_token, long k_head, long v_batch,        \
                                long v_token, long v_head, int queries, int keys, int shared, int causal, float scale) {               \
        attention::attend<D>(out, q, k, v, {out_batch, out_token, out_head}, {q_batch, q_token, q_head}, {k_batch, k_token, k_head},   \
                             {v_batch, v_token, v_head}, queries, keys, shared, causal, scale);                                        \
    }
ATTEND(attend_64, 64)
ATTEND(attend_128, 128)
