/* pre_tokenizer_names.c: a table.  The patterns are those of the models' own tokenizer.json; models that need more than
 * splits (falcon, kimi-k2, afmoe, superbpe) or whose patterns are not known for certain are not in it. */
#include "text/pre_tokenizer_names.h"

#include <string.h>

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORDS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define MARKS "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
#define SPACES "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CAPITALISED "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+"
#define CAPITALS "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*"
#define MARKS_OR_SLASHES "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*"

static const tq_pre_tokenizer table[] = {
    {.names = "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2",
     .patterns = {CONTRACTIONS WORDS "|\\p{N}{1,3}" MARKS SPACES},
     .ignore_merges = true,
     .add_bos = true},
    {.names = "dbrx smaug-bpe glm4 chatglm-bpe", .patterns = {CONTRACTIONS WORDS "|\\p{N}{1,3}" MARKS SPACES}},
    {.names = "qwen2 deepseek-r1-qwen megrez kormo",
     .normalizer = "NFC",
     .patterns = {CONTRACTIONS WORDS "|\\p{N}" MARKS SPACES}},
    {.names = "stablelm2 hunyuan grok-2", .patterns = {CONTRACTIONS WORDS "|\\p{N}" MARKS SPACES}},
    {.names = "qwen35",
     .normalizer = "NFC",
     .patterns = {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" SPACES}},
    {.names = "gpt-4o llama4 minimax-m2",
     .patterns = {CAPITALISED CONTRACTIONS "?" CAPITALS CONTRACTIONS "?|\\p{N}{1,3}" MARKS_OR_SLASHES SPACES}},
    {.names = "tekken",
     .patterns = {CAPITALISED CAPITALS "|\\p{N}" MARKS_OR_SLASHES SPACES},
     .ignore_merges = true,
     .add_bos = true},
    {.names = "gpt-2 phi-2 jais gigachat mellum exaone4 a.x-4.0 granite-docling trillion", .gpt2_pattern = true},
    {.names = "olmo mpt", .normalizer = "NFC", .gpt2_pattern = true},
    {.names = "smollm starcoder refact codeshell exaone minerva-7b", .patterns = {"\\p{N}"}, .gpt2_pattern = true},
    {.names = "command-r", .normalizer = "NFC", .patterns = {"\\p{N}"}, .gpt2_pattern = true},
    {.names = "deepseek-coder", .patterns = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-퟿]+", "\\p{N}"}},
    {.names = "deepseek-v3 hunyuan-dense",
     .patterns = {"\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
                  "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
                  "| ?[\\p{P}\\p{S}]+[\\r\\n]*" SPACES}},
    {.names = "seed-coder",
     .patterns = {CONTRACTIONS WORDS "|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+" SPACES}},
};

const tq_pre_tokenizer *tq_pre_tokenizer_by_name(const char *name, size_t length) {
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        for (const char *at = table[i].names; *at; at += strspn(at, " ")) {
            size_t n = strcspn(at, " ");
            if (n == length && memcmp(at, name, n) == 0) return &table[i];
            at += n;
        }
    return NULL;
}
