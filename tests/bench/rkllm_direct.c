/* The least that a program can do with the runtime, for the benchmarks to stand beside: the simulator in one process
 * with its caller, a callback that only counts, and no text ever looked at.
 *
 *     rkllm_direct MODEL PROMPT_TOKENS TOKENS RUNS
 *
 * prints for each run the milliseconds to its first token and the microseconds between two tokens, then the resident
 * memory in bytes. */

#include "../fakes/librkllmrt.c"

static LLMHandle handle;
static long wanted, heard;
static double first_ms, last_ms;

static int on_result(RKLLMResult *result, void *userdata, LLMCallState state)
{
    (void)result, (void)userdata;
    if (state != RUN_NORMAL && state != RUN_WAITING) return 0;
    last_ms = now_ms();
    if (heard++ == 0) first_ms = last_ms;
    if (heard == wanted) rkllm_abort(handle);
    return 0;
}

static long resident_bytes(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file || fscanf(file, "%*d %ld", &pages) != 1) abort();
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

int main(int argc, char **argv)
{
    if (argc != 5) return 2;
    size_t prompt_tokens = (size_t)atol(argv[2]);
    wanted = atol(argv[3]);
    RKLLMParam param = rkllm_createDefaultParam();
    memset(param.extend_param.reserved, 0, sizeof param.extend_param.reserved);
    param.extend_param.n_batch = 1;
    param.extend_param.use_cross_attn = 0;
    param.model_path = argv[1];
    param.max_context_len = 4096;
    if (rkllm_init(&handle, &param, on_result) != 0) return 1;
    int32_t *ids = calloc(prompt_tokens, sizeof *ids);
    RKLLMInput input = {.role = "user", .input_type = INPUT_TOKEN, .token_input = {ids, prompt_tokens}};
    RKLLMInferParam infer = {0};
    for (long run = atol(argv[4]); run > 0; run--) {
        double started_ms = now_ms();
        heard = 0;
        if (rkllm_run(handle, &input, &infer, NULL) != 0 || heard < 2) return 1;
        printf("%f %f\n", first_ms - started_ms, (last_ms - first_ms) * 1e3 / (double)(heard - 1));
    }
    printf("%ld\n", resident_bytes());
    return 0;
}
