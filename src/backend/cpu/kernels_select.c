/* kernels_select.c: which instruction sets this build has and this processor runs. */
#include "backend/cpu/kernels.h"

#include <stdio.h>
#include <string.h>

#include "base/env.h"

extern const tq_kernels tq_kernels_scalar;

#if defined(TQ_ONLY_AMX) /* tests on emulated tiles: other builds test the other tables */
extern const tq_kernels tq_kernels_amx;
const tq_kernels *const tq_kernels_all[] = {&tq_kernels_amx, &tq_kernels_scalar, NULL};
#elif defined(__x86_64__)
extern const tq_kernels tq_kernels_avx2, tq_kernels_avx512, tq_kernels_amx;
const tq_kernels *const tq_kernels_all[] = {&tq_kernels_amx, &tq_kernels_avx512, &tq_kernels_avx2, &tq_kernels_scalar, NULL};
#elif defined(__aarch64__)
extern const tq_kernels tq_kernels_neon_dotprod, tq_kernels_neon;
const tq_kernels *const tq_kernels_all[] = {&tq_kernels_neon_dotprod, &tq_kernels_neon, &tq_kernels_scalar, NULL};
#else
const tq_kernels *const tq_kernels_all[] = {&tq_kernels_scalar, NULL};
#endif

tq_status tq_kernels_select(const char *want, const tq_kernels **out, tq_error *err) {
    if (!want) want = tq_env_kernels();
    char known[128] = "";
    for (const tq_kernels *const *k = tq_kernels_all; *k; k++) {
        if (!want ? (*k)->runs_here() : strcmp(want, (*k)->name) == 0) {
            if (!(*k)->runs_here())
                return tq_fail(err, TQ_UNSUPPORTED, "kernels '%s': this processor does not have them", want);
            *out = *k;
            return TQ_OK;
        }
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", (*k)->name);
    }
    return tq_fail(err, TQ_INVALID, "unknown kernels '%s': this build has %s", want ? want : "", known);
}
