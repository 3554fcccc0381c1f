/* A simulator of Rockchip's librkllmrt.so, built once per generation of its ABI.
 *
 * It speaks the C interface of the real library to the byte, behaves as the real one is known to behave, checks what
 * it is given, and misbehaves on command. What is written here about the real library has a source:
 *   [h]   rkllm.h of airockchip/rknn-llm at the tag of that release
 *   [b1]  strings and disassembly of the real 1.2.1b1 library, as published
 *   [#N]  issue N of airockchip/rknn-llm
 *   [log] output of real boards, as people published it
 *   [?]   not known; the simulator does what is harder on its caller
 *
 * Build:  cc -std=c11 -shared -fPIC -fvisibility=hidden -pthread -DGENERATION=GEN_1_2_1 -o librkllmrt.so librkllmrt.c
 *         -DNO_VERSION_STRING leaves the version string out; -DMOVE_FIELD lays out RKLLMParam wrongly, so that a test
 *         can prove that it would notice; -DBUFFERED_LINES never flushes standard output.
 *
 * Control: $RKLLM_SIM_CONTROL names a file of "key=value" lines, read again at each call and each decoding step, so
 * that a running one can be told to misbehave. The keys, their defaults and their meaning stand at KEYS below. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define GEN_1_1 1100     /* 1.1.0 to 1.1.4 */
#define GEN_1_2_0 1200   /* 1.2.0 */
#define GEN_1_2_1B1 1201 /* 1.2.1b1 */
#define GEN_1_2_1 1210   /* 1.2.1 to 1.2.3 */
#define GEN_1_3 1300     /* 1.3.0 */

#ifndef GENERATION
#error "say which: -DGENERATION=GEN_1_1, GEN_1_2_0, GEN_1_2_1B1, GEN_1_2_1 or GEN_1_3"
#endif

#if GENERATION == GEN_1_1
#define VERSION "1.1.4"
#elif GENERATION == GEN_1_2_0
#define VERSION "1.2.0"
#elif GENERATION == GEN_1_2_1B1
#define VERSION "1.2.1b1"
#elif GENERATION == GEN_1_2_1
#define VERSION "1.2.3"
#else
#define VERSION "1.3.0"
#endif

/* In the file of 1.2.1b1 [b1], and seen in 1.2.0 and 1.3.1; nobody has shown it in a 1.1 library. */
#if !defined(NO_VERSION_STRING) && GENERATION >= GEN_1_2_0
__attribute__((used)) static const char sdk_string[] =
    "RKLLM SDK (version: " VERSION " | target: Linux | build: simulator 2025-05-02 17:46:07)";
#endif

/* ---- The interface: fields in the order and with the types of [h] ---------------------------------------------- */

#define EXPORT __attribute__((visibility("default")))
#define GARBAGE 0xA5 /* what stands in memory that the real library does not write */

typedef void *LLMHandle;
typedef enum { RUN_NORMAL, RUN_WAITING, RUN_FINISH, RUN_ERROR } LLMCallState;
typedef enum { INPUT_PROMPT, INPUT_TOKEN, INPUT_EMBED, INPUT_MULTIMODAL } RKLLMInputType;
typedef enum { INFER_GENERATE, INFER_LAST_HIDDEN_LAYER, INFER_LOGITS } RKLLMInferMode;

typedef struct {
    int32_t base_domain_id;
#if GENERATION >= GEN_1_2_0
    int8_t embed_flash;
    int8_t enabled_cpus_num;
    uint32_t enabled_cpus_mask;
#endif
#if GENERATION >= GEN_1_2_1
    uint8_t n_batch;
    int8_t use_cross_attn;
    uint8_t reserved[104];
#elif GENERATION >= GEN_1_2_0
    uint8_t reserved[106];
#else
    uint8_t reserved[112];
#endif
} RKLLMExtendParam;

typedef struct {
    const char *model_path;
    int32_t max_context_len;
    int32_t max_new_tokens;
    int32_t top_k;
#ifdef MOVE_FIELD
    int32_t moved_on_purpose;
#endif
#if GENERATION >= GEN_1_2_0
    int32_t n_keep;
#endif
    float top_p;
    float temperature;
    float repeat_penalty;
    float frequency_penalty;
    float presence_penalty;
    int32_t mirostat;
    float mirostat_tau;
    float mirostat_eta;
    bool skip_special_token;
#if GENERATION >= GEN_1_3
    bool ignore_eos_token;
#endif
    bool is_async;
#if GENERATION < GEN_1_3
    const char *img_start;
    const char *img_end;
    const char *img_content;
#endif
    RKLLMExtendParam extend_param;
} RKLLMParam;

typedef struct {
    float *embed;
    size_t n_tokens;
} RKLLMEmbedInput;

typedef struct {
    int32_t *input_ids;
    size_t n_tokens;
} RKLLMTokenInput;

typedef struct {
    char *prompt;
#if GENERATION >= GEN_1_3
    struct {
        float *image_embed;
        size_t n_image_tokens, n_image;
        const char *image_start, *image_end, *image_content;
        size_t image_width, image_height;
    } image;
    struct {
        float *video_embed;
        size_t n_frame_tokens, n_frame_per_video, n_video;
        const char *video_start, *video_end, *video_content;
        size_t frame_width, frame_height;
    } video;
#else
    float *image_embed;
    size_t n_image_tokens;
#if GENERATION >= GEN_1_2_1B1
    size_t n_image, image_width, image_height;
#endif
#endif
} RKLLMMultiModalInput;

typedef struct {
#if GENERATION >= GEN_1_2_1
    const char *role;
    bool enable_thinking;
#endif
    RKLLMInputType input_type;
    union {
        const char *prompt_input;
        RKLLMEmbedInput embed_input;
        RKLLMTokenInput token_input;
        RKLLMMultiModalInput multimodal_input;
    };
} RKLLMInput;

typedef struct {
    const char *lora_adapter_path;
    const char *lora_adapter_name;
    float scale;
} RKLLMLoraAdapter;

typedef struct {
    const char *lora_adapter_name;
} RKLLMLoraParam;

typedef struct {
    int save_prompt_cache;
    const char *prompt_cache_path;
} RKLLMPromptCacheParam;

#if GENERATION >= GEN_1_3
typedef struct {
    int32_t top_k;
    float top_p;
    float temperature;
    float repeat_penalty;
    float frequency_penalty;
    float presence_penalty;
    int32_t mirostat;
    float mirostat_tau;
    float mirostat_eta;
} RKLLMSamplingParam;
#endif

typedef struct {
    RKLLMInferMode mode;
    RKLLMLoraParam *lora_params;
    RKLLMPromptCacheParam *prompt_cache_params;
#if GENERATION >= GEN_1_3
    RKLLMSamplingParam *sampling_params;
#endif
#if GENERATION >= GEN_1_2_0
    int keep_history;
#endif
#if GENERATION >= GEN_1_3
    int32_t max_new_tokens;
#endif
} RKLLMInferParam;

typedef struct {
    const float *hidden_states;
    int embd_size;
    int num_tokens;
} RKLLMResultLastHiddenLayer;

typedef struct {
    const float *logits;
    int vocab_size;
    int num_tokens;
} RKLLMResultLogits;

typedef struct {
    float prefill_time_ms;
    int prefill_tokens;
    float generate_time_ms;
    int generate_tokens;
    float memory_usage_mb;
} RKLLMPerfStat;

typedef struct {
    const char *text;
    int32_t token_id;
    RKLLMResultLastHiddenLayer last_hidden_layer;
#if GENERATION >= GEN_1_2_0
    RKLLMResultLogits logits;
#endif
#if GENERATION >= GEN_1_2_1
    RKLLMPerfStat perf;
#endif
} RKLLMResult;

/* Up to 1.2.1b1 the callback returns void. Taking an int anyway would read a register that nobody set. */
#if GENERATION >= GEN_1_2_1
typedef int (*LLMResultCallback)(RKLLMResult *result, void *userdata, LLMCallState state);
#else
typedef void (*LLMResultCallback)(RKLLMResult *result, void *userdata, LLMCallState state);
#endif

#if GENERATION >= GEN_1_3
/* From 1.3 on rkllm_init takes a pointer to this, not the function. Given the function, the real library's
 * rkllm_init returns 0 and the first rkllm_run ends in SIGSEGV [#509]. */
typedef struct {
    LLMResultCallback result_callback;
    void *result_userdata;
    int (*tokenizer_callback)(void *userdata, const char *text, int32_t length, int32_t *tokens, int32_t capacity);
    void *tokenizer_userdata;
    int (*embed_callback)(void *userdata, int32_t *tokens, uint64_t count, void *embed, uint64_t length);
    void *embed_userdata;
} RKLLMCallback;
typedef RKLLMCallback *CallbackArgument;
#else
typedef LLMResultCallback CallbackArgument;
#endif

/* The layouts that the headers give, as measured with the vendor's header on x86-64 and aarch64 (they are equal). */
#ifndef MOVE_FIELD
#define SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), "sizeof(" #type ")")
#define AT(type, field, offset) _Static_assert(offsetof(type, field) == (offset), #type "." #field)
#if GENERATION >= GEN_1_3
#define BY_GENERATION(v1_1, v1_2_0, v1_2_1b1, v1_2_1, v1_3) v1_3
#elif GENERATION >= GEN_1_2_1
#define BY_GENERATION(v1_1, v1_2_0, v1_2_1b1, v1_2_1, v1_3) v1_2_1
#elif GENERATION >= GEN_1_2_1B1
#define BY_GENERATION(v1_1, v1_2_0, v1_2_1b1, v1_2_1, v1_3) v1_2_1b1
#elif GENERATION >= GEN_1_2_0
#define BY_GENERATION(v1_1, v1_2_0, v1_2_1b1, v1_2_1, v1_3) v1_2_0
#else
#define BY_GENERATION(v1_1, v1_2_0, v1_2_1b1, v1_2_1, v1_3) v1_1
#endif

SIZE(RKLLMExtendParam, BY_GENERATION(116, 120, 120, 120, 120));
AT(RKLLMExtendParam, base_domain_id, 0);
AT(RKLLMExtendParam, reserved, BY_GENERATION(4, 12, 12, 14, 14));
SIZE(RKLLMParam, BY_GENERATION(200, 208, 208, 208, 184));
AT(RKLLMParam, model_path, 0);
AT(RKLLMParam, max_context_len, 8);
AT(RKLLMParam, max_new_tokens, 12);
AT(RKLLMParam, top_k, 16);
AT(RKLLMParam, top_p, BY_GENERATION(20, 24, 24, 24, 24));
AT(RKLLMParam, temperature, BY_GENERATION(24, 28, 28, 28, 28));
AT(RKLLMParam, repeat_penalty, BY_GENERATION(28, 32, 32, 32, 32));
AT(RKLLMParam, frequency_penalty, BY_GENERATION(32, 36, 36, 36, 36));
AT(RKLLMParam, presence_penalty, BY_GENERATION(36, 40, 40, 40, 40));
AT(RKLLMParam, mirostat, BY_GENERATION(40, 44, 44, 44, 44));
AT(RKLLMParam, mirostat_tau, BY_GENERATION(44, 48, 48, 48, 48));
AT(RKLLMParam, mirostat_eta, BY_GENERATION(48, 52, 52, 52, 52));
AT(RKLLMParam, skip_special_token, BY_GENERATION(52, 56, 56, 56, 56));
AT(RKLLMParam, is_async, BY_GENERATION(53, 57, 57, 57, 58));
AT(RKLLMParam, extend_param, BY_GENERATION(80, 88, 88, 88, 60));
SIZE(RKLLMLoraAdapter, 24);
AT(RKLLMLoraAdapter, lora_adapter_name, 8);
AT(RKLLMLoraAdapter, scale, 16);
SIZE(RKLLMLoraParam, 8);
SIZE(RKLLMPromptCacheParam, 16);
AT(RKLLMPromptCacheParam, prompt_cache_path, 8);
SIZE(RKLLMEmbedInput, 16);
AT(RKLLMEmbedInput, n_tokens, 8);
SIZE(RKLLMTokenInput, 16);
AT(RKLLMTokenInput, n_tokens, 8);
SIZE(RKLLMMultiModalInput, BY_GENERATION(24, 24, 48, 48, 144));
SIZE(RKLLMInput, BY_GENERATION(32, 32, 56, 64, 160));
AT(RKLLMInput, input_type, BY_GENERATION(0, 0, 0, 12, 12));
AT(RKLLMInput, prompt_input, BY_GENERATION(8, 8, 8, 16, 16));
AT(RKLLMInput, token_input, BY_GENERATION(8, 8, 8, 16, 16));
SIZE(RKLLMInferParam, BY_GENERATION(24, 32, 32, 32, 40));
AT(RKLLMInferParam, lora_params, 8);
AT(RKLLMInferParam, prompt_cache_params, 16);
SIZE(RKLLMResult, BY_GENERATION(32, 48, 48, 72, 72));
AT(RKLLMResult, token_id, 8);
AT(RKLLMResult, last_hidden_layer, 16);
SIZE(RKLLMResultLastHiddenLayer, 16);
SIZE(RKLLMResultLogits, 16);
SIZE(RKLLMPerfStat, 20);
#if GENERATION >= GEN_1_2_0
AT(RKLLMExtendParam, embed_flash, 4);
AT(RKLLMExtendParam, enabled_cpus_num, 5);
AT(RKLLMExtendParam, enabled_cpus_mask, 8);
AT(RKLLMParam, n_keep, 20);
AT(RKLLMInferParam, keep_history, BY_GENERATION(0, 24, 24, 24, 32));
AT(RKLLMResult, logits, 32);
#endif
#if GENERATION >= GEN_1_2_1
AT(RKLLMExtendParam, n_batch, 12);
AT(RKLLMExtendParam, use_cross_attn, 13);
AT(RKLLMInput, role, 0);
AT(RKLLMInput, enable_thinking, 8);
AT(RKLLMResult, perf, 48);
AT(RKLLMPerfStat, memory_usage_mb, 16);
#endif
#if GENERATION < GEN_1_3
AT(RKLLMParam, img_start, BY_GENERATION(56, 64, 64, 64, 0));
AT(RKLLMParam, img_end, BY_GENERATION(64, 72, 72, 72, 0));
AT(RKLLMParam, img_content, BY_GENERATION(72, 80, 80, 80, 0));
#else
AT(RKLLMParam, ignore_eos_token, 57);
AT(RKLLMMultiModalInput, image, 8);
AT(RKLLMMultiModalInput, video, 72);
AT(RKLLMInferParam, sampling_params, 24);
AT(RKLLMInferParam, max_new_tokens, 36);
SIZE(RKLLMSamplingParam, 36);
AT(RKLLMSamplingParam, mirostat, 24);
SIZE(RKLLMCallback, 48);
AT(RKLLMCallback, result_userdata, 8);
AT(RKLLMCallback, tokenizer_callback, 16);
AT(RKLLMCallback, embed_callback, 32);
#endif
#endif

/* ---- Control ---------------------------------------------------------------------------------------------------- */

#define LONGEST_PIECE 128

/* One token of a script. */
typedef struct {
    int32_t id;
    bool special; /* not in the text while skip_special_token is set */
    bool no_text; /* the library gives NULL */
    size_t length;
    char *text;
} Piece;

typedef struct {
    char speed[48];
    double prefill_tok_s, decode_tok_s; /* 0: takes no time */
    Piece *script;
    size_t script_length;
    char eos[16], waiting[16], abort[16], overflow[16], violations[16];
    long eos_id, vocabulary;
    long finish_on_abort;
    char init[24], run[24];
    long init_from, run_from_token;
    double npu_timeout_s;
    long leak_mib_per_run, leak_fds_per_run;
    char driver[16], platform[16], toolkit[16];
    long max_context_limit, npu_cores, cpus;
    char *chat_system, *chat_prefix, *chat_postfix;
} Control;

typedef enum { WORD, INTEGER, NUMBER, HEX_TEXT, SCRIPT } KeyType;

/* clang-format off */
static const struct {
    const char *name;
    KeyType type;
    size_t offset, size;
    const char *initially;
} KEYS[] = {
#define KEY(name, type, initially) {#name, type, offsetof(Control, name), sizeof(((Control *)0)->name), initially}
    /* "instant", or one of SPEEDS; the next two override what it says, 0 takes no time */
    KEY(speed, WORD, "instant"),
    KEY(prefill_tok_s, NUMBER, NULL),
    KEY(decode_tok_s, NUMBER, NULL),
    /* "id:hex,id:hex,…": the tokens of every run and their UTF-8 bytes; "ids:hex" a special token, "id:-" one with NULL
     * for text. Empty: tokens derived from the prompt's ids. */
    KEY(script, SCRIPT, ""),
    /* "stop" after the script, or "never": the end-of-sequence token comes as any other, and the text goes on, as
     * 1.3.0 does with models converted for 1.2.2 [#534] */
    KEY(eos, WORD, "stop"),
    KEY(eos_id, INTEGER, "1"),
    KEY(vocabulary, INTEGER, "256000"),
    /* What becomes of a token that ends within a character: "hold" it back and call with WAITING and no text, or
     * "partial", hand it out as it is (bindings in the field guard against it) */
    KEY(waiting, WORD, "hold"),
    /* "ok"; "ignored"; "sticky": an abort while nothing runs ends the next run */
    KEY(abort, WORD, "ok"),
    KEY(finish_on_abort, INTEGER, "0"),
    /* A prompt longer than the context: "error", or "crash" as earlier releases do [#11] */
    KEY(overflow, WORD, "error"),
    /* What rkllm_init does from the init_from-th call on: ok, no_device, no_npu_memory, newer_model, old_model,
     * platform_mismatch, unknown_platform, crash, assert, exit, hang */
    KEY(init, WORD, "ok"),
    KEY(init_from, INTEGER, "1"),
    /* What rkllm_run does when it comes to the run_from_token-th token: ok, error, npu_timeout, crash, assert, exit,
     * hang */
    KEY(run, WORD, "ok"),
    KEY(run_from_token, INTEGER, "0"),
    KEY(npu_timeout_s, NUMBER, "6"), /* of the kernel driver */
    KEY(leak_mib_per_run, INTEGER, "0"),
    KEY(leak_fds_per_run, INTEGER, "0"),
    /* "report" a violation of the ABI on stderr and return -1, or "abort" the process */
    KEY(violations, WORD, "report"),
    /* What the library says of machine and model */
    KEY(driver, WORD, "0.9.8"),
    KEY(platform, WORD, "RK3588"),
    KEY(toolkit, WORD, "unknown"), /* what 1.2.3 says of a file converted for 1.1 */
    KEY(max_context_limit, INTEGER, "4096"),
    KEY(npu_cores, INTEGER, "3"),
    KEY(cpus, INTEGER, "8"),
    /* The chat template in the model file; none in files converted for 1.1 */
    KEY(chat_system, HEX_TEXT, ""),
    KEY(chat_prefix, HEX_TEXT, ""),
    KEY(chat_postfix, HEX_TEXT, ""),
};

/* CodeGemma-2b on an RK3588 with its clocks up, estimated from the bytes it reads per token and the vendor's figures
 * for Gemma2-2B: 10.37 tok/s and 128 tokens prefilled in 598 ms (benchmark.md of 1.3.0); g128: README of 1.1.2. */
static const struct {
    const char *name;
    double prefill_tok_s, decode_tok_s;
} SPEEDS[] = {
    {"instant", 0, 0},
    {"codegemma-2b-rk3588", 200, 10},
    {"codegemma-2b-rk3588-g128", 60, 6},
};
/* clang-format on */

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void refuse_control(const char *what, const char *value)
{
    fprintf(stderr, "E sim: control file: %s '%s'\n", what, value);
    abort();
}

static char *text_from_hex(const char *hex, size_t *length)
{
    *length = strlen(hex) / 2;
    char *text = calloc(*length + 1, 1);
    for (size_t i = 0; i < *length; i++) {
        unsigned byte;
        if (sscanf(hex + 2 * i, "%2x", &byte) != 1) refuse_control("not hexadecimal:", hex);
        text[i] = (char)byte;
    }
    return text;
}

static void parse_script(Control *control, char *value)
{
    char *rest = NULL;
    for (char *entry = strtok_r(value, ",", &rest); entry; entry = strtok_r(NULL, ",", &rest)) {
        char *end;
        Piece piece = {.id = (int32_t)strtol(entry, &end, 10)};
        if (*end == 's') piece.special = true, end++;
        if (end == entry || *end != ':') refuse_control("not id:hex:", entry);
        piece.no_text = strcmp(end + 1, "-") == 0;
        piece.text = text_from_hex(piece.no_text ? "" : end + 1, &piece.length);
        if (piece.length > LONGEST_PIECE) refuse_control("too long:", entry);
        control->script = realloc(control->script, (control->script_length + 1) * sizeof piece);
        control->script[control->script_length++] = piece;
    }
}

static void set_key(Control *control, const char *name, char *value)
{
    for (size_t i = 0; i < COUNT(KEYS); i++) {
        if (strcmp(KEYS[i].name, name) != 0) continue;
        char *field = (char *)control + KEYS[i].offset;
        size_t length;
        switch (KEYS[i].type) {
        case WORD: snprintf(field, KEYS[i].size, "%s", value); break;
        case INTEGER: *(long *)(void *)field = strtol(value, NULL, 10); break;
        case NUMBER: *(double *)(void *)field = strtod(value, NULL); break;
        case HEX_TEXT:
            free(*(char **)(void *)field);
            *(char **)(void *)field = text_from_hex(value, &length);
            break;
        case SCRIPT: parse_script(control, value); break;
        }
        return;
    }
    refuse_control("unknown key", name);
}

static Control read_control(void)
{
    Control control = {0};
    control.prefill_tok_s = control.decode_tok_s = -1;
    for (size_t i = 0; i < COUNT(KEYS); i++) {
        char value[16];
        if (!KEYS[i].initially) continue;
        snprintf(value, sizeof value, "%s", KEYS[i].initially);
        set_key(&control, KEYS[i].name, value);
    }
    const char *path = getenv("RKLLM_SIM_CONTROL");
    FILE *file = path ? fopen(path, "re") : NULL;
    if (file) {
        char *line = NULL;
        size_t capacity = 0;
        while (getline(&line, &capacity, file) > 0) {
            line[strcspn(line, "\n")] = 0;
            char *value = strchr(line, '=');
            if (!value) continue;
            *value = 0;
            set_key(&control, line, value + 1);
        }
        free(line);
        fclose(file);
    }
    for (size_t i = 0; i < COUNT(SPEEDS); i++) {
        if (strcmp(SPEEDS[i].name, control.speed) != 0) continue;
        if (control.prefill_tok_s < 0) control.prefill_tok_s = SPEEDS[i].prefill_tok_s;
        if (control.decode_tok_s < 0) control.decode_tok_s = SPEEDS[i].decode_tok_s;
        return control;
    }
    refuse_control("unknown speed", control.speed);
    return control;
}

static void free_control(Control *control)
{
    for (size_t i = 0; i < control->script_length; i++) free(control->script[i].text);
    free(control->script);
    free(control->chat_system);
    free(control->chat_prefix);
    free(control->chat_postfix);
}

static bool is(const char *value, const char *word) { return strcmp(value, word) == 0; }

/* ---- What it prints --------------------------------------------------------------------------------------------- */

/* Which of its lines the real library prints where is not known [?]: here I to stdout, W and E to stderr. Nor is
 * whether it flushes them: built with -DBUFFERED_LINES it leaves that to stdio, which keeps them back in a pipe. */
__attribute__((format(printf, 1, 2))) static void log_line(const char *format, ...)
{
    FILE *stream = format[0] == 'W' || format[0] == 'E' ? stderr : stdout;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stream, format, arguments);
    va_end(arguments);
    fputc('\n', stream);
#ifndef BUFFERED_LINES
    fflush(stream);
#endif
}

/* 1: a table of times after each run; 2: prompts and token ids too. */
static int log_level(void)
{
    const char *level = getenv("RKLLM_LOG_LEVEL");
    return level ? atoi(level) : 0;
}

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* Takes as long as the NPU would; nothing interrupts it. */
static void work(double tokens, double tokens_per_s)
{
    if (tokens_per_s <= 0) return;
    double seconds = tokens / tokens_per_s;
    struct timespec left = {.tv_sec = (time_t)seconds, .tv_nsec = (long)(fmod(seconds, 1) * 1e9)};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) continue;
}

static double peak_memory_mib(void)
{
    double kib = 0;
    char line[128];
    FILE *file = fopen("/proc/self/status", "re"); /* where the real one looks, too [b1] */
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %lf", &kib) == 1) break;
    if (file) fclose(file);
    return kib / 1024;
}

/* The table of RKLLM_LOG_LEVEL=1 in the shape of each generation [log]. */
static void print_perf(double init_ms, double prefill_ms, size_t prefilled, double generate_ms, size_t generated)
{
    const char *prefix = GENERATION >= GEN_1_2_0 ? "I rkllm: " : "";
    const char *rule = "--------------------------------------------------------------------------------------";
    const struct {
        const char *stage;
        double ms;
        size_t tokens;
    } rows[] = {{"Prefill", prefill_ms, prefilled}, {"Generate", generate_ms, generated}};
    log_line("%s%s", prefix, rule);
    if (GENERATION >= GEN_1_2_1) {
        log_line("%s Model init time (ms)  %-12.2f", prefix, init_ms);
        log_line("%s%s", prefix, rule);
    }
    log_line("%s Stage         Total Time (ms)  Tokens    Time per Token (ms)      Tokens per Second      ", prefix);
    log_line("%s%s", prefix, rule);
    if (GENERATION < GEN_1_2_1)
        log_line("%s Init          %-17.2f/         /                        /", prefix, init_ms);
    for (size_t i = 0; i < COUNT(rows); i++) {
        double tokens = rows[i].tokens ? (double)rows[i].tokens : 1, ms = rows[i].ms > 0.01 ? rows[i].ms : 0.01;
        log_line("%s %-14s%-17.2f%-10zu%-25.2f%-23.2f", prefix, rows[i].stage, rows[i].ms, rows[i].tokens, ms / tokens,
                 tokens * 1e3 / ms);
    }
    log_line("%s%s", prefix, rule);
    double mib = peak_memory_mib();
    const char *title = GENERATION >= GEN_1_3     ? "Peak Memory Usage (MB)"
                        : GENERATION >= GEN_1_2_1 ? "Peak Memory Usage (GB)"
                                                  : "Memory Usage (GB)";
    log_line("%s %s", prefix, title);
    log_line("%s %-12.2f", prefix, GENERATION >= GEN_1_3 ? mib : mib / 1024);
    log_line("%s%s", prefix, rule);
}

/* ---- Checking what it is given ---------------------------------------------------------------------------------- */

__attribute__((format(printf, 1, 2))) static int violation(const char *format, ...)
{
    char what[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    log_line("E sim: ABI violation: %s", what);
    Control control = read_control();
    bool fatal = is(control.violations, "abort");
    free_control(&control);
    if (fatal) abort();
    return -1;
}

/* Whether memory may be read, without reading it ourselves: the kernel answers EFAULT where we would fault. */
static bool readable(const void *start, size_t size)
{
    int ends[2];
    if ((uintptr_t)start < 4096) return false;
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return true; /* no descriptor left: can't tell */
    const char *at = start, *last = at + size - 1;
    bool ok = true;
    while (ok) {
        char byte;
        ok = write(ends[1], at, 1) == 1 && read(ends[0], &byte, 1) == 1;
        if (at == last) break;
        at = (size_t)(last - at) > 4096 ? at + 4096 : last;
    }
    close(ends[0]);
    close(ends[1]);
    return ok;
}

static bool readable_string(const char *text)
{
    for (size_t length = 0; length < 1 << 20; length++) {
        bool new_page = length == 0 || ((uintptr_t)(text + length) & 4095) == 0;
        if (new_page && !readable(text + length, 1)) return false;
        if (text[length] == 0) return true;
    }
    return false;
}

static bool executable(uintptr_t address)
{
    char line[512], access[5];
    uintptr_t start, end;
    bool found = false;
    FILE *file = fopen("/proc/self/maps", "re");
    if (!file) return true;
    while (!found && fgets(line, sizeof line, file))
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s", &start, &end, access) == 3)
            found = start <= address && address < end && access[2] == 'x';
    fclose(file);
    return found;
}

static bool within(double value, double low, double high) { return low <= value && value <= high; }

static bool all_zero(const void *start, size_t size)
{
    const unsigned char *byte = start;
    while (size-- > 0)
        if (*byte++ != 0) return false;
    return true;
}

/* A bool of the caller's may hold any byte, which C must not look at as a bool. */
static bool is_bool(const void *field) { return *(const unsigned char *)field <= 1; }

#define REQUIRE(condition, ...) \
    do { \
        if (!(condition)) return violation(__VA_ARGS__); \
    } while (0)

static int check_param(const RKLLMParam *param)
{
    REQUIRE(readable(param, sizeof *param), "RKLLMParam %p is not readable", (const void *)param);
    REQUIRE(readable_string(param->model_path), "model_path is no string");
    REQUIRE(within(param->max_context_len, 1, 1 << 20), "max_context_len is %d", param->max_context_len);
    REQUIRE(within(param->max_new_tokens, -1, 1 << 20), "max_new_tokens is %d", param->max_new_tokens);
    REQUIRE(within(param->top_k, 0, 1 << 20), "top_k is %d", param->top_k);
    REQUIRE(param->top_p > 0 && param->top_p <= 1, "top_p is %g", param->top_p);
    REQUIRE(within(param->temperature, 0, 100), "temperature is %g", param->temperature);
    REQUIRE(param->repeat_penalty > 0 && param->repeat_penalty <= 10, "repeat_penalty is %g", param->repeat_penalty);
    REQUIRE(within(param->frequency_penalty, -10, 10), "frequency_penalty is %g", param->frequency_penalty);
    REQUIRE(within(param->presence_penalty, -10, 10), "presence_penalty is %g", param->presence_penalty);
    REQUIRE(within(param->mirostat, 0, 2), "mirostat is %d", param->mirostat);
    REQUIRE(within(param->mirostat_tau, 0, 100), "mirostat_tau is %g", param->mirostat_tau);
    REQUIRE(within(param->mirostat_eta, 0, 100), "mirostat_eta is %g", param->mirostat_eta);
    REQUIRE(is_bool(&param->skip_special_token), "skip_special_token is neither 0 nor 1");
    REQUIRE(is_bool(&param->is_async) && !param->is_async, "is_async is set: see rkllm_run_async");
#if GENERATION >= GEN_1_2_0
    REQUIRE(within(param->n_keep, -1, 1 << 20), "n_keep is %d", param->n_keep);
#endif
#if GENERATION >= GEN_1_3
    REQUIRE(is_bool(&param->ignore_eos_token), "ignore_eos_token is neither 0 nor 1");
#else
    REQUIRE(!param->img_start || readable_string(param->img_start), "img_start is neither NULL nor a string");
    REQUIRE(!param->img_end || readable_string(param->img_end), "img_end is neither NULL nor a string");
    REQUIRE(!param->img_content || readable_string(param->img_content), "img_content is neither NULL nor a string");
#endif
    const RKLLMExtendParam *extend = &param->extend_param;
    REQUIRE(within(extend->base_domain_id, 0, 15), "base_domain_id is %d", extend->base_domain_id);
#if GENERATION >= GEN_1_2_0
    REQUIRE(within(extend->embed_flash, 0, 1), "embed_flash is %d", extend->embed_flash);
    REQUIRE(within(extend->enabled_cpus_num, 1, 64), "enabled_cpus_num is %d", extend->enabled_cpus_num);
#endif
#if GENERATION >= GEN_1_2_1
    REQUIRE(extend->n_batch == 1, "n_batch is %d; only 1 is simulated", extend->n_batch);
    REQUIRE(extend->use_cross_attn == 0, "use_cross_attn is %d; only 0 is simulated", extend->use_cross_attn);
#endif
    REQUIRE(all_zero(extend->reserved, sizeof extend->reserved), "reserved bytes are not zero");
    return 0;
}

static int check_input(const RKLLMInput *input, long vocabulary)
{
    REQUIRE(readable(input, sizeof *input), "RKLLMInput %p is not readable", (const void *)input);
#if GENERATION >= GEN_1_2_1
    /* Whether NULL is allowed is not known [?]; the vendor's llm_demo.cpp always sets it. */
    REQUIRE(readable_string(input->role), "role is no string");
    REQUIRE(is(input->role, "user") || is(input->role, "tool"), "role is '%.32s'", input->role);
    REQUIRE(is_bool(&input->enable_thinking), "enable_thinking is neither 0 nor 1");
#endif
    size_t used = offsetof(RKLLMInput, prompt_input);
    switch ((int)input->input_type) {
    case INPUT_PROMPT:
        REQUIRE(readable_string(input->prompt_input), "prompt_input is no string");
        used += sizeof input->prompt_input;
        break;
    case INPUT_TOKEN: {
        const RKLLMTokenInput *tokens = &input->token_input;
        REQUIRE(tokens->n_tokens > 0 && tokens->n_tokens < 1 << 24, "n_tokens is %zu", tokens->n_tokens);
        REQUIRE(readable(tokens->input_ids, tokens->n_tokens * sizeof(int32_t)), "input_ids is not readable");
        for (size_t i = 0; i < tokens->n_tokens; i++)
            REQUIRE(within(tokens->input_ids[i], 0, (double)vocabulary - 1), "input_ids[%zu] is %d", i,
                    tokens->input_ids[i]); /* the real one answers with "!!!" [#168] */
        used += sizeof *tokens;
        break;
    }
    case INPUT_EMBED:
    case INPUT_MULTIMODAL: return violation("input_type %d is not simulated", (int)input->input_type);
    default: return violation("input_type is %d", (int)input->input_type);
    }
    REQUIRE(all_zero((const char *)input + used, sizeof *input - used), "the unused part of RKLLMInput is not zero");
    return 0;
}

static int check_infer(const RKLLMInferParam *infer)
{
    REQUIRE(readable(infer, sizeof *infer), "RKLLMInferParam %p is not readable", (const void *)infer);
    int last_mode = GENERATION >= GEN_1_2_0 ? INFER_LOGITS : INFER_LAST_HIDDEN_LAYER;
    REQUIRE(within((int)infer->mode, 0, last_mode), "mode is %d", (int)infer->mode);
    REQUIRE(infer->mode == INFER_GENERATE, "mode %d is not simulated", (int)infer->mode);
    REQUIRE(!infer->lora_params, "lora_params is set; LoRA is not simulated");
    REQUIRE(!infer->prompt_cache_params, "prompt_cache_params is set; prompt caches are not simulated");
#if GENERATION >= GEN_1_2_0
    REQUIRE(within(infer->keep_history, 0, 1), "keep_history is %d", infer->keep_history);
#endif
#if GENERATION >= GEN_1_3
    const RKLLMSamplingParam *sampling = infer->sampling_params;
    if (sampling) {
        /* A binding for 1.2 puts keep_history where this pointer stands. */
        REQUIRE(readable(sampling, sizeof *sampling), "sampling_params is neither NULL nor readable");
        REQUIRE(within(sampling->top_k, 0, 1 << 20), "sampling_params.top_k is %d", sampling->top_k);
        REQUIRE(sampling->top_p > 0 && sampling->top_p <= 1, "sampling_params.top_p is %g", sampling->top_p);
        REQUIRE(within(sampling->temperature, 0, 100), "sampling_params.temperature is %g", sampling->temperature);
        REQUIRE(within(sampling->mirostat, 0, 2), "sampling_params.mirostat is %d", sampling->mirostat);
    }
    REQUIRE(within(infer->max_new_tokens, -1, 1 << 20), "max_new_tokens is %d", infer->max_new_tokens);
#endif
    return 0;
}

/* ---- A loaded model --------------------------------------------------------------------------------------------- */

typedef struct {
    RKLLMParam param;
    LLMResultCallback callback;
    void *userdata;
    bool broken; /* rkllm_init said 0 although nothing was loaded [#129] */
    atomic_bool running, aborted;
    int32_t *kv;
    size_t kv_length;
    char *chat_system, *chat_prefix, *chat_postfix;
    double init_ms;
} Model;

static pthread_mutex_t models_lock = PTHREAD_MUTEX_INITIALIZER;
static Model *models[8]; /* those that exist: anything else is no handle */
static atomic_long inits;

static Model *model_of(LLMHandle handle)
{
    Model *found = NULL;
    pthread_mutex_lock(&models_lock);
    for (size_t i = 0; i < COUNT(models); i++)
        if (handle && models[i] == handle) found = handle;
    pthread_mutex_unlock(&models_lock);
    /* 1.2.1b1 answers NULL with -1 [b1]; what the others do is not known [?], and a stale handle is undefined in all */
    if (!found && (handle || GENERATION != GEN_1_2_1B1)) violation("%p is no handle, or one already destroyed", handle);
    return found;
}

static bool replace_model(Model *old, Model *new)
{
    bool replaced = false;
    pthread_mutex_lock(&models_lock);
    for (size_t i = 0; i < COUNT(models) && !replaced; i++)
        if (models[i] == old) models[i] = new, replaced = true;
    pthread_mutex_unlock(&models_lock);
    return replaced;
}

static void free_model(Model *model)
{
    free(model->kv);
    free(model->chat_system);
    free(model->chat_prefix);
    free(model->chat_postfix);
    free(model);
}

/* The ways in which native code takes its process with it; returns if `how` is none of them. */
static void perish(const char *how)
{
    if (is(how, "crash")) raise(SIGSEGV);
    if (is(how, "exit")) exit(1); /* 1.0 ended the process silently [#31] */
    if (is(how, "assert")) {
        fprintf(stderr, "GGML_ASSERT: ggml.c: GGML_ASSERT(view_src == NULL || data_size + view_offs <= "
                        "ggml_nbytes(view_src)) failed\n");
        abort();
    }
    while (is(how, "hang")) pause();
}

EXPORT RKLLMParam rkllm_createDefaultParam(void)
{
    Control control = read_control();
    RKLLMParam param;
    memset(&param, GARBAGE, sizeof param);
    param.model_path = NULL;
    param.max_context_len = 512;
    param.max_new_tokens = -1;
    param.top_k = 40;
    param.top_p = 0.9f;
    param.temperature = 0.8f;
    param.repeat_penalty = 1.1f;
    param.frequency_penalty = 0;
    param.presence_penalty = 0;
    param.mirostat = 0;
    param.mirostat_tau = 5.0f;
    param.mirostat_eta = 0.1f;
    param.skip_special_token = true;
    param.is_async = false;
    param.extend_param.base_domain_id = 0;
#if GENERATION >= GEN_1_2_0
    param.n_keep = -1;
    param.extend_param.embed_flash = 1;
    param.extend_param.enabled_cpus_num = 4;
    /* On machines with neither 8 nor 4 CPUs, and so are the reserved bytes, left as they were [b1] */
    if (control.cpus == 8) param.extend_param.enabled_cpus_mask = 0xF0;
    if (control.cpus == 4) param.extend_param.enabled_cpus_mask = 0x0F;
#endif
#if GENERATION >= GEN_1_3
    param.ignore_eos_token = false;
#else
    param.img_start = param.img_end = param.img_content = "";
#endif
    free_control(&control);
    return param;
}

/* Why the model can't be loaded, said as the real library says it [b1]; false if it can be. */
static bool load_fails(const RKLLMParam *param, const Control *control, const char *init)
{
    static const unsigned char magic[4] = {0xda, 0xee, 0xb3, 0x36}; /* "GGUF" behind the vendor's mask */
    unsigned char start[4] = {0};
    FILE *file = fopen(param->model_path, "rbe");
    if (!file) {
        log_line("E rkllm: failed to open '%s': '%s'", param->model_path, strerror(errno));
        return true;
    }
    size_t got = fread(start, 1, sizeof start, file);
    fclose(file);
    if (got != sizeof start || memcmp(start, magic, sizeof magic) != 0) {
        if (GENERATION < GEN_1_2_0) log_line("E RKNN: invalid rknn llm model magic");
        if (GENERATION >= GEN_1_2_0) log_line("E rkllm: invalid rkllm model!");
        return true;
    }
    if (is(init, "newer_model")) {
        log_line("E rkllm: The rkllm-runtime version is lower than the rkllm-toolkit version. Please update "
                 "rkllm-runtime to 9.9.9 or higher.");
    } else if (is(init, "old_model")) {
        log_line("E rkllm: The model version is too old, please use the latest toolkit to reconvert the model!");
    } else if (is(init, "platform_mismatch")) {
        log_line("E rkllm: the model's target_platform does not match the real platform");
    } else if (is(init, "no_npu_memory")) {
        log_line("E RKNN: failed to allocate handle, ret: -1, errno: 14, errstr: Bad address");
        log_line("E RKNN: failed to malloc npu memory, size: 4022272000, flags: 0x2");
        if (GENERATION >= GEN_1_3 && atomic_load(&inits) > 1) perish("crash"); /* [#522] */
    } else {
        if (GENERATION >= GEN_1_2_0)
            log_line("I rkllm: rkllm-toolkit version: %s, max_context_limit: %ld, npu_core_num: %ld, "
                     "target_platform: %s%s", control->toolkit, control->max_context_limit, control->npu_cores,
                     control->platform, GENERATION >= GEN_1_2_1 ? ", model_dtype: W8A8" : "");
        return false;
    }
    return true;
}

#if GENERATION >= GEN_1_2_0
/* What 1.2 and later refuse in parameters that are well-formed; 1.1 finds out while it runs. */
static bool parameters_refused(const RKLLMParam *param, const Control *control)
{
    int cpus = param->extend_param.enabled_cpus_num;
    uint32_t mask = param->extend_param.enabled_cpus_mask;
    bool refused = true;
    if (param->max_context_len > control->max_context_limit)
        log_line("E rkllm: max_context[%d] must be less than the model's max_context_limit[%ld]",
                 param->max_context_len, control->max_context_limit); /* equal is accepted */
    else if (param->n_keep >= param->max_context_len)
        log_line("E rkllm: n_keep must be less than the max_context_len");
    else if (cpus < control->npu_cores)
        log_line("E rkllm: The number of enabled CPUs must be greater than or equal to the number of NPU cores.");
    else if (__builtin_popcount(mask) != cpus)
        log_line("E rkllm: Mismatch between enabled CPUs mask and expected count.");
    else
        refused = false;
    if (refused) return true;
    char list[512] = "";
    for (int cpu = 0; cpu < 32; cpu++)
        if (mask >> cpu & 1) snprintf(list + strlen(list), 16, "%s%d", *list ? ", " : "", cpu);
    log_line("I rkllm: Enabled cpus: [%s]", list);
    if (GENERATION >= GEN_1_2_1) log_line("I rkllm: Enabled cpus num: %d", cpus);
    return false;
}
#endif

/* Everything of rkllm_init that can fail, in the order of the real log; 1 where only the first run will show it. */
static int start_up(const RKLLMParam *param, const Control *control, const char *init)
{
    int major, minor, patch;
    perish(init);
    if (is(init, "no_device")) {
        log_line("E RKNN: failed to open rknpu module, need to insmod rknpu dirver!"); /* sic */
        return -1;
    }
    if (sscanf(control->driver, "%d.%d.%d", &major, &minor, &patch) == 3 && major * 10000 + minor * 100 + patch < 907)
        log_line("W rkllm: Warning: Your rknpu driver version is too low, please upgrade to 0.9.7");
    log_line("I rkllm: rkllm-runtime version: %s, rknpu driver version: %s, platform: %s", VERSION, control->driver,
             is(init, "unknown_platform") ? "unknown" : control->platform);
    if (is(init, "unknown_platform")) {
        log_line("E rkllm: Platform error, must be either RK3588, RK3576, RV1126B or RK3562. Your platform is unknown");
        return -1; /* seen on a Rock 5C [#530] */
    }
    if (GENERATION >= GEN_1_2_0) log_line("I rkllm: loading rkllm model from %s", param->model_path);
    if (load_fails(param, control, init)) {
        log_line("load model file error!");
        if (GENERATION >= GEN_1_2_0) return -1;
        log_line("rknn_init fail! ret=-1");
        return 1; /* 1.1 says 0 nevertheless, and the first run ends the process [#129] */
    }
#if GENERATION >= GEN_1_2_0
    if (parameters_refused(param, control)) return -1;
#endif
    return 0;
}

EXPORT int rkllm_init(LLMHandle *handle, RKLLMParam *param, CallbackArgument callback)
{
    double started = now_ms();
    REQUIRE(readable(handle, sizeof *handle), "the handle's address is not readable");
    if (check_param(param) != 0) return -1;
#if GENERATION >= GEN_1_3
    REQUIRE(readable(callback, sizeof *callback), "RKLLMCallback %p is not readable", (void *)callback);
    LLMResultCallback function = callback->result_callback;
    REQUIRE(executable((uintptr_t)function), "result_callback is no function; a pointer to RKLLMCallback is wanted");
    REQUIRE(!callback->tokenizer_callback || executable((uintptr_t)callback->tokenizer_callback),
            "tokenizer_callback is neither NULL nor a function");
    REQUIRE(!callback->embed_callback || executable((uintptr_t)callback->embed_callback),
            "embed_callback is neither NULL nor a function");
#else
    LLMResultCallback function = callback;
    REQUIRE(executable((uintptr_t)function), "the callback is no function");
#endif
    Control control = read_control();
    long nth = atomic_fetch_add(&inits, 1) + 1;
    int failure = start_up(param, &control, nth >= control.init_from ? control.init : "ok");
    if (failure < 0) {
        log_line("E rkllm: rkllm_init failed");
        free_control(&control);
        return -1;
    }
    Model *model = calloc(1, sizeof *model);
    model->param = *param;
    model->callback = function;
    model->broken = failure > 0;
#if GENERATION >= GEN_1_3
    model->userdata = callback->result_userdata;
#endif
    model->chat_system = strdup(control.chat_system);
    model->chat_prefix = strdup(control.chat_prefix);
    model->chat_postfix = strdup(control.chat_postfix);
    model->init_ms = now_ms() - started;
    if (log_level() >= 2) {
        log_line("I sim: base_domain_id %d, top_k %d", param->extend_param.base_domain_id, param->top_k);
#if GENERATION >= GEN_1_2_0
        log_line("I sim: embed_flash %d", param->extend_param.embed_flash);
#endif
    }
    free_control(&control);
    if (!replace_model(NULL, model)) return violation("more than %zu models at once", COUNT(models));
    *handle = model;
    return 0;
}

EXPORT int rkllm_destroy(LLMHandle handle)
{
    Model *model = model_of(handle);
    if (!model) return -1;
    REQUIRE(!atomic_load(&model->running), "rkllm_destroy during rkllm_run"); /* submit errors follow [#289] */
    replace_model(model, NULL);
    free_model(model);
    return 0;
}

/* Stores a flag and returns, so it may be called anywhere: 20 bytes of code [b1]. */
EXPORT int rkllm_abort(LLMHandle handle)
{
    Model *model = model_of(handle);
    if (!model) return -1;
    atomic_store(&model->aborted, true);
    return 0;
}

/* 1 while a run is in progress [#502]; the comment in the headers up to 1.2.3 says the opposite. */
EXPORT int rkllm_is_running(LLMHandle handle)
{
    Model *model = model_of(handle);
    return model ? atomic_load(&model->running) : -1;
}

/* ---- A run ------------------------------------------------------------------------------------------------------ */

typedef struct {
    Model *model;
    void *userdata;
    Control control; /* as it stood when the run began */
    int32_t *ids;    /* the prompt */
    size_t length;
    size_t reused; /* tokens of the prompt that the KV cache still had */
    long max_new_tokens;
    uint64_t seed;
    size_t position; /* in the script */
    char held[8 * LONGEST_PIECE]; /* text that waits for the rest of its last character */
    size_t held_length;
    size_t generated;
    double prefill_ms, generate_ms;
} Run;

enum { BOS = 2, BYTE_0 = 3 }; /* the stand-in tokenizer: BOS, then one token a byte */

/* The prompt as ids. A text prompt gets the chat template from 1.2 on, and BOS as the model's add_bos_token says;
 * token ids are taken as they are. */
static void take_prompt(Run *run, const RKLLMInput *input)
{
    if (input->input_type == INPUT_TOKEN) {
        run->length = input->token_input.n_tokens;
        run->ids = malloc(run->length * sizeof(int32_t));
        memcpy(run->ids, input->token_input.input_ids, run->length * sizeof(int32_t));
    } else {
        const Model *m = run->model;
        bool templated = GENERATION >= GEN_1_2_0;
        char *text = NULL;
        int length = asprintf(&text, "%s%s%s%s", templated ? m->chat_system : "", templated ? m->chat_prefix : "",
                              input->prompt_input, templated ? m->chat_postfix : "");
        if (length < 0) abort();
        run->length = (size_t)length + 1;
        run->ids = malloc(run->length * sizeof(int32_t));
        run->ids[0] = BOS;
        for (size_t i = 1; i < run->length; i++) run->ids[i] = BYTE_0 + (unsigned char)text[i - 1];
        if (log_level() >= 2) log_line("I rkllm: prompt text: \"%s\"", text);
        free(text);
    }
    run->seed = 0xcbf29ce484222325; /* FNV-1a over the ids */
    for (size_t i = 0; i < run->length; i++) run->seed = (run->seed ^ (uint32_t)run->ids[i]) * 0x100000001b3;
    if (log_level() < 2) return;
    printf("I rkllm: prompt tokens: [ ");
    for (size_t i = 0; i < run->length; i++) printf("%d, ", run->ids[i]);
    printf("]\n");
    fflush(stdout);
}

/* The next token, false at the end of the sequence. */
static bool next_piece(Run *run, Piece *piece)
{
    static const char *const words[] = {"return", " self", ".", "value", "(", ")", " +", " 1", ":", "\n", "    ",
                                        " if", " not", " x", ",", " \"\xc3\xa9\""};
    if (run->control.script_length > 0) {
        if (run->position >= run->control.script_length) return false;
        *piece = run->control.script[run->position++];
        return true;
    }
    if (run->position >= 8 + run->seed % 56) return false;
    uint64_t mixed = (run->seed + run->position++) * 0x9e3779b97f4a7c15;
    size_t chosen = (mixed >> 32) % COUNT(words);
    const char *word = words[chosen];
    *piece = (Piece){.id = (int32_t)(1000 + chosen), .length = strlen(word), .text = (char *)(uintptr_t)word};
    return true;
}

/* How many bytes at the end are the beginning of a character that lacks its rest. */
static size_t incomplete_tail(const char *text, size_t length)
{
    for (size_t back = 1; back <= 3 && back <= length; back++) {
        unsigned char byte = (unsigned char)text[length - back];
        if ((byte & 0xC0) == 0x80) continue;
        size_t wanted = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
        return back < wanted ? back : 0;
    }
    return 0;
}

/* Calls back; 1 if the caller wants a pause. The result and its text are worthless once the callback has returned. */
static int call_back(Run *run, LLMCallState state, const char *text, size_t length, int32_t token_id)
{
    RKLLMResult result;
    memset(&result, GARBAGE, sizeof result);
    char *copy = NULL;
    if (text) {
        copy = malloc(length + 1);
        memcpy(copy, text, length);
        copy[length] = 0;
    }
    result.text = copy;
    result.token_id = token_id;
    result.last_hidden_layer = (RKLLMResultLastHiddenLayer){NULL, 0, 0};
#if GENERATION >= GEN_1_2_0
    result.logits = (RKLLMResultLogits){NULL, 0, 0};
#endif
#if GENERATION >= GEN_1_2_1
    if (state == RUN_FINISH) /* in any other state perf means nothing */
        result.perf = (RKLLMPerfStat){(float)run->prefill_ms, (int)(run->length - run->reused), (float)run->generate_ms,
                                      (int)run->generated, (float)peak_memory_mib()};
    int answer = run->model->callback(&result, run->userdata, state);
    if (answer < 0 || answer > (GENERATION >= GEN_1_3 ? 2 : 1)) violation("the callback returned %d", answer);
#else
    int answer = 0;
    run->model->callback(&result, run->userdata, state);
#endif
    if (copy) memset(copy, '#', length);
    free(copy);
    memset(&result, GARBAGE, sizeof result);
    return answer == 1;
}

static int emit(Run *run, const Piece *piece)
{
    if (piece->no_text) return call_back(run, RUN_NORMAL, NULL, 0, piece->id);
    if (piece->special && run->model->param.skip_special_token) return call_back(run, RUN_NORMAL, "", 0, piece->id);
    if (is(run->control.waiting, "partial")) return call_back(run, RUN_NORMAL, piece->text, piece->length, piece->id);
    memcpy(run->held + run->held_length, piece->text, piece->length);
    run->held_length += piece->length;
    if (incomplete_tail(run->held, run->held_length) > 0 && run->held_length + LONGEST_PIECE <= sizeof run->held)
        return call_back(run, RUN_WAITING, NULL, 0, piece->id);
    size_t length = run->held_length;
    run->held_length = 0;
    return call_back(run, RUN_NORMAL, run->held, length, piece->id);
}

static void remember(Model *model, const int32_t *ids, size_t count)
{
    model->kv = realloc(model->kv, (model->kv_length + count) * sizeof *ids);
    memcpy(model->kv + model->kv_length, ids, count * sizeof *ids);
    model->kv_length += count;
}

/* From 1.2 on the KV cache of the last run stays, and as much of it as the new prompt begins with is used again, also
 * without keep_history [#520]. 1.1 begins anew each time. */
static void reuse_kv(Run *run, bool keep_history)
{
    Model *model = run->model;
    if (!keep_history) {
        size_t same = 0;
        /* The last token of the prompt is always evaluated: what follows it is wanted */
        while (GENERATION >= GEN_1_2_0 && same < model->kv_length && same + 1 < run->length &&
               model->kv[same] == run->ids[same])
            same++;
        run->reused = model->kv_length = same;
        if (GENERATION >= GEN_1_2_0 && log_level() >= 2)
            log_line("I rkllm: kv cache matches %zu / %zu tokens of prompt", same, run->length);
    }
    remember(model, run->ids + run->reused, run->length - run->reused);
}

/* A full window is shifted: n_keep tokens stay, half of the rest goes. */
static void shift_context(Model *model)
{
    size_t window = (size_t)model->param.max_context_len, keep = 0;
    if (model->kv_length + 1 <= window) return;
#if GENERATION >= GEN_1_2_0
    keep = model->param.n_keep > 0 ? (size_t)model->param.n_keep : 0;
    size_t end = keep + (model->kv_length - keep) / 2;
    log_line("W rkllm: context to be full[%zu + 1], delete the kv cache in [%zu, %zu)", model->kv_length, keep, end);
#endif
    size_t gone = (model->kv_length - keep) / 2;
    memmove(model->kv + keep, model->kv + keep + gone, (model->kv_length - keep - gone) * sizeof *model->kv);
    model->kv_length -= gone;
}

/* The ways in which a run ends early although nobody asked for it; returns -1 if it has. */
static int misbehave(const Control *control)
{
    perish(control->run);
    if (is(control->run, "error")) {
        log_line("E rkllm: matmul(w8a8) run failed");
        return -1;
    }
    if (is(control->run, "npu_timeout")) { /* "RKNPU: job timeout" of the kernel's, then a soft reset [#315] */
        work(control->npu_timeout_s, 1);
        log_line("E RKNN: failed to submit!, op id: 35, op name: MatMul, flags: 0x5, task start: 0, task number: 12");
        return -1;
    }
    return 0;
}

static int leak(const Control *control)
{
    for (long i = 0; i < control->leak_mib_per_run; i++) {
        volatile char *lost = malloc(1 << 20);
        for (size_t page = 0; lost && page < 1 << 20; page += 4096) lost[page] = 1;
    }
    for (long i = 0; i < control->leak_fds_per_run; i++) {
        if (open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0) continue;
        log_line("E RKNN: failed to allocate handle, ret: -1, errno: %d, errstr: %s", errno, strerror(errno));
        return -1; /* the remedy is a higher RLIMIT_NOFILE [#17, #62] */
    }
    return 0;
}

/* One decoding step each time round: whatever happens, happens between two of them. */
static int decode(Run *run)
{
    Model *model = run->model;
    char eos_text[] = "<eos>", nonsense[] = "!";
    bool beyond_limit = GENERATION < GEN_1_2_0 && model->param.max_context_len > run->control.max_context_limit;
    for (;;) {
        Control now = read_control();
        double rate = now.decode_tok_s;
        bool heeds_abort = !is(now.abort, "ignored");
        int failed = run->generated >= (size_t)now.run_from_token ? misbehave(&now) : 0;
        free_control(&now);
        if (failed) return -1;
        if (heeds_abort && atomic_load(&model->aborted)) {
            log_line("I rkllm: rkllm_run was aborted");
            return 1;
        }
        if (run->max_new_tokens >= 0 && run->generated >= (size_t)run->max_new_tokens) return 0;
        Piece piece;
        bool ended = !next_piece(run, &piece);
        if (ended && is(run->control.eos, "stop")) return 0;
        if (ended) {
            piece = (Piece){.id = (int32_t)run->control.eos_id, .special = true, .length = 5, .text = eos_text};
            run->position = 0;
        }
        if (beyond_limit) { /* floods of this and nonsense for text, from people who asked 1.1 for more than 4096 */
            log_line("E RKNN: meet unkown shape, op name: matmul_qkv_rkllm_spilt_1, shape: 64, %d, 128",
                     model->param.max_context_len); /* sic */
            log_line("E rkllm: matmul run failed");
            piece = (Piece){.id = 0, .length = 1, .text = nonsense};
        }
        if (run->generated > 0) work(1, rate); /* the prefill has made the first one */
        shift_context(model);
        remember(model, &piece.id, 1);
        run->generated++;
        if (emit(run, &piece)) return 1; /* paused: the cache stays; resuming is not simulated */
    }
}

static int generate(Run *run, bool keep_history)
{
    Model *model = run->model;
    size_t window = (size_t)model->param.max_context_len, used = keep_history ? model->kv_length : 0;
    /* 4 tokens are kept free: "prompt: 1299 tokens, max context: 1020" was said for a window of 1024 [log] */
    if (used + run->length + 4 > window) {
        if (is(run->control.overflow, "crash")) perish("crash");
        log_line("E rkllm: %s than max context (prompt: %zu tokens, max context: %zu)",
                 GENERATION >= GEN_1_2_0 ? "the length of prompt is greater" : "prompt gather", /* sic */
                 used + run->length, window - 4);
        return -1;
    }
    if (leak(&run->control) != 0) return -1;
    reuse_kv(run, keep_history);
    double started = now_ms();
    work((double)(run->length - run->reused), run->control.prefill_tok_s); /* not to be interrupted [#400] */
    double prefilled = now_ms();
    run->prefill_ms = prefilled - started;
    int code = decode(run);
    run->generate_ms = now_ms() - prefilled;
    return code;
}

EXPORT int rkllm_run(LLMHandle handle, RKLLMInput *input, RKLLMInferParam *infer, void *userdata)
{
    Model *model = model_of(handle);
    if (!model) return -1;
    if (model->broken) perish("assert");
    Run run = {.model = model, .userdata = userdata, .control = read_control()};
    if (check_input(input, run.control.vocabulary) != 0 || check_infer(infer) != 0) {
        free_control(&run.control);
        return -1;
    }
    if (atomic_exchange(&model->running, true)) { /* the real one hangs [#315]; one thread per instance [#382] */
        free_control(&run.control);
        return violation("rkllm_run while another run is in progress");
    }
    if (!is(run.control.abort, "sticky")) atomic_store(&model->aborted, false);
    run.max_new_tokens = model->param.max_new_tokens;
    bool keep_history = false;
#if GENERATION >= GEN_1_2_0
    keep_history = infer->keep_history == 1;
#endif
#if GENERATION >= GEN_1_3
    run.userdata = model->userdata; /* [?] which of the two the real one hands on */
    if (infer->max_new_tokens > 0) run.max_new_tokens = infer->max_new_tokens;
#endif
    take_prompt(&run, input);
    int code = generate(&run, keep_history);
    if (code < 0) call_back(&run, RUN_ERROR, NULL, 0, -1);
    /* A character held back to the end is lost, and FINISH tells of no token [?]. After an abort it may come or not. */
    if (code == 0 || (code == 1 && run.control.finish_on_abort)) call_back(&run, RUN_FINISH, NULL, 0, -1);
    if (code >= 0 && log_level() >= 1)
        print_perf(model->init_ms, run.prefill_ms, run.length - run.reused, run.generate_ms, run.generated);
    free(run.ids);
    free_control(&run.control);
    atomic_store(&model->aborted, false);
    atomic_store(&model->running, false);
    return code < 0 ? -1 : 0; /* an aborted run returns 0, with fewer tokens */
}

/* Hangs or never calls back on 1.1 to 1.2.1 [#208, #320], gives no text on 1.2.2 [#396]: nobody should call it. */
EXPORT int rkllm_run_async(LLMHandle handle, RKLLMInput *input, RKLLMInferParam *infer, void *userdata)
{
    (void)handle, (void)input, (void)infer, (void)userdata;
    return violation("rkllm_run_async is not to be used");
}

/* ---- The rest of the symbols ------------------------------------------------------------------------------------ */

#if GENERATION >= GEN_1_2_0
/* Effective at once, and clears the KV cache [#377]. The lines are from logs [#278, #429, #431]. */
EXPORT int rkllm_set_chat_template(LLMHandle handle, const char *system, const char *prefix, const char *postfix)
{
    Model *model = model_of(handle);
    if (!model) return -1;
    REQUIRE(readable_string(system) && readable_string(prefix) && readable_string(postfix),
            "rkllm_set_chat_template wants three strings");
    REQUIRE(!atomic_load(&model->running), "rkllm_set_chat_template during rkllm_run");
    free(model->chat_system);
    free(model->chat_prefix);
    free(model->chat_postfix);
    model->chat_system = strdup(system);
    model->chat_prefix = strdup(prefix);
    model->chat_postfix = strdup(postfix);
    model->kv_length = 0;
    log_line("I rkllm: reset chat template:");
    log_line("I rkllm: system_prompt: %s", system);
    log_line("I rkllm: prompt_prefix: %s", prefix);
    log_line("I rkllm: prompt_postfix: %s", postfix);
    log_line("W rkllm: Calling rkllm_set_chat_template will disable the internal automatic chat template parsing, "
             "including enable_thinking.");
    return 0;
}

static int clear_kv(LLMHandle handle, int keep_system_prompt)
{
    Model *model = model_of(handle);
    if (!model) return -1;
    REQUIRE(within(keep_system_prompt, 0, 1), "keep_system_prompt is %d", keep_system_prompt);
    REQUIRE(!atomic_load(&model->running), "rkllm_clear_kv_cache during rkllm_run");
    model->kv_length = 0;
    return 0;
}
#endif

#if GENERATION >= GEN_1_2_1
EXPORT int rkllm_clear_kv_cache(LLMHandle handle, int keep_system_prompt, int *start_pos, int *end_pos)
{
    /* A range may be given only while a run is paused [h], which is not simulated. */
    REQUIRE(!start_pos && !end_pos, "rkllm_clear_kv_cache with a range, without a paused run");
    return clear_kv(handle, keep_system_prompt);
}

EXPORT int rkllm_get_kv_cache_size(LLMHandle handle, int *cache_sizes)
{
    Model *model = model_of(handle);
    if (!model) return -1;
    REQUIRE(readable(cache_sizes, sizeof *cache_sizes), "cache_sizes is not readable");
    *cache_sizes = (int)model->kv_length;
    return 0;
}

EXPORT int rkllm_set_function_tools(LLMHandle handle, const char *system, const char *tools, const char *tag)
{
    (void)handle, (void)system, (void)tools, (void)tag;
    return violation("rkllm_set_function_tools is not simulated");
}

EXPORT int rkllm_set_cross_attn_params(LLMHandle handle, const void *params)
{
    (void)handle, (void)params;
    return violation("rkllm_set_cross_attn_params is not simulated");
}
#elif GENERATION >= GEN_1_2_0
EXPORT int rkllm_clear_kv_cache(LLMHandle handle, int keep_system_prompt)
{
    return clear_kv(handle, keep_system_prompt);
}
#endif

EXPORT int rkllm_load_lora(LLMHandle handle, const RKLLMLoraAdapter *adapter)
{
    (void)handle, (void)adapter;
    return violation("rkllm_load_lora is not simulated");
}

EXPORT int rkllm_load_prompt_cache(LLMHandle handle, const char *path)
{
    (void)handle, (void)path;
    return violation("rkllm_load_prompt_cache is not simulated");
}

EXPORT int rkllm_release_prompt_cache(LLMHandle handle) { return model_of(handle) ? 0 : -1; }

#if GENERATION == GEN_1_2_1B1
/* In no header, but exported by the one library whose symbols were published [b1]. */
EXPORT int rkllm_accuracy_analysis(LLMHandle handle) { return model_of(handle) ? 0 : -1; }
EXPORT int rkllm_print_memorys(LLMHandle handle) { return model_of(handle) ? 0 : -1; }
EXPORT int rkllm_print_timings(LLMHandle handle) { return model_of(handle) ? 0 : -1; }
#endif
