/* terminal.c: progress on stderr, Ctrl-C as a question instead of an end, sizes in words. */
#include "terminal.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <utf8proc.h>

enum { BAR_CELLS = 32 };

static const double BAR_DELAY = 0.15, BAR_INTERVAL = 0.05; /* seconds: short work shows no bar, long work no flicker */
static const double LEFT_DELAY = 3; /* seconds, after which the time left is more than a guess */

/* The only state that lives outside a function: a signal handler can be told nothing. */
static volatile sig_atomic_t interrupted;
static struct sigaction previous_action;

double terminal_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- progress ---------------------------------------------------------------------------------------------------- */

void progress_begin(progress_bar *bar, const char *what) {
    *bar = (progress_bar){.what = what, .started = terminal_seconds()};
}

static bool can_draw(void) {
    const char *term = getenv("TERM");
    return term && strcmp(term, "dumb") != 0 && isatty(STDERR_FILENO);
}

void progress_show(progress_bar *bar, double fraction) {
    double now = terminal_seconds();
    if (now - bar->started < BAR_DELAY || now - bar->drawn < BAR_INTERVAL || !can_draw()) return;
    fraction = fraction < 0 ? 0 : fraction > 1 ? 1 : fraction;
    char cells[BAR_CELLS + 1];
    int full = (int)(fraction * BAR_CELLS);
    for (int i = 0; i < BAR_CELLS; i++) cells[i] = i < full ? '#' : '.';
    cells[BAR_CELLS] = 0;
    char left[32] = "";
    double gone = now - bar->started;
    if (fraction > 0 && gone > LEFT_DELAY) {
        long seconds = (long)(gone * (1 - fraction) / fraction + 0.5);
        if (seconds >= 3600) snprintf(left, sizeof left, " %ld:%02ld:%02ld left", seconds / 3600, seconds / 60 % 60, seconds % 60);
        else snprintf(left, sizeof left, " %ld:%02ld left", seconds / 60, seconds % 60);
    }
    fprintf(stderr, "\r%s [%s] %3d%%%s\x1b[K", bar->what, cells, (int)(100 * fraction), left);
    fflush(stderr);
    bar->drawn = now;
    bar->visible = true;
}

void progress_end(progress_bar *bar) {
    if (bar->visible) fputs("\r\x1b[K", stderr);
    bar->visible = false;
}

/* ---- Ctrl-C ------------------------------------------------------------------------------------------------------ */

static void note_interrupt(int number) {
    (void)number;
    interrupted = 1;
}

void interrupt_watch(bool second_kills) {
    /* Without SA_RESTART: a read that waits for a line ends, too. */
    struct sigaction action = {.sa_handler = note_interrupt, .sa_flags = second_kills ? (int)SA_RESETHAND : 0};
    sigemptyset(&action.sa_mask);
    interrupted = 0;
    sigaction(SIGINT, &action, &previous_action);
}

void interrupt_unwatch(void) { sigaction(SIGINT, &previous_action, NULL); }

bool interrupt_seen(void) { return interrupted != 0; }

/* ---- text and sizes ---------------------------------------------------------------------------------------------- */

static bool is_control(utf8proc_int32_t code) {
    return (code < 0x20 && code != '\n' && code != '\t') || (code >= 0x7F && code < 0xA0);
}

bool terminal_write_text(FILE *to, const char *text, size_t n) {
    if (!isatty(fileno(to))) return fwrite(text, 1, n, to) == n && fflush(to) == 0;
    size_t from = 0;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t code;
        utf8proc_ssize_t length =
            utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(n - i), &code);
        size_t next = i + (length > 0 ? (size_t)length : 1);
        if (length <= 0 || is_control(code)) {
            fwrite(text + from, 1, i - from, to);
            from = next;
        }
        i = next;
    }
    fwrite(text + from, 1, n - from, to);
    return fflush(to) == 0 && !ferror(to);
}

char *terminal_bytes(char buf[32], uint64_t bytes) {
    static const char *const units[] = {"kB", "MB", "GB", "TB"};
    if (bytes < 1000) {
        snprintf(buf, 32, "%d bytes", (int)bytes);
        return buf;
    }
    double value = (double)bytes / 1000;
    int unit = 0;
    while (value >= 999.95 && unit < 3) value /= 1000, unit++;
    snprintf(buf, 32, "%.1f %s", value, units[unit]);
    return buf;
}

uint64_t terminal_peak_rss(void) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
    return (uint64_t)usage.ru_maxrss * 1024;
}
