/* kernels_avx512.c: AVX-512 F, BW, DQ, VL, VBMI and VNNI (Ice Lake, Zen 4 and later). */
#include <cpuid.h>

#include "backend/cpu/kernels_avx512.h"
#include "backend/cpu/kernels_body.h"
#include "backend/cpu/tiles_avx512.h"
#include "backend/cpu/matmul_bf16.h"

const tq_kernels tq_kernels_avx512 = {
    .name = "avx512", .runs_here = has_avx512, .woven_dots = tq_woven_dots_avx512, .bf16 = &bf16_kernels,
    MATMUL_KERNELS, PAGE_KERNELS, OTHER_KERNELS,
};
