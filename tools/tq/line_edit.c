/* line_edit.c: the line editor.  Every change redraws the whole entry from its first row: the editor knows where each
 * character lands (utf8proc's widths), starts every row itself, and shows the rows around the cursor when the entry is
 * higher than the screen. */
#include "line_edit.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include <utf8proc.h>

#include "line_history.h"
#include "terminal.h"

#define PASTE_ON "\x1b[?2004h"
#define PASTE_OFF "\x1b[?2004l"

enum { TAB_WIDTH = 4, ESCAPE_WAIT_MS = 50, QUERY_CAP = 128 };

/* Bytes that grow.  text is NUL-terminated once something was put in. */
typedef struct bytes {
    char *text;
    size_t n, cap;
} bytes;

struct line_edit {
    line_history history;
    bool interactive;
    struct termios cooked;
    const char *prompt;
    bytes line, killed, out, draft; /* draft: what was being typed before Up was pressed */
    size_t cursor;                  /* byte offset in line */
    int history_at;                 /* history.n: the draft */
    int n_columns, n_rows;          /* of the screen */
    int drawn_row;                  /* where the cursor was left, counted from the first row drawn */
    unsigned char input[512];       /* read but not used yet */
    size_t input_at, input_n;
    bool failed;
};

/* What a signal handler needs: how the terminal was, while it is not. */
static struct termios terminal_before;
static volatile sig_atomic_t terminal_is_raw, resized;

static bool put(line_edit *e, bytes *b, const char *text, size_t n) {
    if (b->n + n + 1 > b->cap) {
        size_t cap = (b->n + n + 1) * 2;
        char *grown = realloc(b->text, cap);
        if (!grown) {
            e->failed = true;
            return false;
        }
        b->text = grown;
        b->cap = cap;
    }
    if (n > 0) memcpy(b->text + b->n, text, n);
    b->n += n;
    b->text[b->n] = 0;
    return true;
}

static bool assign(line_edit *e, bytes *b, const char *text, size_t n) {
    b->n = 0;
    return put(e, b, text, n);
}

static void say(line_edit *e, const char *text) { put(e, &e->out, text, strlen(text)); }

static void flush_out(line_edit *e) {
    for (size_t at = 0; at < e->out.n;) {
        ssize_t n = write(STDOUT_FILENO, e->out.text + at, e->out.n - at);
        if (n < 0 && errno != EINTR) break;
        if (n > 0) at += (size_t)n;
    }
    e->out.n = 0;
}

/* ---- the terminal ------------------------------------------------------------------------------------------------ */

static const int ending_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
enum { N_ENDING = sizeof ending_signals / sizeof *ending_signals };
static struct sigaction actions_before[N_ENDING + 1];

/* The shell that follows must find its terminal as it was. */
static void restore_and_die(int number) {
    if (terminal_is_raw) {
        tcsetattr(STDIN_FILENO, TCSANOW, &terminal_before);
        ssize_t n = write(STDOUT_FILENO, PASTE_OFF, strlen(PASTE_OFF));
        (void)n;
    }
    signal(number, SIG_DFL);
    raise(number);
}

static void note_resize(int number) {
    (void)number;
    resized = 1;
}

static void leave_raw(void) {
    if (!terminal_is_raw) return;
    tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal_before);
    ssize_t n = write(STDOUT_FILENO, PASTE_OFF, strlen(PASTE_OFF));
    (void)n;
    terminal_is_raw = 0;
    for (int i = 0; i < N_ENDING; i++) sigaction(ending_signals[i], &actions_before[i], NULL);
    sigaction(SIGWINCH, &actions_before[N_ENDING], NULL);
}

static bool enter_raw(line_edit *e) {
    if (tcgetattr(STDIN_FILENO, &e->cooked) != 0) return false;
    terminal_before = e->cooked;
    struct termios raw = e->cooked;
    raw.c_iflag &= ~(tcflag_t)(BRKINT | ICRNL | INPCK | ISTRIP | IXON);
    raw.c_lflag &= ~(tcflag_t)(ECHO | ICANON | IEXTEN | ISIG);
    raw.c_cflag |= CS8;
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    struct sigaction action = {.sa_handler = restore_and_die};
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < N_ENDING; i++) sigaction(ending_signals[i], &action, &actions_before[i]);
    action.sa_handler = note_resize;
    sigaction(SIGWINCH, &action, &actions_before[N_ENDING]);
    terminal_is_raw = 1;
    /* DRAIN, not FLUSH: what was typed ahead belongs to this line. */
    if (tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) != 0) {
        leave_raw();
        return false;
    }
    say(e, PASTE_ON);
    return true;
}

static void measure_screen(line_edit *e) {
    struct winsize size;
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    e->n_columns = known ? size.ws_col : 80;
    e->n_rows = known && size.ws_row > 0 ? size.ws_row : 24;
    if (e->n_columns < 4) e->n_columns = 4; /* a tab must fit */
}

/* ---- drawing ----------------------------------------------------------------------------------------------------- */

/* The character at text[0]: its bytes; its width on the screen, and what to show for it where it is not itself. */
static size_t look(const char *text, size_t n, int *width, const char **shown, char buf[8]) {
    unsigned char c = (unsigned char)text[0];
    *shown = NULL;
    if (c >= 0x20 && c < 0x7F) {
        *width = 1;
        return 1;
    }
    if (c < 0x80) {
        if (c == '\t') snprintf(buf, 8, "%*s", TAB_WIDTH, "");
        else snprintf(buf, 8, "^%c", c ^ 0x40);
        *shown = buf;
        *width = c == '\n' ? 0 : (int)strlen(buf);
        return 1;
    }
    utf8proc_int32_t code;
    utf8proc_ssize_t length = utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &code);
    if (length <= 0 || code < 0xA0) { /* not UTF-8, or a control that a terminal would obey */
        *shown = "?";
        *width = 1;
        return length <= 0 ? 1 : (size_t)length;
    }
    *width = utf8proc_charwidth(code);
    return (size_t)length;
}

typedef struct place {
    int row, column;
} place;

/* Where a character of this width goes; p is left behind it.  A full row is left only when something follows. */
static void advance(place *p, const char *c, int width, int n_columns) {
    if (*c == '\n' || p->column + width > n_columns) *p = (place){p->row + 1, 0};
    p->column += width;
}

static void walk(const line_edit *e, const char *text, size_t n, place *p) {
    for (size_t i = 0; i < n;) {
        int width;
        const char *shown;
        char buf[8];
        size_t length = look(text + i, n - i, &width, &shown, buf);
        advance(p, text + i, width, e->n_columns);
        i += length;
    }
}

/* Emit the characters that land in rows top..bottom.  p: where text begins. */
static void emit(line_edit *e, const char *text, size_t n, place *p, int top, int bottom) {
    for (size_t i = 0; i < n;) {
        int width, row = p->row;
        const char *shown;
        char buf[8];
        size_t length = look(text + i, n - i, &width, &shown, buf);
        advance(p, text + i, width, e->n_columns);
        if (p->row > row && row >= top && p->row <= bottom) say(e, "\r\n");
        if (p->row >= top && p->row <= bottom && text[i] != '\n') {
            if (shown) say(e, shown);
            else put(e, &e->out, text + i, length);
        }
        i += length;
    }
}

static void draw(line_edit *e) {
    char move[32];
    place cursor = {0, 0}, end;
    walk(e, e->prompt, strlen(e->prompt), &cursor);
    walk(e, e->line.text, e->cursor, &cursor);
    end = cursor;
    walk(e, e->line.text + e->cursor, e->line.n - e->cursor, &end);
    if (cursor.column >= e->n_columns) cursor = (place){cursor.row + 1, 0};
    int last = end.row > cursor.row ? end.row : cursor.row;
    int top = cursor.row >= e->n_rows ? cursor.row - e->n_rows + 1 : 0;
    int bottom = last < top + e->n_rows - 1 ? last : top + e->n_rows - 1;

    if (e->drawn_row > 0) {
        snprintf(move, sizeof move, "\x1b[%dA", e->drawn_row);
        say(e, move);
    }
    say(e, "\r\x1b[J");
    place p = {0, 0};
    emit(e, e->prompt, strlen(e->prompt), &p, top, bottom);
    emit(e, e->line.text, e->line.n, &p, top, bottom);
    if (p.row < last && last <= bottom) say(e, "\r\n"); /* the cursor waits on a row that nothing was put in yet */
    if (bottom > cursor.row) {
        snprintf(move, sizeof move, "\x1b[%dA", bottom - cursor.row);
        say(e, move);
    }
    say(e, "\r");
    if (cursor.column > 0) {
        snprintf(move, sizeof move, "\x1b[%dC", cursor.column);
        say(e, move);
    }
    e->drawn_row = cursor.row - top;
    flush_out(e);
}

/* After a resize the terminal has wrapped the rows anew: count those above the cursor with the new width. */
static void redraw_resized(line_edit *e) {
    resized = 0;
    measure_screen(e);
    place cursor = {0, 0};
    walk(e, e->prompt, strlen(e->prompt), &cursor);
    walk(e, e->line.text, e->cursor, &cursor);
    e->drawn_row = cursor.row < e->n_rows ? cursor.row : e->n_rows - 1;
    draw(e);
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

enum {
    KEY_LEFT = 256,
    KEY_RIGHT,
    KEY_UP,
    KEY_DOWN,
    KEY_HOME,
    KEY_END,
    KEY_DELETE,
    KEY_WORD_LEFT,
    KEY_WORD_RIGHT,
    KEY_WORD_DELETE,
    KEY_WORD_ERASE,
    KEY_NEWLINE,
    KEY_PASTE,
    KEY_TEXT,
    KEY_IGNORED,
    KEY_RESIZED,
    KEY_EOF
};

#define KEY_CTRL(letter) ((letter)&0x1F)

typedef struct key {
    int code; /* a control character, or one of the above */
    char text[4];
    size_t n; /* of KEY_TEXT */
} key;

enum { BYTE_EOF = -1, BYTE_LATE = -2, BYTE_RESIZED = -3 };

/* The next byte; BYTE_LATE after wait_ms milliseconds without one (-1: wait for ever). */
static int next_byte(line_edit *e, int wait_ms) {
    while (e->input_at == e->input_n) {
        struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
        int ready = poll(&in, 1, wait_ms);
        if (ready == 0) return BYTE_LATE;
        ssize_t n = ready > 0 ? read(STDIN_FILENO, e->input, sizeof e->input) : -1;
        if (n > 0) {
            e->input_at = 0;
            e->input_n = (size_t)n;
        } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
            return BYTE_EOF;
        } else if (resized && wait_ms < 0) {
            return BYTE_RESIZED;
        }
    }
    return e->input[e->input_at++];
}

static int key_of_number(int number) {
    switch (number) {
    case 1:
    case 7: return KEY_HOME;
    case 4:
    case 8: return KEY_END;
    case 3: return KEY_DELETE;
    case 200: return KEY_PASTE;
    default: return KEY_IGNORED;
    }
}

/* After ESC [ or ESC O: numbers, then a letter. */
static int read_sequence(line_edit *e) {
    int numbers[2] = {0, 0}, at = 0, byte;
    while ((byte = next_byte(e, ESCAPE_WAIT_MS)) >= 0x20 && byte < 0x40) {
        if (byte == ';' && at < 1) at++;
        else if (byte >= '0' && byte <= '9' && numbers[at] < 1000) numbers[at] = 10 * numbers[at] + byte - '0';
    }
    bool by_word = numbers[1] == 3 || numbers[1] == 5; /* Alt, Ctrl */
    switch (byte) {
    case 'A': return KEY_UP;
    case 'B': return KEY_DOWN;
    case 'C': return by_word ? KEY_WORD_RIGHT : KEY_RIGHT;
    case 'D': return by_word ? KEY_WORD_LEFT : KEY_LEFT;
    case 'H': return KEY_HOME;
    case 'F': return KEY_END;
    case '~': return key_of_number(numbers[0]);
    default: return KEY_IGNORED;
    }
}

static int read_escape(line_edit *e) {
    int byte = next_byte(e, ESCAPE_WAIT_MS);
    switch (byte) {
    case '[':
    case 'O': return read_sequence(e);
    case 'b': return KEY_WORD_LEFT;
    case 'f': return KEY_WORD_RIGHT;
    case 'd': return KEY_WORD_DELETE;
    case 0x7F: return KEY_WORD_ERASE;
    case '\r':
    case '\n': return KEY_NEWLINE;
    default: return KEY_IGNORED;
    }
}

static key read_key(line_edit *e) {
    int byte = next_byte(e, -1);
    if (byte == BYTE_EOF) return (key){.code = KEY_EOF};
    if (byte == BYTE_RESIZED) return (key){.code = KEY_RESIZED};
    if (byte == 0x1B) return (key){.code = read_escape(e)};
    if (byte < 0x20 || byte == 0x7F) return (key){.code = byte};
    key k = {.code = KEY_TEXT, .text = {(char)byte}, .n = 1};
    size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    while (k.n < length) {
        byte = next_byte(e, ESCAPE_WAIT_MS);
        if (byte < 0) break;
        if ((byte & 0xC0) != 0x80) { /* not a continuation: it starts the next key */
            e->input_at--;
            break;
        }
        k.text[k.n++] = (char)byte;
    }
    return k;
}

/* ---- editing ----------------------------------------------------------------------------------------------------- */

static void insert(line_edit *e, const char *text, size_t n) {
    if (!put(e, &e->line, text, n)) return; /* makes room; the bytes then move to their place */
    memmove(e->line.text + e->cursor + n, e->line.text + e->cursor, e->line.n - n - e->cursor);
    memcpy(e->line.text + e->cursor, text, n);
    e->cursor += n;
}

static void erase(line_edit *e, size_t from, size_t to, bool keep) {
    if (from >= to) return;
    if (keep) assign(e, &e->killed, e->line.text + from, to - from);
    memmove(e->line.text + from, e->line.text + to, e->line.n - to + 1);
    e->line.n -= to - from;
    e->cursor = from;
}

static int width_at(const line_edit *e, size_t at, size_t *length) {
    int width;
    const char *shown;
    char buf[8];
    *length = look(e->line.text + at, e->line.n - at, &width, &shown, buf);
    return e->line.text[at] == '\n' ? 1 : width;
}

/* The next place for the cursor: behind a character and the marks that combine with it. */
static size_t after(const line_edit *e, size_t at) {
    size_t length;
    if (at >= e->line.n) return e->line.n;
    width_at(e, at, &length);
    at += length;
    while (at < e->line.n && width_at(e, at, &length) == 0) at += length;
    return at;
}

static size_t before(const line_edit *e, size_t at) {
    size_t length;
    while (at > 0) {
        at--;
        while (at > 0 && ((unsigned char)e->line.text[at] & 0xC0) == 0x80) at--;
        if (width_at(e, at, &length) > 0) break;
    }
    return at;
}

static bool in_word(char c) {
    return (unsigned char)c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static size_t word_left(const line_edit *e) {
    size_t at = e->cursor;
    while (at > 0 && !in_word(e->line.text[at - 1])) at--;
    while (at > 0 && in_word(e->line.text[at - 1])) at--;
    return at;
}

static size_t word_right(const line_edit *e) {
    size_t at = e->cursor;
    while (at < e->line.n && !in_word(e->line.text[at])) at++;
    while (at < e->line.n && in_word(e->line.text[at])) at++;
    return at;
}

static size_t blank_left(const line_edit *e) {
    size_t at = e->cursor;
    while (at > 0 && strchr(" \t\n", e->line.text[at - 1])) at--;
    while (at > 0 && !strchr(" \t\n", e->line.text[at - 1])) at--;
    return at;
}

static size_t row_start(const line_edit *e, size_t at) {
    while (at > 0 && e->line.text[at - 1] != '\n') at--;
    return at;
}

static size_t row_end(const line_edit *e, size_t at) {
    while (at < e->line.n && e->line.text[at] != '\n') at++;
    return at;
}

/* Everything until ESC[201~ goes in as it is, but for line ends, which terminals send as \r. */
static void paste(line_edit *e) {
    static const char end[] = "\x1b[201~";
    bytes text = {0};
    int byte, previous = 0;
    while ((byte = next_byte(e, -1)) != BYTE_EOF) {
        if (byte == BYTE_RESIZED) {
            resized = 0;
            measure_screen(e);
            continue;
        }
        char c = byte == '\r' ? '\n' : (char)byte;
        if (byte != 0 && !(byte == '\n' && previous == '\r')) put(e, &text, &c, 1);
        previous = byte;
        if (c == '~' && text.n >= strlen(end) && memcmp(text.text + text.n - strlen(end), end, strlen(end)) == 0) {
            text.n -= strlen(end);
            break;
        }
    }
    if (text.n > 0) insert(e, text.text, text.n);
    free(text.text);
}

/* ---- history ----------------------------------------------------------------------------------------------------- */

static void show_entry(line_edit *e, int at) {
    if (at < 0 || at > e->history.n || at == e->history_at) return;
    if (e->history_at == e->history.n) assign(e, &e->draft, e->line.text, e->line.n);
    const char *text = at == e->history.n ? e->draft.text : e->history.lines[at];
    assign(e, &e->line, text, strlen(text));
    e->cursor = e->line.n;
    e->history_at = at;
}

/* Up and Down move inside an entry of several lines, and from its first or last line to its neighbours. */
static void move_vertically(line_edit *e, bool up) {
    size_t start = row_start(e, e->cursor), column = e->cursor - start, row;
    if (up ? start == 0 : row_end(e, e->cursor) == e->line.n) {
        show_entry(e, e->history_at + (up ? -1 : 1));
        return;
    }
    row = up ? row_start(e, start - 1) : row_end(e, e->cursor) + 1;
    size_t end = row_end(e, row);
    e->cursor = row + column < end ? row + column : end;
    while (e->cursor > row && ((unsigned char)e->line.text[e->cursor] & 0xC0) == 0x80) e->cursor--;
}

static int find_entry(const line_edit *e, const char *query, int from) {
    for (int i = from; i >= 0 && *query; i--)
        if (strstr(e->history.lines[i], query)) return i;
    return -1;
}

/* Ctrl-R.  Returns the key that ended the search, which then does what it always does; Ctrl-C and Ctrl-G give the line
 * back as it was. */
static key search(line_edit *e) {
    char query[QUERY_CAP] = "", shown[QUERY_CAP + 32];
    const char *prompt = e->prompt;
    bytes old = {0};
    size_t old_cursor = e->cursor;
    int at = e->history.n;
    put(e, &old, e->line.text, e->line.n);
    key k;
    for (;;) {
        snprintf(shown, sizeof shown, "(search: %s) ", query);
        e->prompt = shown;
        draw(e);
        k = read_key(e);
        size_t n = strlen(query);
        int from = at < e->history.n ? at : e->history.n - 1;
        if (k.code == KEY_TEXT && n + k.n < sizeof query) {
            memcpy(query + n, k.text, k.n);
            query[n + k.n] = 0;
        } else if (k.code == KEY_CTRL('R')) {
            from = at - 1;
        } else if ((k.code == 0x7F || k.code == KEY_CTRL('H')) && n > 0) {
            do query[--n] = 0;
            while (n > 0 && ((unsigned char)query[n - 1] & 0xC0) == 0x80);
            if (n > 0 && (unsigned char)query[n - 1] >= 0xC0) query[--n] = 0;
            from = e->history.n - 1;
        } else if (k.code != KEY_RESIZED) {
            break;
        }
        int found = find_entry(e, query, from);
        if (found < 0) continue;
        at = found;
        assign(e, &e->line, e->history.lines[at], strlen(e->history.lines[at]));
        e->cursor = (size_t)(strstr(e->line.text, query) - e->line.text);
    }
    e->prompt = prompt;
    if (k.code == KEY_CTRL('C') || k.code == KEY_CTRL('G')) {
        assign(e, &e->line, old.text, old.n);
        e->cursor = old_cursor;
        k.code = KEY_IGNORED;
    }
    free(old.text);
    return k;
}

/* ---- the loop ---------------------------------------------------------------------------------------------------- */

static void suspend(line_edit *e) {
    leave_raw();
    raise(SIGTSTP);
    enter_raw(e);
    measure_screen(e);
    e->drawn_row = 0;
}

static void move_or_erase(line_edit *e, const key *k) {
    size_t c = e->cursor;
    switch (k->code) {
    case KEY_TEXT: insert(e, k->text, k->n); break;
    case KEY_NEWLINE: insert(e, "\n", 1); break;
    case '\t': insert(e, "\t", 1); break;
    case KEY_PASTE: paste(e); break;
    case KEY_LEFT:
    case KEY_CTRL('B'): e->cursor = before(e, c); break;
    case KEY_RIGHT:
    case KEY_CTRL('F'): e->cursor = after(e, c); break;
    case KEY_WORD_LEFT: e->cursor = word_left(e); break;
    case KEY_WORD_RIGHT: e->cursor = word_right(e); break;
    case KEY_HOME:
    case KEY_CTRL('A'): e->cursor = row_start(e, c); break;
    case KEY_END:
    case KEY_CTRL('E'): e->cursor = row_end(e, c); break;
    case KEY_UP: move_vertically(e, true); break;
    case KEY_DOWN: move_vertically(e, false); break;
    case KEY_CTRL('P'): show_entry(e, e->history_at - 1); break;
    case KEY_CTRL('N'): show_entry(e, e->history_at + 1); break;
    case 0x7F:
    case KEY_CTRL('H'): erase(e, before(e, c), c, false); break;
    case KEY_DELETE:
    case KEY_CTRL('D'): erase(e, c, after(e, c), false); break;
    case KEY_WORD_ERASE: erase(e, word_left(e), c, true); break;
    case KEY_CTRL('W'): erase(e, blank_left(e), c, true); break;
    case KEY_WORD_DELETE: erase(e, c, word_right(e), true); break;
    case KEY_CTRL('U'): erase(e, row_start(e, c), c, true); break;
    case KEY_CTRL('K'): erase(e, c, row_end(e, c), true); break;
    case KEY_CTRL('Y'): insert(e, e->killed.text ? e->killed.text : "", e->killed.n); break;
    case KEY_CTRL('L'):
        say(e, "\x1b[H\x1b[2J");
        e->drawn_row = 0;
        break;
    case KEY_CTRL('Z'): suspend(e); break;
    case KEY_RESIZED: redraw_resized(e); break;
    default: break;
    }
}

static line_result edit(line_edit *e) {
    for (;;) {
        if (e->failed) return LINE_FAILED;
        if (e->input_at == e->input_n) draw(e); /* with keys waiting, once for all of them */
        key k = read_key(e);
        if (k.code == KEY_CTRL('R')) k = search(e);
        if (k.code == '\r' || k.code == '\n') return LINE_OK;
        if (k.code == KEY_EOF || (k.code == KEY_CTRL('D') && e->line.n == 0)) return LINE_END;
        if (k.code == KEY_CTRL('C')) return e->line.n > 0 ? LINE_DROPPED : LINE_INTERRUPTED;
        move_or_erase(e, &k);
    }
}

static line_result read_edited(line_edit *e, const char *prompt) {
    e->prompt = prompt;
    e->cursor = 0;
    e->drawn_row = 0;
    e->history_at = e->history.n;
    measure_screen(e);
    fflush(stdout);
    if (!assign(e, &e->line, "", 0) || !enter_raw(e)) return LINE_FAILED;
    line_result result = edit(e);
    e->cursor = e->line.n; /* what follows starts below the whole entry */
    draw(e);
    say(e, result == LINE_DROPPED || result == LINE_INTERRUPTED ? "^C\r\n" : "\r\n");
    flush_out(e);
    leave_raw();
    return result;
}

/* ---- without a terminal ------------------------------------------------------------------------------------------ */

static line_result read_plainly(line_edit *e, const char *prompt) {
    bool person = isatty(STDIN_FILENO);
    if (person) {
        fputs(prompt, isatty(STDOUT_FILENO) ? stdout : stderr);
        fflush(stdout);
        interrupt_watch(false);
    }
    errno = 0;
    ssize_t n = getline(&e->line.text, &e->line.cap, stdin);
    int failure = errno;
    if (person) interrupt_unwatch();
    if (n >= 0) {
        e->line.n = (size_t)n;
        if (e->line.n > 0 && e->line.text[e->line.n - 1] == '\n') e->line.text[--e->line.n] = 0;
        if (e->line.n > 0 && e->line.text[e->line.n - 1] == '\r') e->line.text[--e->line.n] = 0;
        return LINE_OK;
    }
    bool at_end = feof(stdin);
    clearerr(stdin);
    if (person && failure == EINTR) {
        fputc('\n', stderr);
        return LINE_INTERRUPTED;
    }
    return at_end ? LINE_END : LINE_FAILED;
}

/* ---- the interface ----------------------------------------------------------------------------------------------- */

line_edit *line_edit_new(const char *history_path) {
    line_edit *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    const char *term = getenv("TERM");
    e->interactive = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && term && *term && strcmp(term, "dumb") != 0;
    if (e->interactive) line_history_open(&e->history, history_path);
    return e;
}

void line_edit_free(line_edit *e) {
    if (!e) return;
    leave_raw();
    line_history_close(&e->history);
    free(e->line.text);
    free(e->killed.text);
    free(e->out.text);
    free(e->draft.text);
    free(e);
}

bool line_edit_is_interactive(const line_edit *e) { return e->interactive; }

line_result line_edit_read(line_edit *e, const char *prompt, const char **line, size_t *n) {
    line_result result = e->interactive ? read_edited(e, prompt) : read_plainly(e, prompt);
    *line = e->line.text;
    *n = e->line.n;
    return result;
}

void line_edit_remember(line_edit *e, const char *text) {
    if (e->interactive) line_history_add(&e->history, text);
}
