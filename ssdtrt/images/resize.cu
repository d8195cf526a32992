// Pillow's bilinear filter: its Resample.c adds up whole numbers, and so does this. `resize_kernel.py` launches it.
//
// Weights are in units of 2^-22; of output i they are weights[i * taps + k], for the pixels from first[i] on.
// scripts/make_ptx.py makes resize.ptx of this file.

#define SIZE 300
#define BITS 22
#define HALF (1 << 21)

__device__ __forceinline__ unsigned char rounded(int sum) {
    return min(sum >> BITS, 255);
}

// [rows, width, 3] -> [rows, SIZE, 3]; one block for each row.
extern "C" __global__ void resize_width(const unsigned char* pixels, unsigned char* out, const int* first,
                                        const int* weights, int taps, int width) {
    pixels += (long long)blockIdx.x * width * 3;
    out += (long long)blockIdx.x * SIZE * 3;
    for (int x = threadIdx.x; x < SIZE; x += blockDim.x) {
        const int start = first[x], count = min(taps, width - start);
        const unsigned char* pixel = pixels + start * 3;
        int red = HALF, green = HALF, blue = HALF;
        for (int k = 0; k < count; ++k, pixel += 3) {
            const int weight = weights[x * taps + k];
            red += pixel[0] * weight;
            green += pixel[1] * weight;
            blue += pixel[2] * weight;
        }
        out[x * 3] = rounded(red);
        out[x * 3 + 1] = rounded(green);
        out[x * 3 + 2] = rounded(blue);
    }
}

// [n, height, row] -> [n, SIZE, row], where a row has so many bytes; one block for each row of the output.
extern "C" __global__ void resize_height(const unsigned char* pixels, unsigned char* out, const int* first,
                                         const int* weights, int taps, int height, int row) {
    const int y = blockIdx.x % SIZE, start = first[y], count = min(taps, height - start);
    pixels += ((long long)(blockIdx.x / SIZE) * height + start) * row;
    out += (long long)blockIdx.x * row;
    for (int at = threadIdx.x; at < row; at += blockDim.x) {
        int sum = HALF;
        for (int k = 0; k < count; ++k) sum += pixels[(long long)k * row + at] * weights[y * taps + k];
        out[at] = rounded(sum);
    }
}
