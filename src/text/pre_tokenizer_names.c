/* pre_tokenizer_names.c: a table.  The patterns are those of the models' own tokenizer.json; models that need more than
 * splits (falcon, afmoe, superbpe) or whose patterns are not known for certain are not in it. */
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

/* Letters with case, as deepseek-llm's tokenizer.json lists them. */
#define CASED_LETTERS                                                                                                     \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}"                   \
    "\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-\\x{38a}\\x{38c}"    \
    "\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}"        \
    "\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}"                 \
    "\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}"                 \
    "\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}"         \
    "\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}"        \
    "\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}"         \
    "\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}"                   \
    "\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}"         \
    "\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}"                  \
    "\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}"                 \
    "\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}"           \
    "\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"

/* kimi-k2 writes these as intersections, [A&&[^\p{Han}]]. */
#define UPPER_NOT_HAN "(?:(?!\\p{Han})" UPPER ")"
#define LOWER_NOT_HAN "(?:(?!\\p{Han})" LOWER ")"

/* bloom's, which has a class in a class. */
#define BETWEEN_MARKS " ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c})]+"

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
    {.names = "deepseek-llm",
     .patterns = {"[\\r\\n]", "\\s?[" CASED_LETTERS "]+",
                  "\\s?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+", "\\s+$",
                  "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+", "\\p{N}"}},
    {.names = "kimi-k2",
     .patterns = {"\\p{Han}+|[^\\r\\n\\p{L}\\p{N}]?" UPPER_NOT_HAN "*" LOWER_NOT_HAN "+" CONTRACTIONS
                  "?|[^\\r\\n\\p{L}\\p{N}]?" UPPER_NOT_HAN "+" LOWER_NOT_HAN "*" CONTRACTIONS "?|\\p{N}{1,3}" MARKS SPACES}},
    {.names = "minicpm5",
     .patterns = {"\\p{N}{1,3}", CONTRACTIONS WORDS "|\\p{N}+" MARKS SPACES},
     .ignore_merges = true},
    {.names = "bloom poro-chat gpt3-finnish", .patterns = {BETWEEN_MARKS}},
    {.names = "viking", .patterns = {BETWEEN_MARKS, "\\p{N}"}},
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
