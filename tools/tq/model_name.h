/* model_name.h: from what was given as --model to a path: one function, for every command. */
#ifndef TQ_TOOL_MODEL_NAME_H
#define TQ_TOOL_MODEL_NAME_H

enum { MODEL_PATH_CAP = 4096 };

/* In this order, the first that has it:
 *
 *   1. a path that exists, "synthetic:...", and whatever looks like a path (begins with / ./ ../ or ~)
 *   2. Hugging Face's cache     ORG/NAME, ORG/NAME:FILE, ORG/NAME:TAG
 *   3. Ollama's store           NAME, NAME:TAG, USER/NAME:TAG
 *   4. llama.cpp's cache        ORG/NAME, ORG/NAME:TAG, FILE.gguf
 *   5. the hub                  ORG/NAME...: it is pulled, after saying so; not when HF_HUB_OFFLINE is set, nor when a folder
 *                               ORG is here, which makes it a path mistyped
 *
 * Where it was found, if not by 1, is said on stderr.  What is found nowhere stays as it is: opening it tells.  0, or the
 * code to exit with, after saying why. */
int model_name_resolve(const char *command, const char *name, char path[MODEL_PATH_CAP]);

#endif
