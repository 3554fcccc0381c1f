"""rkllm.h as data: every structure and prototype of the five generations, with the generations that have it.

Written as the header writes them, "const" left out, in dependency order. Rockfill's own names stand where the header
has none. Source: rkllm.h of airockchip/rknn-llm, tags release-v1.1.0 to release-v1.3.0.
"""

from __future__ import annotations

from dataclasses import dataclass

from rockfill.compat.runtime import Generation

_1_1, _1_2_0, _1_2_1B1, _1_2_1, _1_3 = ORDER = tuple(Generation)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """Something that the generations from `since` to `until` have, both included; ``generation in entry`` asks it."""

    since: Generation = _1_1
    until: Generation = _1_3

    def __contains__(self, generation: Generation) -> bool:
        return ORDER.index(self.since) <= ORDER.index(generation) <= ORDER.index(self.until)


@dataclass(frozen=True, slots=True)
class Field(_Entry):
    type: str
    name: str


@dataclass(frozen=True, slots=True)
class Structure(_Entry):
    name: str
    fields: tuple[Field, ...]
    union: bool = False


@dataclass(frozen=True, slots=True)
class Prototype(_Entry):
    restype: str
    name: str
    argtypes: tuple[str, ...]


STRUCTURES = (
    Structure(
        "RKLLMExtendParam",
        (
            Field("int32_t", "base_domain_id"),
            Field("int8_t", "embed_flash", since=_1_2_0),
            Field("int8_t", "enabled_cpus_num", since=_1_2_0),
            Field("uint32_t", "enabled_cpus_mask", since=_1_2_0),
            Field("uint8_t", "n_batch", since=_1_2_1),
            Field("int8_t", "use_cross_attn", since=_1_2_1),
            Field("uint8_t[112]", "reserved", until=_1_1),
            Field("uint8_t[106]", "reserved", since=_1_2_0, until=_1_2_1B1),
            Field("uint8_t[104]", "reserved", since=_1_2_1),
        ),
    ),
    Structure(
        "RKLLMParam",
        (
            Field("char*", "model_path"),
            Field("int32_t", "max_context_len"),
            Field("int32_t", "max_new_tokens"),
            Field("int32_t", "top_k"),
            Field("int32_t", "n_keep", since=_1_2_0),
            Field("float", "top_p"),
            Field("float", "temperature"),
            Field("float", "repeat_penalty"),
            Field("float", "frequency_penalty"),
            Field("float", "presence_penalty"),
            Field("int32_t", "mirostat"),
            Field("float", "mirostat_tau"),
            Field("float", "mirostat_eta"),
            Field("bool", "skip_special_token"),
            Field("bool", "ignore_eos_token", since=_1_3),
            Field("bool", "is_async"),
            Field("char*", "img_start", until=_1_2_1),
            Field("char*", "img_end", until=_1_2_1),
            Field("char*", "img_content", until=_1_2_1),
            Field("RKLLMExtendParam", "extend_param"),
        ),
    ),
    Structure(
        "RKLLMLoraAdapter",
        (
            Field("char*", "lora_adapter_path"),
            Field("char*", "lora_adapter_name"),
            Field("float", "scale"),
        ),
    ),
    Structure(
        "RKLLMEmbedInput",
        (
            Field("float*", "embed"),
            Field("size_t", "n_tokens"),
        ),
    ),
    Structure(
        "RKLLMTokenInput",
        (
            Field("int32_t*", "input_ids"),
            Field("size_t", "n_tokens"),
        ),
    ),
    Structure(
        "image",
        (
            Field("float*", "image_embed"),
            Field("size_t", "n_image_tokens"),
            Field("size_t", "n_image"),
            Field("char*", "image_start"),
            Field("char*", "image_end"),
            Field("char*", "image_content"),
            Field("size_t", "image_width"),
            Field("size_t", "image_height"),
        ),
        since=_1_3,
    ),
    Structure(
        "video",
        (
            Field("float*", "video_embed"),
            Field("size_t", "n_frame_tokens"),
            Field("size_t", "n_frame_per_video"),
            Field("size_t", "n_video"),
            Field("char*", "video_start"),
            Field("char*", "video_end"),
            Field("char*", "video_content"),
            Field("size_t", "frame_width"),
            Field("size_t", "frame_height"),
        ),
        since=_1_3,
    ),
    Structure(
        "RKLLMMultiModalInput",  # RKLLMMultiModelInput up to 1.2.1
        (
            Field("char*", "prompt"),
            Field("float*", "image_embed", until=_1_2_1),
            Field("size_t", "n_image_tokens", until=_1_2_1),
            Field("size_t", "n_image", since=_1_2_1B1, until=_1_2_1),
            Field("size_t", "image_width", since=_1_2_1B1, until=_1_2_1),
            Field("size_t", "image_height", since=_1_2_1B1, until=_1_2_1),
            Field("image", "image", since=_1_3),
            Field("video", "video", since=_1_3),
        ),
    ),
    Structure(
        "RKLLMInput.payload",
        (
            Field("char*", "prompt_input"),
            Field("RKLLMEmbedInput", "embed_input"),
            Field("RKLLMTokenInput", "token_input"),
            Field("RKLLMMultiModalInput", "multimodal_input"),
        ),
        union=True,
    ),
    Structure(
        "RKLLMInput",
        (
            Field("char*", "role", since=_1_2_1),
            Field("bool", "enable_thinking", since=_1_2_1),
            Field("RKLLMInputType", "input_type"),
            Field("RKLLMInput.payload", "payload"),
        ),
    ),
    Structure(
        "RKLLMLoraParam",
        (Field("char*", "lora_adapter_name"),),
    ),
    Structure(
        "RKLLMPromptCacheParam",
        (
            Field("int", "save_prompt_cache"),
            Field("char*", "prompt_cache_path"),
        ),
    ),
    Structure(
        "RKLLMCrossAttnParam",
        (
            Field("float*", "encoder_k_cache"),
            Field("float*", "encoder_v_cache"),
            Field("float*", "encoder_mask"),
            Field("int32_t*", "encoder_pos"),
            Field("int", "num_tokens"),
        ),
        since=_1_2_1,
    ),
    Structure(
        "RKLLMSamplingParam",
        (
            Field("int32_t", "top_k"),
            Field("float", "top_p"),
            Field("float", "temperature"),
            Field("float", "repeat_penalty"),
            Field("float", "frequency_penalty"),
            Field("float", "presence_penalty"),
            Field("int32_t", "mirostat"),
            Field("float", "mirostat_tau"),
            Field("float", "mirostat_eta"),
        ),
        since=_1_3,
    ),
    Structure(
        "RKLLMInferParam",
        (
            Field("RKLLMInferMode", "mode"),
            Field("RKLLMLoraParam*", "lora_params"),
            Field("RKLLMPromptCacheParam*", "prompt_cache_params"),
            Field("RKLLMSamplingParam*", "sampling_params", since=_1_3),
            Field("int", "keep_history", since=_1_2_0),
            Field("int32_t", "max_new_tokens", since=_1_3),
        ),
    ),
    Structure(
        "RKLLMResultLastHiddenLayer",
        (
            Field("float*", "hidden_states"),
            Field("int", "embd_size"),
            Field("int", "num_tokens"),
        ),
    ),
    Structure(
        "RKLLMResultLogits",
        (
            Field("float*", "logits"),
            Field("int", "vocab_size"),
            Field("int", "num_tokens"),
        ),
        since=_1_2_0,
    ),
    Structure(
        "RKLLMPerfStat",
        (
            Field("float", "prefill_time_ms"),
            Field("int", "prefill_tokens"),
            Field("float", "generate_time_ms"),
            Field("int", "generate_tokens"),
            Field("float", "memory_usage_mb"),
        ),
        since=_1_2_1,
    ),
    Structure(
        "RKLLMResult",
        (
            Field("char*", "text"),
            Field("int32_t", "token_id"),
            Field("RKLLMResultLastHiddenLayer", "last_hidden_layer"),
            Field("RKLLMResultLogits", "logits", since=_1_2_0),
            Field("RKLLMPerfStat", "perf", since=_1_2_1),
        ),
    ),
    Structure(
        "RKLLMCallback",
        (
            Field("LLMResultCallback", "result_callback"),
            Field("void*", "result_userdata"),
            Field("LLMTokenizerCallback", "tokenizer_callback"),
            Field("void*", "tokenizer_userdata"),
            Field("LLMGetEmbedCallback", "embed_callback"),
            Field("void*", "embed_userdata"),
        ),
        since=_1_3,
    ),
)

# Only what Rockfill calls. Not rkllm_run_async: it hangs or never calls back up to 1.2.1 [#208, #320].
PROTOTYPES: tuple[Prototype, ...] = (
    Prototype("RKLLMParam", "rkllm_createDefaultParam", ()),
    Prototype("int", "rkllm_init", ("LLMHandle*", "RKLLMParam*", "LLMResultCallback"), until=_1_2_1),
    Prototype("int", "rkllm_init", ("LLMHandle*", "RKLLMParam*", "RKLLMCallback*"), since=_1_3),
    Prototype("int", "rkllm_run", ("LLMHandle", "RKLLMInput*", "RKLLMInferParam*", "void*")),
    Prototype("int", "rkllm_abort", ("LLMHandle",)),
    Prototype("int", "rkllm_is_running", ("LLMHandle",)),
    Prototype("int", "rkllm_destroy", ("LLMHandle",)),
    Prototype("int", "rkllm_set_chat_template", ("LLMHandle", "char*", "char*", "char*"), since=_1_2_0),
    Prototype("int", "rkllm_clear_kv_cache", ("LLMHandle", "int"), since=_1_2_0, until=_1_2_1B1),
    Prototype("int", "rkllm_clear_kv_cache", ("LLMHandle", "int", "int*", "int*"), since=_1_2_1),
)
