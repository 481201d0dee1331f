/* template_lexer.h: template source to tokens, with Jinja's rules of white space: trim_blocks and lstrip_blocks on,
 * the newline at the end of the source dropped. */
#ifndef TQ_TEXT_TEMPLATE_LEXER_H
#define TQ_TEXT_TEMPLATE_LEXER_H

#include "text/template_value.h"

typedef enum tq_lex_type {
    TQ_LEX_TEXT,
    TQ_LEX_PRINT,
    TQ_LEX_PRINT_END,
    TQ_LEX_BLOCK,
    TQ_LEX_BLOCK_END,
    TQ_LEX_NAME,
    TQ_LEX_INT,
    TQ_LEX_FLOAT,
    TQ_LEX_STRING,
    TQ_LEX_OP,
    TQ_LEX_END
} tq_lex_type;

/* text borrows from the source (TEXT, NAME, OP, numbers) or holds the value (STRING). */
typedef struct tq_lex_token {
    tq_lex_type type;
    int line;
    const char *text;
    size_t n;
} tq_lex_token;

/* source: newlines are \n; it outlives the tokens.  The array ends with END. */
tq_status tq_lex(tq_render *r, const char *source, size_t n, tq_lex_token **tokens, size_t *n_tokens);

#endif
