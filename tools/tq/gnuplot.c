/* gnuplot.c: see gnuplot.h. */
#include "gnuplot.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "setup.h"

static bool find_program(const char *name) {
    const char *path = getenv("PATH");
    char full[PATH_MAX];
    while (path && *path) {
        size_t n = strcspn(path, ":");
        int length = snprintf(full, sizeof full, "%.*s/%s", (int)n, path, name);
        struct stat st;
        if (length > 0 && (size_t)length < sizeof full && stat(full, &st) == 0 && S_ISREG(st.st_mode) &&
            access(full, X_OK) == 0)
            return true;
        path += n + (path[n] == ':');
    }
    return false;
}

int gnuplot_check(const char *command, const char *path) {
    size_t n = strlen(path);
    if (n < 5 || strcmp(path + n - 4, ".svg") != 0)
        return setup_fail(command, "--plot %s: want a name that ends in .svg: that is what is written", path);
    if (!find_program("gnuplot"))
        return setup_fail(command, "--plot: gnuplot draws it, and is not installed (Debian: gnuplot-nox)");
    return EXIT_SUCCESS;
}

/* Child: the script on stdin, the picture on stdout. */
static void become_gnuplot(FILE *script, FILE *picture) {
    if (dup2(fileno(script), STDIN_FILENO) >= 0 && dup2(fileno(picture), STDOUT_FILENO) >= 0)
        execlp("gnuplot", "gnuplot", "-", (char *)NULL);
    _exit(127);
}

int gnuplot_run(const char *command, const char *path, FILE *script) {
    char temporary[PATH_MAX];
    int n = snprintf(temporary, sizeof temporary, "%s.%ld.tmp", path, (long)getpid());
    if (n < 0 || (size_t)n >= sizeof temporary) return setup_fail(command, "--plot: the name is too long");
    FILE *picture = fopen(temporary, "wb");
    if (!picture) return setup_fail(command, "%s: %s", path, strerror(errno));
    rewind(script);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) become_gnuplot(script, picture);
    int status = -1;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    struct stat st;
    bool drawn = fclose(picture) == 0 && pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0 &&
                 stat(temporary, &st) == 0 && st.st_size > 0;
    if (drawn && rename(temporary, path) == 0) return EXIT_SUCCESS;
    int reason = errno;
    unlink(temporary);
    return drawn ? setup_fail(command, "%s: %s", path, strerror(reason))
                 : setup_fail(command, "--plot %s: gnuplot failed (exit status %d)", path,
                              WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

void gnuplot_quote(FILE *to, const char *text) {
    fputc('"', to);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') fputc('\\', to);
        fputc((unsigned char)*text < ' ' ? ' ' : *text, to);
    }
    fputc('"', to);
}
