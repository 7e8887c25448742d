// Uniform numbers as an array.

#include "random.cuh"

// out (B, r, K): rows first_row ... of R, keys first_key ... in `panels` panels of `width` keys, of entries first_entry
// ...; a thread makes the numbers of eight keys of a row.
extern "C" __global__ void uniform(REAL *out, long long key0, long long key1, int B, int r, int K, int first_entry,
                                   int first_row, long long first_key, int R, long long panels, int width) {
    const long long first = first_key / 8, each = (first_key + K + 7) / 8 - first;
    const long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= B * (r * each)) return;
    const long long row = at / each, t = (first + at % each) * 8;
    const Stream stream = {(Word)key0, (Word)key1, R, panels, width};
    float numbers[8];
    stream.draw(first_entry + row / r, first_row + row % r, t, numbers);
    for (int i = 0; i < 8; i++)
        if (t + i >= first_key && t + i < first_key + K) out[row * K + t + i - first_key] = numbers[i];
}
