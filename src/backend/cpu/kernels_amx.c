/* kernels_amx.c: AVX-512 with tiles of int8 and bf16, Sapphire Rapids and later.  What has no use for tiles is AVX-512's.
 *
 * The state of tiles is large, so Linux wants to be asked for it, once a process; elsewhere this table does not run. */
#if defined(__linux__)
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <unistd.h>
#endif
#include <cpuid.h>

#include "backend/cpu/kernels_avx512.h"
#include "backend/cpu/kernels_body.h"

#if defined(TQ_EMULATED_TILES) /* by tests/support/emulated_tiles.h, read first where tiles are emulated */
static bool has_tiles(void) { return true; }
#elif defined(__linux__)
static bool has_tiles(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    bool tiles = d >> 24 & 1, tiles_int8 = d >> 25 & 1, tiles_bf16 = d >> 22 & 1;
    return tiles && tiles_int8 && tiles_bf16 && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#else
static bool has_tiles(void) { return false; }
#endif

#include "backend/cpu/tiles_avx512.h"
#include "backend/cpu/matmul_amx.h"
#define BF16_TILES
#include "backend/cpu/matmul_bf16.h"
#include "backend/cpu/panels_amx.h"
#include "backend/cpu/attend_page_amx.h"
#include "backend/cpu/attend_many_amx.h"

static bool runs_here(void) { return has_avx512() && has_avx512_bf16() && has_tiles(); }

const tq_kernels tq_kernels_amx = {
    .name = "amx", .runs_here = runs_here, .begin_pages = begin_pages, .end_pages = end_pages, .attend_pages = attend_pages,
    .woven_dots = tq_woven_dots_avx512, .bf16 = &bf16_kernels,
    MATMUL_KERNELS_AMX, PAGE_KERNELS, OTHER_KERNELS,
};
