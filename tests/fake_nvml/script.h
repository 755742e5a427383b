#ifndef FAKE_NVML_SCRIPT_H
#define FAKE_NVML_SCRIPT_H
#include <stddef.h>

/* Reads the file `script` beside the library again if it has changed. */
void script_refresh(void);
/* The value of a key made as by printf; NULL where the script has none. It stays valid until the next refresh. */
const char *script_text(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The number `text` stands for: "base", or "base@rate", which grows by `rate` a second while the library is loaded. */
long long script_number(const char *text);
double script_real(const char *text);
/* Appends a line to the file `calls` beside the library. */
void script_log(const char *function, int gpu);
/* The entry at `position`, for walking through all; 0 at the end. */
int script_entry(size_t position, const char **key, const char **value);
double seconds_since_loading(void);
#endif
